"""Every setting of one distillation, and how overrides are read.

A setting is a field of `DistillConfig`: typed, documented where it stands, checked when it is made. Unknown names
fail. The settings of a sweep are in `raydistill.sweep_config`.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from raydistill.errors import UserError


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown names, no silent conversion from another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class DistillConfig(Settings):
    """What to distil, into how much, and how.

    The defaults that differ from Wang et al. 2018 were chosen on MNIST with 10 images and a fixed LeNet;
    benchmarks/results has the runs.
    """

    # -- the real data -------------------------------------------------------------------------------------------
    dataset: str = "digits"
    """digits, mnist, fashionmnist, parquet:PATH (parquet or Arrow) or folder:PATH (images by class)."""
    image_column: str | None = None
    """Column of a parquet dataset that holds the images; found by itself where there is only one candidate."""
    label_column: str | None = None
    """Column of a parquet dataset that holds the classes; found by itself where there is only one candidate."""
    image_size: int | None = Field(None, ge=4)
    """Resize all images to this many pixels square; by default they are taken as they are."""
    val_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the training data held out, by class, to choose between settings and iterations."""
    split_seed: int = 0
    """Seed of that split; apart from `seed`, so that runs with different seeds are compared on the same images."""

    # -- the network and its initial weights ---------------------------------------------------------------------
    network: str = "lenet"
    """lenet, alexcifarnet or convnet."""
    width: int = Field(128, ge=1)
    """Channels of a convnet."""
    depth: int = Field(3, ge=1)
    """Blocks of a convnet; each halves the image."""
    init: Literal["xavier", "kaiming", "normal"] = "xavier"
    """Distribution of the initial weights; biases start at zero."""
    weights: Literal["fixed", "random"] = "fixed"
    """fixed: one initial network, known beforehand. random: the set must work for any draw of initial weights."""

    # -- what is learned -----------------------------------------------------------------------------------------
    images_per_class: int = Field(1, ge=1)
    """Images of each class in each step's minibatch."""
    steps: int = Field(1, ge=1)
    """Number of different minibatches."""
    epochs: int = Field(3, ge=1)
    """Passes over the minibatches."""
    inner_lr: float = Field(0.1, gt=0)
    """Initial step size of the inner gradient steps; one is learned for each step of each epoch."""
    image_std: float = Field(0.2, gt=0)
    """Standard deviation of the noise the images start from, in normalised space (1 in the paper)."""

    # -- how it is learned ---------------------------------------------------------------------------------------
    iterations: int = Field(10000, ge=1)
    """Outer updates."""
    outer_lr: float = Field(0.02, gt=0)
    """Adam's rate for images and step sizes. On MNIST, 10 images: 94.5% with 0.02, 93.6% with 0.03 (one seed each)."""
    outer_schedule: Literal["cosine", "constant"] = "cosine"
    """How the outer rate goes over the iterations."""
    batch_size: int = Field(256, ge=1)
    """Real images in each outer iteration."""
    train_nets: int = Field(1, ge=1)
    """Networks sampled in each outer iteration, with random weights."""
    clip: float | None = Field(2.0, gt=0)
    """Clip the hypergradient at this multiple of the running mean of its norm; null for never."""
    average: float = Field(0.9, ge=0, lt=1)
    """Decay of the running mean over iterations that is validated and kept; 0 keeps the last iterate."""

    population: int = Field(1, ge=1)
    """Sets that are learned at once, as one batched computation, to fill a GPU; the best one is kept. The first has the
    given learning rates and seed, the others have their own."""
    population_spread: float = Field(2.0, ge=1)
    """How many times larger or smaller the learning rates of the others may be."""

    # -- how it is watched ---------------------------------------------------------------------------------------
    eval_every: int = Field(50, ge=1)
    """Iterations between two validations (and two log lines)."""
    val_nets: int = Field(8, ge=1)
    """Fresh networks a validation trains, with random weights; with fixed weights there is only one."""
    test_nets: int = Field(50, ge=1)
    """Fresh networks of the final test, with random weights."""

    seed: int = 0
    """Seed of the initial images, the initial weights and the real batches."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of the networks: exact float32; tf32, products with 10-bit mantissas on a GPU; bfloat16, everything
    between weights and logits. What is learned, and its gradient, stay float32."""

    @model_validator(mode="after")
    def _possible(self) -> "DistillConfig":
        if self.weights == "fixed" and self.train_nets > 1:
            raise ValueError(f"train_nets={self.train_nets} needs weights=random: with fixed weights all are the same")
        return self

    @property
    def grad_steps(self) -> int:
        """Gradient steps that training on the set takes."""
        return self.steps * self.epochs


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], values: Mapping[str, Any], where: str = "") -> Model:
    """`model(**values)`, with pydantic's report turned into one line.

    Raises:
        UserError: names each bad setting, prefixed by `where`.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(where + "; ".join(_complaint(model, e) for e in error.errors())) from error


def _complaint(model: type[BaseModel], error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"] if part not in ("int", "float", "str", "literal"))
    if error["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields) if len(error["loc"]) == 1 else ""
        return f"{name}: there is no such setting" + (f" (there are {known})" if known else "")
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if message[:6] == "Input " else message
    return f"{name}: {message}, not {error['input']!r}" if name else message


class _Loader(yaml.SafeLoader):
    """YAML as everybody expects it: 1e-3 is a number (YAML 1.1 wants 1.0e-3)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for; only plain values, no objects."""
    return yaml.load(text, _Loader)  # a SafeLoader


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: there is no such file, or it is not a YAML mapping.
    """
    try:
        content = parse_yaml(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: should hold settings, one `name: value` a line")
    return content


def with_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `values` in which each override `a.b=value` (the value in YAML) replaces or adds a setting.

    >>> with_overrides({"budget": {"trials": 64}}, ["budget.trials=8", "name=digits"])
    {'budget': {'trials': 8}, 'name': 'digits'}

    Raises:
        UserError: an override is not of that form.
    """
    result: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise UserError(f"--set {override}: should be NAME=VALUE")
        *parents, last = name.split(".")
        place = result
        for parent in parents:
            place[parent] = dict(place.get(parent) or {}) if isinstance(place.get(parent) or {}, Mapping) else {}
            place = place[parent]
        try:
            place[last] = parse_yaml(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {override}: the value is not valid YAML") from error
    return result
