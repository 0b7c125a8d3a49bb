"""The outer loop."""

import math
from typing import Any

import torch
from torch import Tensor

from raydistill.config import DistillConfig
from raydistill.data import Split
from raydistill.method.adam import Adam
from raydistill.method.capture import captured
from raydistill.method.distilled import DistilledSet
from raydistill.method.population import members
from raydistill.method.rng import named_generator
from raydistill.method.unroll import hypergradient
from raydistill.method.weights import FixedWeights, InitialWeights, RandomWeights
from raydistill.networks import Network

Shape = tuple[int, ...]  # C, H, W


class Distiller:
    """Learns distilled sets by gradient descent through training on them.

    All that is learned is stacked: a population of P sets, in most runs one, each with learning rates and a seed of its
    own. Networks for all of them are trained side by side, and judged on the same real batches.

    It is its config, its tensors, its optimizer's state and its random generators; `state_dict` holds all of them,
    so that a run that is stopped and resumed ends bit-identical, on the same device, to one that was not.

    Args:
        config: the settings.
        network: the network to distil for.
        real: the real training images; everything is computed on their device.
        num_classes: K.
    """

    def __init__(self, config: DistillConfig, network: Network, real: Split, num_classes: int) -> None:
        device = real.images.device
        self.config = config
        self.members = members(config)
        self.network = network
        self.real = real
        self.iteration = 0
        self.generators = {name: named_generator(config.seed, name, device) for name in ("weights", "batches")}
        self.initial_weights = [initial_weights(m, network, device) for m in self.members]
        shape = tuple(real.images.shape[1:])
        self.learned = DistilledSet.stack([initial_images(m, shape, num_classes, device) for m in self.members])
        self.averaged = self.learned.detached()
        self.rates = torch.tensor([member.outer_lr for member in self.members], device=device)
        self.outer = Adam([self.learned.images, self.learned.raw_rates], betas=(0.5, 0.999))
        self.clips = [RunningClip(config.clip, len(self.members), device) for _ in range(2)]
        self._update = captured(self._update_eagerly, device)

    def step(self) -> Tensor:
        """One outer iteration. Returns each set's loss [P] before the update, not synchronised with the device."""
        nets, generator = self.config.train_nets, self.generators["weights"]
        weights = torch.stack([start.sample(nets, generator) for start in self.initial_weights])
        images, labels = self.real.sample(self.config.batch_size, self.generators["batches"])
        loss = self._update(weights, images, labels)
        self.iteration += 1
        return loss

    def _update_eagerly(self, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Moves what is learned down its hypergradient for initial weights [P, N, W] and a real batch."""
        loss, gradient = hypergradient(self.network, self.learned, weights, images, labels)
        gradients = [clip(part) for clip, part in zip(self.clips, (gradient.images, gradient.raw_rates), strict=True)]
        self.outer.step(gradients, self.rates * self._schedule())
        self._average()
        return loss

    def _schedule(self) -> Tensor:
        """The factor [] of the outer rates in this iteration."""
        if self.config.outer_schedule == "constant":
            return torch.ones_like(self.outer.count)
        progress: Tensor = self.outer.count / self.config.iterations
        factor: Tensor = 0.5 * (1 + torch.cos(math.pi * progress))
        return factor

    def outer_rate(self) -> float:
        """Adam's rate in this iteration, for the first set."""
        rate: float = self.config.outer_lr * self._schedule().item()
        return rate

    def _average(self) -> None:
        """Moves `averaged` towards the newest iterate.

        The loss has jumps, where a max pool or a ReLU of an inner step switches, and the iterates hop over them; their
        mean lies calmer.
        """
        young = self.outer.count / (9 + self.outer.count)  # a shorter mean while they still run
        step = (1 - young.clamp(max=self.config.average)).float()
        self.averaged.images.lerp_(self.learned.images, step)
        self.averaged.raw_rates.lerp_(self.learned.raw_rates, step)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened: tensors and plain values only."""
        return {
            "iteration": self.iteration,
            "images": self.learned.images,
            "labels": self.learned.labels,
            "raw_rates": self.learned.raw_rates,
            "averaged": {"images": self.averaged.images, "raw_rates": self.averaged.raw_rates},
            "outer": self.outer.state_dict(),
            "clip": [clip.mean_norm for clip in self.clips],
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of a Distiller with the same config."""
        self.iteration = state["iteration"]
        for name in ("images", "labels", "raw_rates"):
            getattr(self.learned, name).copy_(state[name])
        for name, value in state["averaged"].items():
            getattr(self.averaged, name).copy_(value)
        self.outer.load_state_dict(state["outer"])
        for clip, mean_norm in zip(self.clips, state["clip"], strict=True):
            clip.mean_norm.copy_(mean_norm)
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name].cpu())


def initial_images(config: DistillConfig, image_shape: Shape, num_classes: int, device: torch.device) -> DistilledSet:
    """The noise that a run starts from, drawn by the seed."""
    return DistilledSet.noise(
        steps=config.steps,
        epochs=config.epochs,
        images_per_class=config.images_per_class,
        num_classes=num_classes,
        image_shape=image_shape,
        image_std=config.image_std,
        learning_rate=config.inner_lr,
        generator=named_generator(config.seed, "images", device),
    )


def initial_weights(config: DistillConfig, network: Network, device: torch.device) -> InitialWeights:
    """Where the config says that initial weights come from; fixed ones are drawn here, by the seed."""
    if config.weights == "random":
        return RandomWeights(network)
    return FixedWeights(network.initial_weights(1, named_generator(config.seed, "fixed weights", device))[0])


class RunningClip:
    """Clips gradients [P, ...] at a multiple of the running mean of their own norm (Feng et al. 2023).

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
        """The gradients, scaled down where they are too large."""
        if self.multiple is None:
            return gradients
        norms: Tensor = gradients.flatten(1).norm(dim=1)
        limit = torch.where(self.mean_norm > 0, self.mean_norm * self.multiple, norms)
        clipped = torch.minimum(norms, limit)
        self.mean_norm.copy_(torch.where(self.mean_norm > 0, 0.98 * self.mean_norm + 0.02 * clipped, clipped))
        scale = clipped / norms.clamp_min(1e-30)
        clipped_gradients: Tensor = gradients * scale.view(-1, *[1] * (gradients.dim() - 1))
        return clipped_gradients
