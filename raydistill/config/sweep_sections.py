"""The sections of a sweep's settings: budget, scheduler, resources, and what others published."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raydistill.config.settings import Settings


class Asha(Settings):
    """Successive halving (Li et al. 2018): trials are compared at rungs, and only the best of each continue."""

    grace: int = Field(200, ge=1)
    """Iterations before a trial may be stopped."""
    reduction: float = Field(3, gt=1)
    """At each rung the best 1/reduction continue; rungs are at grace * reduction ** k iterations."""


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
        """Return amounts of CPU, GPU and memory (bytes) by Ray's names, without those that are 0."""
        amounts = {"CPU": self.cpu, "GPU": self.gpu, "memory": round((self.memory or 0) * 2**30)}
        return {name: float(amount) for name, amount in amounts.items() if amount}


class Published(Settings):
    """A number from the literature that a sweep is after. Accuracies are fractions."""

    metric: str = "test_accuracy"
    """Which of a run's metrics it is to be compared with."""
    value: float | None = None
    """The number; null where nobody published one."""
    std: float | None = None
    """Its deviation."""
    before: float | None = None
    """The same metric before training on the distilled set."""
    aim: float | None = None
    """What we want to reach."""
    source: str
    """Where it was published."""
