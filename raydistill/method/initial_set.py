"""The distilled set that a run starts from: images, labels and step sizes."""

import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.data import Split
from raydistill.method.distilled import DistilledSet
from raydistill.method.labels import LabelForm, balanced_classes, initial_raw_labels
from raydistill.method.rng import named_generator
from raydistill.system.errors import UserError


def initial_set(config: DistillConfig, real: Split, num_classes: int) -> tuple[DistilledSet, torch.Tensor]:
    """Return the set to start from, and its raw labels [S, B, K], drawn by the seed on the device of the real images.

    Raises:
        UserError: there are fewer images than classes, and labels that cannot say so.
    """
    device = real.images.device
    batch = config.images.per_step or num_classes * config.images_per_class
    if batch < num_classes and config.labels.learned == "fixed":
        raise UserError(
            f"images.per_step={batch}: is fewer than the {num_classes} classes; use labels=softmax or labels=free, "
            "which let an image stand for several"
        )
    classes = balanced_classes(batch, num_classes, device).expand(config.steps, -1)
    shape = (*classes.shape, *real.images.shape[1:])
    generator = named_generator(config.seed, "images", device)
    if config.starts_from_real:
        images = real.of_classes(classes, generator)
    else:
        images = config.images.noise_std * torch.randn(shape, generator=generator, device=device)
    form = LabelForm(config.labels.learned)
    noise_source = named_generator(config.seed, "labels", device)
    noise = torch.randn(*classes.shape, num_classes, generator=noise_source, device=device)
    raw_labels = initial_raw_labels(config.labels.init, form, classes, num_classes, noise)
    rates = torch.full((config.passes, config.steps), config.inner_lr, device=device)
    return DistilledSet.from_rates(images, form.labels(raw_labels), rates), raw_labels
