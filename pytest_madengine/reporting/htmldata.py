"""What an HTML report tells of a run, as plain data that the page's script reads."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytest_madengine.reporting.htmlstory import Point, Story, Thing
from pytest_madengine.results import tries
from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.history import Key
from pytest_madengine.results.metric import PERFORMANCE, Metric, direction_of
from pytest_madengine.results.perf import FAILURE, SKIPPED
from pytest_madengine.results.result import Result, Row
from pytest_madengine.results.tries import Tried

TAIL_BUDGET, POINT_BUDGET, FILE_BUDGET = 1_000_000, 80_000, 10_000
"""Characters of logs, points of history and links that a page holds at most; shared out among its models."""
FEWEST_POINTS, FEWEST_FILES, SHORTEST_TAIL, LONGEST_REASON = 5, 1, 200, 2_000
SHOWN = {"model", PERFORMANCE, "metric", "status", "launcher", "gpu_architecture", "n_gpus", "test_duration"}
"""Columns of perf.csv that have a place of their own on the page."""
COMPARED = (
    *("docker_image", "docker_sha", "base_docker", "docker_file", "git_commit", "machine_name", "gpu_architecture"),
    *("n_gpus", "nnodes", "gpus_per_node", "launcher", "training_precision", "args", "dataname"),
    *("additional_docker_run_options", "deployment_type"),
)
"""Columns of perf.csv that are part of what a model ran in."""
WORST_FIRST = (Judgement.REGRESSION, Judgement.NONE, Judgement.IMPROVEMENT, Judgement.PASS)


def data(story: Story) -> dict[str, Any]:
    """The page's data: items, lines (of perf.csv) and their metrics column by column, see `packed`; and runs."""
    items = tries.by_item(story.results)
    runs = _Runs()
    budget = _Budget.of(items)
    trends = _Trends(story, runs, budget.points)
    lines = [line for place, item in enumerate(items) for line in _lines(place, item, trends)]
    told = [_item(each, story, budget) for each in items]
    return {
        "run": story.run.get("run", ""),
        "items": packed(told),
        "environments": packed([_environment(each.result) for each in items]),
        "lines": packed([each.told for each in lines]),
        "metrics": packed([{"line": place, **told} for place, each in enumerate(lines) for told in each.metrics]),
        "columns": packed([each.further for each in lines]),
        "runs": runs.known,
        "count": [len(items), len(lines), sum(len(each.metrics) for each in lines)],
    }


def packed(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Records as columns; in each, values that come again stand once.

    Returns:
        by name `{"v": values}`, or `{"d": distinct values, "i": the index of each record's}` where that is shorter, or
        `{"d": [value]}` where all are the same. What a record lacks is null.
    """
    names = dict.fromkeys(name for record in records for name in record)
    return {name: _column([record.get(name) for record in records]) for name in names}


def _column(values: list[Any]) -> dict[str, Any]:
    keys = [_comparable(value) for value in values]
    distinct = dict(zip(keys, values, strict=True))
    if len(distinct) == 1:
        return {"d": list(distinct.values())}
    if len(distinct) > len(values) / 2:
        return {"v": values}
    position = {key: number for number, key in enumerate(distinct)}
    return {"d": list(distinct.values()), "i": [position[key] for key in keys]}


def _comparable(value: Any) -> Hashable:
    """What is equal for equal values, and for no others."""
    plain = value is None or isinstance(value, str | int | float)
    return (type(value), value) if plain else json.dumps(value)


def _drawn(value: float) -> float | None:
    """A value as exact as a chart shows it."""
    return number(f"{value:.6g}")


def number(text: object) -> float | None:
    """A number that JSON can hold, or None."""
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class _Budget:
    """How much of each may be told."""

    tail: int
    points: int
    files: int

    @classmethod
    def of(cls, items: Sequence[Tried]) -> _Budget:
        logs = sum(bool(each.result.tail) for each in items) or 1
        lines = sum(len(each.result.rows) for each in items) or 1
        return cls(
            tail=max(SHORTEST_TAIL, TAIL_BUDGET // logs),
            points=max(FEWEST_POINTS, POINT_BUDGET // lines),
            files=max(FEWEST_FILES, FILE_BUDGET // lines),
        )


class _Runs:
    """The runs that points are of, each told once."""

    def __init__(self) -> None:
        self.known: list[tuple[str, str]] = []
        self._numbers: dict[str, int] = {}

    def number(self, run: str, when: str) -> int:
        if run not in self._numbers:
            self._numbers[run] = len(self.known)
            self.known.append((run, when))
        return self._numbers[run]


def _item(item: Tried, story: Story, budget: _Budget) -> dict[str, Any]:
    result = item.result
    link = story.link
    return {
        "nodeid": result.nodeid,
        "status": result.status,
        "reason": result.reason[:LONGEST_REASON],
        "failure": result.failure.value,
        "duration": number(f"{result.duration:.3f}"),
        "started": result.started,
        "ended": result.ended,
        "attempt": result.attempt,
        "log": link(result.log) if result.log else "",
        "tail": _shortened(result.tail, budget.tail),
        "notes": result.notes,
        "artifacts": [link(path) for path in result.artifacts[: budget.files]],
        "more_artifacts": max(0, len(result.artifacts) - budget.files),
        "source": result.source,
        "steps": [(step.name, step.started, step.ended) for step in result.steps],
        "earlier": [_earlier(each, link) for each in item.earlier],
        "usage": [_usage(name, result, story) for name in result.usage],
        "baseline": _baseline(result, story.past.baseline.get(result.nodeid)),
    }


def _shortened(lines: Sequence[str], most: int) -> list[str]:
    """The last lines that have room; of one that is too long, its end."""
    kept: list[str] = []
    for line in reversed(lines):
        if len(line) >= most:
            return [line[-most:], *kept] if most > 0 else kept
        kept.insert(0, line)
        most -= len(line) + 1
    return kept


def _earlier(result: Result, link: Callable[[str], str]) -> dict[str, Any]:
    return {
        "attempt": result.attempt,
        "status": result.status,
        "failure": result.failure.value,
        "reason": result.reason[:LONGEST_REASON],
        "log": link(result.log) if result.log else "",
    }


def _usage(name: str, result: Result, story: Story) -> dict[str, Any]:
    seen = result.usage[name]
    samples = story.samples.get(seen.file)
    values = {key: number(getattr(seen, key)) for key in ("minimum", "mean", "maximum")}
    told: dict[str, Any] = {"name": name, "unit": seen.unit, **values}
    told["file"] = story.link(seen.file) if seen.file else ""
    if samples:
        told |= {"seconds": samples.seconds, "series": dict(samples.series)}
    return told


def _environment(result: Result) -> dict[str, str]:
    """What the model ran in, by what people call it; empty values are left out."""
    found = {
        "image": result.image,
        "image digest": result.digest,
        "hosts": ", ".join(filter(None, result.hosts)),
        **{f"machine: {name}": value for name, value in sorted(result.machine.items())},
        **{f"version: {name}": value for name, value in sorted(result.versions.items())},
    }
    return {name: str(value) for name, value in found.items() if value}


def _baseline(result: Result, before: Result | None) -> dict[str, Any] | None:
    if before is None:
        return None
    return {"run": before.run, "when": before.started or before.ended, "differences": differences(result, before)}


def differences(now: Result, before: Result) -> list[tuple[str, str, str]]:
    """What two results ran in that is not the same: name, then and now."""
    new, old = _compared(now), _compared(before)
    return [
        (name, old.get(name, ""), new.get(name, ""))
        for name in dict.fromkeys([*new, *old])
        if old.get(name, "") != new.get(name, "")
    ]


def _compared(result: Result) -> dict[str, str]:
    columns = result.rows[0].columns if result.rows else {}
    return _environment(result) | {name: str(columns[name]) for name in COMPARED if columns.get(name)}


class _Line(NamedTuple):
    """A row of perf.csv: what is told of it, its metrics, and columns that have no place of their own."""

    told: dict[str, Any]
    metrics: list[dict[str, Any]]
    further: dict[str, str]


def _lines(place: int, item: Tried, trends: _Trends) -> Iterator[_Line]:
    """Each row of an item."""
    result = item.result
    for row in result.rows:
        compared = {each.metric.name: each for each in result.comparisons if each.metric.row == row.columns["model"]}
        metrics = [
            _metric(each, compared.get(each.name), trends.of(result, row, each)) for each in _metrics(result, row)
        ]
        further = {name: str(text) for name, text in row.columns.items() if name and text and name not in SHOWN}
        yield _Line({"item": place, **_line(result, row, compared)}, metrics, further)


def _line(result: Result, row: Row, compared: Mapping[str, Comparison]) -> dict[str, Any]:
    get = row.columns.get
    worst = worst_of(compared.values())
    leading = compared.get(PERFORMANCE) or worst
    return {
        "name": name_of(result, row),
        "status": get("status") or result.status,
        "value": number(get(PERFORMANCE, "")),
        "unit": get("metric", ""),
        "verdict": worst.judgement.value if worst else "",
        "change": leading.change if leading else number(get("relative_change", "")),
        "duration": _seconds(result, row),
        "architecture": get("gpu_architecture", ""),
        "launcher": get("launcher", ""),
        "gpus": get("n_gpus", ""),
    }


def name_of(result: Result, row: Row) -> str:
    """What people call the row: of an item with one row, its title."""
    name = row.columns.get("model", "")
    return result.title if len(result.rows) == 1 and name in ("", result.model) else name


def _seconds(result: Result, row: Row) -> float | None:
    stated = number(row.columns.get("test_duration", ""))
    return number(f"{result.duration:.3f}") if stated is None and result.duration else stated


def _metrics(result: Result, row: Row) -> list[Metric]:
    """Those of the row; of rows that share their name, what their columns say."""
    name = row.columns.get("model")
    alone = sum(each.columns.get("model") == name for each in result.rows) == 1
    return [each for each in result.metrics if alone and each.row == name] or [_performance(row)]


def _performance(row: Row) -> Metric:
    unit = row.columns.get("metric", "")
    value = number(row.columns.get(PERFORMANCE, ""))
    return Metric(row.columns.get("model", ""), PERFORMANCE, value, unit, direction_of(unit))


def worst_of(comparisons: Iterable[Comparison]) -> Comparison | None:
    """The one to be looked at first; None where there is none."""
    return min(comparisons, key=lambda each: WORST_FIRST.index(each.judgement), default=None)


def _metric(metric: Metric, comparison: Comparison | None, trend: Sequence[float | None]) -> dict[str, Any]:
    return {
        "name": metric.name,
        "value": number(metric.value),
        "unit": metric.unit,
        "direction": metric.direction.value,
        "samples": [_drawn(each) for each in metric.samples] if len(metric.samples) > 1 else [],
        "comparison": _comparison(comparison) if comparison else None,
        "trend": trend,
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    numbers = {name: number(getattr(comparison, name)) for name in ("reference", "change", "lower", "upper")}
    return {
        "verdict": comparison.judgement.value,
        "gates": comparison.gates,
        "source": comparison.source,
        "reason": comparison.reason,
        **numbers,
    }


class _Trends:
    """What was measured before, run by run."""

    def __init__(self, story: Story, runs: _Runs, most: int) -> None:
        self._history = story.past.history
        self._runs = runs
        self._most = most
        self._places: dict[Thing, dict[str, int]] = {}

    def of(self, result: Result, row: Row, metric: Metric) -> list[float | None]:
        """The last points up to this run's own: of each the number of its run and its value; empty without any."""
        thing, value = (Key.of(row.columns), metric.name), number(metric.value)
        past = self._history.get(thing, ())
        own = self._place(thing, past).get(result.run)
        if own is None and value is not None:
            when = result.started or result.ended
            own = bisect_right(past, when, key=_when) if when else len(past)
            past = [*past[max(0, own - self._most) : own], Point(when, result.run, value)]
            own = len(past) - 1
        end = len(past) if own is None else own + 1
        points = past[max(0, end - self._most) : end]
        if len(points) < 2:  # noqa: PLR2004  # one point is no trend
            return []
        return [part for each in points for part in (self._runs.number(each.run, each.when), _drawn(each.value))]

    def _place(self, thing: Thing, past: Sequence[Point]) -> dict[str, int]:
        if thing not in self._places:
            self._places[thing] = {each.run: place for place, each in enumerate(past)}
        return self._places[thing]


def _when(point: Point) -> str:
    return point.when


def is_problem(item: Tried) -> bool:
    """Whether somebody should look at an item: it failed, regressed or has no verdict where one was asked for."""
    return item.result.status == FAILURE or bool(item.bad)


def problem(item: Tried) -> tuple[str, str]:
    """What kind of problem an item has, and the words for it."""
    result = item.result
    if result.status == FAILURE:
        return f"failed ({result.failure.value})" if result.failure.value else "failed", result.reason
    worst = worst_of(item.bad)
    if worst is None:
        return ("skipped" if result.status == SKIPPED else "passed"), result.reason
    words = worst.reason or tries.change(worst.change)
    return worst.judgement.value, f"{worst.metric.row} {worst.metric.name}: {words}"
