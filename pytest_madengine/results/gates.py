"""What comparisons mean for the model that was measured: its status, the reason, its rows and its notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import Enum

from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.metric import PERFORMANCE
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.results.result import FailureClass, Result, Row


class Gate(str, Enum):
    """What fails a model that ran well."""

    FAIL = "fail"
    """A regression of a metric that gates, and no verdict on it."""
    REGRESSIONS = "regressions"
    """A regression alone, as for first runs, which have no history."""
    WATCH = "watch"
    """Nothing."""


def judged(result: Result, comparisons: Sequence[Comparison], gate: Gate) -> Result:
    """The result with its comparisons; it fails where one of them says so.

    The rows keep their status, which tells whether a model ran and gave its value; they get their `relative_change`.
    """
    if not comparisons:
        return result
    told = replace(
        result,
        comparisons=(*result.comparisons, *comparisons),
        rows=tuple(_changed(row, comparisons) for row in result.rows),
    )
    failing = [each for each in comparisons if fails(each, gate)] if result.succeeded else []
    notes = (each.reason for each in _noted(comparisons, failing) if result.succeeded or each.change is not None)
    told = replace(told, notes=(*result.notes, *notes))
    if not failing:
        return told
    reason = "; ".join(each.reason for each in failing) + _way_out(failing)
    return replace(told, status=FAILURE, reason=reason, failure=FailureClass.MODEL)


def fails(comparison: Comparison, gate: Gate) -> bool:
    """Whether a comparison fails its model."""
    of_gate = {Gate.FAIL: (Judgement.REGRESSION, Judgement.NONE), Gate.REGRESSIONS: (Judgement.REGRESSION,)}
    return comparison.gates and comparison.judgement in of_gate.get(gate, ())


def relative(change: float) -> str:
    """A change as perf.csv holds it: `-0.0123`."""
    return f"{change:.4f}"


def _changed(row: Row, comparisons: Iterable[Comparison]) -> Row:
    """The row with the change of its performance, against earlier runs where they are asked for, else as stated."""
    known = [each.change for each in comparisons if _is_of(each, row) and each.change is not None]
    return replace(row, columns={**row.columns, "relative_change": relative(known[-1])}) if known else row


def _is_of(comparison: Comparison, row: Row) -> bool:
    return comparison.metric.row == row.columns["model"] and comparison.metric.name == PERFORMANCE


def _noted(comparisons: Iterable[Comparison], failing: Sequence[Comparison]) -> Iterable[Comparison]:
    """What is worth knowing and fails nothing: all but passes, and what has no verdict that nobody asked for."""
    for each in comparisons:
        unasked = each.judgement is Judgement.NONE and not each.gates and each.metric.name != PERFORMANCE
        if each.judgement is not Judgement.PASS and each not in failing and not unasked:
            yield each


def _way_out(failing: Iterable[Comparison]) -> str:
    """How to go on where nothing is wrong but that nothing is known."""
    unknown = all(each.judgement is Judgement.NONE for each in failing)
    return f" (--madengine-gate={Gate.REGRESSIONS.value} lets it pass)" if unknown else ""
