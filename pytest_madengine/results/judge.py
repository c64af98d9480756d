"""Decides what an outcome and its measurements amount to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_madengine.backends.base import Outcome, Phase, State
from pytest_madengine.results import configs as config_files
from pytest_madengine.results.multiple import Table
from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SUCCESS
from pytest_madengine.results.performance import Performance, finite
from pytest_madengine.results.result import FailureClass, Row


@dataclass(frozen=True)
class Measured:
    """What was read from a run's log and files.

    Attributes:
        performance: the stated value, if the model states one.
        unreadable: a `performance:` line whose value is no number.
        error: the first line of the log that matches an error pattern, with its number.
        table: the results CSV of a model that has one; None where none is expected.
        configs: content of the `--config` file.
    """

    performance: Performance | None = None
    unreadable: str = ""
    error: str = ""
    table: Table | None = None
    configs: Any = None


@dataclass(frozen=True)
class Verdict:
    """A status with its reason and the rows that tell of it."""

    status: str
    reason: str = ""
    failure: FailureClass = FailureClass.NONE
    rows: tuple[Row, ...] = field(default=())


def judge(common: Mapping[str, str], outcome: Outcome, measured: Measured, limit: float | None) -> Verdict:
    """The verdict on a run; every value that was measured stands in a row, whatever the verdict.

    Args:
        common: the columns that all rows share.
        outcome: what happened.
        measured: what was read.
        limit: the time limit, for the words of a timeout.
    """
    reason, failure = _trouble(outcome, measured, limit)
    rows = _rows(common, measured, failed=bool(reason))
    return Verdict(FAILURE if reason else SUCCESS, reason, failure, rows)


def single(common: Mapping[str, str], status: str) -> tuple[Row, ...]:
    """The one row of an item that measured nothing."""
    return (_row({**common, "status": status}),)


def _trouble(outcome: Outcome, measured: Measured, limit: float | None) -> tuple[str, FailureClass]:
    """Why this is no success, the deepest cause first, and whose fault it is; ('', NONE) when it is one."""
    if outcome.state is State.LOST:
        return (
            f"the job was lost: {outcome.note or 'its backend knows no more of it'}",
            FailureClass.INFRASTRUCTURE,
        )
    if outcome.state is State.CANCELLED:
        return "interrupted", FailureClass.INFRASTRUCTURE
    if outcome.state is State.TIMED_OUT:
        return f"time limit of {limit:g} s exceeded{_during(outcome)}", FailureClass.MODEL
    model_trouble = _exit_trouble(outcome) or _output_trouble(measured)
    return model_trouble, FailureClass.MODEL if model_trouble else FailureClass.NONE


def _exit_trouble(outcome: Outcome) -> str:
    if outcome.exit_code == 0:
        return ""
    code = "no exit code" if outcome.exit_code is None else f"exit code {outcome.exit_code}"
    note = f" ({outcome.note})" if outcome.note else ""
    return f"{code}{note}{_during(outcome)}"


def _output_trouble(measured: Measured) -> str:
    if measured.error:
        return f"error in the log: {measured.error}"
    if measured.table is not None:
        bad = measured.table.bad_rows()
        return measured.table.problem or (f"no performance in the row {', '.join(bad)}" if bad else "")
    if measured.performance is None:
        unread = f"; not readable: {measured.unreadable!r}" if measured.unreadable else ""
        return f"no line 'performance: <value> <metric>' in the model's output{unread}"
    return ""


def _during(outcome: Outcome) -> str:
    """Names the step that failed or was cut short, unless it is the model itself."""
    step = next((phase for phase in reversed(outcome.phases) if phase.code), None)
    return f" in {_step_name(step)}" if step and step.name != "model" else ""


def _step_name(phase: Phase) -> str:
    names = {"prepare": "copying the scripts", "clone": "git clone"}
    return names.get(phase.name, phase.name.replace("_", " "))


def _rows(common: Mapping[str, str], measured: Measured, *, failed: bool) -> tuple[Row, ...]:
    if measured.table is not None and measured.table.rows:
        return tuple(_table_row(common, row, measured.configs, failed=failed) for row in measured.table.rows)
    found = measured.performance if measured.table is None else None
    value = {"performance": found.value, "metric": found.metric} if found else {}
    return (_row({**common, **value, "status": FAILURE if failed else SUCCESS}, configs=measured.configs),)


def _table_row(common: Mapping[str, str], row: Mapping[str, str], configs: Any, *, failed: bool) -> Row:
    """A row of the results CSV: columns that perf.csv has too override, the others go to perf_super.

    A row that has its value succeeded even when another row has none; it failed when the run failed.
    """
    measured = finite(row["performance"])
    own = {key: value for key, value in row.items() if key in PERF_COLUMNS and key != "status"}
    own["model"] = f"{common['model']}_{row['model']}"
    if not measured:
        own["performance"] = ""
    status = SUCCESS if measured and not failed else FAILURE
    others = {key: value for key, value in row.items() if key not in PERF_COLUMNS}
    return _row({**common, **own, "status": status}, others, config_files.for_row(configs, row))


def _row(values: Mapping[str, str], multi_results: Mapping[str, str] | None = None, configs: Any = None) -> Row:
    return Row({column: values.get(column, "") for column in PERF_COLUMNS}, multi_results or None, configs)
