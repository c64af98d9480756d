from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine import cli
from pytest_madengine.reporting import perfcsv
from pytest_madengine.results.result import Result
from tests.cards import card, project
from tests.results.test_result import results
from tests.store.made import record, result, row

FAILS = "exit 3\n"
TABLE = "printf 'model,performance,metric,latency\\na,5,tok/s,\"1,5\"\\nb,,tok/s,2\\n' >results.csv\n"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in perfcsv.written(folder / "perf.csv") if path.exists()}


def rebuilt(folder: Path, *arguments: str) -> dict[str, bytes]:
    (folder / "again").mkdir(exist_ok=True)
    assert cli.main(["rebuild", f"--output={folder / 'again' / 'perf.csv'}", *arguments]) == 0
    return files(folder / "again")


def test_all_files_of_real_runs_come_out_byte_by_byte(pytester: pytest.Pytester) -> None:
    quoted = card("quoted", args='--text "a, b"', tags=["x", "y"])
    table = card("table", multiple_results="results.csv", args="--config scripts/c.csv")
    project(pytester.path, quoted, card("bad"), table, bad=FAILS, table=TABLE)
    (pytester.path / "scripts/c.csv").write_text("model,size\na,1\nb,ä\n", encoding="utf-8")
    for _ in range(2):
        pytester.runpytest_inprocess("--madengine-tags=all", "--target=host")
    before = files(pytester.path)
    assert len(before) == 7
    assert before["perf.csv"].count(b"\n") == 1 + 2 * 4
    assert rebuilt(pytester.path) == before


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(results, min_size=1, max_size=3))
def test_files_do_not_depend_on_whether_rows_come_one_by_one(tmp_path: Path, given_results: list[Result]) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir(exist_ok=True)
    for path in perfcsv.written(one / "perf.csv"):
        path.unlink(missing_ok=True)
    entry = perfcsv.PerfEntry(one)
    for each in given_results:
        for reporter in (perfcsv.PerfCsv(one / "perf.csv"), perfcsv.PerfSuper(one), entry):
            reporter.write(each)
    entry.finish()
    perfcsv.rebuild(other / "perf.csv", given_results)
    assert files(other) == files(one)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for day in range(2):
        record(tmp_path, day, [result("a", row("a", str(day)))])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_some_runs_are_enough_when_they_are_named(runs: Path) -> None:
    assert rebuilt(runs, "--run=latest")["perf.csv"].splitlines()[1].startswith(b"a,8,1,")
    assert rebuilt(runs, "--run=latest", "--force")["perf.csv"].count(b"\n") == 2


@pytest.mark.parametrize("name", ["perf.csv", "perf_entry_super.json"])
def test_a_file_that_is_there_is_replaced_only_by_force(
    runs: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / name).write_text("precious")
    assert cli.main(["rebuild"]) == 1
    assert f"--output: {name} would be replaced; valid: another path, or --force" in capsys.readouterr().err
    assert (runs / name).read_text() == "precious"
    assert cli.main(["rebuild", "--force"]) == 0
    assert (runs / name).read_text() != "precious"


def test_what_has_no_record_replaces_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    perf = tmp_path / "perf.csv"
    perfcsv.PerfCsv(perf).write(result("a"))
    before = perf.read_bytes()
    assert cli.main(["rebuild", f"--from={perf}", f"--output={perf}", "--force"]) == 1
    assert "no record of it holds a result" in capsys.readouterr().err
    assert perf.read_bytes() == before


def test_a_folder_that_is_not_there_is_an_error(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rebuild", "--output=nowhere/perf.csv"]) == 1
    assert "--output: nowhere is no folder" in capsys.readouterr().err
