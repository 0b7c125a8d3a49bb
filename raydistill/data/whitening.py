"""ZCA whitening: real images without the correlations between their pixels, and the way back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from raydistill.data.pixels import Pixels
from raydistill.system.errors import UserError

MOST_NUMBERS = 4096  # Of a whitened image, C * H * W. Each artifact holds a matrix with this many rows: 64 MiB.
AT_ONCE = 2000  # Images that are computed with at once.


@dataclass(frozen=True)
class Whitening:
    """A whitening of normalised images: subtract the `mean` image [C, H, W], then multiply by the `matrix` [D, D].

    With the covariance U S U^T of training images and D = C * H * W, the matrix is
    U (S + strength * trace / D)^(-1/2) U^T (Nguyen et al. 2021, Zhou et al. 2022). Both tensors are float32, on the
    CPU.
    """

    mean: Tensor
    matrix: Tensor

    @classmethod
    def of(cls, images: Tensor | Pixels, strength: float) -> "Whitening":
        """Compute the whitening of training images [M, C, H, W] on the CPU.

        Args:
            images: in normalised space.
            strength: is added to each eigenvalue of the covariance, as a multiple of their mean. It keeps directions
                in which images hardly differ from being blown up to noise.

        Raises:
            UserError: the images are too large or too few.
        """
        count, shape = len(images), images.shape[1:]
        size, setting = shape.numel(), f"data.zca={strength:g}"
        if size > MOST_NUMBERS:
            raise UserError(
                f"{setting}: images of {'x'.join(map(str, shape))} have {size} numbers, and whitening takes a matrix "
                f"with so many rows; at most {MOST_NUMBERS}, so set a smaller data.image_size, or null"
            )
        if count < size:
            raise UserError(
                f"{setting}: {count} training images do not tell how the {size} numbers of an image go together; it "
                "needs at least as many images, so set a smaller data.image_size, or null"
            )
        mean = sum((part.double().sum(0) for part in images.split(AT_ONCE)), torch.zeros(shape, dtype=torch.float64))
        mean = (mean / count).float()
        covariance = torch.zeros(size, size, dtype=torch.float64)
        for part in images.split(AT_ONCE):
            centred = (part - mean).flatten(1)
            covariance += (centred.T @ centred).double() / count
        values, vectors = torch.linalg.eigh(covariance)
        if not values[-1] > 0:
            raise UserError(f"{setting}: all training images are the same; set it to null")
        factors = (values.clamp(min=0) + strength * values.mean()).rsqrt()
        return cls(mean, ((vectors * factors) @ vectors.T).float())

    def whitened(self, images: Tensor) -> Tensor:
        """Return normalised images [..., C, H, W] in whitened space."""
        centred = images - self.mean.to(images)
        return (centred.flatten(-3) @ self.matrix.to(images)).view_as(images)

    def restored(self, images: Tensor) -> Tensor:
        """Return whitened images [..., C, H, W] in normalised space, computed in float64."""
        flat = images.flatten(-3).reshape(-1, len(self.matrix)).double()
        factor = torch.linalg.cholesky(self.matrix.to(flat))
        centred = torch.cholesky_solve(flat.T, factor).T.reshape(images.shape)
        return centred.to(images) + self.mean.to(images)

    def of_all(self, images: Tensor | Pixels) -> Tensor:
        """Return all of the images [M, C, H, W] whitened, as one float32 tensor."""
        result = torch.empty(images.shape)
        for whitened, part in zip(result.split(AT_ONCE), images.split(AT_ONCE), strict=True):
            whitened.copy_(self.whitened(part))
        return result

    def is_close(self, other: "Whitening | None") -> bool:
        """Return whether another whitening is the same but for rounding, which differs between machines."""
        if other is None or other.mean.shape != self.mean.shape:
            return False
        pairs = ((self.mean, other.mean), (self.matrix, other.matrix))
        return all(bool((a - b).abs().max() <= 1e-3 * a.abs().max()) for a, b in pairs)


def to_pixels(images: Tensor, mean: Tensor, std: Tensor, whitening: Whitening | None) -> Tensor:
    """Return pixels [..., C, H, W], 0 is black and 1 white, of images in the space that networks see.

    Args:
        images: normalised by the mean [C] and the deviation [C] of each channel, then whitened.
        mean: of each channel.
        std: of each channel.
        whitening: None where images are only normalised.
    """
    if whitening is not None:
        images = whitening.restored(images)
    pixels: Tensor = images * std[:, None, None] + mean[:, None, None]
    return pixels


def from_pixels(pixels: Tensor, mean: Tensor, std: Tensor, whitening: Whitening | None) -> Tensor:
    """Invert `to_pixels`."""
    images: Tensor = (pixels - mean[:, None, None]) / std[:, None, None]
    return images if whitening is None else whitening.whitened(images)
