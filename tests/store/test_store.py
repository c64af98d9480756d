from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_madengine.errors import UserError
from pytest_madengine.reporting.perfcsv import PerfCsv
from pytest_madengine.reporting.record import line
from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.history import Key, Value
from pytest_madengine.results.metric import metrics_of
from pytest_madengine.store import database
from pytest_madengine.store.store import Filter, Store, since
from tests.store.made import moment, record, result, row, run_id

ALL = 11
"""Metrics of the project's two nights."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two nights: a model that gets faster, one that fails then, one with several rows, and one that is new."""
    multi = result("multi", row("multi_a", "5", {"latency_ms": "3.5"}), row("multi_b", "6"))
    record(tmp_path, 0, [result("a"), result("b", row("b", "50", tags="x,nightly")), multi])
    faster = result("a", row("a", "110", gpu_architecture="gfx950"))
    record(tmp_path, 1, [faster, result("b", row("b"), reason="exit code 3"), multi, result("c")])
    return tmp_path


def names(project: Path, which: Filter) -> list[tuple[str, str]]:
    with Store.open(project) as store:
        return [(entry.model, entry.name) for entry in store.entries(which)]


def db(project: Path) -> Path:
    return project / ".madengine" / "store.db"


class TestQuestions:
    def test_runs_are_counted(self, project: Path) -> None:
        with Store.open(project) as store:
            first, second = store.runs()
        assert first == (run_id(0), moment(0), 3, 3, 0, 0)
        assert second == (run_id(1), moment(1), 4, 3, 1, 0)

    @pytest.mark.parametrize("name", [run_id(1), run_id(1)[:8], "latest", "latest~0"])
    def test_a_run_is_found_by_several_names(self, project: Path, name: str) -> None:
        with Store.open(project) as store:
            assert store.run(name) == run_id(1)
            assert store.run("latest~1") == run_id(0)

    def test_a_run_is_found_by_its_tag(self, project: Path) -> None:
        (project / ".madengine/tags").mkdir()
        (project / ".madengine/tags/good").write_text(f"{run_id(0)}\n")
        with Store.open(project) as store:
            assert store.run("good") == run_id(0)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("2026", "2 runs begin with '2026'"),
            ("latest~2", "no run 'latest~2'"),
            ("lates", "did you mean 'latest'"),
            ("../x", "no run '../x'"),
        ],
    )
    def test_a_run_that_is_not_there_is_an_error_that_names_others(self, project: Path, name: str, said: str) -> None:
        with Store.open(project) as store, pytest.raises(UserError, match=run_id(1)) as error:
            store.run(name)
        assert said in str(error.value)

    @pytest.mark.parametrize(
        ("which", "found"),
        [
            (Filter(runs=[run_id(0)], model="b"), [("b", "performance")]),
            (Filter(model="multi", metric="lat*", runs=[run_id(0)]), [("multi_a", "latency_ms")]),
            (Filter(model="multi_b", runs=[run_id(0)]), [("multi_b", "performance")]),
            (Filter(model="m*b", metric="performance", runs=[run_id(1)]), [("multi_b", "performance")]),
            (Filter(status="failure"), [("b", "performance")]),
            (Filter(tag="nightly"), [("b", "performance")]),
            (Filter(tag="night"), []),
            (Filter(architecture="gfx95*"), [("a", "performance")]),
            (Filter(since=since("2026-01-02"), model="c"), [("c", "performance")]),
            (Filter(since=since("2026-01-03")), []),
        ],
    )
    def test_filters_say_which_results_are_meant(
        self, project: Path, which: Filter, found: list[tuple[str, str]]
    ) -> None:
        assert names(project, which) == found

    def test_the_last_try_of_a_model_counts_unless_all_are_wanted(self, tmp_path: Path) -> None:
        tries = [result("a", row("a"), attempt=1), result("b"), result("a", row("a", "7"), attempt=2)]
        record(tmp_path, 0, tries)
        with Store.open(tmp_path) as store:
            assert [(each.model, each.value) for each in store.entries()] == [("b", 100.0), ("a", 7.0)]
            assert len(store.entries(Filter(all_tries=True))) == 3
            assert [each.attempt for each in store.results()] == [1, 1, 2]

    def test_a_trend_goes_from_the_oldest_run_to_the_newest(self, project: Path) -> None:
        with Store.open(project) as store:
            assert [(each.run, each.value) for each in store.trend("a")] == [(run_id(0), 100.0), (run_id(1), 110.0)]
            assert [each.value for each in store.trend("a", last=1)] == [110.0]
            assert [each.value for each in store.trend("b")] == [50.0, None]
            assert [each.value for each in store.trend("*", "latency_ms")] == [3.5, 3.5]

    def test_what_a_run_told_of_a_metric_is_told_again_the_worst_first(self, tmp_path: Path) -> None:
        metric = metrics_of([row("a", "90")])[0]
        told = tuple(
            Comparison(metric, judgement, gates=True, change=change)
            for judgement, change in ((Judgement.PASS, 0.01), (Judgement.REGRESSION, -0.1))
        )
        record(tmp_path, 0, [result("a", row("a", "90"), comparisons=told)])
        with Store.open(tmp_path) as store:
            (entry,) = store.entries()
        assert (entry.change, entry.judgement) == (-0.1, "regression")

    def test_values_for_baselines_are_those_of_successful_rows(self, project: Path) -> None:
        with Store.open(project) as store:
            of_b = [each for each in store.values() if each.key.model == "b"]
            assert of_b == [Value(Key.of(row("b", "50").columns), "performance", 50.0, "tok/s", run_id(0))]
            assert {each.run for each in store.values(without=run_id(0))} == {run_id(1)}
            assert {each.run for each in store.values(run=run_id(0))} == {run_id(0)}
            assert {each.run for each in store.values(last=1)} == {run_id(1)}
            assert list(store.values(run="another")) == []

    def test_whole_results_come_in_the_order_in_which_they_were_recorded(self, project: Path) -> None:
        with Store.open(project) as store:
            assert [each.model for each in store.results([run_id(1)])] == ["a", "b", "multi", "c"]
            assert [each.run for each in store.results()] == [run_id(0)] * 3 + [run_id(1)] * 4
            assert next(store.results()).rows == result("a").rows

    def test_a_model_without_results_is_told_with_the_nearest_that_has(self, project: Path) -> None:
        with Store.open(project) as store:
            assert "did you mean 'multi_a'" in store.unknown("multi_aa")

    def test_text_that_no_file_can_hold_is_kept_as_an_escape(self, tmp_path: Path) -> None:
        record(tmp_path, 0, [result("a", row("a", "1", args="\udcff\0x"))])
        with Store.open(tmp_path) as store:
            assert store.entries()[0].args == "\\udcff\0x"


class TestPlaces:
    def test_a_perf_csv_is_a_place_whose_rows_are_in_order(self, tmp_path: Path) -> None:
        path = tmp_path / "perf.csv"
        for value in "321":
            PerfCsv(path).write(result("a", row("a", value)))
        with Store.open(path) as store:
            assert [each.value for each in store.trend("a")] == [3.0, 2.0, 1.0]
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("name", [f".madengine/runs/{run_id(0)}", f".madengine/runs/{run_id(0)}/results.jsonl"])
    def test_one_run_is_a_place(self, project: Path, name: str) -> None:
        with Store.open(project / name) as store:
            assert [run.run for run in store.runs()] == [run_id(0)]

    def test_a_place_without_runs_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"has no \.madengine/runs; valid: a folder where pytest ran"):
            Store.open(tmp_path)
        with pytest.raises(UserError, match="does not exist"):
            Store.open(tmp_path / "nowhere")

    @pytest.mark.parametrize("text", ["yesterday", "2026-13-01", ""])
    def test_a_date_that_is_none_is_an_error(self, text: str) -> None:
        with pytest.raises(UserError, match=r"--since: found .*2026-03-14"):
            since(text)

    def test_a_time_is_taken_as_utc_unless_it_says_otherwise(self) -> None:
        assert since("2026-03-14T15:09") == "2026-03-14T15:09:00.000000+00:00"
        assert since("2026-03-14T15:09+01:00") == since("2026-03-14T14:09Z")


class TestFile:
    """The database's file: kept, brought up to date, and never needed."""

    def test_it_is_made_once_and_read_again(self, project: Path) -> None:
        Store.open(project).close()
        before = db(project).stat().st_mtime_ns
        assert len(names(project, Filter())) == ALL
        assert db(project).stat().st_mtime_ns == before

    def test_new_runs_and_new_lines_are_taken_in(self, project: Path) -> None:
        Store.open(project).close()
        path = record(project, 2, [result("d")])
        assert names(project, Filter(runs=[run_id(2)])) == [("d", "performance")]
        with path.open("ab") as file:
            file.write(line(result("e", run=run_id(2)), moment(2, 5)))
            file.write(line(result("d", row("d", "9"), run=run_id(2), attempt=2), moment(2, 6)))
        assert names(project, Filter(runs=[run_id(2)])) == [("e", "performance"), ("d", "performance")]

    @pytest.mark.parametrize("first", [["d", "e"], ["e"], []])
    def test_a_record_that_became_another_is_read_anew(self, project: Path, first: list[str]) -> None:
        record(project, 2, [result(name) for name in ("d", "f")])
        Store.open(project).close()
        record(project, 2, [result(name, reason="x" * 10_000 * len(first)) for name in first])
        assert names(project, Filter(model="[def]")) == [(name, "performance") for name in first]

    def test_a_run_that_is_gone_is_forgotten(self, project: Path) -> None:
        Store.open(project).close()
        shutil.rmtree(project / ".madengine/runs" / run_id(0))
        with Store.open(project) as store:
            assert [run.run for run in store.runs()] == [run_id(1)]
            assert len(store.entries()) == 6

    def test_it_may_be_deleted_at_any_time(self, project: Path) -> None:
        with Store.open(project) as store:
            db(project).unlink()
            assert len(store.entries()) == ALL
        assert len(names(project, Filter())) == ALL
        assert db(project).exists()

    @pytest.mark.parametrize("content", [b"this is no database, " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
    def test_a_damaged_one_is_made_anew(self, project: Path, content: bytes) -> None:
        db(project).write_bytes(content)
        assert len(names(project, Filter())) == ALL
        with sqlite3.connect(db(project)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (database.VERSION,)
        connection.close()

    def test_one_of_another_version_is_made_anew(self, project: Path) -> None:
        with sqlite3.connect(db(project)) as connection:
            connection.execute("CREATE TABLE results (other)")
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        assert len(names(project, Filter())) == ALL

    def test_where_none_can_be_written_all_is_answered_from_memory(self, project: Path) -> None:
        db(project).mkdir()
        assert len(names(project, Filter())) == ALL

    def test_where_another_process_holds_it_all_is_answered_from_memory(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "PATIENCE", 0.05)
        Store.open(project).close()
        record(project, 2, [result("d")])
        holder = sqlite3.connect(db(project), isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        assert len(names(project, Filter())) == ALL + 1
        holder.close()

    def test_several_processes_may_make_it_at_once(self, project: Path) -> None:
        count = "from pytest_madengine.store.store import Store; print(len(Store.open().entries()))"
        asking = [
            subprocess.Popen([sys.executable, "-c", count], cwd=project, stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        assert [process.communicate(timeout=60)[0] for process in asking] == [f"{ALL}\n"] * 4
        assert len(names(project, Filter())) == ALL


class TestBrokenLines:
    def test_each_is_told_of_by_file_and_line_every_time(self, project: Path) -> None:
        path = record(project, 2, [result("d")])
        with path.open("ab") as file:
            file.write(b"{half a line\n" + line(result("e"), moment(2, 5)))
        for _ in range(2):
            with Store.open(project) as store:
                (problem,) = store.problems
                assert problem.startswith(f"{path}:2: is no Result: ")
                assert [each.model for each in store.trend("[de]")] == ["d", "e"]

    def test_a_line_that_is_cut_off_is_read_once_it_is_whole(self, project: Path) -> None:
        path = record(project, 2, [result("d")])
        whole = line(result("e"), moment(2, 5))
        with path.open("ab") as file:
            file.write(whole[:50])
        with Store.open(project) as store:
            assert store.problems == [f"{path}:2: is cut off; it is left out"]
        with path.open("ab") as file:
            file.write(whole[50:])
        with Store.open(project) as store:
            assert store.problems == []
            assert [each.model for each in store.trend("[de]")] == ["d", "e"]
