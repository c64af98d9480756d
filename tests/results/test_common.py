from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from pytest_madengine.backends.base import Outcome, Phase, State
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Devices, Job
from pytest_madengine.launchers.base import Topology
from pytest_madengine.models.model import Model
from pytest_madengine.results.common import Facts, columns, hosts, model_duration, seconds
from pytest_madengine.results.perf import PERF_COLUMNS, SUPER_COLUMNS

CARD = {
    "name": "MAD/llama",
    "n_gpus": "4",
    "training_precision": "bf16",
    "args": "--a 1",
    "tags": ["x", "y"],
    "data": "squad",
    "additional_docker_run_options": "--shm-size=1g",
}
FACTS = Facts("local", "torchrun", "gfx942", {"BUILD_NUMBER": "0042", "pipeline": "nightly"}, hostname="here")
OF_CARD = {
    "model": "MAD/llama",
    "n_gpus": "4",
    "training_precision": "bf16",
    "args": "--a 1",
    "tags": "x,y",
    "dataname": "squad",
    "additional_docker_run_options": "--shm-size=1g",
    "pipeline": "nightly",
    "build_number": "0042",
    "deployment_type": "local",
    "launcher": "torchrun",
    "gpu_architecture": "gfx942",
    "machine_name": "here",
}


def test_rows_of_a_model_in_several_partitions_say_which() -> None:
    assert columns(Model(**CARD), replace(FACTS, partition="mi300"))["model"] == "MAD/llama[mi300]"


def phase(name: str, started: float, ended: float, code: int = 0) -> Phase:
    return Phase(name, started, ended, code, 0, 0)


def outcome(*phases: Phase, **more: Any) -> Outcome:
    return Outcome(State.EXITED, 0, Path("log"), phases=phases, **more)


def job(nodes: int, *gpus: int) -> Job:
    return Job(
        id="id",
        run="run",
        name="m",
        script="",
        directory=Path(),
        project=Path(),
        env={},
        secrets={},
        limit=None,
        devices=Devices("AMD", gpus),
        topology=Topology(nodes),
    )


def test_the_wikis_columns_stand_in_their_order() -> None:
    assert len(PERF_COLUMNS) == len(set(PERF_COLUMNS)) == 29
    assert PERF_COLUMNS[:3] == ("model", "n_gpus", "nnodes")
    assert PERF_COLUMNS[-1] == "additional_docker_run_options"
    assert SUPER_COLUMNS[29:] == ("configs", "multi_results")


def test_a_card_alone_gives_its_own_columns() -> None:
    assert columns(Model.model_validate(CARD), FACTS) == OF_CARD


def test_without_a_ci_there_is_no_pipeline_and_build_number_zero() -> None:
    row = columns(Model(name="m"), replace(FACTS, environ=MappingProxyType({})))
    assert (row["pipeline"], row["build_number"]) == ("", "0")


def test_the_image_adds_where_it_came_from() -> None:
    image = Image("ci-m:1", "sha256:1", "docker/m.Dockerfile", "base:1", "sha256:2", 12.5)
    row = columns(Model.model_validate(CARD), replace(FACTS, image=image))
    assert row == {
        **OF_CARD,
        "docker_file": "docker/m.Dockerfile",
        "base_docker": "base:1",
        "docker_sha": "sha256:2",
        "docker_image": "ci-m:1",
        "build_duration": "12.500",
    }


@pytest.mark.parametrize(
    ("made", "counts"),
    [(job(1, 0, 1), ("2", "1", "2")), (job(4, 0, 1), ("8", "4", "2")), (job(1), ("0", "1", "0"))],
)
def test_the_job_tells_how_many_gpus_were_really_used(made: Job, counts: tuple[str, str, str]) -> None:
    row = columns(Model.model_validate(CARD), replace(FACTS, job=made))
    assert (row["n_gpus"], row["nnodes"], row["gpus_per_node"]) == counts


def test_the_outcome_adds_commit_time_and_node() -> None:
    ended = outcome(phase("model", 10, 12.3456), git_commit="0123456", node="node7")
    row = columns(Model.model_validate(CARD), replace(FACTS, outcome=ended))
    assert (row["git_commit"], row["test_duration"], row["machine_name"]) == ("0123456", "2.346", "node7")


def test_an_outcome_without_a_node_leaves_this_hosts_name() -> None:
    assert columns(Model(name="m"), replace(FACTS, outcome=outcome()))["machine_name"] == "here"


def test_the_gpus_are_those_of_the_node_where_it_says_so() -> None:
    card = Model(name="m")
    seen = columns(card, replace(FACTS, outcome=outcome(machine={"architecture": "gfx90a"})))
    assert seen["gpu_architecture"] == "gfx90a"
    assert columns(card, replace(FACTS, outcome=outcome()))["gpu_architecture"] == "gfx942"


@pytest.mark.parametrize(
    ("ended", "known", "names"),
    [
        (outcome(node="n1"), {}, ("n1",)),
        (outcome(), {}, ()),
        (outcome(node="n1", ranks={0: 0, 1: 0}), {1: "n2", 0: "n1"}, ("n1", "n2")),
        (outcome(node="n1", ranks={0: 0, 1: None, 2: 0}), {0: "n1", 2: "n3"}, ("n1", "", "n3")),
    ],
)
def test_each_rank_has_its_node(ended: Outcome, known: dict[int, str], names: tuple[str, ...]) -> None:
    assert hosts(ended, known) == names


def test_a_duration_has_milliseconds() -> None:
    assert [seconds(value) for value in (0, 1.0004, 3600.5)] == ["0.000", "1.000", "3600.500"]


@pytest.mark.parametrize(
    ("ended", "duration"),
    [
        (outcome(), 0),
        (outcome(phase("prepare", 1, 2)), 0),
        (outcome(phase("prepare", 1, 2), phase("model", 2, 5)), 3),
        (outcome(phase("prepare", 1, 2), phase("model", 2, 2, -1), duration=10), 9),
        (outcome(phase("model", 2, 2, -1), duration=0), 0),
        (outcome(phase("prepare", 1, 5), phase("model", 5, 5, -1), duration=2), 0),
    ],
)
def test_the_model_lasted_as_long_as_its_script_ran(ended: Outcome, duration: float) -> None:
    assert model_duration(ended) == duration
