"""Models that run several times for one result, seen from pytest's side."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_madengine.engine.rundir import RECORD
from pytest_madengine.repeats import PART
from pytest_madengine.results.result import Result
from tests.backends.support import processes
from tests.cards import card, project, rows, statuses
from tests.test_resume import HOST, board, pytest_in, ran, said
from tests.test_waking import eventually

NEXT = """
count=$(cat "$MADENGINE_PROJECT/count" 2>/dev/null || echo 0)
echo $((count + 1)) >"$MADENGINE_PROJECT/count"
value=$(echo "$VALUES" | cut -d' ' -f$((count + 1)))
"""
SAYS = '[ "$value" != fails ] || exit 3\necho "performance: $value samples/s"\n'


def values(folder: Path, text: str, script: str = SAYS) -> None:
    """A model that gives these values, one each time that it runs."""
    project(folder, card("llama", env_vars={"VALUES": text}), script=NEXT + script)


def record(folder: Path) -> list[Result]:
    path = folder / ".madengine/runs/latest" / RECORD
    return [Result.from_json(line) for line in path.read_text().splitlines()]


def runs(folder: Path) -> int:
    return int((folder / "count").read_text() or 0) if (folder / "count").exists() else 0


def parts(folder: Path) -> int:
    return len(list(folder.glob(f".madengine/runs/2*/jobs/*/{PART}")))


def killed(folder: Path, moment: Callable[[], bool], *options: str) -> None:
    """A session that kill -9 ends at that moment."""
    process = pytest_in(folder, *HOST, *options)
    eventually(moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("more", [[], ["--madengine-max-in-flight=3"]], ids=["in line", "ahead"])
class TestRepeats:
    def test_the_median_is_the_one_row_and_all_samples_are_kept(
        self, pytester: pytest.Pytester, more: list[str]
    ) -> None:
        values(pytester.path, "500 10 12 11")
        result = pytester.runpytest(*HOST, "--madengine-repeat=3", "--madengine-warmup=1", *more)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["note: llama: 3 repeats gave 10 to 12 samples/s, deviation 9.1 %"])
        assert runs(pytester.path) == 4
        (row,) = rows(pytester.path / "perf.csv")
        assert row["performance"] == "11"
        (kept,) = record(pytester.path)
        assert kept.metrics[0].samples == (10, 12, 11)

    def test_one_that_fails_ends_them_and_is_named(self, pytester: pytest.Pytester, more: list[str]) -> None:
        values(pytester.path, "10 12 fails 11")
        result = pytester.runpytest(*HOST, "--madengine-repeat=4", *more)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["llama: repeat 3 of 4: exit code 3", "note: llama: 2 repeats gave 10 to 12 samples/s, *"]
        )
        assert runs(pytester.path) == 3
        assert statuses(pytester.path / "perf.csv") == {"llama": "FAILURE"}
        assert record(pytester.path)[0].metrics[0].samples == (10, 12)

    def test_one_that_infrastructure_fails_is_tried_again(self, pytester: pytest.Pytester, more: list[str]) -> None:
        values(pytester.path, "10 lost 12 11", '[ "$value" != lost ] || kill -9 $(ps -o sid= $$)\n' + SAYS)
        result = pytester.runpytest(*HOST, "--madengine-repeat=3", "--madengine-retries=1", *more)
        result.assert_outcomes(passed=1)
        assert [row["status"] for row in rows(pytester.path / "perf.csv")] == ["FAILURE", "SUCCESS"]
        lost, kept = record(pytester.path)
        assert lost.reason.startswith("repeat 2 of 3: the job was lost")
        assert kept.metrics[0].samples == (10, 12, 11)


class TestResuming:
    @pytest.mark.parametrize(
        "moment", [lambda folder: runs(folder) == 3, lambda folder: parts(folder) == 3], ids=["in one", "between two"]
    )
    def test_what_is_measured_is_not_measured_again(self, tmp_path: Path, moment: Callable[[Path], bool]) -> None:
        values(tmp_path, "10 12 11 13 14", f"sleep 0.2\n{SAYS}")
        killed(tmp_path, lambda: moment(tmp_path), "--madengine-repeat=5")
        assert ran(tmp_path, *HOST, "--madengine-resume", "--madengine-repeat=5") == pytest.ExitCode.OK, said(tmp_path)
        assert runs(tmp_path) == 5
        (kept,) = record(tmp_path)
        assert kept.metrics[0].samples == (10, 12, 11, 13, 14)
        assert board(tmp_path).in_flight() == []

    def test_how_often_is_known(self, tmp_path: Path) -> None:
        values(tmp_path, "10 12 11", f"sleep 0.3\n{SAYS}")
        killed(tmp_path, lambda: runs(tmp_path) == 2, "--madengine-repeat=3")
        assert ran(tmp_path, *HOST, "--madengine-resume") == pytest.ExitCode.OK, said(tmp_path)
        assert record(tmp_path)[0].metrics[0].samples == (10, 12, 11)

    def test_ctrl_c_ends_them_with_one_row(self, tmp_path: Path) -> None:
        values(tmp_path, "10 12 11", f'[ "$value" != 12 ] || sleep 60\n{SAYS}')
        running = pytest_in(tmp_path, *HOST, "--madengine-repeat=3")
        eventually(lambda: runs(tmp_path) == 2)
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == pytest.ExitCode.INTERRUPTED
        (kept,) = record(tmp_path)
        assert kept.reason == "repeat 2 of 3: interrupted"
        assert kept.metrics[0].samples == (10,)
        assert processes(kept.run) == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--madengine-repeat=0", "ERROR: --madengine-repeat: found 0; valid: 1 or more"),
        ("--madengine-warmup=-1", "ERROR: --madengine-warmup: found -1; valid: 0 or more"),
        ("--madengine-ab=one", "ERROR: --madengine-ab: found 'one'; valid: two images, IMAGE_A,IMAGE_B"),
        ("--madengine-ab=a,a", "ERROR: --madengine-ab: found 'a,a'; valid: two images, IMAGE_A,IMAGE_B"),
        ("--madengine-ab=a,b", "ERROR: --madengine-ab: the target host runs models without images*"),
    ],
)
def test_what_cannot_be_is_a_usage_error(pytester: pytest.Pytester, option: str, words: str) -> None:
    values(pytester.path, "1")
    result = pytester.runpytest(*HOST, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([words])


def test_a_dry_run_shows_one_of_them(pytester: pytest.Pytester) -> None:
    values(pytester.path, "1")
    result = pytester.runpytest(*HOST, "--madengine-dry-run", "--madengine-repeat=3")
    assert result.ret == pytest.ExitCode.OK
    assert not (pytester.path / ".madengine").exists()


def test_repeats_are_compared_by_their_median(pytester: pytest.Pytester) -> None:
    values(pytester.path, "100 60 101 99 102")
    references = {"llama": {"*": {"performance": {"value": 100}}}}
    (pytester.path / "r.json").write_text(json.dumps(references))
    options = ("--madengine-repeat=5", "--madengine-references=r.json")
    pytester.runpytest(*HOST, *options).assert_outcomes(passed=1)
    assert rows(pytester.path / "perf.csv")[0]["relative_change"] == "0.0000"
