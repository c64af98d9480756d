"""A value with its unit, and whether more of it is better."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_madengine.results.result import Row

PERFORMANCE = "performance"
"""The name of the metric that stands in perf.csv."""
LESS = re.compile(
    r"(^|[^a-z])(s|sec|secs|seconds?|ms|msec|milliseconds?|us|ns|min|minutes?|h|hours?|latency|duration|time|ttft|tpot|itl|"
    r"loss|perplexity|error|bytes|mib|gib|mb|gb|watts?|joules?)([^a-z]|$)"
)
"""Words by which a unit, or the name of a metric, says that less is better; a rate (`…/s`, `…_per_second`) is not."""
RATE = re.compile(r"/\s*(s|sec|second|ms|min|h|hour|gpu|watt|joule)\b|per[_ ]|throughput|tflops|[a-z]ps$")


class Direction(str, Enum):
    """Which way is better."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True)
class Metric:
    """One thing that was measured.

    Attributes:
        row: the name of the row of perf.csv that it stands in.
        name: `performance`, or the column that the model's results file has beside it.
        value: the median of `samples`; None where nothing was measured.
        unit: as the model states it; '' where it states none.
        direction: which way is better.
        samples: each repeat's value, in their order.
    """

    row: str
    name: str
    value: float | None
    unit: str = ""
    direction: Direction = Direction.HIGHER
    samples: tuple[float, ...] = ()


def direction_of(unit: str, name: str = "") -> Direction:
    """Which way is better, by the words of a unit, then of a name."""
    for words in (unit.lower(), name.lower()):
        if RATE.search(words):
            return Direction.HIGHER
        if LESS.search(words):
            return Direction.LOWER
    return Direction.HIGHER


def metrics_of(rows: Iterable[Row]) -> tuple[Metric, ...]:
    """All that rows hold: the performance of each, measured or not, then the further columns that are numbers."""
    known = tuple(rows)
    further = (each for row in known for each in _further(row))
    return (*(_performance(row.columns) for row in known), *further)


def number(text: str) -> float | None:
    """The finite number that a text is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _performance(columns: Mapping[str, str]) -> Metric:
    unit, value = columns.get("metric", ""), number(columns.get(PERFORMANCE, ""))
    return _metric(columns, PERFORMANCE, value, unit)


def _further(row: Row) -> Iterable[Metric]:
    for name, text in (row.multi_results or {}).items():
        value = number(text)
        if value is not None:
            yield _metric(row.columns, name, value)


def _metric(columns: Mapping[str, str], name: str, value: float | None, unit: str = "") -> Metric:
    samples = () if value is None else (value,)
    return Metric(columns.get("model", ""), name, value, unit, direction_of(unit, name), samples)
