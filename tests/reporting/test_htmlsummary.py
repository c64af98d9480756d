from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_madengine.reporting import htmlsummary
from pytest_madengine.results.comparison import Judgement
from pytest_madengine.results.perf import FAILURE
from tests.reporting.told import EVIL, compared, of_a_run, result


def test_the_tiles_count_items_and_verdicts() -> None:
    told = htmlsummary.summary(of_a_run())
    assert {tile.label: tile.number for tile in told.tiles} == {
        "models": 7,
        "passed": 4,
        "failed": 2,
        "skipped": 1,
        "regressions": 1,
        "improvements": 0,
        "without verdict": 0,
    }
    assert [tile.words for tile in told.tiles][:3] == ["8 rows", "", "1 build, 1 model"]


def test_without_comparisons_no_verdicts_are_counted() -> None:
    assert [tile.label for tile in htmlsummary.summary([result("m")]).tiles] == [
        "models",
        "passed",
        "failed",
        "skipped",
    ]


def test_the_bar_is_as_wide_as_all_items() -> None:
    bar = htmlsummary.summary(of_a_run()).bar
    assert [part.kind for part in bar] == ["success", "failure", "skipped"]
    assert sum(part.width for part in bar) == pytest.approx(htmlsummary.WIDTH)
    assert [part.start for part in bar] == pytest.approx([0, bar[0].width, bar[0].width + bar[1].width], abs=0.02)


def test_problems_name_their_line_the_worst_first() -> None:
    unsure = replace(result("unsure"), comparisons=(compared("unsure", Judgement.NONE),))
    problems = htmlsummary.summary([unsure, *of_a_run()]).problems
    assert [(each.title, each.line, each.kind) for each in problems] == [
        ("bad", 6, "failure"),
        (EVIL, 7, "failure"),
        ("slow", 2, "regression"),
        ("unsure", 0, "none"),
    ]


def test_of_very_many_problems_and_rows_the_first_are_shown_and_the_rest_counted() -> None:
    told = htmlsummary.summary([result(f"m{number}", FAILURE) for number in range(1000)])
    assert (len(told.problems), told.more) == (htmlsummary.MOST_PROBLEMS, 1000 - htmlsummary.MOST_PROBLEMS)
    assert (len(told.rows), told.more_rows) == (htmlsummary.MOST_ROWS, 1000 - htmlsummary.MOST_ROWS)


def test_an_empty_run_has_a_summary() -> None:
    told = htmlsummary.summary([])
    assert told.said == "no models"
    assert (list(told.bar), list(told.rows)) == ([], [])


def test_facts_tell_of_the_run_and_what_its_results_share() -> None:
    results = [result(f"m{number}", hosts=(f"node{number}",), versions={"docker": "27"}) for number in range(10)]
    facts = htmlsummary.facts({"run": "20260314", "target": ""}, results)
    assert facts == {
        "run": "20260314",
        "hosts": "node0, node1, node2, node3, node4, node5, node6, node7 and 2 more",
        "architectures": "gfx942",
        "versions": "docker 27",
    }
