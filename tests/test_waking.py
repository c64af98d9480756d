"""Endings: what is recorded and cleaned up when a session does not simply run to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.cards import BARE, UNLOADED, card, project, rows, statuses
from tests.test_items import HOST

DEADLINE = 60
LONG = """
echo 'performance: 1 x'
(setsid sleep 86399 &)
sleep 86399 &
sleep 86399
"""


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def logged(folder: Path, name: str) -> bool:
    return any(
        "performance" in path.read_text() for path in folder.glob(f".madengine/runs/latest/jobs/{name}-*/run.log")
    )


def perf_csv(folder: Path) -> str:
    path = folder / "perf.csv"
    return path.read_text() if path.exists() else ""


def started(folder: Path, *args: str) -> subprocess.Popen[bytes]:
    """A pytest run in a session of its own, so that a signal reaches it and its workers as from a terminal."""
    argv = [sys.executable, "-m", "pytest", *BARE, "--madengine-tags=all", *args]
    with (folder / "out.txt").open("wb") as out:
        return subprocess.Popen(
            argv,
            cwd=folder,
            env={**os.environ, **UNLOADED},
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_listen_to_interrupts,  # noqa: PLW1509  # no threads here
        )


def _listen_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def family(folder: Path) -> list[int]:
    """Processes that a run in this folder started: their environment names it."""
    return [each.pid for each in psutil.process_iter() if _names(each, str(folder))]


def _names(process: psutil.Process, text: str) -> bool:
    try:
        return text in process.environ().get("MADENGINE_JOB", "")
    except psutil.Error:
        return False


@pytest.fixture
def long(tmp_path: Path) -> Path:
    return project(tmp_path, card("a"), card("b"), card("c"), b=LONG, c=LONG)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_a_signal_ends_the_run_leaves_nothing_behind_and_loses_no_row(
    long: Path, number: signal.Signals, workers: list[str]
) -> None:
    process = started(long, HOST, *workers)
    eventually(lambda: logged(long, "b") and "SUCCESS" in perf_csv(long))
    running = family(long)
    assert running
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert process.wait(DEADLINE) == pytest.ExitCode.INTERRUPTED
    assert family(long) == []
    found = statuses(long / "perf.csv")
    assert found["a"] == "SUCCESS"
    assert found["b"] == "FAILURE"
    assert {row["performance"] for row in rows(long / "perf.csv") if row["model"] in "ab"} == {"12.50", "1"}
    assert "Traceback" not in (long / "out.txt").read_text()


def test_a_crashed_worker_costs_no_row_and_the_others_go_on(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    project(tmp_path, *map(card, names), b="kill -9 $PPID_OF_PYTEST; sleep 86399\n")
    (tmp_path / "conftest.py").write_text(
        "import dataclasses, os\n"
        "def pytest_madengine_job(item, job):\n"
        "    return dataclasses.replace(job, env={**job.env, 'PPID_OF_PYTEST': str(os.getpid())})\n"
    )
    process = started(tmp_path, HOST, "-n2")
    assert process.wait(DEADLINE) == pytest.ExitCode.TESTS_FAILED
    assert statuses(tmp_path / "perf.csv") == {"a": "SUCCESS", "b": "FAILURE", "c": "SUCCESS", "d": "SUCCESS"}
    assert len(rows(tmp_path / "perf.csv")) == len(names)
    assert family(tmp_path) == []


def test_a_worker_that_dies_before_its_model_began_costs_no_row(tmp_path: Path) -> None:
    project(tmp_path, card("a"), card("b"))
    (tmp_path / "conftest.py").write_text(
        "import os, pytest\n"
        "@pytest.fixture(autouse=True)\n"
        "def die(request):\n"
        "    if request.node.name == 'b': os._exit(1)\n"
    )
    process = started(tmp_path, HOST, "-n2")
    assert process.wait(DEADLINE) == pytest.ExitCode.TESTS_FAILED
    assert statuses(tmp_path / "perf.csv") == {"a": "SUCCESS", "b": "FAILURE"}


def test_exitfirst_among_workers_lets_the_models_in_flight_end_and_keeps_their_rows(tmp_path: Path) -> None:
    failed = "$MADENGINE_PROJECT/failed"
    project(
        tmp_path,
        *map(card, "abcdefgh"),
        script=f"while ! [ -e {failed} ]; do sleep 0.1; done; sleep 1; echo performance: 1 x\n",
        a=f"touch {failed}; exit 1\n",
    )
    process = started(tmp_path, HOST, "-n2", "-x")
    assert process.wait(DEADLINE) != pytest.ExitCode.OK
    found = statuses(tmp_path / "perf.csv")
    assert found.pop("a") == "FAILURE"
    assert 0 < len(found) < len("bcdefgh")
    assert family(tmp_path) == []


def test_a_row_that_cannot_be_written_is_an_error_and_other_rows_go_on(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"), card("b"))
    pytester.makeconftest(
        """
        class Broken:
            name = "broken"
            def write(self, result):
                if result.model == "a":
                    raise OSError("no space left on device")
                if result.model == "b":
                    raise KeyError("color")

        def pytest_madengine_reporters():
            return [Broken()]
        """
    )
    result = pytester.runpytest("--madengine-tags=all", HOST)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["ERROR: broken could not write a row for models.json::a: no space left on device"])
    result.stdout.fnmatch_lines(["ERROR: broken could not write a row for models.json::b: KeyError('color')"])
    assert statuses(pytester.path / "perf.csv") == {"a": "SUCCESS", "b": "SUCCESS"}


def test_a_perf_csv_that_lacks_columns_is_refused_before_anything_runs(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    (pytester.path / "perf.csv").write_text("model,performance\n")
    result = pytester.runpytest("--madengine-tags=a", HOST)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*perf.csv: its header lacks n_gpus*--madengine-output*"])


DISAGG = {"distributed": {"launcher": "sglang_disagg", "nnodes": 2}}
TOO_FEW = "the launcher sglang_disagg needs at least 3 nodes, slurm.nodes is 2"


def test_all_models_on_too_few_nodes_are_one_usage_error(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("fine"), card("a", **DISAGG), card("b", **DISAGG), card("left", tags=["x"], **DISAGG))
    result = pytester.runpytest("--madengine-tags=fine,a,b", "--target=slurm")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: a: {TOO_FEW}", f"b: {TOO_FEW}"])
    result.stderr.no_fnmatch_line("*left*")
    assert not (pytester.path / "perf.csv").exists()
    assert list(pytester.path.glob(".madengine/runs/latest/jobs/*")) == []


NARROW = """
from madengine.utils.discover_models import CustomModel
class Narrow(CustomModel):
    def update_model(self):
        self.args = "--updated"
    def to_dict(self):
        return {{**super().to_dict(), "distributed": {fields!r}}}
def list_models():
    return [Narrow("narrow", scripts="run.sh")]
"""


def test_a_card_that_completes_itself_is_met_when_it_is_complete(pytester: pytest.Pytester) -> None:
    folder = project(pytester.path).joinpath("scripts/dyn")
    folder.mkdir()
    (folder / "run.sh").touch()
    (folder / "get_models_json.py").write_text(NARROW.format(fields=DISAGG["distributed"]))
    bare = '--madengine-context={"slurm": {"container_runtime": "none"}}'
    result = pytester.runpytest("--madengine-tags=all", "--target=slurm", bare)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{TOO_FEW}*"])
    assert rows(pytester.path / "perf.csv")[0]["args"] == "--updated"


def test_a_rerun_keeps_each_attempt_and_the_last_one_decides(pytester: pytest.Pytester) -> None:
    script = "[ -e $MADENGINE_PROJECT/tried ] && echo 'performance: 1 x' || touch $MADENGINE_PROJECT/tried\n"
    project(pytester.path, card("a"), a=script)
    result = pytester.runpytest("--madengine-tags=a", HOST, "--reruns=2")
    assert result.ret == pytest.ExitCode.OK
    assert [row["status"] for row in rows(pytester.path / "perf.csv")] == ["FAILURE", "SUCCESS"]


def test_every_run_has_a_directory_of_its_own_and_latest_names_the_last(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    for _ in range(2):
        pytester.runpytest("--madengine-tags=a", HOST).assert_outcomes(passed=1)
    runs = pytester.path / ".madengine" / "runs"
    names = sorted(path.name for path in runs.iterdir() if not path.is_symlink())
    assert len(names) == 2
    assert (runs / "latest").resolve().name == names[-1]
    assert (pytester.path / ".madengine" / ".gitignore").read_text() == "*\n"


def test_a_job_that_cannot_be_ended_is_told_and_costs_no_row(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    pytester.makeconftest(
        """
        from pytest_madengine.backends.host import HostBackend
        from pytest_madengine.errors import InfrastructureError

        class Stubborn(HostBackend):
            def states(self, handles):
                raise InfrastructureError("the engine is gone")
            def cancel(self, handles, *, hard=False):
                raise InfrastructureError("still gone")

        def pytest_madengine_backends():
            return {"host": Stubborn()}

        def pytest_madengine_pace():
            from pytest_madengine.engine.lane import Pace
            return Pace(patience=0.2)
        """
    )
    result = pytester.runpytest("--madengine-tags=a", HOST)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["a: host out of reach for 0.2 s: the engine is gone", "ERROR: * may still run: still gone"]
    )
    assert statuses(pytester.path / "perf.csv") == {"a": "FAILURE"}
