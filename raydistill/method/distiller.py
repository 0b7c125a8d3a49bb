"""The outer loop: each iteration moves the distilled set down its hypergradient."""

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from raydistill.config.distill_config import DistillConfig
from raydistill.config.learned_settings import LearnedLabels
from raydistill.data import Split
from raydistill.data.augment import augmented, draw
from raydistill.kernels.cuda_graph import Capture
from raydistill.method.adam import Adam
from raydistill.method.augmented_set import augmented_set, draws_for_set
from raydistill.method.distilled import DistilledSet
from raydistill.method.initial_set import initial_set
from raydistill.method.initial_weights import InitialWeights, population_weights
from raydistill.method.labels import LabelForm
from raydistill.method.objective import CLASSIFY, Objective
from raydistill.method.population import members
from raydistill.method.rng import named_generator
from raydistill.method.solver import solver_of
from raydistill.networks import Network

if TYPE_CHECKING:
    from raydistill.method.workers import Workers

PARTS = ("images", "labels", "raw_rates")  # These are the tensors of a DistilledSet.


class Distiller:
    """A learner of distilled sets, by gradient descent through training on them.

    All that is learned is stacked: a population of P sets, in most runs one, each with learning rates and a seed of its
    own. Networks for all of them are trained side by side, and judged on the same real batches.

    It is its config, its tensors, its optimizer's state and its random generators; `state_dict` holds all of them,
    so that a run that is stopped and resumed ends bit-identical, on the same device, to one that was not.

    Args:
        config: the settings.
        network: the network to distil for.
        real: the real training images; everything is computed on their device.
        num_classes: K.
        objective: what trained networks should do.
        starts: where the initial weights come from, for each set; by default drawn by the network's initialiser.
        workers: the processes that share the networks of each iteration, where there are several; all of them hold and
            update the same sets.

    Raises:
        UserError: the settings do not fit together.
    """

    def __init__(
        self,
        config: DistillConfig,
        network: Network,
        real: Split,
        num_classes: int,
        objective: Objective = CLASSIFY,
        starts: Sequence[InitialWeights] | None = None,
        workers: "Workers | None" = None,
    ) -> None:
        device = real.images.device
        self.config = config
        self.members = members(config)
        self.network = network
        network.compile = config.compiles and device.type == "cuda"
        self.sources = objective.sources(real)
        self.objective = objective
        self.workers = workers
        self.iteration = 0
        self.generators = {name: named_generator(config.seed, name, device) for name in ("weights", "batches")}
        starts = starts or population_weights(config, network, device)
        self.solver = solver_of(config, network, starts, self.generators)
        sets, raw_labels = zip(*[initial_set(m, real, num_classes) for m in self.members], strict=True)
        self.learned = DistilledSet.stack(list(sets))
        self.raw_labels = torch.stack(raw_labels)
        self.label_form = LabelForm(config.labels.learned)
        self.averaged = self.learned.detached()
        self.parameters, self.rates = self._parameters(device)
        self.outer = Adam(list(self.parameters.values()), betas=(0.5, 0.999))
        self.clips = [RunningClip(config.outer.clip, len(self.members), device) for _ in self.parameters]
        self.slower = torch.ones(len(self.members), device=device)  # These are factors of the outer rates.
        self.captures = Capture(device), Capture(device)

    def _parameters(self, device: torch.device) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return what is learned, by name, and Adam's rates [P] for each."""
        parameters = {}
        if self.config.passes:
            parameters["raw_rates"] = (self.learned.raw_rates, [m.outer.rate_lr or m.outer_lr for m in self.members])
        if self.config.images.learned:
            parameters["images"] = (self.learned.images, [m.outer_lr for m in self.members])
        if isinstance(labels := self.config.labels, LearnedLabels):
            parameters["labels"] = (self.raw_labels, [labels.lr or m.outer_lr for m in self.members])
        rates = [torch.tensor(rates, device=device) for _, rates in parameters.values()]
        return {name: parameter for name, (parameter, _) in parameters.items()}, rates

    def step(self) -> Tensor:
        """Take one outer iteration; return each set's loss [P] before the update, not synchronised with the device."""
        drawn = self.solver.draw()
        images, labels, draws = self._real_batch()
        loss = self._update(drawn, images, self.objective.wanted(labels), draws)
        self.solver.finish()
        self.iteration += 1
        return loss

    def _update(self, drawn: Tensor, images: Tensor, labels: Tensor, draws: Tensor) -> Tensor:
        """Update all sets by their hypergradients for the networks drawn and a real batch; return the loss [P].

        The draws are those of the set's augmentation: random numbers cannot be drawn in a CUDA graph.
        """
        whole, rest = self.captures
        if self.workers is None:
            return whole(self._descend, drawn, images, labels, draws)
        gradient = whole(self._gradient, self.workers.share(drawn, dim=1), images, labels, draws)
        return rest(self._apply, self.workers.mean(gradient), drawn, draws)

    def _descend(self, drawn: Tensor, images: Tensor, labels: Tensor, draws: Tensor) -> Tensor:
        return self._apply(self._gradient(drawn, images, labels, draws), drawn, draws)

    def _real_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return a real batch, augmented: images [B, C, H, W] and their classes [B]; and the draws for the set."""
        count = -(-self.config.batch_size // len(self.sources))
        stream, augment = self.generators["batches"], self.config.data.augment
        parts = [source.sample(count, stream, self.config.data.balanced) for source in self.sources]
        images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        draws = draws_for_set(augment, self.learned, stream)
        if augment.change_real:
            images = augmented(images, augment, draws if augment.on == "paired" else draw(len(images), stream))
        return images, labels, draws

    def _gradient(self, drawn: Tensor, images: Tensor, labels: Tensor, draws: Tensor) -> Tensor:
        """Return the loss, and the hypergradient of all that is learned, in one tensor [P, 1 + ...]."""
        shown, pull = augmented_set(self.learned, self.config.data.augment, draws)
        loss, gradient = self.solver.gradient(shown, drawn, images, labels)
        by_name = {
            "images": pull(gradient.images),
            "raw_rates": gradient.raw_rates,
            "labels": self.label_form.raw_gradient(self.learned.labels, gradient.labels),
        }
        return torch.cat([loss[:, None], *(by_name[name].flatten(1) for name in self.parameters)], 1)

    def _apply(self, flat: Tensor, drawn: Tensor, draws: Tensor) -> Tensor:
        """Move what is learned down the gradient that `_gradient` returned; return its loss [P]."""
        loss, *parts = flat.split([1, *(p[0].numel() for p in self.parameters.values())], 1)
        shaped = [part.view_as(p) for part, p in zip(parts, self.parameters.values(), strict=True)]
        gradients = [clip(part) for clip, part in zip(self.clips, shaped, strict=True)]
        schedule = self._schedule()
        self.outer.step(gradients, [rates * schedule * self.slower for rates in self.rates])
        self.learned.labels.copy_(self.label_form.labels(self.raw_labels))
        self._average()
        self.solver.learn(lambda: augmented_set(self.learned, self.config.data.augment, draws)[0], drawn)
        before: Tensor = loss[:, 0]
        return before

    def _schedule(self) -> Tensor:
        """Return the factor [] of the outer rates in this iteration."""
        if self.config.outer.schedule == "constant":
            return torch.ones_like(self.outer.count)
        progress: Tensor = self.outer.count / self.config.iterations
        factor: Tensor = 0.5 * (1 + torch.cos(math.pi * progress))
        return factor

    def outer_rate(self) -> float:
        """Return Adam's rate in this iteration, for the first set."""
        rate: float = self.config.outer_lr * (self._schedule() * self.slower[0]).item()
        return rate

    def snapshot(self, member: int) -> list[Tensor]:
        """Return copies of all tensors of one set of the population, its optimizer's included."""
        return [tensor[member].clone() for tensor in self._of_sets()]

    def rewind(self, member: int, snapshot: list[Tensor]) -> None:
        """Go back to a snapshot of one set, and learn it with half the rates from now on."""
        for mine, kept in zip(self._of_sets(), snapshot, strict=True):
            mine[member].copy_(kept)
        self.slower[member] *= 0.5
        self.solver.renew(member)

    def _of_sets(self) -> list[Tensor]:
        """Return the tensors [P, ...] that belong to sets."""
        sets = [getattr(each, name) for each in (self.learned, self.averaged) for name in PARTS]
        return [*sets, self.raw_labels, *self.outer.means, *self.outer.squares, *(c.mean_norm for c in self.clips)]

    def _average(self) -> None:
        """Move `averaged` towards the newest iterate.

        The loss jumps where a max pool or a ReLU of an inner step switches, so the iterates vary; their mean varies
        less.
        """
        # At the start, where iterates change fast, the mean is over fewer of them.
        young = self.outer.count / (9 + self.outer.count)
        step = (1 - young.clamp(max=self.config.outer.average)).float()
        for name in PARTS:
            getattr(self.averaged, name).lerp_(getattr(self.learned, name), step)

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs to resume with the same results: tensors and plain values only."""
        return {
            "iteration": self.iteration,
            "device": str(self.learned.images.device),
            "learned": {name: getattr(self.learned, name) for name in PARTS},
            "raw_labels": self.raw_labels,
            "averaged": {name: getattr(self.averaged, name) for name in PARTS},
            "outer": self.outer.state_dict(),
            "slower": self.slower,
            "clip": [clip.mean_norm for clip in self.clips],
            "solver": self.solver.state_dict(),
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a `state_dict` of a Distiller with the same config."""
        self.iteration = state["iteration"]
        for name in PARTS:
            getattr(self.learned, name).copy_(state["learned"][name])
            getattr(self.averaged, name).copy_(state["averaged"][name])
        self.raw_labels.copy_(state["raw_labels"])
        self.outer.load_state_dict(state["outer"])
        self.slower.copy_(state["slower"])
        for clip, mean_norm in zip(self.clips, state["clip"], strict=True):
            clip.mean_norm.copy_(mean_norm)
        self.solver.load_state_dict(state["solver"])
        self._load_generators(state)

    def _load_generators(self, state: dict[str, Any]) -> None:
        """Resume the checkpoint's random numbers; where a device of another kind drew them, begin new ones."""
        device = self.learned.images.device
        there = state.get("device", str(device))
        if torch.device(there).type == device.type:
            for name, mine in self.generators.items():
                mine.set_state(state["generators"][name].cpu())
            return
        for name in self.generators:
            self.generators[name] = named_generator(self.config.seed, f"{name} from {self.iteration}", device)
        logging.getLogger("raydistill").warning(
            "device=%s: the checkpoint is of %s, which draws other random numbers; from iteration %d on they are drawn "
            "anew, so the run ends near where it would have ended there, not at the same numbers",
            device,
            there,
            self.iteration,
        )


class RunningClip:
    """A clip of gradients [P, ...] at a multiple of the running mean of their own norm (Feng et al. 2023).

    Adam forgets a gradient's scale but not a single huge one, and training through gradient steps throws those. The
    mean is over clipped norms, so that an outlier cannot raise the bar for the next.

    Args:
        multiple: of the running mean; None never clips.
        count: P, the number of gradients, each with a mean of its own.
        device: of the gradients.
    """

    def __init__(self, multiple: float | None, count: int, device: torch.device) -> None:
        self.multiple = multiple
        self.mean_norm = torch.zeros(count, device=device)

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return the gradients, scaled down where they are too large, and zero where they are not finite.

        Once in a while training from some initial network explodes, and that iteration says nothing.
        """
        norms: Tensor = gradients.flatten(1).norm(dim=1)
        finite = norms.isfinite()
        gradients = torch.where(_beside(finite, gradients), gradients, 0.0)
        if self.multiple is None:
            return gradients
        norms = torch.where(finite, norms, 0.0)
        limit = torch.where(self.mean_norm > 0, self.mean_norm * self.multiple, norms)
        clipped = torch.minimum(norms, limit)
        mean = torch.where(self.mean_norm > 0, 0.98 * self.mean_norm + 0.02 * clipped, clipped)
        self.mean_norm.copy_(torch.where(finite, mean, self.mean_norm))
        return gradients * _beside(clipped / norms.clamp_min(1e-30), gradients)


def _beside(values: Tensor, others: Tensor) -> Tensor:
    """Return values [P] as [P, 1, ...], to be broadcast with tensors [P, ...]."""
    return values.view(-1, *[1] * (others.dim() - 1))
