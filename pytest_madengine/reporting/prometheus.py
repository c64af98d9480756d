"""A file for the textfile collector of Prometheus' node exporter; the only module that knows its client.

A series is known by model, row and machine, never by the run, so that a run replaces what the one before left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_madengine.reporting.base import AtTheEnd
from pytest_madengine.results import tries
from pytest_madengine.results.metric import Metric
from pytest_madengine.results.result import Result
from pytest_madengine.results.tries import Tried

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Gauge

NEEDS = "prometheus_client"
"""The package that must be there."""
MODEL = ("model", "arch", "gpus", "launcher", "deployment")
METRIC = (*MODEL, "row", "metric", "unit")


class Textfile(AtTheEnd):
    """The file of `--madengine-prometheus`, replaced at once when the run ends."""

    name = "--madengine-prometheus"

    def __init__(self, path: Path, run: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._run = run
        self._clock = clock

    def conclude(self, results: Sequence[Result], exit_status: int, /) -> None:
        """See `Concluding`."""
        from prometheus_client import write_to_textfile

        filled = registry(results, self._run)
        _gauge(filled, "run_exit_status", "Exit status of the last run.").set(exit_status)
        _gauge(filled, "run_ended_timestamp_seconds", "When the last run ended.").set(self._clock())
        write_to_textfile(str(self._path), filled)


def registry(results: Sequence[Result], run: Mapping[str, str]) -> CollectorRegistry:
    """What the results give, as the client holds it.

    Args:
        results: all of the run.
        run: what is known of the run, such as its `run` (the id) and `target`.
    """
    from prometheus_client import CollectorRegistry

    filled = CollectorRegistry()
    items = tries.by_item(results)
    _gauge(filled, "run_info", "The last run.", tuple(run)).labels(**run).set(1)
    _models(filled, items)
    _metrics(filled, items)
    _comparisons(filled, items)
    return filled


def _models(filled: CollectorRegistry, items: Sequence[Tried]) -> None:
    status = _gauge(filled, "model_status", "1, with the status as a label.", (*MODEL, "status", "failure"))
    duration = _gauge(filled, "model_duration_seconds", "Seconds that the model's script ran.", MODEL)
    attempts = _gauge(filled, "model_attempts", "Tries that the model took.", MODEL)
    for item in items:
        labels = _of_model(item.result)
        status.labels(**labels, status=item.result.status, failure=item.result.failure.value).set(1)
        duration.labels(**labels).set(item.result.duration)
        attempts.labels(**labels).set(len(item.earlier) + 1)


def _metrics(filled: CollectorRegistry, items: Sequence[Tried]) -> None:
    measured = _gauge(filled, "measured_value", "What was measured, in the unit of its label.", METRIC)
    for result, metric in ((item.result, metric) for item in items for metric in _measured(item.result)):
        if metric.value is not None:
            measured.labels(**_of_metric(result, metric)).set(metric.value)


def _measured(result: Result) -> Sequence[Metric]:
    """The metrics; of a Result that has none the values of its rows."""
    values = result.performances
    named = [(row.columns.get("model", ""), row.columns.get("metric", "")) for row in result.rows]
    return result.metrics or [Metric(row, "performance", values.get(row), unit) for row, unit in named]


def _comparisons(filled: CollectorRegistry, items: Sequence[Tried]) -> None:
    change = _gauge(filled, "change_ratio", "Change against the reference: 0.05 for 5 % more.", METRIC)
    verdict = _gauge(filled, "verdict", "1, with the verdict as a label.", (*METRIC, "verdict"))
    for result, each in ((item.result, each) for item in items for each in item.result.comparisons):
        labels = _of_metric(result, each.metric)
        verdict.labels(**labels, verdict=each.judgement.value).set(1)
        if each.change is not None:
            change.labels(**labels).set(each.change)


def _gauge(filled: CollectorRegistry, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
    from prometheus_client import Gauge

    return Gauge(f"madengine_{name}", text, labels, registry=filled)


def _of_model(result: Result) -> dict[str, str]:
    columns = result.rows[0].columns
    return {
        "model": result.title,
        "arch": columns.get("gpu_architecture", ""),
        "gpus": columns.get("n_gpus", ""),
        "launcher": columns.get("launcher", ""),
        "deployment": columns.get("deployment_type", ""),
    }


def _of_metric(result: Result, metric: Metric) -> dict[str, str]:
    return {**_of_model(result), "row": metric.row, "metric": metric.name, "unit": metric.unit}
