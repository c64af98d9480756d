"""A run that ended early, and the one that goes on with it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Board
from tests.backends.support import containers, processes
from tests.cards import BARE, UNLOADED, card, project, rows, statuses
from tests.test_loop import ALL, fake, timed
from tests.test_waking import eventually

KILLS = int(os.environ.get("MADENGINE_TEST_KILLS", "6"))
"""How many random moments are tried; each costs two or three runs of pytest."""
PATIENCE = 60
HOST = ("--madengine-tags=all", "--target=host")
DOCKER = (
    "--madengine-tags=all",
    "--target=docker",
    '--madengine-context={"docker_image": "madengine-test-base:latest"}',
)


def pytest_in(folder: Path, *args: str) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parent.parent)
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *BARE, *args],
            cwd=folder,
            env={**os.environ, **UNLOADED, "PYTHONPATH": root},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def ran(folder: Path, *args: str) -> int:
    return pytest_in(folder, *args).wait(PATIENCE)


def board(folder: Path) -> Board:
    return Board.of(journal.read(folder / ".madengine/runs/latest"))


def said(folder: Path) -> str:
    return (folder / "out.txt").read_text()


def kill_after(seconds: float, folder: Path, *args: str) -> None:
    process = pytest_in(folder, *args)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def has_a_run(folder: Path) -> bool:
    return (folder / ".madengine/runs/latest").exists()


class TestKilledAtAnyMoment:
    """kill -9, then resume: every result once, nothing run twice that had finished, no job left over."""

    def test_on_the_fake_backend(self, tmp_path: Path) -> None:
        dice = random.Random()  # noqa: S311  # other moments each time; the failing one is named
        for kill in range(KILLS):
            folder = tmp_path / str(kill)
            folder.mkdir()
            fake(folder, *(timed(f"m{n}", 0.2 + n % 3 * 0.1) for n in range(12)), at_once=5)
            moment = dice.uniform(0.3, 2.0)
            kill_after(moment, folder, *ALL)
            assert ran(folder, *ALL, *_resume(folder)) == pytest.ExitCode.OK, f"{moment}: {said(folder)}"
            expected = {f"m{n}": "SUCCESS" for n in range(12)}
            assert Counter(row["model"] for row in rows(folder / "perf.csv")) == Counter(list(expected)), moment
            assert statuses(folder / "perf.csv") == expected
            jobs = Counter(course.item for course in board(folder).jobs.values())
            assert set(jobs.values()) == {1}, moment
            assert board(folder).in_flight() == []
            shutil.rmtree(folder)

    @pytest.mark.requires_docker
    def test_on_docker(self, tmp_path: Path) -> None:
        dice = random.Random()  # noqa: S311  # see above
        for kill in range(max(2, KILLS // 3)):
            folder = tmp_path / str(kill)
            folder.mkdir()
            script = "echo once >>$MADENGINE_JOB/runs; sleep 0.3; echo performance: 1 x\n"
            project(folder, *map(card, "abcde"), script=script)
            moment = dice.uniform(0.5, 4.0)
            kill_after(moment, folder, *DOCKER, "--madengine-max-in-flight=3")
            resumed = ran(folder, *DOCKER, "--madengine-max-in-flight=3", *_resume(folder))
            assert resumed == pytest.ExitCode.OK, f"{moment}: {said(folder)}"
            assert Counter(row["model"] for row in rows(folder / "perf.csv")) == Counter("abcde"), moment
            assert set(statuses(folder / "perf.csv").values()) == {"SUCCESS"}
            runs = [path.read_text() for path in folder.glob(".madengine/runs/latest/jobs/*/runs")]
            assert runs == ["once\n"] * 5, moment
            assert containers((folder / ".madengine/runs/latest").resolve().name) == []


def _resume(folder: Path) -> list[str]:
    return ["--madengine-resume"] if has_a_run(folder) else []


class TestResuming:
    def test_nothing_that_is_done_is_done_again(self, tmp_path: Path) -> None:
        project(tmp_path, card("a"), card("bad"), script="echo x >>$MADENGINE_PROJECT/runs; echo performance: 1 x\n")
        (tmp_path / "scripts/bad.sh").write_text("echo x >>$MADENGINE_PROJECT/runs; exit 3\n")
        for resume in ([], ["--madengine-resume"], ["--madengine-resume"]):
            assert ran(tmp_path, *HOST, *resume) == pytest.ExitCode.TESTS_FAILED
        assert (tmp_path / "runs").read_text() == "x\nx\n"
        assert len(rows(tmp_path / "perf.csv")) == 2
        assert said(tmp_path).count("bad: exit code 3") >= 3
        assert len(list((tmp_path / ".madengine/runs").glob("2*"))) == 1

    def test_tags_and_target_are_those_of_before(self, tmp_path: Path) -> None:
        project(tmp_path, card("a", tags=["x"]), card("b"))
        assert ran(tmp_path, "--madengine-tags=x", "--target=host") == pytest.ExitCode.OK
        for _ in range(2):
            assert ran(tmp_path, "--madengine-resume") == pytest.ExitCode.OK
        assert said(tmp_path).count("1 passed, 1 deselected") == 3
        assert statuses(tmp_path / "perf.csv") == {"a": "SUCCESS"}

    @pytest.mark.parametrize("options", [[], ["--madengine-max-in-flight=3"]], ids=["in line", "ahead"])
    def test_what_was_skipped_runs_where_it_may_now(self, tmp_path: Path, options: list[str]) -> None:
        project(tmp_path, card("a", skip_gpu_arch=["gfx90a"]))
        arch = '--madengine-context={"docker_env_vars": {"MAD_SYSTEM_GPU_ARCHITECTURE": "gfx90a"}}'
        for resume in ([], ["--madengine-resume"]):
            assert ran(tmp_path, *HOST, arch, *options, *resume) == pytest.ExitCode.OK
        assert [row["status"] for row in rows(tmp_path / "perf.csv")] == ["SKIPPED"]
        anyway = "--madengine-disable-skip-gpu-arch"
        assert ran(tmp_path, *HOST, arch, *options, "--madengine-resume", anyway) == pytest.ExitCode.OK
        assert [row["status"] for row in rows(tmp_path / "perf.csv")] == ["SKIPPED", "SUCCESS"]

    @pytest.mark.parametrize("options", [["--madengine-max-in-flight=1"], []], ids=["in line", "ahead"])
    def test_what_infrastructure_failed_runs_again(self, tmp_path: Path, options: list[str]) -> None:
        more = """
class Down(FakeBackend):
    def submit(self, plan):
        from pytest_madengine.errors import InfrastructureError
        if not Path("up").exists():
            raise InfrastructureError("down")
        return super().submit(plan)

def pytest_madengine_backends(config):
    return {"fake": Down(Path("cluster").absolute(), pretend=pretence, at_once=10)}
"""
        fake(tmp_path, timed("a", 0.1), more=more)
        assert ran(tmp_path, *ALL, *options) == pytest.ExitCode.TESTS_FAILED
        (tmp_path / "up").touch()
        assert ran(tmp_path, *ALL, *options, "--madengine-resume") == pytest.ExitCode.OK
        assert [row["status"] for row in rows(tmp_path / "perf.csv")] == ["FAILURE", "SUCCESS"]

    def test_what_runs_is_picked_up_and_what_ended_is_collected(self, tmp_path: Path) -> None:
        go = "until [ -e $MADENGINE_PROJECT/go ]; do sleep 0.02; done; echo performance: 2 x\n"
        project(tmp_path, card("quick"), card("long"), long=f"echo x >>$MADENGINE_PROJECT/runs; {go}")
        process = pytest_in(tmp_path, *HOST, "--madengine-max-in-flight=2")
        eventually((tmp_path / "runs").exists)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        (tmp_path / "go").touch()
        assert ran(tmp_path, *HOST, "--madengine-resume") == pytest.ExitCode.OK
        assert statuses(tmp_path / "perf.csv") == {"quick": "SUCCESS", "long": "SUCCESS"}
        assert (tmp_path / "runs").read_text() == "x\n"
        assert processes((tmp_path / ".madengine/runs/latest").resolve().name) == []

    def test_what_was_lost_runs_again(self, tmp_path: Path) -> None:
        script = (
            "echo x >>$MADENGINE_PROJECT/runs; [ -e $MADENGINE_PROJECT/go ] || sleep 86399; echo performance: 1 x\n"
        )
        project(tmp_path, card("a"), a=script)
        process = pytest_in(tmp_path, *HOST, "--madengine-max-in-flight=2")
        eventually((tmp_path / "runs").exists)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        (course,) = board(tmp_path).in_flight()
        assert course.handle
        os.killpg(int(course.handle.token.partition("/")[0]), signal.SIGKILL)
        (tmp_path / "go").touch()
        assert ran(tmp_path, *HOST, "--madengine-resume") == pytest.ExitCode.OK
        assert statuses(tmp_path / "perf.csv") == {"a": "SUCCESS"}
        assert (tmp_path / "runs").read_text() == "x\nx\n"

    def test_what_was_interrupted_runs_again(self, tmp_path: Path) -> None:
        fake(tmp_path, timed("a", 0.1), timed("b", 3.0))
        process = pytest_in(tmp_path, *ALL)
        eventually(lambda: (tmp_path / "perf.csv").exists() and "SUCCESS" in (tmp_path / "perf.csv").read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == pytest.ExitCode.INTERRUPTED
        assert statuses(tmp_path / "perf.csv") == {"a": "SUCCESS", "b": "FAILURE"}
        assert ran(tmp_path, *ALL, "--madengine-resume") == pytest.ExitCode.OK
        assert [(row["model"], row["status"]) for row in rows(tmp_path / "perf.csv")] == [
            ("a", "SUCCESS"),
            ("b", "FAILURE"),
            ("b", "SUCCESS"),
        ]

    def test_an_unknown_run_is_named_with_those_there_are(self, tmp_path: Path) -> None:
        fake(tmp_path, timed("a", 0.1))
        assert ran(tmp_path, *ALL) == pytest.ExitCode.OK
        assert ran(tmp_path, *ALL, "--madengine-resume=2020") == pytest.ExitCode.USAGE_ERROR
        name = (tmp_path / ".madengine/runs/latest").resolve().name
        assert f"no run '2020' in {tmp_path}/.madengine/runs; valid: {name}, written as" in said(tmp_path)

    def test_a_run_that_still_goes_on_is_left_alone(self, tmp_path: Path) -> None:
        fake(tmp_path, timed("a", 30.0), timed("b", 0.1))
        process = pytest_in(tmp_path, *ALL)
        eventually(lambda: (tmp_path / "perf.csv").exists() and "SUCCESS" in (tmp_path / "perf.csv").read_text())
        assert ran(tmp_path, *ALL, "--madengine-resume") == pytest.ExitCode.USAGE_ERROR
        assert f"is still running (process {process.pid} on " in said(tmp_path)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)

    @pytest.mark.parametrize("options", [[], ["-n2"]], ids=["alone", "xdist"])
    def test_it_works_with_workers(self, tmp_path: Path, options: list[str]) -> None:
        fake(tmp_path, *(timed(f"m{n}", 0.2) for n in range(8)), at_once=1)
        kill_after(1.5, tmp_path, *ALL, *options)
        assert ran(tmp_path, *ALL, *_resume(tmp_path), *options) == pytest.ExitCode.OK, said(tmp_path)
        assert Counter(row["model"] for row in rows(tmp_path / "perf.csv")) == Counter(f"m{n}" for n in range(8))


class TestDetaching:
    def test_jobs_are_left_and_collected_later(self, tmp_path: Path) -> None:
        fake(tmp_path, *(timed(f"m{n}", 1.5) for n in range(5)), at_once=3)
        assert ran(tmp_path, *ALL, "--madengine-detach") == pytest.ExitCode.OK
        text = said(tmp_path)
        name = (tmp_path / ".madengine/runs/latest").resolve().name
        assert "madengine: left running: m0, m1, m2" in text
        assert f"--madengine-tags=all --target=fake --madengine-resume={name}" in text
        assert not (tmp_path / "perf.csv").exists()
        assert ran(tmp_path, *ALL, "--madengine-resume") == pytest.ExitCode.OK
        assert statuses(tmp_path / "perf.csv") == {f"m{n}": "SUCCESS" for n in range(5)}
        assert len(board(tmp_path).jobs) == 5

    @pytest.mark.parametrize("ahead", ["--madengine-max-in-flight=1", "--madengine-max-in-flight=3"])
    def test_an_interruption_detaches_if_asked_to(self, tmp_path: Path, ahead: str) -> None:
        go = "echo x >>$MADENGINE_PROJECT/runs; until [ -e $MADENGINE_PROJECT/go ]; do sleep 0.02; done\n"
        project(tmp_path, card("a"), script=f"{go}echo performance: 1 x\n")
        process = pytest_in(tmp_path, *HOST, ahead, "--madengine-on-interrupt=detach")
        eventually((tmp_path / "runs").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == pytest.ExitCode.INTERRUPTED
        assert "madengine: left running: a" in said(tmp_path)
        assert not (tmp_path / "perf.csv").exists()
        (tmp_path / "go").touch()
        assert ran(tmp_path, *HOST, "--madengine-resume") == pytest.ExitCode.OK
        assert statuses(tmp_path / "perf.csv") == {"a": "SUCCESS"}
        assert (tmp_path / "runs").read_text() == "x\n"

    def test_what_stops_a_session_otherwise_does_not_detach(self, tmp_path: Path) -> None:
        fake(tmp_path, timed("bad", 0.1, CODE="1"), timed("long", 300))
        assert ran(tmp_path, *ALL, "--sw", "--madengine-on-interrupt=detach") == pytest.ExitCode.INTERRUPTED
        assert "left running" not in said(tmp_path)
        assert board(tmp_path).in_flight() == []

    def test_the_way_back_shows_no_secret(self, tmp_path: Path) -> None:
        fake(tmp_path, timed("a", 0.1))
        hidden = '--madengine-context={"secrets": {"HF": "hunter2-hunter2"}}'
        assert ran(tmp_path, *ALL, hidden, "--madengine-detach") == pytest.ExitCode.OK
        assert "hunter2" not in said(tmp_path)
        assert [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()] == []


class TestStatus:
    def test_another_terminal_sees_where_a_run_stands(self, tmp_path: Path) -> None:
        fake(tmp_path, timed("a", 30.0), timed("b", 0.1), timed("c", 0.1, CODE="3"), timed("d", 0.1), at_once=3)
        process = pytest_in(tmp_path, *ALL)
        eventually(lambda: (tmp_path / "perf.csv").exists() and len(rows(tmp_path / "perf.csv")) == 3)
        shown = _status(tmp_path)
        assert "1 running, 3 done (1 failed)" in shown
        assert "c" in shown
        assert "exit code 3" in shown
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)

    def test_a_run_whose_process_died_is_told_from_one_that_goes_on(self, tmp_path: Path) -> None:
        fake(tmp_path, timed("a", 30.0), timed("b", 0.1))
        process = pytest_in(tmp_path, *ALL)
        eventually(lambda: (tmp_path / "perf.csv").exists() and len(rows(tmp_path / "perf.csv")) == 1)
        words = "its process died: --madengine-resume goes on with it"
        assert words not in _status(tmp_path)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert words in _status(tmp_path)

    def test_without_a_run_it_says_so(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--madengine-status"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == pytest.ExitCode.USAGE_ERROR
        assert "no run 'latest' in" in done.stderr
        assert "Traceback" not in done.stderr


def _status(folder: Path) -> str:
    argv = [sys.executable, "-m", "pytest", "--madengine-status"]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_workers_cannot_detach(tmp_path: Path) -> None:
    fake(tmp_path, timed("a", 0.1))
    assert ran(tmp_path, *ALL, "--madengine-detach", "-n2") == pytest.ExitCode.USAGE_ERROR
    assert "--madengine-detach: this one process submits the jobs; leave -n and --dist out" in said(tmp_path)


def test_time_passes_for_the_limit_of_a_job_that_nobody_watches(tmp_path: Path) -> None:
    project(tmp_path, card("a", timeout=2), a="echo performance: 1 x; sleep 86399\n")
    process = pytest_in(tmp_path, *HOST, "--madengine-max-in-flight=2", "--madengine-detach")
    assert process.wait(PATIENCE) == pytest.ExitCode.OK
    started = time.monotonic()
    assert ran(tmp_path, *HOST, "--madengine-resume") == pytest.ExitCode.TESTS_FAILED
    assert time.monotonic() - started < 30
    assert "time limit of 2 s exceeded" in said(tmp_path)
    assert processes((tmp_path / ".madengine/runs/latest").resolve().name) == []
