from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.backends.base import Outcome, Phase, State
from pytest_madengine.results.judge import Measured, Verdict, judge, single
from pytest_madengine.results.multiple import Table
from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SKIPPED, SUCCESS
from pytest_madengine.results.performance import Performance
from pytest_madengine.results.result import FailureClass

COMMON = {"model": "m", "n_gpus": "8", "test_duration": "1.500"}
GOOD = Measured(Performance("12.50", "tok/s"))


def phase(name: str, code: int = 0) -> Phase:
    return Phase(name, 0, 1, code, 0, 0)


def outcome(*phases: Phase, state: State = State.EXITED, code: int | None = 0, note: str = "") -> Outcome:
    return Outcome(state, code, Path("log"), phases=phases, note=note)


def verdict(measured: Measured = GOOD, ended: Outcome | None = None, limit: float | None = 60) -> Verdict:
    return judge(COMMON, ended or outcome(phase("prepare"), phase("model")), measured, limit)


def table(*rows: tuple[str, str], **more: str) -> Table:
    return Table(tuple({"model": name, "performance": value, "metric": "x", **more} for name, value in rows))


def cells(given: Verdict, *names: str) -> list[tuple[str, ...]]:
    return [tuple(row.columns[name] for name in names) for row in given.rows]


def test_a_run_that_ended_well_and_states_its_performance_succeeded() -> None:
    given = verdict()
    assert (given.status, given.reason, given.failure) == (SUCCESS, "", FailureClass.NONE)
    assert cells(given, "model", "status", "performance", "metric") == [("m", SUCCESS, "12.50", "tok/s")]


def test_a_row_has_every_column_and_no_other() -> None:
    (row,) = verdict().rows
    assert tuple(row.columns) == PERF_COLUMNS
    assert (row.columns["n_gpus"], row.columns["test_duration"], row.columns["pipeline"]) == ("8", "1.500", "")
    assert (row.multi_results, row.configs) == (None, None)


def test_an_item_that_measured_nothing_has_a_row_too() -> None:
    (row,) = single(COMMON, SKIPPED)
    assert tuple(row.columns) == PERF_COLUMNS
    assert (row.columns["status"], row.columns["performance"]) == (SKIPPED, "")


FAILURES: dict[str, tuple[Measured, Outcome, FailureClass]] = {
    "exit code 3": (GOOD, outcome(phase("model", 3), code=3), FailureClass.MODEL),
    "exit code 137 (killed for lack of memory)": (
        GOOD,
        outcome(phase("model", -1), code=137, note="killed for lack of memory"),
        FailureClass.MODEL,
    ),
    "no exit code": (GOOD, outcome(code=None), FailureClass.MODEL),
    "exit code 1 in copying the scripts": (GOOD, outcome(phase("prepare", 1), code=1), FailureClass.MODEL),
    "exit code 128 in git clone": (GOOD, outcome(phase("clone", 128), code=128), FailureClass.MODEL),
    "exit code 2 in pre script 1": (
        GOOD,
        outcome(phase("prepare"), phase("pre_script_1", 2), code=2),
        FailureClass.MODEL,
    ),
    "exit code 5 in post script 2": (
        GOOD,
        outcome(phase("model"), phase("post_script_1"), phase("post_script_2", 5), code=5),
        FailureClass.MODEL,
    ),
    "exit code 4": (GOOD, outcome(phase("model", 4), phase("post_script_1", 5), code=4), FailureClass.MODEL),
    "time limit of 60 s exceeded": (GOOD, outcome(phase("model", -1), state=State.TIMED_OUT), FailureClass.MODEL),
    "time limit of 60 s exceeded in git clone": (
        GOOD,
        outcome(phase("clone", -1), state=State.TIMED_OUT),
        FailureClass.MODEL,
    ),
    "time limit of 60 s exceeded in post script 1": (
        GOOD,
        outcome(phase("model", 3), phase("post_script_1", -1), state=State.TIMED_OUT),
        FailureClass.MODEL,
    ),
    "interrupted": (GOOD, outcome(state=State.CANCELLED, code=143), FailureClass.INFRASTRUCTURE),
    "the job was lost: its backend knows no more of it": (
        GOOD,
        outcome(state=State.LOST, code=None),
        FailureClass.INFRASTRUCTURE,
    ),
    "the job was lost: node down": (GOOD, outcome(state=State.LOST, note="node down"), FailureClass.INFRASTRUCTURE),
    "error in the log: 'RuntimeError: x'": (
        Measured(GOOD.performance, error="'RuntimeError: x'"),
        outcome(),
        FailureClass.MODEL,
    ),
    "no line 'performance: <value> <metric>' in the model's output": (Measured(), outcome(), FailureClass.MODEL),
    "no line 'performance: <value> <metric>' in the model's output; not readable: 'performance: nan'": (
        Measured(unreadable="performance: nan"),
        outcome(),
        FailureClass.MODEL,
    ),
}


@pytest.mark.parametrize("reason", FAILURES)
def test_whatever_went_wrong_is_a_failure_with_its_reason_and_its_row(reason: str) -> None:
    measured, ended, failure = FAILURES[reason]
    given = verdict(measured, ended)
    assert (given.status, given.reason, given.failure) == (FAILURE, reason, failure)
    assert cells(given, "model", "status") == [("m", FAILURE)]
    value = measured.performance.value if measured.performance else ""
    assert cells(given, "performance") == [(value,)]


@pytest.mark.parametrize(
    "ended",
    [
        outcome(state=state, code=code)
        for state in State
        if state.over
        for code in (0, 1, None)
        if (state, code) != (State.EXITED, 0)
    ],
)
def test_nothing_but_a_regular_end_with_exit_code_zero_succeeds(ended: Outcome) -> None:
    for measured in (GOOD, Measured(table=table(("a", "1")))):
        given = verdict(measured, ended)
        assert given.status == FAILURE
        assert given.reason
        assert {row.columns["status"] for row in given.rows} == {FAILURE}


def test_a_time_limit_of_which_nothing_is_known_is_exceeded_too() -> None:
    assert verdict(ended=outcome(state=State.TIMED_OUT), limit=None).reason == "time limit exceeded"


def test_the_deepest_cause_is_the_reason() -> None:
    measured = Measured(unreadable="performance: nan", error="'FAILED'")
    assert verdict(measured, outcome(phase("model", 3), code=3)).reason == "exit code 3"
    assert verdict(measured, outcome()).reason == "error in the log: 'FAILED'"


def test_what_a_backend_has_to_say_is_a_note_unless_the_reason_says_it() -> None:
    tried = "after 1 failed try (exit code 5)"
    assert verdict(ended=outcome(phase("model"), note=tried)).notes == (tried,)
    assert verdict(Measured(), outcome(phase("model"), note=tried)).notes == (tried,)
    assert verdict(ended=outcome(phase("model", 3), code=3, note=tried)).notes == ()


def test_each_row_of_a_results_file_is_a_row_of_perf_csv() -> None:
    given = verdict(Measured(table=table(("a", "1.5"), ("b", "2"), batch="8", args="--own", status="SKIPPED")))
    assert given.status == SUCCESS
    assert cells(given, "model", "performance", "metric", "status", "args", "n_gpus") == [
        ("m_a", "1.5", "x", SUCCESS, "--own", "8"),
        ("m_b", "2", "x", SUCCESS, "--own", "8"),
    ]
    assert [row.multi_results for row in given.rows] == [{"batch": "8"}] * 2


def test_an_empty_cell_hides_nothing_that_is_known() -> None:
    given = verdict(Measured(table=table(("a", "1"), test_duration="", n_gpus="2", args="")))
    assert cells(given, "test_duration", "n_gpus", "args") == [("1.500", "2", "")]


def test_a_row_without_value_fails_the_run_and_only_itself() -> None:
    given = verdict(Measured(table=table(("a", "1"), ("b", ""), ("c", "nan"))))
    assert (given.status, given.reason) == (FAILURE, "no performance in the row b, c")
    assert given.failure is FailureClass.MODEL
    assert cells(given, "model", "performance", "status") == [
        ("m_a", "1", SUCCESS),
        ("m_b", "", FAILURE),
        ("m_c", "", FAILURE),
    ]


def test_a_row_of_a_perf_csv_of_the_models_own_says_itself_how_it_went() -> None:
    rows = [("m", "1", SUCCESS), ("served", "0", "FAILURE"), ("", "300", "failure"), ("m", "4", "")]
    found = [{"model": name, "performance": value, "metric": "x", "status": status} for name, value, status in rows]
    given = verdict(Measured(GOOD.performance, table=Table(tuple(found)), own=True))
    assert given.reason == "in its results, status of served x FAILURE,  x FAILURE"
    assert given.failure is FailureClass.MODEL
    assert cells(given, "model", "performance", "status") == [
        ("m", "1", SUCCESS),
        ("m_served", "0", FAILURE),
        ("m", "300", FAILURE),
        ("m", "4", SUCCESS),
    ]
    assert given.rows[0].multi_results is None


def test_the_failing_script_fails_the_rows_that_it_called_a_success() -> None:
    found = Measured(table=table(("m", "1"), status=SUCCESS), own=True)
    given = verdict(found, outcome(phase("model", 3), code=3))
    assert (given.reason, cells(given, "performance", "status")) == ("exit code 3", [("1", FAILURE)])


def test_where_results_were_looked_for_is_said_where_there_are_none() -> None:
    given = verdict(Measured(own=True, places=("a/perf.csv", "perf*.csv")))
    assert given.reason == (
        "no line 'performance: <value> <metric>' in the model's output, and none of its results in "
        "a/perf.csv, perf*.csv"
    )
    assert verdict(Measured(GOOD.performance, own=True, places=("a",))).status == SUCCESS


@pytest.mark.parametrize("problem", ["r.csv is empty", "the model wrote no r.csv (multiple_results)"])
def test_a_results_file_that_cannot_be_used_fails_the_run_whatever_the_log_says(problem: str) -> None:
    given = verdict(Measured(GOOD.performance, table=Table(problem=problem)))
    assert (given.status, given.reason) == (FAILURE, problem)
    assert cells(given, "model", "performance", "status") == [("m", "", FAILURE)]


def test_an_error_in_the_log_fails_every_row_and_keeps_their_values() -> None:
    given = verdict(Measured(error="'FAILED'", table=table(("a", "1"), ("b", "2"))))
    assert cells(given, "performance", "status") == [("1", FAILURE), ("2", FAILURE)]


def test_a_configuration_belongs_to_its_row() -> None:
    configs: list[dict[str, Any]] = [{"model": "a", "n": 1}, {"model": "b", "n": 2}]
    given = verdict(Measured(table=table(("b", "1"), ("a", "1"), ("z", "1")), configs=configs))
    assert [row.configs for row in given.rows] == [configs[1], configs[0], None]
    assert verdict(Measured(GOOD.performance, configs={"a": 1})).rows[0].configs == {"a": 1}


FOUR = {0: "node1", 1: "node2"}


def of_ranks(
    codes: dict[int, int | None], state: State = State.EXITED, code: int | None = 0, note: str = "", **measured: Any
) -> Verdict:
    ended = replace(outcome(phase("model"), state=state, code=code, note=note), ranks=codes)
    return judge(COMMON, ended, replace(GOOD, hosts=FOUR, **measured), 60, ranks=4)


FINE: dict[int, int | None] = dict.fromkeys(range(4), 0)


def test_a_job_whose_ranks_all_ended_well_succeeded() -> None:
    given = of_ranks(FINE, notes=("4 ranks summed",))
    assert (given.status, given.reason, given.notes) == (SUCCESS, "", ("4 ranks summed",))
    assert cells(given, "model", "status", "performance") == [("m", SUCCESS, "12.50")]


RANK_FAILURES: dict[str, tuple[Verdict, FailureClass]] = {
    "rank 1 on node2, 3 of 4 never finished": (of_ranks({0: 0, 1: None, 2: 0}), FailureClass.INFRASTRUCTURE),
    "rank 3 of 4 never finished": (of_ranks({**FINE, 3: None}, code=None), FailureClass.INFRASTRUCTURE),
    "rank 3 of 4 never finished; rank 1 on node2 (exit code 1) of 4 failed": (
        of_ranks({**FINE, 1: 1, 3: None}, code=1),
        FailureClass.INFRASTRUCTURE,
    ),
    "rank 3 of 4 never finished (killed for lack of memory)": (
        of_ranks({**FINE, 3: None}, code=137, note="killed for lack of memory"),
        FailureClass.MODEL,
    ),
    "rank 2 (exit code 5), 0 on node1 (exit code 143) of 4 failed": (
        of_ranks({**FINE, 0: 143, 2: 5}, code=143),
        FailureClass.MODEL,
    ),
    "exit code 9": (of_ranks(FINE, code=9), FailureClass.MODEL),
    "time limit of 60 s exceeded": (
        of_ranks(dict.fromkeys(range(4), 143), State.TIMED_OUT, code=143),
        FailureClass.MODEL,
    ),
    "time limit of 60 s exceeded; before that, rank 1 on node2 (exit code 1) of 4 failed": (
        of_ranks({0: 143, 1: 1, 2: None, 3: 143}, State.TIMED_OUT, code=143),
        FailureClass.MODEL,
    ),
    "interrupted": (of_ranks({**FINE, 0: 143}, State.CANCELLED), FailureClass.INFRASTRUCTURE),
    "the job was lost: a node failed": (of_ranks({}, State.LOST, note="a node failed"), FailureClass.INFRASTRUCTURE),
    "the job was lost: a node failed; rank 1 on node2, 3 of 4 never finished": (
        of_ranks({0: 0, 1: None, 2: 3}, State.LOST, note="a node failed"),
        FailureClass.INFRASTRUCTURE,
    ),
    "error in the log: rank 1 on node2: 'FAILED'": (
        of_ranks(FINE, error="rank 1 on node2: 'FAILED'"),
        FailureClass.MODEL,
    ),
    "the ranks disagree": (of_ranks(FINE, problem="the ranks disagree"), FailureClass.MODEL),
    "rank 1 on node2 (exit code 128), 2 (exit code 1) of 4 failed in git clone": (
        of_ranks({**FINE, 1: 128, 2: 1}, code=128, phases={1: (phase("clone", 128),), 2: (phase("model", 1),)}),
        FailureClass.MODEL,
    ),
    "rank 2 (exit code 7) of 4 failed (killed for lack of memory) in post script 1": (
        of_ranks(
            {**FINE, 2: 7},
            note="killed for lack of memory",
            phases={0: (phase("clone", 1),), 2: (phase("model"), phase("post_script_1", 7))},
        ),
        FailureClass.MODEL,
    ),
}


@pytest.mark.parametrize("reason", RANK_FAILURES)
def test_what_went_wrong_with_a_rank_is_a_failure_that_names_it_and_keeps_the_value(reason: str) -> None:
    given, failure = RANK_FAILURES[reason]
    assert (given.status, given.reason, given.failure) == (FAILURE, reason, failure)
    assert cells(given, "model", "status", "performance") == [("m", FAILURE, "12.50")]


@pytest.mark.parametrize(
    ("codes", "telling", "blamed"),
    [
        ({**FINE, 0: 143, 2: 5, 3: None}, 0, 2),
        ({**FINE, 0: 143, 3: None}, 0, 3),
        ({**FINE, 3: 143}, 0, 3),
        (FINE, 2, 2),
    ],
)
def test_a_failure_is_told_by_the_rank_that_is_most_likely_its_cause(
    codes: dict[int, int | None], telling: int, blamed: int
) -> None:
    assert of_ranks(codes, error="'FAILED'", telling=telling).rank == blamed


def test_a_job_of_one_rank_has_no_ranks_to_miss() -> None:
    ended = replace(outcome(code=3), ranks={0: None})
    assert verdict(ended=ended).reason == "exit code 3"


def test_values_of_ranks_that_disagree_each_have_a_row() -> None:
    given = of_ranks(FINE, others=(Performance("7", "ms"),), problem="the ranks disagree")
    assert cells(given, "performance", "metric", "status") == [("12.50", "tok/s", FAILURE), ("7", "ms", FAILURE)]


def test_a_problem_fails_every_row_of_a_results_file() -> None:
    given = of_ranks(FINE, table=table(("a", "1"), ("b", "2")), problem="the ranks disagree")
    assert cells(given, "performance", "status") == [("1", FAILURE), ("2", FAILURE)]
