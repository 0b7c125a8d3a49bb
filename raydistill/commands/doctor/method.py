"""Checks of what devices compute: a hypergradient against float64, and a CUDA graph."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from raydistill.commands.doctor.agreement import Agreement, agreement
from raydistill.commands.doctor.finding import Finding, Options
from raydistill.config.distill_config import DistillConfig
from raydistill.kernels.cuda_graph import Capture
from raydistill.method import DistilledSet, hypergradient
from raydistill.method.rng import named_generator
from raydistill.networks import Network, build_network
from raydistill.system.device import use_precision, use_threads

SETS, NETWORKS, STEPS, EPOCHS, IMAGES, CLASSES = 2, 3, 2, 2, 3, 4
SHAPES = {"lenet": (1, 12, 12), "convnet": (3, 8, 8)}
DIGITS = 4.0  # that float32 must have of float64; it has 6 where no ReLU or pool switches
SEEDS = range(3)  # rounding makes a ReLU or pool switch here and there, and wrong kernels are wrong each time
CALLS = 12  # of a captured function: the first few run as usual


def look_at_hypergradient(options: Options) -> Iterator[Finding]:
    """In float32 on each device, of a small LeNet and ConvNet, against plain autograd in float64."""
    use_threads(1)  # as much as small tensors need; more would wait for each other on a busy machine
    problems = {name: [Problem(name, seed) for seed in SEEDS] for name in SHAPES}
    for device in [torch.device("cpu"), *gpus()]:
        use_precision("float32", device)
        found = {name: best(each, device) for name, each in problems.items()}
        digits = ", ".join(f"{name} {a.digits:.1f} digits (cosine {a.cosine:.6f})" for name, a in found.items())
        ok = all(a.digits >= DIGITS for a in found.values())
        todo = "" if ok else f"under {DIGITS:g} digits is wrong: another torch or driver? Do not use this device"
        yield Finding(f"hypergradient {device}", ok, f"float32 against float64: {digits}", todo)


def look_at_graph(options: Options) -> Iterator[Finding]:
    """A function captured as a CUDA graph and replayed, on each GPU."""
    for device in gpus():
        with torch.cuda.device(device):
            yield replayed(device)


def gpus() -> list[torch.device]:
    """All that torch can use."""
    return [torch.device("cuda", i) for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]


def replayed(device: torch.device) -> Finding:
    """Whether a replay computes what the function does, and computes it without calling it."""
    name, calls = f"graph {device}", []

    def function(x: Tensor) -> Tensor:
        calls.append(1)
        return torch.sin(x @ x.T) + x.sum()

    capture = Capture(device)
    for seed in range(CALLS):
        x = torch.randn(16, 16, generator=named_generator(seed, "doctor")).to(device)
        got, made = capture(function, x), len(calls)
        if not torch.allclose(got, function(x), rtol=1e-4, atol=1e-4):
            return Finding(name, False, f"call {seed + 1} gives other numbers", "another torch or driver? Tell us")
        del calls[made:]
    if made == CALLS:
        return Finding(name, False, f"none of {CALLS} calls was a replay", "another torch or driver? Tell us")
    return Finding(name, True, f"captured, and replayed {CALLS - made} times")


def best(problems: "list[Problem]", device: torch.device) -> Agreement:
    """The first agreement that will do, else the best."""
    found: list[Agreement] = []
    for problem in problems:
        found.append(agreement(problem.in_float32(device), problem.expected))
        if found[-1].digits >= DIGITS:
            break
    return max(found, key=lambda each: each.digits)


@dataclass(frozen=True, eq=False)
class Problem:
    """P small sets, N networks for each, and real images, all drawn from a seed."""

    name: str
    seed: int

    @cached_property
    def network(self) -> Network:
        """A new one, so that nothing was recorded for it."""
        return build_network(DistillConfig(network=self.name, width=8, depth=2), SHAPES[self.name], CLASSES)

    @cached_property
    def tensors(self) -> tuple[DistilledSet, Tensor, Tensor, Tensor]:
        """P stacked sets, initial weights [P, N, W], real images and their classes."""
        generator, shape = named_generator(self.seed, f"doctor/{self.name}"), SHAPES[self.name]
        images = torch.randn(SETS, STEPS, IMAGES, *shape, generator=generator)
        labels = torch.randn(SETS, STEPS, IMAGES, CLASSES, generator=generator).softmax(-1)
        rates = torch.rand(SETS, EPOCHS, STEPS, generator=generator) * 0.1 + 0.01
        assert self.network.initialiser is not None
        weights = self.network.initialiser.draw(SETS * NETWORKS, generator).unflatten(0, (SETS, NETWORKS))
        real = torch.randn(8, *shape, generator=generator)
        classes = torch.randint(CLASSES, (8,), generator=generator)
        return DistilledSet.from_rates(images, labels, rates), weights, real, classes

    def in_float32(self, device: torch.device) -> DistilledSet:
        """The hypergradient as it is computed in every run."""
        distilled, *others = self.tensors
        return hypergradient(self.network, distilled.to(device), *(tensor.to(device) for tensor in others))[1]

    @cached_property
    def expected(self) -> DistilledSet:
        """The same in float64, one set and network after the other, by torch's own operations and plain autograd."""
        distilled, weights, real, classes = self.tensors
        doubles = DistilledSet(*(t.double() for t in (distilled.images, distilled.labels, distilled.raw_rates)))
        native = os.environ.get("RAYDISTILL_NATIVE")
        os.environ["RAYDISTILL_NATIVE"] = "0"  # no kernels of ours: they are looked for once for each dtype
        try:
            return DistilledSet.stack(
                [
                    by_autograd(self.network, one, starts.double(), real.double(), classes)
                    for one, starts in zip(doubles.unstack(), weights, strict=True)
                ]
            )
        finally:
            os.environ.pop("RAYDISTILL_NATIVE")
            if native is not None:
                os.environ["RAYDISTILL_NATIVE"] = native


def by_autograd(network: Network, one: DistilledSet, starts: Tensor, real: Tensor, classes: Tensor) -> DistilledSet:
    """The hypergradient of a set for the mean over networks [N, W], from one graph through the whole training."""
    leaves = [t.clone().requires_grad_() for t in (one.images, one.labels, one.raw_rates)]
    learned = DistilledSet(*leaves)
    losses = []
    for start in starts:
        weights = start.clone().requires_grad_()
        for rates in learned.learning_rates:
            for images, labels, rate in zip(learned.images, learned.labels, rates, strict=True):
                loss = F.cross_entropy(network(weights, images), labels)
                (gradient,) = torch.autograd.grad(loss, weights, create_graph=True)
                weights = weights - rate * gradient
        losses.append(F.cross_entropy(network(weights, real), classes))
    return DistilledSet(*torch.autograd.grad(torch.stack(losses).mean(), leaves))
