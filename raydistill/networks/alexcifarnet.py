"""AlexCifarNet, the network of the CIFAR-10 experiments of Wang et al. 2018."""

import torch.nn.functional as F
from torch import Tensor, nn


class AlexCifarNet(nn.Module):
    """The layers conv 64@5x5, pool, LRN; conv 64@5x5, LRN, pool; 384, 192, K. Pools are 3x3 with stride 2.

    Args:
        image_shape: C, H, W.
        num_classes: K.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, *size = image_shape
        size = [-(-s // 4) for s in size]  # Each side is halved twice and rounded up.
        self.conv1 = nn.Conv2d(channels, 64, 5, padding=2)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        self.fc1 = nn.Linear(64 * size[0] * size[1], 384)
        self.fc2 = nn.Linear(384, 192)
        self.fc3 = nn.Linear(192, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K] of images [B, C, H, W]."""
        x = response_norm(F.relu(F.max_pool2d(self.conv1(x), 3, 2, 1)))  # Pooling first saves three ReLUs in four.
        x = F.max_pool2d(response_norm(F.relu(self.conv2(x))), 3, 2, 1)
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


def response_norm(x: Tensor) -> Tensor:
    """Normalise by 4 channels: local response normalisation (Krizhevsky et al. 2012), alpha 0.001/9, beta 0.75, k 1.

    The result is that of `torch.nn.functional.local_response_norm`, by one sum of slices in place of a 3-d average
    pool, whose derivatives are slow.
    """
    squares = F.pad(x * x, (0, 0, 0, 0, 2, 1))
    channels = x.shape[1]
    window = sum(squares[:, shift : shift + channels] for shift in range(4)) / 4
    return x * (1 + (0.001 / 9) * window) ** -0.75
