"""Losses of logits [B, K] with respect to labels: classes [B], or weights of the classes [B, K]."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Return half the squared distance of logits [..., B, K] from centred labels, a mean [...] over the B images.

    Labels are class weights; centred they are labels - 1 / K, as in FRePo and RCIG, so that no bias is needed.
    """
    return 0.5 * (logits - centred(labels)).square().sum(-1).mean(-1)


def centred(labels: Tensor) -> Tensor:
    """Return labels [..., K] such that one-hot ones have a sum of zero."""
    return labels - 1 / labels.shape[-1]


LOSSES: dict[str, Loss] = {"cross_entropy": F.cross_entropy, "squared_error": squared_error}


def margin(labels: Tensor) -> Tensor:
    """Return how far the largest entry of labels [..., B, K] is from being 1 / K ahead of the second, a mean [...]."""
    first, second = labels.topk(2, -1).values.unbind(-1)
    return torch.relu(1 / labels.shape[-1] - (first - second)).mean(-1)
