"""Training on a set by a recipe: the learned schedule of gradient steps, or an optimizer.

All random numbers of a recipe (batches, augmentation) depend on a seed alone. They are drawn on the CPU, and all
networks that are trained at once share them, so that neither the device nor the number of networks changes them.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from raydistill.config.recipe_settings import AnyRecipe, OptimizerRecipe, Recipe, ScheduleRecipe, SgdRecipe
from raydistill.data.augment import augmented, check_transforms, draw
from raydistill.kernels.cuda_graph import Capture
from raydistill.method.adam import Adam
from raydistill.method.distilled import DistilledSet
from raydistill.method.losses import LOSSES, Loss
from raydistill.method.momentum import Momentum
from raydistill.method.rng import named_generator
from raydistill.method.unroll import gradients_on_sets, train
from raydistill.networks import Network
from raydistill.system.errors import UserError

BETAS = (0.9, 0.999)  # Adam's own defaults.


def train_by(recipe: Recipe, network: Network, sets: DistilledSet, weights: Tensor, seed: int) -> Tensor:
    """Return the weights [P, N, W] of N networks for each of P stacked sets, after training on it.

    Args:
        recipe: how they are trained.
        network: the network.
        sets: P sets, stacked: each tensor of the set has one more dimension in front.
        weights: initial weights [P, N, W].
        seed: of the batches and of the augmentation.

    Raises:
        UserError: the recipe is the learned schedule, and the sets have none.
    """
    check_recipe(recipe, sets)
    if isinstance(recipe, ScheduleRecipe):
        each = zip(sets.unstack(), weights, strict=True)
        return torch.stack([train(network, one, its_weights) for one, its_weights in each])
    weights = weights.clone()
    optimizer = Momentum([weights], recipe.momentum) if isinstance(recipe, SgdRecipe) else Adam([weights], BETAS)
    loss = loss_of(recipe)

    def step(images: Tensor, labels: Tensor, rate: Tensor) -> Tensor:
        gradient = gradients_on_sets(network, loss, weights, images, labels)
        optimizer.step([gradient.add(weights, alpha=recipe.weight_decay)], [rate])
        return rate

    capture = Capture(weights.device)
    with torch.no_grad():
        for images, labels, rate in batches(recipe, sets, seed):
            capture(step, images, labels, rate.expand(len(weights)))
    return weights


def check_recipe(recipe: AnyRecipe, distilled: DistilledSet) -> None:
    """Check that networks can be trained on a set, or on stacked sets, by a recipe.

    Raises:
        UserError: it is the learned schedule, and the sets have none; or its augmentation makes no sense of the images.
    """
    if isinstance(recipe, ScheduleRecipe) and not distilled.raw_rates.numel():
        raise UserError("recipe=schedule: the set has no learned step sizes; use recipe=adam, sgd or auto")
    if isinstance(recipe, OptimizerRecipe):
        channels, height, width = distilled.images.shape[-3:]
        check_transforms(recipe.augment, (channels, height, width), "recipe.augment")


def grad_steps(recipe: Recipe, distilled: DistilledSet) -> int:
    """Return how many gradient steps training on one set takes."""
    return recipe.steps if isinstance(recipe, OptimizerRecipe) else distilled.raw_rates.numel()


def rates(recipe: OptimizerRecipe) -> Tensor:
    """Return the learning rates [T] of all steps, float64.

    With W steps of warm-up they are lr * (t + 1) / W for t < W, and from there on lr, or with cosine decay
    lr * (1 + cos(pi * (t - W) / (T - W))) / 2.
    """
    t = torch.arange(recipe.steps, dtype=torch.float64)
    warm = (t + 1) / max(1, recipe.warm_up)
    if recipe.decay == "constant":
        return recipe.lr * warm.clamp(max=1)
    progress = (t - recipe.warm_up) / (recipe.steps - recipe.warm_up)
    return recipe.lr * torch.where(t < recipe.warm_up, warm, 0.5 * (1 + torch.cos(math.pi * progress)))


def steps_on(recipe: Recipe, distilled: DistilledSet, seed: int) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Yield what each step of training on one set takes: images [B, C, H, W], labels [B, K] and the learning rate."""
    check_recipe(recipe, distilled)
    if isinstance(recipe, ScheduleRecipe):
        yield from distilled.batches()
        return
    for images, labels, rate in batches(recipe, DistilledSet.stack([distilled]), seed):
        yield images[0], labels[0], rate.item()


def torch_optimizer(recipe: Recipe, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Return torch's optimizer that a recipe names, with a rate of 1, which every step should set."""
    if isinstance(recipe, ScheduleRecipe):
        return torch.optim.SGD(parameters, lr=1.0)
    if isinstance(recipe, SgdRecipe):
        return torch.optim.SGD(parameters, 1.0, recipe.momentum, weight_decay=recipe.weight_decay)
    return torch.optim.Adam(parameters, 1.0, BETAS, weight_decay=recipe.weight_decay)


def loss_of(recipe: Recipe) -> Loss:
    """Return the loss of logits [B, K] and labels [B, K] that a recipe minimises."""
    return LOSSES["cross_entropy" if isinstance(recipe, ScheduleRecipe) else recipe.loss]


def batches(recipe: OptimizerRecipe, sets: DistilledSet, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield what each gradient step trains on: images [P, B, C, H, W], labels [P, B, K] and the learning rate [].

    The order of the images and their augmentation are the same for all P stacked sets.
    """
    images, labels = sets.images.flatten(1, 2), sets.labels.flatten(1, 2)
    count, device = images.shape[1], images.device
    size = min(recipe.batch or count, count)
    order = _in_passes(count, size, recipe.steps, named_generator(seed, "recipe batches")).to(device)
    changes = named_generator(seed, "recipe augmentation")
    for chosen, rate in zip(order, rates(recipe).to(device, images.dtype), strict=True):
        some = images[:, chosen]
        if recipe.augment.change_something:
            draws = draw(size, changes).to(device).repeat(len(some), 1)
            some = augmented(some.flatten(0, 1), recipe.augment, draws).view_as(some)
        yield some, labels[:, chosen], rate


def _in_passes(count: int, size: int, steps: int, generator: torch.Generator) -> Tensor:
    """Return the numbers [steps, size] of the images in each step, from passes over all of them in random order.

    Where a step takes all images, they stay in their own order.
    """
    if size == count:
        return torch.arange(count).expand(steps, -1)
    passes = -(-steps * size // count)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(passes)])
    return order[: steps * size].view(steps, size)
