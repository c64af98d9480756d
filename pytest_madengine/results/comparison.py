"""What a metric amounts to beside what was to be expected."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pytest_madengine.results.metric import Metric


class Judgement(str, Enum):
    """What a comparison says; none is never a pass."""

    PASS = "pass"  # noqa: S105  # not a password
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    NONE = "no verdict"


@dataclass(frozen=True)
class Comparison:
    """One metric beside its reference.

    Attributes:
        metric: what was measured.
        judgement: what it amounts to.
        gates: whether a regression, or no verdict, fails the model; else it is only watched.
        reference: the expected value; None where there is none.
        change: relative, 0.05 for 5 % more; None where it cannot be told.
        lower: the least change that passes, relative.
        upper: the most, relative; None where there is no bound.
        source: where the reference is from: `models.json:12 references.gfx942`, `last 5 runs`.
        reason: in words.
    """

    metric: Metric
    judgement: Judgement
    gates: bool
    reference: float | None = None
    change: float | None = None
    lower: float | None = None
    upper: float | None = None
    source: str = ""
    reason: str = ""
