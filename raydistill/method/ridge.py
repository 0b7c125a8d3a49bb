"""Ridge regression as the inner solver: only the last layer is trained, in closed form (FRePo, Zhou et al. 2022).

The features phi come from networks of different ages (`method/pool.py`). With the set's features S [M, F], its centred
labels Y [M, K] and a ridge strength r, the last layer that fits the set best is

    V = S^T (S S^T + r mean(diag(S S^T)) I)^-1 Y        [F, K]

and the loss is the squared error of phi(real images) V. Its gradient for images and labels is exact for V and the set's
features; the networks themselves count as constants. Real images only go forward, and the set goes back.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from raydistill.config.solver_settings import RidgeSettings
from raydistill.kernels.recorded import recorded
from raydistill.method.distilled import DistilledSet
from raydistill.method.losses import centred, margin, squared_error
from raydistill.method.unroll import Apply, vmap_over
from raydistill.networks import Network


@dataclass(frozen=True)
class RidgeOptions:
    """What a ridge loss depends on beside tensors; `RidgeSettings` describes each."""

    strength: float
    mirror: bool = False
    margin: bool = False

    @classmethod
    def of(cls, settings: RidgeSettings) -> "RidgeOptions":
        """Return those of the settings."""
        return cls(settings.strength, settings.mirror, settings.margin)


def ridge_hypergradient(
    network: Network,
    distilled: DistilledSet,
    weights: Tensor,
    real_images: Tensor,
    real_labels: Tensor,
    options: RidgeOptions,
) -> tuple[Tensor, DistilledSet]:
    """Return the loss on real images of last layers fitted to the sets, and its gradient for images and labels.

    Args:
        network: the network, which has a last linear layer.
        distilled: P sets, stacked: each tensor of the set has one more dimension in front.
        weights: those of the networks that give the features [P, N, W].
        real_images: [B, C, H, W], the same for all.
        real_labels: their classes [B].
        options: of the regression.

    Returns:
        The loss [P], a mean over the N networks, and P stacked sets that hold its gradients.

    Raises:
        UserError: the network has no last linear layer.
    """
    network.body()  # It is made here, as a recording contains only operations on its inputs.
    run = network.keep(("ridge", options), lambda net: recorded(functools.partial(_gradients, net.features, options)))
    images, labels = distilled.images.flatten(1, 2), distilled.labels.flatten(1, 2)
    loss, d_images, d_labels = run(images, labels, weights, real_images, real_labels)
    gradient = DistilledSet(
        d_images.view_as(distilled.images), d_labels.view_as(distilled.labels), torch.zeros_like(distilled.raw_rates)
    )
    return loss, gradient


def _gradients(
    features: Apply, options: RidgeOptions, images: Tensor, labels: Tensor, weights: Tensor, *real: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss [P] of sets with images [P, M, C, H, W] and labels [P, M, K], and its gradients."""
    with torch.enable_grad():
        images, labels = (tensor.detach().requires_grad_() for tensor in (images, labels))
        loss = ridge_loss(features, options, images, labels, weights, *real)
        d_images, d_labels = torch.autograd.grad(loss.sum(), (images, labels))
    return loss, d_images, d_labels


def ridge_loss(
    features: Apply,
    options: RidgeOptions,
    images: Tensor,
    labels: Tensor,
    weights: Tensor,
    real_images: Tensor,
    real_labels: Tensor,
) -> Tensor:
    """Return the loss [P], a mean over N networks; shapes as in `_gradients` and `ridge_hypergradient`."""
    wanted = labels
    if options.mirror:
        images, wanted = torch.cat([images, images.flip(-1)], 1), torch.cat([labels, labels], 1)
    sets, networks = weights.shape[:2]
    seen = vmap_over(sets, vmap_over(networks, features, (0, None)), (0, 0))(weights, images)
    real = vmap_over(sets, vmap_over(networks, features, (0, None)), (0, None))(weights, real_images)
    last = last_layer(seen, wanted[:, None], options.strength)
    classes = torch.arange(labels.shape[-1], device=labels.device)
    targets = (real_labels[:, None] == classes).to(last.dtype)
    loss = squared_error(real.to(last.dtype) @ last, targets).mean(1).to(labels.dtype)
    return loss + margin(labels) if options.margin else loss


def last_layer(features: Tensor, labels: Tensor, strength: float) -> Tensor:
    """Return the ridge regression [..., F, K] of centred labels [..., M, K] on features [..., M, F].

    It is computed in float64: with FRePo's strength the Gram matrix of float32 features is near singular.
    """
    features, targets = features.double(), centred(labels.double())
    gram = features @ features.mT
    ridge = strength * gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    gram = gram + ridge[..., None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    root, _ = torch.linalg.cholesky_ex(gram)  # Without a check, for which a GPU would wait.
    targets = targets.expand(*gram.shape[:-1], targets.shape[-1])
    half = torch.linalg.solve_triangular(root, targets, upper=False)
    # A CUDA graph can contain this, but not `cholesky_solve` of several matrices.
    dual: Tensor = torch.linalg.solve_triangular(root.mT, half, upper=True)
    return features.mT @ dual
