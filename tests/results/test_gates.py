from __future__ import annotations

import pytest

from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.gates import Gate, judged
from pytest_madengine.results.metric import Metric
from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SUCCESS
from pytest_madengine.results.result import FailureClass, Result, Row

NONE, REGRESSION, IMPROVEMENT, PASS = (*(Judgement.NONE, Judgement.REGRESSION, Judgement.IMPROVEMENT, Judgement.PASS),)


def result(status: str = SUCCESS, *rows: str) -> Result:
    made = tuple(Row({**dict.fromkeys(PERF_COLUMNS, ""), "model": name, "status": status}) for name in rows or ("m",))
    return Result("id", "models.json::m", "m", status, made, reason="" if status == SUCCESS else "exit code 1")


def said(
    judgement: Judgement,
    *,
    gates: bool = True,
    name: str = "performance",
    row: str = "m",
    change: float | None = -0.0649,
) -> Comparison:
    return Comparison(Metric(row, name, 1.0), judgement, gates, change=change, reason=f"{name}: {judgement.value}")


@pytest.mark.parametrize(
    ("judgement", "gates", "gate", "fails"),
    [
        (REGRESSION, True, Gate.FAIL, True),
        (REGRESSION, True, Gate.REGRESSIONS, True),
        (REGRESSION, True, Gate.WATCH, False),
        (REGRESSION, False, Gate.FAIL, False),
        (NONE, True, Gate.FAIL, True),
        (NONE, True, Gate.REGRESSIONS, False),
        (NONE, True, Gate.WATCH, False),
        (NONE, False, Gate.FAIL, False),
        (IMPROVEMENT, True, Gate.FAIL, False),
        (PASS, True, Gate.FAIL, False),
    ],
)
def test_what_fails_a_model(judgement: Judgement, gates: bool, gate: Gate, fails: bool) -> None:  # noqa: FBT001  # cases
    told = judged(result(), [said(judgement, gates=gates)], gate)
    assert told.failed == fails
    assert told.failure is (FailureClass.MODEL if fails else FailureClass.NONE)
    assert bool(told.reason) == fails


def test_the_rows_status_tells_that_it_ran_and_how_far_it_changed() -> None:
    told = judged(result(), [said(REGRESSION)], Gate.FAIL)
    assert told.rows[0].columns["status"] == SUCCESS
    assert told.rows[0].columns["relative_change"] == "-0.0649"


def test_each_row_has_the_change_of_its_own_performance() -> None:
    comparisons = [said(PASS, row="a", change=0.01), said(PASS, row="b", change=0.02)]
    told = judged(
        result(SUCCESS, "a", "b", "c"), [*comparisons, said(PASS, row="a", name="latency", change=9)], Gate.FAIL
    )
    assert [row.columns["relative_change"] for row in told.rows] == ["0.0100", "0.0200", ""]


def test_the_change_against_earlier_runs_wins_over_that_of_a_stated_value() -> None:
    told = judged(result(), [said(PASS, change=0.01), said(PASS, change=0.02)], Gate.FAIL)
    assert told.rows[0].columns["relative_change"] == "0.0200"


def test_no_verdict_alone_says_how_to_go_on() -> None:
    told = judged(result(), [said(NONE)], Gate.FAIL)
    assert told.reason == "performance: no verdict (--madengine-gate=regressions lets it pass)"
    told = judged(result(), [said(NONE), said(REGRESSION)], Gate.FAIL)
    assert told.reason == "performance: no verdict; performance: regression"


def test_what_is_only_watched_is_noted() -> None:
    comparisons = [
        said(REGRESSION, name="latency", gates=False),
        said(PASS, name="memory", gates=False),
        said(NONE, name="other", gates=False),
        said(IMPROVEMENT),
    ]
    told = judged(result(), comparisons, Gate.FAIL)
    assert told.notes == ("latency: regression", "performance: improvement")
    assert told.comparisons == tuple(comparisons)


def test_a_model_that_failed_keeps_its_reason() -> None:
    told = judged(result(FAILURE), [said(REGRESSION), said(NONE, change=None)], Gate.FAIL)
    assert (told.reason, told.failure) == ("exit code 1", FailureClass.NONE)
    assert told.notes == ("performance: regression",)


def test_nothing_compared_changes_nothing() -> None:
    assert judged(result(), [], Gate.FAIL) == result()
