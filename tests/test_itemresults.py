"""What a Result says, and its line in the record, after real runs."""

from __future__ import annotations

import platform
from datetime import datetime
from pathlib import Path

import pytest

import pytest_madengine
from pytest_madengine.engine.rundir import result_in
from pytest_madengine.results.result import Result
from pytest_madengine.store import records
from tests.cards import card, project, rows, run_bare
from tests.test_loop import ALL as FAKE
from tests.test_loop import fake, timed

HOST = ("--madengine-tags=all", "--target=host")
LEAVES = "echo 'performance: 12.50 tok/s'\nmkdir -p artifacts; echo x >perf_left.csv\n"


def recorded(folder: Path) -> list[Result]:
    """The record of the latest run."""
    return records.results(folder / ".madengine/runs/latest/results.jsonl")


def test_a_result_says_where_when_and_with_what_it_was_measured(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"), card("bad"), script=LEAVES, bad="exit 3\n")
    pytester.runpytest_inprocess(*HOST)
    good, bad = recorded(pytester.path)
    assert good.run == (pytester.path / ".madengine/runs/latest").resolve().name
    assert (good.attempt, bad.attempt) == (1, 1)
    assert (good.hosts, bad.hosts) == ((platform.node(),),) * 2
    assert good.versions["pytest-madengine"] == pytest_madengine.__version__
    assert good.versions["python"] == platform.python_version()
    assert good.source == f"{pytester.path / 'models.json'}:2"
    assert good.machine["gpus"].isdecimal()
    moments = [good.started, *(step.started for step in good.steps), good.steps[-1].ended, good.ended]
    assert moments == sorted(moments, key=datetime.fromisoformat)
    assert [step.name for step in good.steps][-1] == "model"
    assert [(each.row, each.value, each.samples) for each in good.metrics] == [("m", 12.5, (12.5,))]
    assert [(each.row, each.value) for each in bad.metrics] == [("bad", None)]


def test_files_that_a_model_leaves_are_named(pytester: pytest.Pytester) -> None:
    table = "printf 'model,performance,metric\\na,5,tok/s\\n' >results.csv\n"
    project(pytester.path, card("m", multiple_results="results.csv"), script=table)
    pytester.runpytest_inprocess(*HOST)
    (result,) = recorded(pytester.path)
    assert [Path(path).name for path in result.artifacts] == ["results.csv"]
    assert Path(result.artifacts[0]).is_file()


def test_the_record_holds_what_the_jobs_folders_hold(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"), card("b", skip_gpu_arch="gfx942"), card("c"), c="exit 1\n")
    pytester.runpytest_inprocess(*HOST)
    kept = [result_in(path.parent) for path in pytester.path.glob(".madengine/runs/latest/jobs/*/result.json")]
    assert sorted(recorded(pytester.path), key=lambda each: each.id) == sorted(kept, key=lambda each: each.id)


def test_each_try_has_a_line_with_its_number(pytester: pytest.Pytester) -> None:
    full = timed("full", 0.05, CODE="1", OUTPUT="No space left on device\n")
    fake(pytester.path, full, timed("fine", 0.05))
    pytester.runpytest_inprocess(*FAKE, "--madengine-retries=1")
    found = [(each.model, each.attempt, each.status) for each in recorded(pytester.path)]
    assert sorted(found) == [("fine", 1, "SUCCESS"), ("full", 1, "FAILURE"), ("full", 2, "FAILURE")]
    assert len({each.id for each in recorded(pytester.path)}) == 3


def test_workers_of_xdist_share_one_record(pytester: pytest.Pytester) -> None:
    project(pytester.path, *(card(name) for name in "abcd"))
    run_bare(pytester, *HOST, "-n2")
    assert sorted(each.model for each in recorded(pytester.path)) == list("abcd")
    assert len(list(pytester.path.glob(".madengine/runs/*/results.jsonl"))) == 2  # one of them by way of `latest`


def test_a_resumed_run_adds_to_its_record_and_repeats_nothing(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"), card("b"))
    pytester.runpytest_inprocess(*HOST, "-k", "a")
    before = recorded(pytester.path)
    pytester.runpytest_inprocess(*HOST, "--madengine-resume")
    after = recorded(pytester.path)
    assert after[: len(before)] == before
    assert [each.model for each in after] == ["a", "b"]
    assert [row["model"] for row in rows(pytester.path / "perf.csv")] == ["a", "b"]


def test_images_that_are_only_made_have_no_record(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"))
    pytester.runpytest_inprocess("--madengine-tags=all", "--target=host", "--madengine-build-only")
    assert list(pytester.path.glob(".madengine/runs/*/results.jsonl")) == []


@pytest.mark.requires_docker
def test_with_docker_the_image_and_the_engine_are_named(pytester: pytest.Pytester, docker_engine: str) -> None:
    project(pytester.path, card("m"))
    pytester.runpytest_inprocess(
        "--madengine-tags=all", "--target=docker", f'--madengine-context={{"docker_image": "{docker_engine}"}}'
    )
    (result,) = recorded(pytester.path)
    assert result.image == docker_engine
    assert result.digest.startswith("sha256:")
    assert result.versions["docker"][0].isdigit()
    assert result.hosts == (platform.node(),)


@pytest.mark.requires_slurm
def test_on_slurm_its_version_and_the_node_are_named(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"))
    bare = '--madengine-context={"slurm": {"container_runtime": "none"}}'
    pytester.runpytest_inprocess("--madengine-tags=all", "--target=slurm", bare)
    (result,) = recorded(pytester.path)
    assert result.versions["slurm"][0].isdigit()
    assert all(result.hosts)
    assert result.started < result.ended
