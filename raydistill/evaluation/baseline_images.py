"""Images that are not learned, apart from random real ones (`Split.of_classes`): cluster centres and class means."""

from collections.abc import Callable

import torch
from torch import Tensor

from raydistill.data import Split


def classes_for(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the classes [S, B] of the images of a baseline that is as large as a set with labels [S, B, K].

    They are the likeliest class of each label where that gives all classes equally many images. Otherwise (learned
    labels may mix classes, and there may be fewer images than classes) the classes are spread as evenly as the number
    of images allows, and the generator decides which ones get one more.
    """
    likeliest = labels.argmax(-1)
    classes = labels.shape[-1]
    counts = likeliest.flatten().bincount(minlength=classes)
    if (counts == counts[0]).all():
        return likeliest
    order = torch.randperm(classes, generator=generator, device=labels.device)
    return order.repeat(-(-likeliest.numel() // classes))[: likeliest.numel()].view_as(likeliest)


def kmeans_images(split: Split, classes: Tensor, seed: int) -> Tensor:
    """Return the centres [S, B, C, H, W] of k-means within each class of classes [S, B], with k its number of images.

    A class with fewer real images than that gives the images themselves, repeated in turn.
    """
    from sklearn.cluster import KMeans

    def centres(images: Tensor, count: int) -> Tensor:
        points = images.flatten(1).cpu().numpy()
        clusters = KMeans(min(count, len(points)), n_init=1, random_state=seed).fit(points)
        found: Tensor = torch.from_numpy(clusters.cluster_centers_).to(images).unflatten(1, images.shape[1:])
        return found.repeat(-(-count // len(found)), 1, 1, 1)[:count]

    return _by_class(split, classes, centres)


def average_images(split: Split, classes: Tensor) -> Tensor:
    """Return the mean image [S, B, C, H, W] of each class in classes [S, B]; one class always has the same image."""
    return _by_class(split, classes, lambda images, count: images.mean(0, keepdim=True))


def _by_class(split: Split, classes: Tensor, summary: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Summarise the real images of each class in as many images as the class has places in classes [S, B].

    The images of a class without real ones are zero, the mean colour.
    """
    images = split.images[:0].new_zeros(*classes.shape, *split.images.shape[1:])
    for label in classes.unique():
        places = classes == label
        real = split.images[split.labels == label]
        if len(real):
            images[places] = summary(real, int(places.sum()))
    return images
