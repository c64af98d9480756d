"""Values of earlier runs, sorted by all that must be equal for two values to be comparable."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pytest_madengine.results import metric
from pytest_madengine.results.metric import PERFORMANCE, Metric
from pytest_madengine.results.perf import SUCCESS
from pytest_madengine.results.performance import finite
from pytest_madengine.results.result import Result


class Key(NamedTuple):
    """What two rows have in common whose values can be compared.

    Attributes:
        model: the row's name.
        image: the image line: its Dockerfile, else its name without tag and digest.
    """

    model: str
    args: str
    gpu_architecture: str
    n_gpus: str
    nnodes: str
    launcher: str
    image: str

    @classmethod
    def of(cls, columns: Mapping[str, str]) -> Key:
        """The key of a row of perf.csv."""
        image = columns.get("docker_file") or repository(columns.get("docker_image", ""))
        stated = {name: columns.get(name, "") for name in cls._fields if name != "image"}
        return cls(**stated, image=image)

    def unlike(self, other: Key) -> str:
        """In what another key differs, for people: `n_gpus 8, not 4`."""
        differing = [name for name in self._fields if getattr(self, name) != getattr(other, name)]
        return ", ".join(
            f"{name} {getattr(other, name) or 'none'}, not {getattr(self, name) or 'none'}" for name in differing
        )


def repository(image: str) -> str:
    """An image's name without tag and digest."""
    folder, slash, last = image.partition("@")[0].rpartition("/")
    return folder + slash + last.partition(":")[0]


@dataclass(frozen=True)
class Value:
    """One metric of one row of one run."""

    key: Key
    metric: str
    value: float
    unit: str
    run: str = ""


@dataclass(frozen=True)
class Past:
    """What earlier runs say of one metric.

    Attributes:
        source: which runs, for people: `the last 20 runs in perf.csv`.
        values: one of each run, the oldest first.
        unit: theirs.
        single: whether they stand for one value that was chosen, so that nothing is learnt of noise.
        problem: why there are none.
    """

    source: str
    values: tuple[float, ...] = ()
    unit: str = ""
    single: bool = False
    problem: str = ""


@dataclass
class History:
    """The last values of each metric.

    Attributes:
        source: where they are from.
        most: how many are kept of each.
        single: see `Past`.
    """

    source: str
    most: int
    single: bool = False
    _values: dict[tuple[Key, str], deque[Value]] = field(default_factory=dict)

    def add(self, values: Iterable[Value]) -> None:
        """Take values in, the oldest first; several of one run count as one, the last."""
        for value in values:
            kept = self._values.setdefault((value.key, value.metric), deque(maxlen=self.most))
            if kept and kept[-1].run and kept[-1].run == value.run:
                kept.pop()
            kept.append(value)

    def past(self, key: Key, name: str) -> Past:
        """What earlier runs say of a metric; those with another unit than the last one's are left out."""
        kept = self._values.get((key, name))
        if not kept:
            return Past(self.source, problem=self._why(key, name))
        unit = kept[-1].unit
        values = tuple(value.value for value in kept if value.unit == unit)
        return Past(self.source, values, unit, self.single)

    def _why(self, key: Key, name: str) -> str:
        """Why there is no value, with what comes next to it."""
        others = [other for other, known in self._values if known == name and other.model == key.model]
        if not others:
            return f"no value of {key.model} in {self.source}"
        nearest = min(others, key=lambda other: len(key.unlike(other).split(", ")))
        return f"no comparable value of {key.model} in {self.source}: it has {key.unlike(nearest)}"


def of_row(columns: Mapping[str, str]) -> Iterator[Value]:
    """The value in a row of perf.csv; none of one that did not succeed."""
    text = columns.get("performance") or ""
    if columns.get("status") == SUCCESS and finite(text):
        yield Value(Key.of(columns), PERFORMANCE, float(text), columns.get("metric") or "")


def of_result(result: Result) -> Iterator[Value]:
    """All values of a result's rows that succeeded; a regression is part of the history too."""
    keys = {row.columns["model"]: Key.of(row.columns) for row in result.rows if row.columns.get("status") == SUCCESS}
    for each in metrics_of(result):
        if each.row in keys and each.value is not None:
            yield Value(keys[each.row], each.name, each.value, each.unit, result.run)


def metrics_of(result: Result) -> tuple[Metric, ...]:
    """What was measured; of results that were written without metrics, what their rows say."""
    return result.metrics or metric.metrics_of(result.rows)
