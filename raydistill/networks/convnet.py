"""ConvNet (Gidaris & Komodakis 2018), the standard network of later distillation papers."""

from typing import Any

from torch import Tensor, nn

from raydistill.kernels.channels_last import conv2d_channels_last
from raydistill.kernels.norm_relu_pool.autograd import norm_relu_pool
from raydistill.kernels.norm_relu_pool.operations import can_do


class ConvNet(nn.Module):
    """A network of `depth` blocks of conv 3x3, instance norm, ReLU, 2x2 average pool; then one linear layer.

    Args:
        image_shape: C, H, W; H and W at least 2 ** depth.
        num_classes: K.
        width: channels of each block.
        depth: blocks; each halves the image.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        channels, *size = image_shape
        size = [s // 2**depth for s in size]
        if min(size) < 1:
            raise ValueError(f"a ConvNet of depth {depth} needs images of {2**depth} pixels or more on each side")
        blocks: list[nn.Module] = []
        for block in range(depth):
            blocks += [
                nn.Conv2d(width if block else channels, width, 3, padding=1),
                nn.GroupNorm(width, width),  # One group a channel is instance norm with learned gain and bias.
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * size[0] * size[1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K] of images [B, C, H, W]."""
        features = self._features_on_cpu(x) if can_do(x) else self.features(x)
        logits: Tensor = self.classifier(features.flatten(1))
        return logits

    def _features_on_cpu(self, x: Tensor) -> Tensor:
        """Return what `features` returns of images, in operations that are faster there.

        The convolution's bias has no effect, as the norm subtracts the mean; so it is left out.
        """
        x = x.permute(0, 2, 3, 1)
        layers: list[Any] = list(self.features)
        for conv, norm in zip(layers[::4], layers[1::4], strict=True):
            x = conv2d_channels_last(x, conv.weight, 1)
            x = norm_relu_pool(x, norm.weight, norm.bias, norm.eps)
        return x.permute(0, 3, 1, 2)
