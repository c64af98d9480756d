from __future__ import annotations

import shlex
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from pytest_madengine.launchers.base import RUNNER, Topology
from pytest_madengine.launchers.deepspeed import LAUNCHERS
from tests.launchers.support import bash, evaluated

FOUR = Topology.of_cluster(4, 8)
NODE = {"NODE_LIST": "node1,node2,node-3.site,node4", "NODE_RANK": "2", "MASTER_ADDR": "node1"}
(DEEPSPEED,) = LAUNCHERS


@pytest.fixture
def node() -> Iterator[dict[str, str]]:
    """The variables of one node of a job of its own."""
    job = f"test-{uuid4().hex}"
    yield NODE | {"MADENGINE_JOB_ID": job}
    for file in Path("/tmp").glob(f"hostfile-{job}-*"):  # noqa: S108  # where the launcher puts them
        file.unlink()


def hostfile(node: dict[str, str]) -> Path:
    """The file that the command on a node names."""
    command = evaluated(DEEPSPEED.environment(FOUR, {}), node)[RUNNER]
    (path,) = [word.partition("=")[2] for word in shlex.split(command) if word.startswith("--hostfile=")]
    return Path(path)


def test_every_host_has_its_slots_in_the_order_of_ranks(node: dict[str, str]) -> None:
    bash(DEEPSPEED.prepare(FOUR, {}), node)
    lines = hostfile(node).read_text(encoding="utf-8").splitlines()
    assert lines == ["node1 slots=8", "node2 slots=8", "node-3.site slots=8", "node4 slots=8"]


def test_a_requeued_job_writes_its_hostfile_anew(node: dict[str, str]) -> None:
    bash(DEEPSPEED.prepare(FOUR, {}), node)
    bash(DEEPSPEED.prepare(FOUR, {}), node | {"NODE_LIST": "a,b"})
    assert hostfile(node).read_text(encoding="utf-8") == "a slots=8\nb slots=8\n"


def test_jobs_and_nodes_that_share_a_host_do_not_share_a_file(node: dict[str, str]) -> None:
    other_node, other_job = node | {"NODE_RANK": "3"}, node | {"MADENGINE_JOB_ID": "other"}
    assert len({hostfile(each) for each in (node, other_node, other_job)}) == 3


def test_a_hostfile_that_cannot_be_written_is_a_failure(node: dict[str, str]) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        bash(DEEPSPEED.prepare(FOUR, {}), node | {"MADENGINE_JOB_ID": "no/folder"})
    assert b"/tmp/hostfile-no/folder-2: No such file" in caught.value.stderr


def test_the_preparation_passes_shellcheck() -> None:
    checking = [str(Path(sysconfig.get_path("scripts"), "shellcheck")), "--shell=bash", "-"]
    text = DEEPSPEED.prepare(FOUR, {})
    checked = subprocess.run(checking, input=text, capture_output=True, text=True, check=False)
    assert checked.stdout == ""


def test_each_node_starts_its_own_processes_and_logs_in_nowhere() -> None:
    assert "--no_ssh" in DEEPSPEED.environment(FOUR, {})[RUNNER].split()
    assert DEEPSPEED.environment(Topology.of_cluster(1, 8), {}) == {RUNNER: "deepspeed --num_gpus=8"}
