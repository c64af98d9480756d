"""Runs in whose middle something breaks that is no model's fault: one row for each model, and the right blame."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Board
from pytest_madengine.results.result import FailureClass, Result
from tests.backends.support import MortalEngine, containers, until
from tests.cards import BARE, UNLOADED, card, project, rows, statuses
from tests.test_loop import ALL, fake, timed
from tests.test_resume import DOCKER, PATIENCE, pytest_in, ran, said

ROOT = str(Path(__file__).parent.parent)


def classes(folder: Path) -> dict[str, FailureClass]:
    """Whose fault each model's last try was."""
    records = [record for record in journal.read(folder / ".madengine/runs/latest") if record["kind"] == journal.RESULT]
    return {record["item"].rpartition("::")[2]: FailureClass(record["failure"]) for record in records}


def test_a_disk_that_is_full_for_the_journal(tmp_path: Path) -> None:
    names = [f"m{n}" for n in range(30)]
    fake(tmp_path, *(timed(name, 0.1, CODE="3" if name == "m7" else "0") for name in names), at_once=5)
    pytest_here = [sys.executable, "-m", "pytest", *BARE, *ALL]
    limited = ["bash", "-c", 'ulimit -f 45; exec "$@"', "bash", *pytest_here]
    environment = {**os.environ, **UNLOADED, "PYTHONPATH": ROOT}
    done = subprocess.run(limited, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    expected = {name: "FAILURE" if name == "m7" else "SUCCESS" for name in names}
    assert statuses(tmp_path / "perf.csv") == expected, done.stdout
    assert len(rows(tmp_path / "perf.csv")) == len(names)
    assert "journal.jsonl: File too large: a resumed run would not know all of this one" in done.stdout
    assert (tmp_path / ".madengine/runs/latest/journal.jsonl").stat().st_size <= 45 * 1024
    results = [
        Result.from_json(path.read_text()) for path in tmp_path.glob(".madengine/runs/latest/jobs/*/result.json")
    ]
    assert {each.model: each.failure for each in results if each.failed} == {"m7": FailureClass.MODEL}


def test_a_worker_that_crashes(tmp_path: Path) -> None:
    fake(tmp_path, *(timed(name, 0.2) for name in "abcd"), at_once=1)
    with (tmp_path / "conftest.py").open("a") as conftest:
        conftest.write("import os\ndef pytest_madengine_result(item):\n    item.name == 'b' and os._exit(9)\n")
    assert ran(tmp_path, *ALL, "-n2") == pytest.ExitCode.TESTS_FAILED
    assert len(rows(tmp_path / "perf.csv")) == 4
    assert statuses(tmp_path / "perf.csv") == dict.fromkeys("abcd", "SUCCESS")
    assert "worker" in said(tmp_path)


@pytest.mark.requires_docker
@pytest.mark.parametrize("retries", [0, 1])
def test_an_engine_that_restarts_and_takes_a_container_with_it(
    tmp_path: Path, mortal_engine: MortalEngine, retries: int
) -> None:
    go = "until [ -e $MADENGINE_PROJECT/go ]; do sleep 0.02; done; echo performance: 1 x\n"
    project(tmp_path, card("dies"), card("lives"), script=f"echo so far\n{go}")
    process = pytest_in(tmp_path, *DOCKER, "--madengine-max-in-flight=2", f"--madengine-retries={retries}")
    run = tmp_path / ".madengine/runs/latest"
    until(lambda: len([log for log in run.glob("jobs/*/run.log") if "so far" in log.read_text()]) == 2)
    names = containers(run.resolve().name)
    mortal_engine.kill()
    (doomed,) = [name for name in names if "-dies-" in name]
    plain = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    subprocess.run(["docker", "kill", doomed], env=plain, check=True, capture_output=True)
    (tmp_path / "go").touch()
    mortal_engine.start()
    code = process.wait(PATIENCE)
    assert code == (pytest.ExitCode.OK if retries else pytest.ExitCode.TESTS_FAILED), said(tmp_path)
    found = [(row["model"], row["status"]) for row in rows(tmp_path / "perf.csv")]
    again = [("dies", "SUCCESS")] if retries else []
    assert sorted(found) == sorted([("dies", "FAILURE"), *again, ("lives", "SUCCESS")])
    assert classes(tmp_path)["dies"] is (FailureClass.NONE if retries else FailureClass.INFRASTRUCTURE)
    assert Board.of(journal.read(run)).in_flight() == []
    assert containers(run.resolve().name) == []
