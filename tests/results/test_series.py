from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_madengine.results.metric import metrics_of
from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SUCCESS
from pytest_madengine.results.result import FailureClass, Result, Row
from pytest_madengine.results.series import Leg, by_side, joined, legs


def row(value: str, name: str = "m", unit: str = "x", **further: str) -> Row:
    known = {"model": name, "performance": value, "metric": unit, "status": SUCCESS if value else FAILURE}
    return Row({**dict.fromkeys(PERF_COLUMNS, ""), **known, "test_duration": "1.000"}, further or None)


def run(*rows: Row, reason: str = "", **more: object) -> Result:
    status = FAILURE if reason else SUCCESS
    failure = FailureClass.MODEL if reason else FailureClass.NONE
    made = Result("id", "n", "m", status, rows, reason, failure, duration=1.0, metrics=metrics_of(rows))
    return made if not more else Result(**{**vars(made), **more})


def together(runs: Sequence[Result], repeats: int, warmups: int = 0, sides: Sequence[str] = ()) -> Result:
    return joined(list(zip(legs(repeats, warmups, sides), runs, strict=False)))


class TestLegs:
    def test_one_repeat_is_one_job(self) -> None:
        assert legs(1, 0) == (Leg("repeat", 1, 1),)

    def test_warm_ups_go_first(self) -> None:
        assert [str(leg) for leg in legs(2, 1)] == ["warm-up 1 of 1", "repeat 1 of 2", "repeat 2 of 2"]

    def test_sides_take_turns(self) -> None:
        assert [str(leg) for leg in legs(2, 1, ("a:1", "b:1"))] == [
            "warm-up 1 of 1 in a:1",
            "warm-up 1 of 1 in b:1",
            "repeat 1 of 2 in a:1",
            "repeat 1 of 2 in b:1",
            "repeat 2 of 2 in a:1",
            "repeat 2 of 2 in b:1",
        ]


class TestRepeats:
    def test_one_job_stays_as_it_is(self) -> None:
        assert together([run(row("12.50"))], 1) == run(row("12.50"))

    def test_the_median_counts_as_it_was_printed(self) -> None:
        whole = together([run(row(value)) for value in ("12.50", "99", "11")], 3)
        assert whole.rows[0].columns["performance"] == "12.50"
        assert (whole.metrics[0].value, whole.metrics[0].samples) == (12.5, (12.5, 99.0, 11.0))
        assert whole.duration == 3.0
        assert whole.notes == ("3 repeats gave 11 to 99 x, deviation 403 %",)

    def test_of_an_even_number_it_is_between_two(self) -> None:
        whole = together([run(row(value)) for value in ("1", "2")], 2)
        assert whole.rows[0].columns["performance"] == "1.5"

    def test_warm_ups_do_not_count(self) -> None:
        whole = together([run(row(value)) for value in ("1", "12", "14", "13")], 3, warmups=1)
        assert whole.metrics[0].samples == (12.0, 14.0, 13.0)

    def test_each_row_and_each_further_column_has_its_own(self) -> None:
        runs = [run(row(f"{n}", "m_a", ttft=f"{n}0", note=f"n{n}"), row(f"{n}.5", "m_b")) for n in (3, 1, 2)]
        whole = together(runs, 3)
        assert [each.columns["performance"] for each in whole.rows] == ["2", "2.5"]
        assert whole.rows[0].multi_results == {"ttft": "20", "note": "n2"}
        assert {each.name: each.samples for each in whole.metrics if each.row == "m_a"} == {
            "performance": (3.0, 1.0, 2.0),
            "ttft": (30.0, 10.0, 20.0),
        }
        assert whole.notes[0].startswith("m_a: 3 repeats gave 1 to 3 x")

    def test_one_that_fails_is_named_and_what_was_measured_is_kept(self) -> None:
        whole = together([run(row("12")), run(row("14")), run(row(""), reason="exit code 3", id="third")], 3)
        assert (whole.status, whole.reason) == (FAILURE, "repeat 3 of 3: exit code 3")
        assert whole.rows[0].columns["performance"] == ""
        assert whole.metrics[0].samples == (12.0, 14.0)
        assert whole.notes == ("2 repeats gave 12 to 14 x, deviation 10.9 %",)
        assert whole.id == "third"

    def test_a_warm_up_that_fails_is_named(self) -> None:
        whole = together([run(row(""), reason="exit code 3")], 3, warmups=2)
        assert whole.reason == "warm-up 1 of 2: exit code 3"

    @pytest.mark.parametrize("other", [row("1", unit="y"), row("1", "m_other")])
    def test_one_that_measures_something_else_fails(self, other: Row) -> None:
        whole = together([run(row("12")), run(other)], 2)
        assert whole.failed
        assert whole.failure is FailureClass.MODEL
        assert whole.reason.startswith("repeat 2 of 2: it measured ")
        assert whole.rows[0].columns["status"] == FAILURE

    def test_artifacts_and_notes_of_all_are_kept_once(self) -> None:
        runs = [run(row("1"), artifacts=(f"{n}/a",), notes=("odd",), started=f"at {n}") for n in (1, 2)]
        whole = together(runs, 2)
        assert whole.artifacts == ("1/a", "2/a")
        assert whole.notes.count("odd") == 1
        assert whole.started == "at 1"


class TestSides:
    RUNS = tuple(run(row(value)) for value in ("10", "20", "12", "22", "11", "21"))

    def test_each_has_its_rows_and_samples(self) -> None:
        whole = together(self.RUNS, 3, sides=("a", "b"))
        assert [each.columns["performance"] for each in whole.rows] == ["11", "21"]
        assert [each.samples for each in whole.metrics] == [(10.0, 12.0, 11.0), (20.0, 22.0, 21.0)]
        assert whole.notes == (
            "3 repeats in a gave 10 to 12 x, deviation 9.1 %",
            "3 repeats in b gave 20 to 22 x, deviation 4.8 %",
        )

    def test_their_metrics_are_found_again(self) -> None:
        first, second = by_side(together(self.RUNS, 3, sides=("a", "b")), 2)
        assert (first[0].value, second[0].value) == (11, 21)

    def test_one_that_fails_leaves_the_other_ones_row(self) -> None:
        runs = (*self.RUNS[:3], run(row(""), reason="exit code 3"))
        whole = together(runs, 3, sides=("a", "b"))
        assert whole.reason == "repeat 2 of 3 in b: exit code 3"
        assert [(each.columns["performance"], each.columns["status"]) for each in whole.rows] == [
            ("11", SUCCESS),
            ("", FAILURE),
        ]
        assert by_side(whole, 2) == ()
