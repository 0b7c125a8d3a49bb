"""Labels of the learned images: what they start from, and how they are learned (Sucholutsky & Schonlau 2019)."""

import torch
from torch import Tensor

ALMOST_NEVER = 1e-3  # This probability stands for 0 where labels are softmax(raw).
SMOOTHING = 0.1


class LabelForm:
    """The form of labels [..., K]: how they follow from the raw labels of the same shape, which are learned.

    Args:
        form: "softmax" for labels = softmax(raw), probabilities; "free" and "fixed" for labels = raw.
    """

    def __init__(self, form: str) -> None:
        self.softmax = form == "softmax"

    def labels(self, raw: Tensor) -> Tensor:
        """Return the labels [..., K] of raw labels."""
        return raw.softmax(-1) if self.softmax else raw

    def raw(self, labels: Tensor) -> Tensor:
        """Return raw labels whose labels are nearly these probabilities: softmax cannot give 0."""
        return labels.clamp_min(ALMOST_NEVER).log() if self.softmax else labels

    def raw_gradient(self, labels: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient for the raw labels, given the one for the labels."""
        if not self.softmax:
            return gradient
        return labels * (gradient - (labels * gradient).sum(-1, keepdim=True))


def initial_raw_labels(kind: str, form: LabelForm, classes: Tensor, num_classes: int, noise: Tensor) -> Tensor:
    """Return raw labels [S, B, K] to start from.

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
    """Return rows [..., B, K] of length 1, orthogonal to each other; beyond K rows, rows of several such bases."""
    size = noise.shape[-1]
    bases = [torch.linalg.qr(rows.mT)[0].mT for rows in noise.split(size, -2)]
    return torch.cat(bases, -2)


def balanced_classes(count: int, num_classes: int, device: torch.device) -> Tensor:
    """Return the classes [count] of a minibatch in order, each as often as any other or once more."""
    return torch.arange(count, device=device) * num_classes // count
