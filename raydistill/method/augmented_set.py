"""Augmentation of the learned images, before networks train on them."""

from collections.abc import Callable

import torch
from torch import Tensor

from raydistill.config.augment_settings import Augment
from raydistill.data.augment import augmented, draw
from raydistill.kernels.pullback import pullback
from raydistill.method.distilled import DistilledSet


def draws_for_set(augment: Augment, learned: DistilledSet, generator: torch.Generator) -> Tensor:
    """Draw the random numbers of the augmentation of P stacked sets in one iteration, the same for each of them.

    Returns:
        A row for each of the S * B images, one row where it is for all of them, none where they stay as they are.
    """
    _, steps, batch = learned.images.shape[:3]
    if not augment.change_set:
        return draw(0, generator)
    return draw(1 if augment.on == "paired" else steps * batch, generator)


def augmented_set(
    learned: DistilledSet, augment: Augment, draws: Tensor
) -> tuple[DistilledSet, Callable[[Tensor], Tensor]]:
    """Return P stacked sets with augmented images, and how their gradient flows back to the images themselves.

    Args:
        learned: the sets.
        augment: the settings.
        draws: as of `draws_for_set`.
    """
    if not augment.change_set:
        return learned, lambda gradient: gradient
    images = learned.images.detach().requires_grad_()
    of_each = draws if len(draws) == 1 else draws.repeat(len(images), 1)
    with torch.enable_grad():
        changed = augmented(images.flatten(0, 2), augment, of_each).view_as(images)

    def pull(gradient: Tensor) -> Tensor:
        (of_images,) = pullback(changed, [images], gradient)
        return of_images

    return DistilledSet(changed.detach(), learned.labels, learned.raw_rates), pull
