"""Every setting of a bank of pretrained networks."""

from typing import Self

from pydantic import Field, model_validator

from raydistill.config.data_settings import DataSettings
from raydistill.config.network_settings import NetworkSettings
from raydistill.config.settings import Seed


class PretrainConfig(DataSettings, NetworkSettings):
    """A bank of pretrained networks: on what, how many, and how they are trained.

    The networks are trained independently of each other: each from its own initial weights, on its own order of the
    images.
    """

    nets: int = Field(64, ge=1)
    """Networks to train."""
    epochs: int = Field(10, ge=1)
    """Passes over the training images."""
    lr: float = Field(1e-3, gt=0)
    """Adam's rate; it falls to zero as a cosine."""
    batch_size: int = Field(128, ge=1)
    """Images in each step."""
    chunk: int = Field(8, ge=1)
    """Networks trained at once; each finished chunk is kept, so that a stopped bank resumes after it."""
    seed: Seed = 0
    """Seed of the initial weights and the orders of the images."""

    @model_validator(mode="after")
    def _only_real_images(self) -> Self:
        if self.data.augment.on != "real":
            raise ValueError(f"data.augment.on={self.data.augment.on}: a bank has no set to augment; leave it at real")
        if self.data.balanced:
            raise ValueError(
                "data.balanced: a bank's networks see all training images in each epoch; leave it at false"
            )
        return self
