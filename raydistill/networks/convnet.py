"""ConvNet (Gidaris & Komodakis 2018), the standard network of later distillation papers."""

from torch import Tensor, nn


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
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits
