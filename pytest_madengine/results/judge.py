"""Decides what an outcome and its measurements amount to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_madengine.backends.base import Outcome, Phase, State
from pytest_madengine.results import configs as config_files
from pytest_madengine.results import selfmanaged
from pytest_madengine.results.multiple import Table
from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SUCCESS
from pytest_madengine.results.performance import Performance, finite
from pytest_madengine.results.result import FailureClass, Row

STOPPED = 143
"""The exit code of a job's script that was told to end."""


@dataclass(frozen=True)
class Measured:
    """What was read from a run's log and files.

    Attributes:
        performance: the stated value, if the model states one.
        unreadable: a `performance:` line whose value is no number.
        error: the first line of the log that matches an error pattern, with its number.
        table: the results CSV of a model that has one; None where none is expected.
        own: whether the table is a perf.csv of the model's own, whose rows have their names and say how they went.
        places: where such a perf.csv was looked for.
        configs: content of the `--config` file.
        others: further values, of ranks that measured something else than `performance`.
        problem: why what the ranks measured is no result of the job.
        notes: what was decided about the ranks' values without being asked for.
        hosts: the names of the ranks' nodes, as far as they are known.
        phases: the steps of each rank.
        telling: the rank whose log has an error or lacks the value.
    """

    performance: Performance | None = None
    unreadable: str = ""
    error: str = ""
    table: Table | None = None
    own: bool = False
    places: tuple[str, ...] = ()
    configs: Any = None
    others: tuple[Performance, ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()
    hosts: Mapping[int, str] = field(default_factory=dict)
    phases: Mapping[int, tuple[Phase, ...]] = field(default_factory=dict)
    telling: int = 0


@dataclass(frozen=True)
class Verdict:
    """A status with its reason, the rows that tell of it, and what else the user should know.

    Attributes:
        rank: of several, the one whose log and exit code tell of a failure.
    """

    status: str
    reason: str = ""
    failure: FailureClass = FailureClass.NONE
    rows: tuple[Row, ...] = field(default=())
    notes: tuple[str, ...] = ()
    rank: int = 0


def judge(
    common: Mapping[str, str], outcome: Outcome, measured: Measured, limit: float | None, ranks: int = 1
) -> Verdict:
    """The verdict on a run; every value that was measured stands in a row, whatever the verdict.

    Args:
        common: the columns that all rows share.
        outcome: what happened.
        measured: what was read.
        limit: the time limit, for the words of a timeout.
        ranks: how many nodes the job was to run on.
    """
    trouble, failure = _trouble(outcome, measured, limit, ranks)
    reason = trouble or measured.problem or _missing(measured)
    rows = _rows(common, measured, failed=bool(trouble or measured.problem))
    notes = (*measured.notes, *((outcome.note,) if outcome.note not in reason else ()))
    if reason:
        blamed = _blamed(_codes(outcome, ranks), measured)
        return Verdict(FAILURE, reason, failure if trouble else FailureClass.MODEL, rows, notes, blamed)
    return Verdict(SUCCESS, rows=rows, notes=notes)


def rank_names(ranks: Iterable[int], hosts: Mapping[int, str]) -> str:
    """The ranks for people: `rank 0 on node1, 3 on node4`."""
    return f"rank {', '.join(_rank_name(rank, hosts) for rank in ranks)}"


def _rank_name(rank: int, hosts: Mapping[int, str]) -> str:
    return f"{rank} on {hosts[rank]}" if hosts.get(rank) else str(rank)


def single(common: Mapping[str, str], status: str) -> tuple[Row, ...]:
    """The one row of an item that measured nothing."""
    return (_row({**common, "status": status}),)


def _trouble(outcome: Outcome, measured: Measured, limit: float | None, ranks: int) -> tuple[str, FailureClass]:
    """What went wrong with the whole run, the deepest cause first, and whose fault it is; '' when nothing did."""
    codes = _codes(outcome, ranks)
    if outcome.state is State.LOST:
        lost = outcome.note or "its backend knows no more of it"
        return f"the job was lost: {lost}{_vanished(codes, measured.hosts)}", FailureClass.INFRASTRUCTURE
    if outcome.state is State.CANCELLED:
        return "interrupted", FailureClass.INFRASTRUCTURE
    if outcome.state is State.TIMED_OUT:
        return _timeout(outcome, limit) + _failed_before(codes, measured.hosts), FailureClass.MODEL
    if any(code != 0 for code in codes.values()):
        return _rank_trouble(outcome, codes, measured)
    in_log = f"error in the log: {measured.error}" if measured.error else ""
    return _exit_trouble(outcome) or in_log, FailureClass.MODEL


def _codes(outcome: Outcome, ranks: int) -> dict[int, int | None]:
    """The exit code of each rank of a job of several, None of one that never finished."""
    return {rank: outcome.ranks.get(rank) for rank in range(ranks)} if ranks > 1 else {}


def _blamed(codes: Mapping[int, int | None], measured: Measured) -> int:
    """A rank that failed by itself, else one that vanished, else one that was told to end, else whose log tells."""
    failed = [rank for rank, code in codes.items() if code]
    own = [rank for rank in failed if codes[rank] != STOPPED]
    lost = [rank for rank, code in codes.items() if code is None]
    return next(iter((*own, *lost, *failed)), measured.telling)


def _vanished(codes: Mapping[int, int | None], hosts: Mapping[int, str]) -> str:
    """The ranks that are missing where others came to their end."""
    lost = [rank for rank, code in codes.items() if code is None]
    return f"; {rank_names(lost, hosts)} of {len(codes)} never finished" if 0 < len(lost) < len(codes) else ""


def _timeout(outcome: Outcome, limit: float | None) -> str:
    """Of the job, unless the backend names another."""
    seconds = "" if limit is None or outcome.note else f" of {limit:g} s"
    by = f" ({outcome.note})" if outcome.note else ""
    return f"time limit{seconds} exceeded{by}{_in_step(_cut_short(outcome))}"


def _failed_before(codes: Mapping[int, int | None], hosts: Mapping[int, str]) -> str:
    """The ranks that the time limit did not stop: the others may have waited for them."""
    failed = [rank for rank, code in codes.items() if code and code != STOPPED]
    return f"; before that, {_failed(failed, codes, hosts)}" if failed else ""


def _rank_trouble(outcome: Outcome, codes: Mapping[int, int | None], measured: Measured) -> tuple[str, FailureClass]:
    """A job of several nodes is only as good as the worst of its ranks.

    A rank that vanished is not the model's fault, unless the backend has its own word for why.
    """
    hosts = measured.hosts
    lost = [rank for rank, code in codes.items() if code is None]
    failed = sorted((rank for rank, code in codes.items() if code), key=lambda rank: codes[rank] == STOPPED)
    never = f"{rank_names(lost, hosts)} of {len(codes)} never finished" if lost else ""
    words = "; ".join(filter(None, (never, _failed(failed, codes, hosts) if failed else "")))
    note = f" ({outcome.note})" if outcome.note else ""
    step = _in_step(_failed_step(measured.phases[failed[0]])) if failed and failed[0] in measured.phases else ""
    return f"{words}{note}{step}", FailureClass.INFRASTRUCTURE if lost and not note else FailureClass.MODEL


def _failed(failed: Iterable[int], codes: Mapping[int, int | None], hosts: Mapping[int, str]) -> str:
    named = [f"{_rank_name(rank, hosts)} (exit code {codes[rank]})" for rank in failed]
    return f"rank {', '.join(named)} of {len(codes)} failed"


def _exit_trouble(outcome: Outcome) -> str:
    if outcome.exit_code == 0:
        return ""
    code = "no exit code" if outcome.exit_code is None else f"exit code {outcome.exit_code}"
    note = f" ({outcome.note})" if outcome.note else ""
    return f"{code}{note}{_in_step(_failed_step(outcome.phases))}"


def _missing(measured: Measured) -> str:
    """Which measurement a run that ended well did not give."""
    if measured.table is not None:
        bad = measured.table.bad_rows()
        said = selfmanaged.failures(measured.table) if measured.own else ""
        return measured.table.problem or said or (f"no performance in the row {', '.join(bad)}" if bad else "")
    if measured.performance is None:
        unread = f"; not readable: {measured.unreadable!r}" if measured.unreadable else ""
        places = f", and none of its results in {', '.join(measured.places)}" if measured.places else ""
        return f"no line 'performance: <value> <metric>' in the model's output{unread}{places}"
    return ""


def _failed_step(phases: Iterable[Phase]) -> Phase | None:
    return next((phase for phase in phases if phase.code), None)


def _cut_short(outcome: Outcome) -> Phase | None:
    return next((phase for phase in reversed(outcome.phases) if phase.code < 0), None)


def _in_step(step: Phase | None) -> str:
    """Names the step, unless it is the model itself."""
    return f" in {_step_name(step)}" if step and step.name != "model" else ""


def _step_name(phase: Phase) -> str:
    names = {"prepare": "copying the scripts", "clone": "git clone"}
    return names.get(phase.name, phase.name.replace("_", " "))


def _rows(common: Mapping[str, str], measured: Measured, *, failed: bool) -> tuple[Row, ...]:
    if measured.table is not None and measured.table.rows:
        return tuple(_table_row(common, row, measured, failed=failed) for row in measured.table.rows)
    found = (measured.performance, *measured.others) if measured.table is None else (None,)
    return tuple(_single_row(common, each, measured.configs, failed=failed) for each in found)


def _single_row(common: Mapping[str, str], found: Performance | None, configs: Any, *, failed: bool) -> Row:
    value = {"performance": found.value, "metric": found.metric} if found else {}
    status = SUCCESS if found and not failed else FAILURE
    return _row({**common, **value, "status": status}, configs=configs)


def _table_row(common: Mapping[str, str], row: Mapping[str, str], measured: Measured, *, failed: bool) -> Row:
    """A row of the results CSV: what it says of perf.csv's columns overrides, the others go to perf_super.

    A row that has its value succeeded even when another row has none; it failed when the run failed.
    """
    has_value = finite(row["performance"])
    own = {key: value for key, value in row.items() if value and key in PERF_COLUMNS and key != "status"}
    own["model"] = (selfmanaged.row_name if measured.own else _row_name)(common["model"], row)
    if not has_value:
        own["performance"] = ""
    failed = failed or (measured.own and bool(selfmanaged.failure(row)))
    status = SUCCESS if has_value and not failed else FAILURE
    others = {key: value for key, value in row.items() if key not in PERF_COLUMNS}
    return _row({**common, **own, "status": status}, others, config_files.for_row(measured.configs, row))


def _row_name(model: str, row: Mapping[str, str]) -> str:
    return f"{model}_{row['model']}"


def _row(values: Mapping[str, str], multi_results: Mapping[str, str] | None = None, configs: Any = None) -> Row:
    return Row({column: values.get(column, "") for column in PERF_COLUMNS}, multi_results or None, configs)
