"""Every setting of a sweep: the YAML file that `raydistill sweep` reads."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from raydistill.config.complaints import unknown
from raydistill.config.distill_config import DistillConfig
from raydistill.config.distribution import KINDS, Distribution
from raydistill.config.marks import SameForAllTrials
from raydistill.config.overrides import merged
from raydistill.config.sections import Of, full_name, is_marked, models_in, path_of, short_form
from raydistill.config.settings import Seed, Settings, flat, validated
from raydistill.config.sweep_sections import Asha, Budget, Published, Resources, Scheduler
from raydistill.system.errors import UserError

# What a trial reports and a sweep may optimise, with the value that stands for "diverged".
OBJECTIVES = {"val_accuracy": 0.0, "val_loss": 1e6, "num_images": None, "grad_steps": None, "seconds": None}

SchedulerOrNone = Annotated[
    Annotated[Scheduler, Tag("<section>")] | Annotated[Literal["none"], Tag("<word>")],
    Discriminator(lambda value: "<word>" if isinstance(value, str) else "<section>"),
]


class SweepConfig(Settings):
    """A sweep: what is fixed, what is searched, for what, and with how much."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The folder in `storage`."""
    base: Annotated[dict[str, Any], Of(DistillConfig)] = {}
    """Settings of `DistillConfig` that all trials share."""
    search: dict[str, Distribution] = Field(min_length=1)
    """Settings to search by their dotted names, each with a distribution; sections may also be nested."""
    objectives: dict[str, Literal["max", "min"]] = {"val_accuracy": "max", "num_images": "min"}
    """One or several of val_accuracy, val_loss, num_images, grad_steps, seconds."""
    known_good: list[dict[str, Any]] = []
    """Points to try first; what they leave out is taken from `base` or the defaults."""
    budget: Budget = Budget()
    """How much the sweep may use."""
    scheduler: SchedulerOrNone = Scheduler(pareto_asha=Asha())
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

    @field_validator("search", mode="before")
    @classmethod
    def _by_dotted_names(cls, value: Any) -> Any:
        return dict(_distributions(value)) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _consistent(self) -> "SweepConfig":
        try:
            self._check()
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    def _check(self) -> None:
        if "iterations" in self.base:
            raise UserError("base.iterations: is budget.iterations in a sweep")
        given = flat(merged(DistillConfig, {}, self.base))
        for name in self.search:
            _check_searched(name)
            if {name, full_name(DistillConfig, name)} & given.keys():
                raise UserError(f"search.{name}: is in base as well; leave it in one of them")
        self.trial_config({})
        # A searched setting must be in all sections that the search may choose.
        choices = [name for name in self.search if len(models_in(path_of(DistillConfig, name)[-1][0])) > 1]
        for name, distribution in self.search.items():
            for chosen, value in product(self.combinations(choices), distribution.ends):
                self._validated({"iterations": 1}, chosen | {name: value}, f"search.{name}: ")
        self._check_gpus()
        for point in self.known_good:
            self.full_point(point)

    def combinations(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return all combinations of the ends, or choices, of some searched settings."""
        return [dict(zip(names, values, strict=True)) for values in product(*(self.search[n].ends for n in names))]

    def _check_gpus(self) -> None:
        """Raise UserError unless trials get as much of a GPU as what they compute on needs."""
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
        """Return the config of a trial with these searched values."""
        return self._validated({"iterations": self.budget.iterations}, values, "" if values else "base: ")

    def _validated(self, common: dict[str, Any], values: dict[str, Any], where: str) -> DistillConfig:
        return validated(DistillConfig, merged(DistillConfig, self.base, values) | common, where)

    def first_point(self) -> dict[str, Any]:
        """Return the settings of one run at the first point of known_good, as `raydistill distill` takes them."""
        point = self.known_good[0] if self.known_good else {}
        return merged(DistillConfig, self.base, {"iterations": self.budget.iterations} | point)

    def full_point(self, point: dict[str, Any]) -> dict[str, Any]:
        """Return a value for each searched setting: the point's, else that of base or the default.

        Raises:
            UserError: the search could not come to the point.
        """
        for name, value in point.items():
            if name not in self.search:
                raise UserError(f"known_good: {name} is not searched (search has {', '.join(self.search)})")
            self._check_contained(name, value)
        others = flat(self._validated({}, point, "known_good: ").model_dump())
        full = {name: point.get(name, others.get(full_name(DistillConfig, name))) for name in self.search}
        for name, value in full.items():
            self._check_contained(name, value)
        return full

    def _check_contained(self, name: str, value: Any) -> None:
        if not self.search[name].contains(value):
            raise UserError(f"known_good: {name}={value} is outside search.{name} {list(self.search[name].ends)}")


def _distributions(search: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield what is searched by its dotted name: `{labels: {lr: {...}}}` is `{labels.lr: {...}}`."""
    for name, value in search.items():
        inner = {}
        if isinstance(value, Mapping):
            inner = {key: part for key, part in value.items() if key not in KINDS and isinstance(part, Mapping)}
            value = {key: part for key, part in value.items() if key not in inner}
        if value or not inner:
            yield name, value
        yield from ((f"{name}.{rest}", part) for rest, part in _distributions(inner))


def _check_searched(name: str) -> None:
    """Raise UserError unless a sweep can search a setting of this name."""
    path = path_of(DistillConfig, name)
    if not path:
        raise UserError(f"search.{name}: {unknown(DistillConfig, name)}")
    if is_marked(DistillConfig, name, SameForAllTrials):
        raise UserError(f"search.{name}: is the same for all trials of a sweep; put it in base")
    field = path[-1][0]
    if models_in(field) and short_form(field) is None:
        raise UserError(
            f"search.{name}: is a section; name its settings, as {name}.{next(iter(models_in(field)[0].model_fields))}"
        )
    section, _, last = name.rpartition(".")
    if section and full_name(DistillConfig, section) == f"{section}.{last}" != section:
        raise UserError(f"search.{name}: is named {section} in a search")
