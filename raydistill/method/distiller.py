"""The outer loop."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from raydistill.config import DistillConfig
from raydistill.data import Split
from raydistill.method.distilled import DistilledSet
from raydistill.method.rng import named_generator
from raydistill.method.unroll import hypergradient
from raydistill.method.weights import FixedWeights, InitialWeights, RandomWeights
from raydistill.networks import Network


class Distiller:
    """Learns a distilled set by gradient descent through training on it.

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
        self.network = network
        self.real = real
        self.iteration = 0
        self.generators = {name: named_generator(config.seed, name, device) for name in ("weights", "batches")}
        self.initial_weights = initial_weights(config, network, device)
        learned = DistilledSet.noise(
            steps=config.steps,
            epochs=config.epochs,
            images_per_class=config.images_per_class,
            num_classes=num_classes,
            image_shape=tuple(real.images.shape[1:]),
            image_std=config.image_std,
            learning_rate=config.inner_lr,
            generator=named_generator(config.seed, "images", device),
        )
        self.learned = learned
        self.averaged = learned.detached()
        self.outer = torch.optim.Adam([learned.images, learned.raw_rates], lr=config.outer_lr, betas=(0.5, 0.999))
        self.clip = RunningClip(config.clip, 2, device)

    def step(self) -> Tensor:
        """One outer iteration. Returns the loss [] before the update, not synchronised with the device."""
        weights = self.initial_weights.sample(self.config.train_nets, self.generators["weights"])
        images, labels = self.real.sample(self.config.batch_size, self.generators["batches"])

        def objective(trained: Tensor) -> Tensor:
            return F.cross_entropy(self.network(trained, images), labels)

        loss, gradient = mean_hypergradient(self.network, self.learned, weights, objective)

        self.learned.images.grad, self.learned.raw_rates.grad = self.clip([gradient.images, gradient.raw_rates])
        for group in self.outer.param_groups:
            group["lr"] = self.outer_rate()
        self.outer.step()
        self._average()
        self.iteration += 1
        return loss

    def _average(self) -> None:
        """Moves `averaged` towards the newest iterate.

        The loss has jumps, where a max pool or a ReLU of an inner step switches, and the iterates hop over them; their
        mean lies calmer.
        """
        decay = min(self.config.average, (1 + self.iteration) / (10 + self.iteration))  # short while they still run
        self.averaged.images.lerp_(self.learned.images, 1 - decay)
        self.averaged.raw_rates.lerp_(self.learned.raw_rates, 1 - decay)

    def outer_rate(self) -> float:
        """Adam's rate in this iteration."""
        if self.config.outer_schedule == "constant":
            return self.config.outer_lr
        return self.config.outer_lr * 0.5 * (1 + math.cos(math.pi * self.iteration / self.config.iterations))

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened: tensors and plain values only."""
        return {
            "iteration": self.iteration,
            "images": self.learned.images,
            "labels": self.learned.labels,
            "raw_rates": self.learned.raw_rates,
            "averaged": {"images": self.averaged.images, "raw_rates": self.averaged.raw_rates},
            "outer": self.outer.state_dict(),
            "clip": self.clip.mean_norm,
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
        self.clip.mean_norm.copy_(state["clip"])
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name].cpu())


def initial_weights(config: DistillConfig, network: Network, device: torch.device) -> InitialWeights:
    """Where the config says that initial weights come from; fixed ones are drawn here, by the seed."""
    if config.weights == "random":
        return RandomWeights(network)
    return FixedWeights(network.initial_weights(1, named_generator(config.seed, "fixed weights", device))[0])


def mean_hypergradient(
    network: Network, learned: DistilledSet, weights: Tensor, objective: Any
) -> tuple[Tensor, DistilledSet]:
    """`hypergradient`, averaged over the networks that start from weights [N, P]."""

    def one(start: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        loss, gradient = hypergradient(network, learned, start, objective)
        return loss, (gradient.images, gradient.labels, gradient.raw_rates)

    if len(weights) == 1:
        loss, parts = one(weights[0])
        return loss, DistilledSet(*parts)
    losses, batched = vmap(one)(weights)
    return losses.mean(), DistilledSet(*(part.mean(0) for part in batched))


class RunningClip:
    """Clips gradients at a multiple of the running mean of their own norm (Feng et al. 2023).

    Adam forgets a gradient's scale but not a single huge one, and training through gradient steps throws those. The
    mean is over clipped norms, so that an outlier cannot raise the bar for the next.

    Args:
        multiple: of the running mean; None never clips.
        count: number of gradients, each with a mean of its own.
        device: of the gradients.
    """

    def __init__(self, multiple: float | None, count: int, device: torch.device) -> None:
        self.multiple = multiple
        self.mean_norm = torch.zeros(count, device=device)

    def __call__(self, gradients: list[Tensor]) -> list[Tensor]:
        """The gradients, scaled down where they are too large."""
        if self.multiple is None:
            return gradients
        norms = torch.stack([gradient.norm() for gradient in gradients])
        limit = torch.where(self.mean_norm > 0, self.mean_norm * self.multiple, norms)
        clipped = torch.minimum(norms, limit)
        self.mean_norm = torch.where(self.mean_norm > 0, 0.98 * self.mean_norm + 0.02 * clipped, clipped)
        scales = (clipped / norms.clamp_min(1e-30)).unbind()
        return [gradient * scale for gradient, scale in zip(gradients, scales, strict=True)]
