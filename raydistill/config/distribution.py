"""The distribution of a searched setting."""

from typing import Any, Literal

from pydantic import model_serializer, model_validator

from raydistill.config.settings import Settings

KINDS = ("int", "logint", "uniform", "loguniform", "choice")


class Distribution(Settings):
    """The range or choices of a searched setting, written as {KIND: [...]}.

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
        if not (isinstance(value, dict) and len(value) == 1 and next(iter(value)) in KINDS):
            raise ValueError(f"should be {{KIND: [...]}} with one of {', '.join(KINDS)}")
        [(kind, ends)] = value.items()
        if not isinstance(ends, list) or not ends or (kind != "choice" and len(ends) != 2):
            raise ValueError(f"{kind}: should be " + ("a list of values" if kind == "choice" else "[low, high]"))
        if not all(end is None or isinstance(end, (bool, int, float, str)) for end in ends):
            raise ValueError(f"{kind}: should hold words and numbers alone")
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
        """Return whether the search could come to this value."""
        if self.kind == "choice":
            return any(value == end and isinstance(value, bool) == isinstance(end, bool) for end in self.ends)
        number = isinstance(value, int if "int" in self.kind else (float, int)) and not isinstance(value, bool)
        return number and bool(self.ends[0] <= value <= self.ends[1])
