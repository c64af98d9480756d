from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_madengine.results import tries
from pytest_madengine.results.comparison import Judgement
from pytest_madengine.results.perf import FAILURE, SUCCESS
from tests.reporting.told import compared, of_a_run, result


def test_an_item_is_what_its_last_try_came_to() -> None:
    flaky = next(each for each in tries.by_item(of_a_run()) if each.result.model == "flaky")
    assert flaky.result.status == SUCCESS
    assert [each.status for each in flaky.earlier] == [FAILURE]


def test_items_stand_in_the_order_in_which_they_were_first_heard_of() -> None:
    names = [each.result.model for each in tries.by_item(of_a_run())]
    assert names[:4] == ["quick", "slow", "flaky", "multi"]
    assert len(names) == 7


def test_each_item_counts_once() -> None:
    found = tries.counts(tries.by_item(of_a_run()))
    assert found.statuses == {"SUCCESS": 4, "FAILURE": 2, "SKIPPED": 1}
    assert found.failures == {"build": 1, "infrastructure": 0, "model": 1}
    assert found.verdicts == {"pass": 1, "regression": 1, "improvement": 0, "no verdict": 0}


def test_counts_in_words_leave_out_what_there_is_none_of() -> None:
    assert tries.said(tries.by_item(of_a_run())) == "2 failed (1 build, 1 model), 4 passed, 1 skipped, 1 regression"
    assert tries.said([]) == "no models"


@pytest.mark.parametrize(
    ("judgement", "gates", "bad"),
    [
        (Judgement.REGRESSION, True, True),
        (Judgement.REGRESSION, False, True),
        (Judgement.NONE, True, True),
        (Judgement.NONE, False, False),
        (Judgement.IMPROVEMENT, True, False),
        (Judgement.PASS, True, False),
    ],
)
def test_regressions_and_gates_without_verdict_are_to_be_looked_at(
    judgement: Judgement,
    gates: bool,  # noqa: FBT001
    bad: bool,  # noqa: FBT001
) -> None:
    each = replace(compared("m", judgement), gates=gates)
    item = tries.Tried(result("m", comparisons=(each,)))
    assert bool(item.bad) is bad


@pytest.mark.parametrize(
    ("relative", "text"), [(None, ""), (0.05, "+5.0 %"), (-0.061, "-6.1 %"), (0.0, "+0.0 %"), (12.0, "+1200.0 %")]
)
def test_a_change_for_people(relative: float | None, text: str) -> None:
    assert tries.change(relative) == text
