"""Training on a distilled set, and the gradient of what comes out of it: the hypergradient.

Both are pure functions of tensors (distilled set, initial weights, real batch): no state, no randomness, nothing
written in place. So `torch.vmap` batches them over networks or whole sets, and they can be compiled.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, grad_and_value, vjp

from raydistill.method.distilled import DistilledSet

Apply = Callable[[Tensor, Tensor], Tensor]  # (weights [P], images [B, C, H, W]) -> logits [B, K]
Objective = Callable[[Tensor], Tensor]  # weights [P] after training -> what the outer loop makes small


def inner_loss(network: Apply, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of a minibatch with label probabilities [B, K]."""
    return F.cross_entropy(network(weights, images), labels)


def inner_step(network: Apply, weights: Tensor, images: Tensor, labels: Tensor, rate: Tensor) -> Tensor:
    """w - rate * dloss/dw: one gradient step."""
    gradient: Tensor = grad(inner_loss, argnums=1)(network, weights, images, labels)
    return weights - rate * gradient


def train(network: Apply, distilled: DistilledSet, weights: Tensor) -> Tensor:
    """The weights [P] after all gradient steps on the set."""
    for rates in distilled.learning_rates:
        for images, labels, rate in zip(distilled.images, distilled.labels, rates, strict=True):
            weights = inner_step(network, weights, images, labels, rate)
    return weights


def hypergradient(
    network: Apply, distilled: DistilledSet, weights: Tensor, objective: Objective
) -> tuple[Tensor, DistilledSet]:
    """The objective after training on the set, and its exact gradient for images, labels and raw rates.

    Forward, each step keeps its own one-step graph (`pull`); backward, the gradient walks through them in reverse:
    with dw = dL/dw_{t+1}, the step's vector-Jacobian product gives its share for x_t, y_t and rate_t, and dL/dw_t.
    Memory grows with the number of steps (Wang et al. 2018, "store" in the terms of this project).

    Returns:
        loss [], and a DistilledSet that holds the gradients.
    """
    pulls = []
    for rates in distilled.learning_rates:
        for images, labels, rate in zip(distilled.images, distilled.labels, rates, strict=True):
            # w_{t+1}, and how its gradient flows back to (w_t, x_t, y_t, rate_t)
            stepped = vjp(lambda *args: inner_step(network, *args), weights, images, labels, rate)
            weights, pull = stepped[0], stepped[1]
            pulls.append(pull)

    dw, loss = grad_and_value(objective)(weights)

    shares = []
    for pull in reversed(pulls):
        dw, *share = pull(dw)
        shares.append(share)
    epochs_and_steps = distilled.raw_rates.shape
    d_images, d_labels, d_rates = (
        torch.stack(parts[::-1]).unflatten(0, epochs_and_steps) for parts in zip(*shares, strict=True)
    )
    slope = torch.sigmoid(distilled.raw_rates)  # d softplus(raw) / d raw
    return loss, DistilledSet(d_images.sum(0), d_labels.sum(0), d_rates * slope)
