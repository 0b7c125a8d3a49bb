"""A distilled set: images, their labels, and the step sizes to train on them with."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from raydistill.system.errors import UserError


@dataclass(frozen=True)
class DistilledSet:
    """S minibatches of B images, and E passes over them, each step with a step size of its own.

    images    [S, B, C, H, W], in normalised space
    labels    [S, B, K], class probabilities (or, where they were learned freely, any weights of the classes)
    raw_rates [E, S]; the step sizes are softplus(raw_rates), so that they stay positive while they are learned
    """

    images: Tensor
    labels: Tensor
    raw_rates: Tensor

    @property
    def learning_rates(self) -> Tensor:
        """The step sizes [E, S]."""
        return F.softplus(self.raw_rates)

    @property
    def num_images(self) -> int:
        """The number of images, S * B."""
        return self.images.shape[0] * self.images.shape[1]

    def batches(self) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Yield the gradient steps in order: images [B, C, H, W], label probabilities [B, K], step size."""
        for rates in self.learning_rates.tolist():
            yield from zip(self.images, self.labels, rates, strict=True)

    def with_epochs(self, epochs: int) -> "DistilledSet":
        """Return the set with another number of passes; passes beyond its own E repeat its step sizes from the first.

        Raises:
            UserError: no passes at all.
        """
        if epochs < 1:
            raise UserError(f"epochs={epochs}: at least 1")
        again = torch.arange(epochs, device=self.raw_rates.device) % len(self.raw_rates)
        return DistilledSet(self.images, self.labels, self.raw_rates[again])

    def to(self, device: torch.device) -> "DistilledSet":
        """Return the same set on another device."""
        return DistilledSet(self.images.to(device), self.labels.to(device), self.raw_rates.to(device))

    def detached(self) -> "DistilledSet":
        """Return a copy that no later update changes."""
        return DistilledSet(*(t.detach().clone() for t in (self.images, self.labels, self.raw_rates)))

    @classmethod
    def stack(cls, sets: "list[DistilledSet]") -> "DistilledSet":
        """Return P sets of equal shapes as one, each tensor with a dimension P in front."""
        return cls(*(torch.stack([getattr(s, name) for s in sets]) for name in ("images", "labels", "raw_rates")))

    def unstack(self) -> "list[DistilledSet]":
        """Return the sets of a stack; they share its memory."""
        return [DistilledSet(*parts) for parts in zip(self.images, self.labels, self.raw_rates, strict=True)]

    @classmethod
    def from_rates(cls, images: Tensor, labels: Tensor, learning_rates: Tensor) -> "DistilledSet":
        """Return a set with these step sizes [E, S], all positive."""
        return cls(images, labels, inverse_softplus(learning_rates))


def inverse_softplus(rates: Tensor) -> Tensor:
    """Return x with softplus(x) = rates > 0; exact for tiny rates too, where log(exp(rate) - 1) is not."""
    return rates + torch.log(-torch.expm1(-rates))
