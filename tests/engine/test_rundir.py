from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine.engine.rundir import RunDirectory, noted
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Devices, Job, Mount
from pytest_madengine.launchers.base import Topology
from pytest_madengine.results.judge import single
from pytest_madengine.results.perf import SUCCESS
from pytest_madengine.results.result import Result
from pytest_madengine.secrets import Secret

CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path, "run-1")


def result(name: str) -> Result:
    return Result(f"id-{name}", f"models.json::{name}", name, SUCCESS, single({"model": name}, SUCCESS))


def test_a_run_has_a_folder_of_its_own_below_the_place_it_was_started_in(tmp_path: Path, run: RunDirectory) -> None:
    assert run.path == tmp_path / ".madengine" / "runs" / "run-1"
    assert run.run_id == "run-1"
    assert {run.images.parent, run.discovery.parent} == {run.path}


def test_git_sees_nothing_of_a_run(tmp_path: Path, run: RunDirectory) -> None:
    assert (tmp_path / ".madengine" / ".gitignore").read_text(encoding="utf-8") == "*\n"
    (tmp_path / ".madengine" / ".gitignore").write_text("mine", encoding="utf-8")
    RunDirectory.create(tmp_path, "run-2")
    assert (tmp_path / ".madengine" / ".gitignore").read_text(encoding="utf-8") == "mine"
    assert run.path.is_dir()


def test_latest_points_at_the_last_run(tmp_path: Path, run: RunDirectory) -> None:
    latest = run.path.with_name("latest")
    assert latest.resolve() == run.path
    other = RunDirectory.create(tmp_path, "run-2")
    assert latest.resolve() == other.path
    assert sorted(path.name for path in run.path.parent.iterdir()) == ["latest", "run-1", "run-2"]


def test_another_process_of_the_session_finds_what_is_there(tmp_path: Path, run: RunDirectory) -> None:
    folder = run.new_job("models.json::m")
    assert RunDirectory.create(tmp_path, "run-1") == run
    assert folder.is_dir()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text())
def test_the_folder_of_any_item_is_a_valid_name_for_a_container(run: RunDirectory, name: str) -> None:
    folder = run.new_job(f"scripts/x/models.json::{name}")
    assert folder.parent == run.path / "jobs"
    assert CONTAINER_NAME.fullmatch(f"madengine-{run.run_id}-{folder.name}")
    assert len(folder.name) < 100


def test_items_of_one_name_in_two_files_do_not_share_a_folder(run: RunDirectory) -> None:
    folders = {run.new_job(f"scripts/{letter}/models.json::m") for letter in "ab"}
    assert len(folders) == 2


def test_every_attempt_at_an_item_has_a_folder_of_its_own(run: RunDirectory) -> None:
    first, second, third = (run.new_job("models.json::m") for _ in range(3))
    assert (second.name, third.name) == (f"{first.name}-2", f"{first.name}-3")


MAKE_JOBS = """
import sys
from pathlib import Path
from pytest_madengine.engine.rundir import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
print(*[run.new_job("models.json::m").name for _ in range(25)])
"""


def test_attempts_of_several_processes_never_share_a_folder(run: RunDirectory) -> None:
    command = [sys.executable, "-c", MAKE_JOBS, str(run.path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    names = " ".join(process.communicate()[0] for process in processes).split()
    assert len(names) == len(set(names)) == 75


def test_kept_results_are_found_again(tmp_path: Path, run: RunDirectory) -> None:
    results = [result(name) for name in ("a", "b")]
    for each in results:
        folder = run.new_job(each.nodeid)
        run.keep(result("earlier"), folder)
        run.keep(each, folder)
    run.new_job("models.json::without-result")
    assert list(RunDirectory.create(tmp_path, "run-1").kept()) == results


def test_a_result_that_is_taken_back_is_not_found(run: RunDirectory) -> None:
    folder = run.new_job("models.json::m")
    run.keep(result("m"), folder)
    for _ in range(2):
        run.discard(folder)
    assert list(run.kept()) == []


def test_what_was_known_of_images_is_forgotten_and_their_logs_stay(run: RunDirectory) -> None:
    (run.images / "m-0123").mkdir(parents=True)
    for name in ("m-0123/image.json", "push-0123", "m-0123/build.log"):
        (run.images / name).write_text("{}", encoding="utf-8")
    for _ in range(2):
        run.forget_images()
    assert [path.name for path in run.images.rglob("*") if path.is_file()] == ["build.log"]


def test_a_run_without_images_has_none_to_forget(run: RunDirectory) -> None:
    run.forget_images()
    assert not run.images.exists()


def test_of_an_items_images_the_last_one_counts(run: RunDirectory) -> None:
    for item, error in (("b", "x"), ("a", "of the first try"), ("a", "")):
        folder = run.new_job(item)
        run.note_made(folder, {"item": item, "error": error})
        os.utime(folder / "made.json", ns=(0, len(list(run.path.glob("jobs/*")))))
    assert [(made["item"], made["error"]) for made in run.made()] == [("a", ""), ("b", "x")]


def test_a_job_is_written_down_without_secrets_and_read_back(run: RunDirectory) -> None:
    folder = run.new_job("models.json::m")
    job = Job(
        id="id",
        run="run-1",
        name="m",
        script="echo",
        directory=folder,
        project=folder.parent,
        env={"A": "1"},
        secrets={"TOKEN": Secret("hunter2-hunter2")},
        limit=5.0,
        image=Image("image", digest="sha256:1"),
        mounts=(Mount("/a", "/b", read_only=True),),
        devices=Devices("AMD", (0, 2), (128, 130)),
        options=("--x",),
        topology=Topology(nodes=2),
        avoid=("node7",),
    )
    assert noted(folder) is None
    run.note(job)
    assert "hunter2" not in (folder / "job.json").read_text(encoding="utf-8")
    data = noted(folder)
    assert data
    assert Job.from_json(data, job.secrets) == job


def test_a_result_is_written_whole_or_not_at_all(run: RunDirectory) -> None:
    folder = run.new_job("models.json::m")
    (folder / "result.new").write_text('{"half', encoding="utf-8")
    assert list(run.kept()) == []
    run.keep(result("m"), folder)
    assert [path.name for path in folder.iterdir()] == ["result.json"]
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["model"] == "m"
