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
from raydistill.config.settings import validated
from raydistill.kernels.cuda_graph import Capture
from raydistill.method import DistilledSet, hypergradient
from raydistill.method.rng import named_generator
from raydistill.networks import Network, build_network
from raydistill.system.device import use_precision, use_threads

SETS, NETWORKS, STEPS, EPOCHS, IMAGES, CLASSES = 2, 3, 2, 2, 3, 4
SHAPES = {"lenet": (1, 12, 12), "convnet": (3, 8, 8)}
DIGITS = 4.0  # Digits of float64 that float32 must have; it has 6 where no ReLU or pool switches.
SEEDS = range(3)  # Rounding can make a ReLU or pool switch with one seed; wrong kernels are wrong with each.
CALLS = 12  # Calls of a captured function; the first few run without a graph.


def look_at_hypergradient(options: Options) -> Iterator[Finding]:
    """Compare the float32 hypergradient of a small LeNet and ConvNet on each device with plain autograd in float64."""
    use_threads(1)  # Small tensors need no more; several threads would wait for each other on a busy machine.
    cases = {name: [SmallCase(name, seed) for seed in SEEDS] for name in SHAPES}
    for device in [torch.device("cpu"), *gpus()]:
        use_precision("float32", device)
        found = {name: best(each, device) for name, each in cases.items()}
        digits = ", ".join(f"{name} {a.digits:.1f} digits (cosine {a.cosine:.6f})" for name, a in found.items())
        ok = all(a.digits >= DIGITS for a in found.values())
        todo = "" if ok else f"under {DIGITS:g} digits is wrong: another torch or driver? Do not use this device"
        yield Finding(f"hypergradient {device}", ok, f"float32 against float64: {digits}", todo)


def look_at_graph(options: Options) -> Iterator[Finding]:
    """Check a function that is captured as a CUDA graph and replayed, on each GPU."""
    for device in gpus():
        with torch.cuda.device(device):
            yield replayed(device)


def gpus() -> list[torch.device]:
    """Return the GPUs that torch can use."""
    return [torch.device("cuda", i) for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]


def replayed(device: torch.device) -> Finding:
    """Return whether a replay computes what the function does, without calling the function."""
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


def best(cases: "list[SmallCase]", device: torch.device) -> Agreement:
    """Return the first agreement that is good enough, else the best."""
    found: list[Agreement] = []
    for case in cases:
        found.append(agreement(case.in_float32(device), case.expected))
        if found[-1].digits >= DIGITS:
            break
    return max(found, key=lambda each: each.digits)


@dataclass(frozen=True, eq=False)
class SmallCase:
    """A small test case: P sets, N networks for each, and real images, all drawn from a seed."""

    name: str
    seed: int

    @cached_property
    def network(self) -> Network:
        """A new network, for which nothing is recorded."""
        size = {"width": 8, "depth": 2} if self.name == "convnet" else {}
        config = validated(DistillConfig, {"network": {"name": self.name, **size}})
        return build_network(config, SHAPES[self.name], CLASSES)

    @cached_property
    def tensors(self) -> tuple[DistilledSet, Tensor, Tensor, Tensor]:
        """Return P stacked sets, initial weights [P, N, W], real images and their classes."""
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
        """Return the hypergradient as every run computes it."""
        distilled, *others = self.tensors
        return hypergradient(self.network, distilled.to(device), *(tensor.to(device) for tensor in others))[1]

    @cached_property
    def expected(self) -> DistilledSet:
        """Hypergradient in float64, one set and network at a time, by torch's operations and plain autograd."""
        distilled, weights, real, classes = self.tensors
        doubles = DistilledSet(*(t.double() for t in (distilled.images, distilled.labels, distilled.raw_rates)))
        native = os.environ.get("RAYDISTILL_NATIVE")
        os.environ["RAYDISTILL_NATIVE"] = "0"  # It excludes our kernels, which are searched once for each dtype.
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
    """Return a set's hypergradient for the mean over networks [N, W], from one graph through the whole training."""
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
