"""Every setting of a sweep: the YAML file that `raydistill sweep` reads."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_serializer, model_validator

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import Of, Seed, Settings, read_yaml, validated
from raydistill.system.errors import UserError
from raydistill.system.storage import at_home, exists, is_local, join, read_json, split

# What a trial reports and a sweep may optimise, with the value that stands for "diverged".
OBJECTIVES = {"val_accuracy": 0.0, "val_loss": 1e6, "num_images": None, "grad_steps": None, "seconds": None}

# One sweep compares its trials on one data set and one device, for one length.
NOT_SEARCHED = (
    *("dataset", "image_column", "label_column", "image_size", "channels", "background"),
    *("hf_config", "hf_revision", "hf_split"),
    *("val_fraction", "split_seed"),
    *("device", "iterations", "eval_every", "bank", "workers"),
)


KINDS = ("int", "logint", "uniform", "loguniform", "choice")


class Distribution(Settings):
    """Where a searched setting may lie, written as {KIND: [...]}.

    int and uniform: whole and other numbers from low to high, both included; logint and loguniform: the same, evenly
    in the logarithm; choice: one of the values listed.
    """

    kind: Literal["int", "logint", "uniform", "loguniform", "choice"]
    """Which distribution."""
    ends: tuple[Any, ...]
    """Low and high, or all choices."""

    @model_validator(mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.keys() == {"kind", "ends"}:  # as sweeps of before 2027 keep it
            value = {value["kind"]: value["ends"]}
        if not (isinstance(value, dict) and len(value) == 1 and next(iter(value)) in KINDS):
            raise ValueError(f"should be {{KIND: [...]}} with one of {', '.join(KINDS)}")
        [(kind, ends)] = value.items()
        if not isinstance(ends, list) or not ends or (kind != "choice" and len(ends) != 2):
            raise ValueError(f"{kind}: should be " + ("a list of values" if kind == "choice" else "[low, high]"))
        return {"kind": kind, "ends": tuple(ends)}

    @model_serializer
    def _as_written(self) -> dict[str, list[Any]]:
        return {self.kind: list(self.ends)}

    @model_validator(mode="after")
    def _ordered(self) -> "Distribution":
        if self.kind == "choice":
            return self
        allowed = int if "int" in self.kind else (int, float)
        low, high = self.ends
        if not isinstance(low, allowed) or not isinstance(high, allowed) or isinstance(low, bool):
            raise ValueError(f"{self.kind}: low and high should be {'whole ' if allowed is int else ''}numbers")
        if low > high:
            raise ValueError(f"{self.kind}: low {low} is above high {high}")
        if "log" in self.kind and low <= 0:
            raise ValueError(f"{self.kind}: low must be above 0, not {low}")
        return self

    def contains(self, value: Any) -> bool:
        """Whether the search could come to this value."""
        if self.kind == "choice":
            return value in self.ends
        return isinstance(value, (float, int)) and bool(self.ends[0] <= value <= self.ends[1])


class Asha(Settings):
    """Successive halving (Li et al. 2018): trials are compared at rungs, and only the best of each go on."""

    grace: int = Field(200, ge=1)
    """Iterations before a trial may be stopped."""
    reduction: float = Field(3, gt=1)
    """At each rung the best 1/reduction go on; rungs are at grace * reduction ** k iterations."""


class Scheduler(Settings):
    """Which trials are stopped early: one of these, pareto_asha if none is named."""

    pareto_asha: Asha | None = None
    """Those that others beat in all `objectives`, and those that stand close to others (Schmucker et al. 2021)."""
    asha: Asha | None = None
    """The less accurate ones."""

    @model_validator(mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        named = {name: settings for name, settings in value.items() if settings is not None}
        if value.keys() - cls.model_fields.keys() or (value and len(named) != 1):
            raise ValueError("should name one: {pareto_asha: {...}} or {asha: {...}}")
        return named or {"pareto_asha": {}}


class Budget(Settings):
    """How much the sweep may use."""

    trials: int = Field(32, ge=1)
    """Settings to try."""
    iterations: int = Field(2000, ge=1)
    """Outer iterations of a trial that is not stopped early."""
    concurrent: Literal["auto"] | int = "auto"
    """Trials at a time; auto as many as fit, by the cores, GPUs and measured memory of each node."""
    hours: float | None = Field(None, gt=0)
    """Start and continue no trial after this time."""
    failures: int = Field(2, ge=0)
    """Times a trial whose code raised an error is tried again; lost processes and machines do not count."""

    @field_validator("concurrent")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value != "auto" and value < 1:
            raise ValueError("should be auto or at least 1")
        return value


class Resources(Settings):
    """What one trial occupies; of several workers, each."""

    cpu: float = Field(1, gt=0)
    """Cores; torch gets as many threads."""
    gpu: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    """GPUs; 0.25 puts four trials on one, each with a quarter of its memory; auto the share that the largest trial was
    measured to need (two trials on a GPU at most, eight with MPS). A trial that is given none computes on the CPU."""
    memory: float | None = Field(None, gt=0)
    """GiB of main memory; with `budget.concurrent` auto, what the largest trial was measured to need."""

    @field_validator("gpu")
    @classmethod
    def _share_or_whole(cls, value: Any) -> Any:
        if value != "auto" and value > 1 and value != int(value):
            raise ValueError(f"{value:g} should be a share of one GPU, up to 1, or a whole number of them")
        return value

    def bundle(self) -> dict[str, float]:
        """In Ray's words: amounts of CPU, GPU and memory (bytes), without those that are 0."""
        amounts = {"CPU": self.cpu, "GPU": self.gpu, "memory": round((self.memory or 0) * 2**30)}
        return {name: float(amount) for name, amount in amounts.items() if amount}


class Published(Settings):
    """A number from the literature that a sweep is after. Accuracies are fractions."""

    metric: str = "test_accuracy"
    """Which of a run's metrics it is to be compared with."""
    value: float
    """The number."""
    std: float | None = None
    """Its deviation."""
    before: float | None = None
    """The same metric before training on the distilled set."""
    aim: float | None = None
    """What we want to reach."""
    source: str
    """Where it was published."""


class SweepConfig(Settings):
    """A sweep: what is fixed, what is searched, for what, and with how much."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The folder in `storage`."""
    base: Annotated[dict[str, Any], Of(DistillConfig)] = {}
    """Settings of `DistillConfig` that all trials share."""
    search: dict[str, Distribution] = Field(min_length=1)
    """Settings to search, each with a distribution."""
    objectives: dict[str, Literal["max", "min"]] = {"val_accuracy": "max", "num_images": "min"}
    """One or several of val_accuracy, val_loss, num_images, grad_steps, seconds."""
    known_good: list[dict[str, Any]] = []
    """Points to try first; what they leave out is taken from `base` or the defaults."""
    budget: Budget = Budget()
    """How much the sweep may use."""
    scheduler: Scheduler | Literal["none"] = Scheduler(pareto_asha=Asha())
    """Early stopping: {pareto_asha: {...}}, {asha: {...}} or none."""
    resources: Resources = Resources()
    """What one trial occupies."""
    published: Published | None = None
    """What others reached, to compare with."""
    storage: str = "runs"
    """Folder, or s3:// or gs:// address."""
    seed: Seed = 0
    """Of Optuna's sampler."""

    @field_validator("objectives")
    @classmethod
    def _known(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        for name in value:
            if name not in OBJECTIVES:
                raise ValueError(f"there is no objective {name} (there are {', '.join(OBJECTIVES)})")
        if not value:
            raise ValueError("name at least one")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "SweepConfig":
        try:
            self._check()
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    def _check(self) -> None:
        for name, distribution in self.search.items():
            if name in NOT_SEARCHED:
                raise UserError(f"search.{name}: is the same for all trials of a sweep; put it in base")
            if name in self.base:
                raise UserError(f"search.{name}: is in base as well; leave it in one of them")
            for value in distribution.ends:
                validated(DistillConfig, self.base | {name: value} | {"iterations": 1}, f"search.{name}: ")
        self._check_gpus()
        if "iterations" in self.base:
            raise UserError("base.iterations: is budget.iterations in a sweep")
        self.trial_config({})
        for point in self.known_good:
            self.full_point(point)

    def _check_gpus(self) -> None:
        """What trials get of GPUs goes with what they compute on."""
        trial, gpu = self.trial_config({}), self.resources.gpu
        if trial.device == "cpu" and gpu:
            raise UserError(f"resources.gpu={gpu}: is held for nothing with base.device=cpu; leave one of them out")
        if trial.device.startswith("cuda:"):
            raise UserError(f"base.device={trial.device}: Ray chooses the GPU of each trial; say cuda or auto")
        if trial.device == "cuda" and not gpu:
            raise UserError(
                "base.device=cuda: resources.gpu=0 gives trials none; set it to 1, a share as 0.25, or auto"
            )
        if trial.workers > 1 and (gpu == "auto" or 0 < gpu < 1):
            raise UserError(
                f"resources.gpu={gpu}: each of base.workers={trial.workers} needs a whole GPU, as NCCL refuses two "
                "workers on one; set it to 1, or workers to 1"
            )

    def trial_config(self, values: dict[str, Any]) -> DistillConfig:
        """The config of a trial with these searched values."""
        common = {"iterations": self.budget.iterations}
        return validated(DistillConfig, self.base | values | common, "base: " if not values else "")

    def first_point(self) -> dict[str, Any]:
        """The settings of one run at the first point of known_good, as `raydistill distill` takes them."""
        return self.base | {"iterations": self.budget.iterations} | (self.known_good[0] if self.known_good else {})

    def full_point(self, point: dict[str, Any]) -> dict[str, Any]:
        """A value for each searched setting: the point's, else that of base or the default.

        Raises:
            UserError: the search could not come to the point.
        """
        for name in point:
            if name not in self.search:
                raise UserError(f"known_good: {name} is not searched (search has {', '.join(self.search)})")
        default = self.trial_config({})
        full = {name: point.get(name, getattr(default, name)) for name in self.search}
        for name, value in full.items():
            if not self.search[name].contains(value):
                raise UserError(f"known_good: {name}={value} is outside search.{name} {list(self.search[name].ends)}")
        return full


SWEEP_FILE = "sweep.json"  # in a sweep's folder: its settings


def sweep_values(source: str) -> dict[str, Any]:
    """The settings that a sweep's YAML file holds, or those that the sweep in a folder or at an address was begun with.

    Raises:
        UserError: there is no such file, or no sweep there.
    """
    source = at_home(source)
    if is_local(source) and not Path(source).is_dir():
        return read_yaml(source)
    if not exists(join(source, SWEEP_FILE)):
        raise UserError(f"{source}: holds no sweep (it has no {SWEEP_FILE})")
    storage, name = split(source)
    values: dict[str, Any] = read_json(join(source, SWEEP_FILE))
    return values | {"storage": storage, "name": name}


def run_settings(values: dict[str, Any], file: Path) -> dict[str, Any]:
    """The settings of one run that a YAML file holds: its values, or those of a sweep's first known good point.

    Raises:
        UserError: the sweep's settings do not go together.
    """
    if "search" not in values:
        return values
    return validated(SweepConfig, values, f"{file}: ").first_point()
