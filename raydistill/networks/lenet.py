"""LeNet (LeCun et al. 1998) with ReLU and max pooling, as in Wang et al. 2018."""

import torch.nn.functional as F
from torch import Tensor, nn

from raydistill.kernels.conv_relu_pool.autograd import conv_relu_pool


class LeNet(nn.Module):
    """The layers conv 6@5x5, pool, conv 16@5x5, pool, 120, 84, K.

    Images of 32 pixels and more go in as they are; smaller ones are padded by 2 (28 -> 28, the usual MNIST form).
    Where what is left after the first pool is smaller than the second filter (images under 10 pixels, such as
    scikit-learn's digits), that convolution is padded by 2 as well.

    Args:
        image_shape: C, H, W; H and W at least 4.
        num_classes: K.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, *size = image_shape
        pad1 = 0 if min(size) >= 32 else 2
        size = [(s + 2 * pad1 - 4) // 2 for s in size]
        pad2 = 0 if min(size) >= 5 else 2
        size = [(s + 2 * pad2 - 4) // 2 for s in size]
        if min(size) < 1:
            raise ValueError("LeNet needs images of 4 pixels or more on each side")
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.paddings = pad1, pad2
        self.fc1 = nn.Linear(16 * size[0] * size[1], 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K] of images [B, C, H, W]."""
        assert self.conv1.bias is not None
        assert self.conv2.bias is not None
        x = conv_relu_pool(x.permute(0, 2, 3, 1), self.conv1.weight, self.conv1.bias, self.paddings[0], True)
        x = conv_relu_pool(x, self.conv2.weight, self.conv2.bias, self.paddings[1], False)
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits
