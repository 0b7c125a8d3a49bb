"""Training on a distilled set, and the gradient of what comes out of it: the hypergradient.

Both are pure functions of tensors (distilled set, initial weights, real batch): no state, no randomness, nothing
written in place. They work on P sets and N networks for each at once, and are recorded (`kernels/recorded.py`).
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, vmap

from raydistill.kernels.recorded import recorded, recorded_vjp
from raydistill.method.distilled import DistilledSet
from raydistill.method.losses import Loss
from raydistill.networks import Network

Apply = Callable[[Tensor, Tensor], Tensor]  # (weights [W], images [B, C, H, W]) -> logits [B, K]


def inner_step(network: Apply, weights: Tensor, images: Tensor, labels: Tensor, rates: Tensor) -> Tensor:
    """Return w - rate * dloss/dw: weights [P, N, W] after one gradient step.

    Each of P sets has one minibatch and step size: images [P, B, C, H, W], labels [P, B, K], rates [P].
    """
    _, gradient = losses_and_gradient(network, weights, images, labels, each_set=0, differentiable=True)
    return torch.addcmul(weights, -rates[:, None, None], gradient)


def losses_and_gradient(
    network: Apply,
    weights: Tensor,
    images: Tensor,
    labels: Tensor,
    each_set: int | None,
    differentiable: bool,
    loss: Loss = F.cross_entropy,
) -> tuple[Tensor, Tensor]:
    """Return mean losses [P, N] on a minibatch, and their gradients for weights [P, N, W].

    Labels are classes or class probabilities. Where `each_set` is 0, images and labels have a dimension P in front;
    where it is None, all sets share them. The gradient itself can be `differentiable`.
    """

    def loss_of(weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return loss(network(weights, images), labels)

    sets, networks = weights.shape[:2]
    all_losses = vmap_over(sets, vmap_over(networks, loss_of, (0, None, None)), (0, each_set, each_set))
    with torch.enable_grad():
        weights = weights if weights.requires_grad else weights.detach().requires_grad_()
        losses = all_losses(weights, images, labels)
        # No loss depends on another network's weights, so the gradient of the sum contains that of each.
        (gradient,) = torch.autograd.grad(losses.sum(), weights, create_graph=differentiable)
    return losses, gradient


def gradients_on_sets(network: Network, loss: Loss, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradients [P, N, W] of a loss on P sets, images [P, M, C, H, W] and labels [P, M, K], for networks.

    The weights are [P, N, W].
    """

    def gradient(apply: Apply, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return losses_and_gradient(apply, weights, images, labels, 0, False, loss)[1]

    run = network.keep(("gradients", loss), lambda apply: recorded(functools.partial(gradient, apply)))
    result: Tensor = run(weights, images, labels)
    return result


def vmap_over(count: int, function: Callable[..., Tensor], in_dims: tuple[int | None, ...]) -> Callable[..., Tensor]:
    """Return `vmap(function, in_dims)`; for a count of one the function itself, which takes fewer operations."""
    if count > 1:
        return vmap(function, in_dims)
    return lambda *args: function(*(a if d is None else a.squeeze(d) for a, d in zip(args, in_dims, strict=True)))[None]


def gradient_steps(distilled: DistilledSet) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield images [P, B, C, H, W], labels [P, B, K] and step sizes [P] of each step of P stacked sets."""
    images, labels = distilled.images.unbind(1), distilled.labels.unbind(1)
    for rates in distilled.learning_rates.unbind(1):
        yield from zip(images, labels, rates.unbind(1), strict=True)


def train(network: Network, distilled: DistilledSet, weights: Tensor) -> Tensor:
    """Return the weights [N, W] of N networks after all gradient steps on one set."""
    step, _, _ = _recorded_parts(network)
    weights = weights[None]
    for images, labels, rates in gradient_steps(DistilledSet.stack([distilled])):
        weights = step(weights, images, labels, rates)
    return weights[0]


def hypergradient(
    network: Network, distilled: DistilledSet, weights: Tensor, real_images: Tensor, real_labels: Tensor
) -> tuple[Tensor, DistilledSet]:
    """Return the loss on real images after training on the set, and its gradient for images, labels and raw rates.

    The gradient is exact. Forward, each step keeps its own one-step graph (`pull`); backward, the gradient walks
    through them in reverse: with dw = dL/dw_{t+1}, the step's vector-Jacobian product gives its share for x_t, y_t and
    rate_t, and dL/dw_t. Memory grows with the number of steps.

    Args:
        network: the network.
        distilled: P sets, stacked: each tensor of the set has one more dimension in front.
        weights: initial weights [P, N, W] of N networks for each set.
        real_images: [B, C, H, W], the same for all.
        real_labels: their classes [B].

    Returns:
        The loss [P], a mean over the N networks, and P stacked sets that hold its gradients.
    """
    _, step_vjp, outer = _recorded_parts(network)
    pulls = []
    for images, labels, rates in gradient_steps(distilled):
        # w_{t+1}, and how its gradient flows back to (w_t, x_t, y_t, rate_t)
        weights, pull = step_vjp(weights, images, labels, rates)
        pulls.append(pull)

    loss, dw = outer(weights, real_images, real_labels)

    shares = []
    while pulls:
        dw, *share = pulls.pop()(dw)
        shares.append(share)
    d_images, d_labels, d_rates = (_by_epoch(parts, distilled) for parts in zip(*reversed(shares), strict=True))
    slope = torch.sigmoid(distilled.raw_rates)  # d softplus(raw) / d raw
    return loss, DistilledSet(d_images.sum(1), d_labels.sum(1), d_rates * slope)


def _by_epoch(parts: tuple[Tensor, ...], distilled: DistilledSet) -> Tensor:
    """Return the share [P, ...] of each step as one tensor [P, E, S, ...]."""
    by_epoch: Tensor = torch.stack(parts, 1).unflatten(1, distilled.raw_rates.shape[1:])
    return by_epoch


def _recorded_parts(network: Network) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return `inner_step`, `inner_step` with its pull, and the outer loss with its gradient; recorded once."""

    def record(apply: Apply) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        step, outer = functools.partial(inner_step, apply), functools.partial(_outer, apply)
        compile = network.compile
        return recorded(step, compile), recorded_vjp(step, compile), recorded(outer, compile)

    return network.keep("unroll", record)


def _outer(network: Apply, weights: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss [P] of trained networks [P, N, W] on real images, a mean over the N, and its gradient."""
    losses, gradient = losses_and_gradient(network, weights, images, labels, each_set=None, differentiable=False)
    return losses.mean(1), gradient / weights.shape[1]
