"""Labels of the learned images: what they start from, and how they are learned (Sucholutsky & Schonlau 2019)."""

import torch
from torch import Tensor

ALMOST_NEVER = 1e-3  # the probability that stands for 0 where labels are softmax(raw)
SMOOTHING = 0.1


class LabelForm:
    """How labels [..., K] follow from what is learned, the raw labels of the same shape.

    Args:
        form: "softmax" for labels = softmax(raw), probabilities; "free" and "fixed" for labels = raw.
    """

    def __init__(self, form: str) -> None:
        self.softmax = form == "softmax"

    def labels(self, raw: Tensor) -> Tensor:
        """The labels."""
        return raw.softmax(-1) if self.softmax else raw

    def raw(self, labels: Tensor) -> Tensor:
        """Raw labels whose labels these probabilities are, nearly: softmax cannot give 0."""
        return labels.clamp_min(ALMOST_NEVER).log() if self.softmax else labels

    def raw_gradient(self, labels: Tensor, gradient: Tensor) -> Tensor:
        """The gradient for the raw labels, given that for the labels."""
        if not self.softmax:
            return gradient
        return labels * (gradient - (labels * gradient).sum(-1, keepdim=True))


def initial_raw_labels(kind: str, form: LabelForm, classes: Tensor, num_classes: int, noise: Tensor) -> Tensor:
    """Raw labels [S, B, K] to start from.

    Args:
        kind: onehot, smoothed, uniform, random or orthogonal (see `labels.init` in `DistillConfig`).
        form: how labels follow from them.
        classes: the class of each image, [S, B].
        num_classes: K.
        noise: N(0, 1), [S, B, K].
    """
    onehot = torch.nn.functional.one_hot(classes, num_classes).to(noise.dtype)
    uniform = torch.full_like(onehot, 1 / num_classes)
    match kind:
        case "onehot":
            return form.raw(onehot)
        case "smoothed":
            return form.raw(torch.lerp(onehot, uniform, SMOOTHING))
        case "uniform":
            return form.raw(uniform)
        case "random":
            return noise.clone()
        case _:
            return orthonormal_rows(noise)


def orthonormal_rows(noise: Tensor) -> Tensor:
    """Rows [..., B, K] of length 1, at right angles to each other; beyond K rows, those of several such bases."""
    size = noise.shape[-1]
    bases = [torch.linalg.qr(rows.mT)[0].mT for rows in noise.split(size, -2)]
    return torch.cat(bases, -2)


def balanced_classes(count: int, num_classes: int, device: torch.device) -> Tensor:
    """The classes [count] of a minibatch, class after class, each as often as any other or once more."""
    return torch.arange(count, device=device) * num_classes // count
