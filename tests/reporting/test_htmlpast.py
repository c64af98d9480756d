from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_madengine.engine.rundir import RECORD, TOP
from pytest_madengine.reporting import htmlpast
from pytest_madengine.reporting.htmlstory import Past, Point
from pytest_madengine.reporting.record import RunRecord
from pytest_madengine.results.history import Key
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.results.result import FailureClass, Result
from tests.reporting.told import result, row

NOW = result("m")
THING = (Key.of(NOW.rows[0].columns), "performance")


class Project:
    """A folder where models ran."""

    def __init__(self, folder: Path) -> None:
        self.runs = folder / TOP / "runs"

    def ran(self, name: str, *results: Result) -> Path:
        """A run's directory with the record of these results, made at a time that is the run's name."""
        (self.runs / name).mkdir(parents=True)
        record = RunRecord(self.runs / name / RECORD, lambda: name)
        for each in results:
            record.write(replace(each, run=name, id=f"{name}-{each.id}"))
        return self.runs / name

    def past(self, run: Path, *results: Result) -> Past:
        return htmlpast.reader(run)(results)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def of_value(value: str) -> Result:
    return result("m", "SUCCESS", row("m", performance=value))


def test_earlier_runs_give_values_in_their_order_and_later_ones_none(project: Project) -> None:
    project.ran("2026-02", of_value("2"))
    project.ran("2026-01", of_value("1"), result("other"))
    project.ran("2026-04", of_value("4"))
    past = project.past(project.ran("2026-03", NOW), NOW)
    assert past.history == {THING: [Point("2026-01", "2026-01", 1.0), Point("2026-02", "2026-02", 2.0)]}


def test_the_baseline_is_the_last_success(project: Project) -> None:
    project.ran("2026-01", NOW)
    project.ran("2026-02", NOW)
    project.ran("2026-03", result("m", FAILURE))
    assert project.past(project.ran("2026-04", NOW), NOW).baseline["models.json::m"].run == "2026-02"


def test_of_a_run_that_tried_twice_the_last_try_counts(project: Project) -> None:
    lost = result("m", FAILURE, failure=FailureClass.INFRASTRUCTURE, id="first")
    project.ran("2026-01", lost, NOW)
    past = project.past(project.ran("2026-02", NOW), NOW)
    assert [each.value for each in past.history[THING]] == [12.5]
    assert past.baseline["models.json::m"].succeeded


def test_the_first_run_has_no_past(project: Project) -> None:
    assert project.past(project.ran("2026-01", NOW), NOW) == Past()


def test_a_record_that_cannot_be_read_is_left_out(project: Project) -> None:
    (project.ran("2026-01") / RECORD).write_text("{broken\n")
    assert project.past(project.ran("2026-02", NOW), NOW) == Past()
