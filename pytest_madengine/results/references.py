"""What a metric is expected to be: typed values of cards and references files, and which of them counts where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pytest_madengine.images.architecture import canonical
from pytest_madengine.results.metric import PERFORMANCE, Direction, Metric, direction_of
from pytest_madengine.validation import Text

ANY = ("*", "default")
"""Keys for all architectures; a key of its own wins over them."""
ALLOWED = 0.05
"""The relative change for the worse that passes where nobody states another."""


class Reference(BaseModel):
    """What is expected of one metric on one architecture.

    Attributes:
        value: the expected value; None where only the rest is stated, for comparisons with earlier runs.
        lower: the least relative change that passes, -0.05 for 5 % less; None for no bound, or 5 % on the worse side.
        upper: the most, in the same way.
        unit: which the measured value must have; '' for any.
        direction: which way is better; None leaves it to unit and name.
        gate: whether a regression fails the model; None: `performance` does, others do not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None = Field(None, strict=True)
    lower: float | None = Field(None, strict=True)
    upper: float | None = Field(None, strict=True)
    unit: Text = ""
    direction: Direction | None = None
    gate: bool | None = None

    @field_validator("value")
    @classmethod
    def _value_has_parts(cls, value: float | None) -> float | None:
        if value is not None and (not math.isfinite(value) or not value):
            raise ValueError("a finite number other than 0, of which a change is a part")
        return value

    @field_validator("lower")
    @classmethod
    def _lower_is_relative(cls, lower: float | None) -> float | None:
        if lower is not None and not -1 <= lower <= 0:
            raise ValueError("a part of the value from -1 to 0, such as -0.05 for 5 % less")
        return lower

    @field_validator("upper")
    @classmethod
    def _upper_is_relative(cls, upper: float | None) -> float | None:
        if upper is not None and not 0 <= upper <= 1:
            raise ValueError("a part of the value from 0 to 1, such as 0.05 for 5 % more")
        return upper


References = dict[str, dict[Annotated[str, Field(min_length=1)], Reference]]
"""By architecture, then by metric, or `row/metric` where a model has several rows."""
NOTHING = Reference()


@dataclass(frozen=True)
class Expected:
    """A Reference with the place where it stands: `models.json:12 references.gfx942`."""

    reference: Reference
    place: str


@dataclass(frozen=True)
class Policy:
    """How a metric is judged.

    Attributes:
        direction: which way is better.
        gates: whether a regression, or no verdict, fails the model.
        lower: the least relative change that passes; None where there is no bound.
        upper: the most.
        stated: whether somebody said what change is allowed.
    """

    direction: Direction
    gates: bool
    lower: float | None
    upper: float | None
    stated: bool

    @property
    def allowed(self) -> float:
        """How much worse the metric may be, as a positive part of the reference."""
        bound = self.lower if self.direction is Direction.HIGHER else self.upper
        return ALLOWED if bound is None else abs(bound)

    @property
    def better(self) -> float:
        """How much better it must be for an improvement; as much as it may be worse, where nobody says."""
        bound = self.upper if self.direction is Direction.HIGHER else self.lower
        return self.allowed if bound is None else abs(bound)

    def worse(self, change: float) -> float:
        """A relative change as one for the worse: positive where it is."""
        return -change if self.direction is Direction.HIGHER else change


def policy_of(metric: Metric, reference: Reference) -> Policy:
    """How a metric is judged: as its reference says, else by its unit and name."""
    direction = reference.direction or (
        direction_of(reference.unit, metric.name) if reference.unit else metric.direction
    )
    lower, upper = reference.lower, reference.upper
    bound = lower if direction is Direction.HIGHER else upper
    if direction is Direction.HIGHER:
        lower = -ALLOWED if lower is None else lower
    else:
        upper = ALLOWED if upper is None else upper
    gates = metric.name == PERFORMANCE if reference.gate is None else reference.gate
    return Policy(direction, gates, lower, upper, stated=bound is not None)


def applying(references: Mapping[str, Mapping[str, Reference]], architecture: str, place: str) -> dict[str, Expected]:
    """The references that count on an architecture, by metric or `row/metric`.

    Args:
        references: by architecture.
        architecture: the GPU's, `gfx942:sramecc+:xnack-` too; '' where it is not known.
        place: where they stand, without the architecture.
    """
    here = {canonical(architecture), _processor(architecture)}
    own = [key for key in references if key not in ANY and canonical(key) in here]
    keys = [key for key in (*ANY, *own) if key in references]
    return {name: Expected(reference, f"{place}.{key}") for key in keys for name, reference in references[key].items()}


def names_of(metric: Metric, model: str) -> tuple[str, ...]:
    """The keys by which references may name a metric, the closest first."""
    return f"{metric.row}/{metric.name}", f"{metric.row.removeprefix(f'{model}_')}/{metric.name}", metric.name


def _processor(architecture: str) -> str:
    return canonical(architecture.partition(":")[0])
