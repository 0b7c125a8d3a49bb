"""Settings of the real data."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from raydistill.config.augment_settings import Augment
from raydistill.config.marks import SameForAllTrials
from raydistill.config.settings import Seed, Settings


class Hub(Settings):
    """Which data to take of a data set of the Hugging Face hub."""

    config: str | None = None
    """Which of several configurations."""
    revision: str | None = None
    """Branch, tag or commit; a commit stays what it is."""
    split: str | None = None
    """TRAIN or TRAIN,TEST, as in train[:1000],validation; found by itself."""


class Data(Settings):
    """How the real data are read, brought to one form, split and augmented."""

    image_column: Annotated[str | None, SameForAllTrials()] = None
    """Column of a table that holds the images; found by itself where there is only one candidate."""
    label_column: Annotated[str | None, SameForAllTrials()] = None
    """Column of a table that holds the classes; found by itself where there is only one candidate."""
    hub: Annotated[Hub, SameForAllTrials()] = Hub()
    """Which data to take of dataset=hf:NAME."""
    image_size: Annotated[int | None, Field(ge=4, le=1024), SameForAllTrials()] = None
    """Resize all images to this many pixels square; by default they are taken as they are, those of voc and cub200,
    which come in all sizes, at 224."""
    channels: Annotated[Literal[1, 3] | None, SameForAllTrials()] = None
    """Make all images grey (1) or, grey ones, three times the same (3); by default they are taken as they are."""
    background: Annotated[str, SameForAllTrials()] = "white"
    """The colour behind transparent images: white, black or any other of CSS, as #808080."""
    augment: Augment = Augment()
    """Random changes of images in each iteration; {shift: 4, flip: true} is what Wang et al. 2018 did on CIFAR-10."""
    zca: Annotated[float | None, Field(gt=0, le=10), SameForAllTrials()] = None
    """Whiten images (ZCA), with this much of the mean eigenvalue of their covariance added to each: 0.1 is usual for
    colour images (KIP, FRePo). null: images are only normalised. The matrix is in the artifact."""
    balanced: bool = False
    """Whether each real batch has equally many images of every class (or one more of some), instead of what the draw
    brings."""
    val_fraction: Annotated[float, Field(gt=0, lt=1), SameForAllTrials()] = 0.1
    """Share of the training data held out, by class, to choose between settings and iterations."""
    split_seed: Annotated[Seed, SameForAllTrials()] = 0
    """Seed of that split; apart from `seed`, so that runs with different seeds are compared on the same images."""

    @field_validator("background")
    @classmethod
    def _background_is_a_colour(cls, colour: str) -> str:
        from PIL import ImageColor  # Most settings name no colour, so Pillow is imported here.

        try:
            ImageColor.getrgb(colour)
        except ValueError as error:
            raise ValueError("should be a colour, as white, black or #808080") from error
        return colour


class DataSettings(Settings):
    """The real data."""

    dataset: Annotated[str, SameForAllTrials()] = "digits"
    """digits, mnist, fashionmnist, usps, svhn, cifar10, cifar100, voc, cub200, parquet:PATH (parquet or Arrow),
    folder:PATH (images by class) or hf:NAME (of the Hugging Face hub). docs/data.md has what is read how."""
    data: Data = Data()
    """How the real data are read, brought to one form, split and augmented."""

    @model_validator(mode="after")
    def _hub_has_settings(self) -> Self:
        for name, value in self.data.hub:
            if value is not None and not self.dataset.startswith("hf:"):
                raise ValueError(f"data.hub.{name}: is for dataset=hf:NAME, not {self.dataset}")
        return self
