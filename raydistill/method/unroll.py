"""Training on a distilled set, and the gradient of what comes out of it: the hypergradient.

Both are pure functions of tensors (distilled set, initial weights, real batch): no state, no randomness, nothing
written in place. So they are batched over networks and over whole sets with `torch.vmap`, and recorded (`record.py`).
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, grad_and_value, vmap
from torch.utils._pytree import tree_map

from raydistill.method.distilled import DistilledSet
from raydistill.method.record import recorded, recorded_vjp

Apply = Callable[[Tensor, Tensor], Tensor]  # (weights [W], images [B, C, H, W]) -> logits [B, K]


def inner_loss(network: Apply, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of a minibatch with label probabilities [B, K]."""
    return F.cross_entropy(network(weights, images), labels)


def inner_step(network: Apply, weights: Tensor, images: Tensor, labels: Tensor, rate: Tensor) -> Tensor:
    """w - rate * dloss/dw: one gradient step."""
    gradient: Tensor = grad(inner_loss, argnums=1)(network, weights, images, labels)
    return weights + -rate * gradient


def outer_loss(network: Apply, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy on real images with classes [B]: what training on the set should make small."""
    return F.cross_entropy(network(weights, images), labels)


def gradient_steps(distilled: DistilledSet) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images [..., B, C, H, W], labels [..., B, K] and step size [...] of each step; the set may be a stack of sets."""
    images, labels = distilled.images.unbind(-5), distilled.labels.unbind(-3)
    for rates in distilled.learning_rates.unbind(-2):
        yield from zip(images, labels, rates.unbind(-1), strict=True)


def train(network: Apply, distilled: DistilledSet, weights: Tensor) -> Tensor:
    """The weights [N, W] of N networks after all gradient steps on the set."""
    step = _recorded_step(network, len(weights))
    for images, labels, rate in gradient_steps(distilled):
        weights = step(weights, images, labels, rate)
    return weights


def hypergradient(
    network: Apply, distilled: DistilledSet, weights: Tensor, real_images: Tensor, real_labels: Tensor
) -> tuple[Tensor, DistilledSet]:
    """The outer loss after training on the set, and its exact gradient for images, labels and raw rates.

    Forward, each step keeps its own one-step graph (`pull`); backward, the gradient walks through them in reverse:
    with dw = dL/dw_{t+1}, the step's vector-Jacobian product gives its share for x_t, y_t and rate_t, and dL/dw_t.
    Memory grows with the number of steps (Wang et al. 2018, "store" in the terms of this project).

    Args:
        network: the network.
        distilled: P sets, stacked: each tensor of the set has one more dimension in front.
        weights: initial weights [P, N, W] of N networks for each set.
        real_images: [B, C, H, W], the same for all.
        real_labels: their classes [B].

    Returns:
        The loss [P], a mean over the N networks, and P stacked sets that hold its gradients.
    """
    step_vjp, loss_and_gradient = _recorded_parts(network, *weights.shape[:2])
    pulls = []
    for images, labels, rate in gradient_steps(distilled):
        # w_{t+1}, and how its gradient flows back to (w_t, x_t, y_t, rate_t)
        weights, pull = step_vjp(weights, images, labels, rate)
        pulls.append(pull)

    dw, loss = loss_and_gradient(weights, real_images, real_labels)

    shares = []
    while pulls:
        dw, *share = pulls.pop()(dw)
        shares.append(share)
    d_images, d_labels, d_rates = (_by_epoch(parts, distilled) for parts in zip(*reversed(shares), strict=True))
    slope = torch.sigmoid(distilled.raw_rates)  # d softplus(raw) / d raw
    return loss, DistilledSet(d_images.sum(1), d_labels.sum(1), d_rates * slope)


def _by_epoch(parts: tuple[Tensor, ...], distilled: DistilledSet) -> Tensor:
    """A share [P, ...] of each step as [P, E, S, ...]."""
    by_epoch: Tensor = torch.stack(parts, 1).unflatten(1, distilled.raw_rates.shape[-2:])
    return by_epoch


@functools.lru_cache(maxsize=32)
def _recorded_step(network: Apply, networks: int) -> Callable[..., Tensor]:
    """`inner_step` for weights [N, W]."""
    return recorded(_over(networks, functools.partial(inner_step, network), (0, None, None, None)))


@functools.lru_cache(maxsize=32)
def _recorded_parts(network: Apply, sets: int, networks: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`inner_step` as `torch.func.vjp` would return it, and the gradient and value of `outer_loss`; both batched."""
    step = _over(networks, functools.partial(inner_step, network), (0, None, None, None))
    loss = _over(networks, grad_and_value(functools.partial(outer_loss, network)), (0, None, None))
    losses = _over(sets, loss, (0, None, None))

    def mean_loss(weights: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        gradients, each = losses(weights, images, labels)
        return gradients / networks, each.mean(1)

    return recorded_vjp(_over(sets, step, (0, 0, 0, 0))), recorded(mean_loss)


def _over(count: int, function: Callable[..., Any], in_dims: tuple[int | None, ...]) -> Callable[..., Any]:
    """`vmap(function, in_dims)`; for a count of one the function itself, which takes fewer operations."""
    if count > 1:
        return vmap(function, in_dims)

    def single(*args: Tensor) -> Any:
        results = function(*(a if d is None else a.squeeze(d) for a, d in zip(args, in_dims, strict=True)))
        return tree_map(lambda result: result.unsqueeze(0), results)

    return single
