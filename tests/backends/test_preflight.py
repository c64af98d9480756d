"""The checks of nodes: their script by itself, with machines that pretend, and on a real cluster."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from pytest_madengine.backends import preflight
from pytest_madengine.backends.health import Facts, Gpu, Node, Process, Survey, read
from pytest_madengine.backends.preflight import Preflight, script
from pytest_madengine.context.slurm import Slurm
from tests import golden
from tests.backends.support import running, until
from tests.engines.cluster import Cluster

GOLDEN = Path(__file__).parent / "golden" / "preflight.sh"
NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may start processes of others and make namespaces")
BARE = Slurm(container_runtime="none")
DEVICES = """
mount -t tmpfs none /sys/class
mkdir -p /sys/class/kfd/kfd/proc/{1,%d,%d} /sys/class/drm/card{0,1}/device
echo 0 >/sys/class/kfd/kfd/proc/1/vram_5
echo 4096 >/sys/class/kfd/kfd/proc/%d/vram_5
echo 1048576000 >/sys/class/drm/card1/device/mem_info_vram_total
echo 524288000 >/sys/class/drm/card1/device/mem_info_vram_used
"""


def stand_in(folder: Path, name: str, body: str) -> None:
    """A program that is found before the real one."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


def said(
    folder: Path,
    stated: Slurm = BARE,
    victims: Mapping[str, Sequence[Process]] | None = None,
    *,
    setup: str = "",
    user: int | None = None,
) -> Facts:
    """What the script says of this machine; with a setup it runs in namespaces of its own."""
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURMD_NODENAME": "here"}
    alone = ["unshare", "--mount", "bash", "-c", f'{setup}\nexec bash -c "$0"'] if setup else ["bash", "-c"]
    done = subprocess.run(
        [*alone, script(stated, victims or {})], capture_output=True, check=True, text=True, env=env, user=user, cwd="/"
    )
    assert done.stderr == ""
    return read(done.stdout)["here"]


@contextlib.contextmanager
def process(
    *argv: str, program: str = "/bin/sleep", user: int | None = None, job: str = ""
) -> Iterator[psutil.Process]:
    """A process that calls itself like its first argument."""
    env = {"SLURM_JOB_ID": job} if job else {}
    with subprocess.Popen(argv, executable=program, env=env, user=user, cwd="/") as started:
        try:
            yield psutil.Process(started.pid)
        finally:
            started.kill()


def victim(pid: int, started: int) -> Process:
    return Process(pid, started, user="me", own=True, job="7", command="x")


def of(facts: Facts, pid: int) -> Process | None:
    return next((each for each in facts.processes if each.pid == pid), None)


class TestScript:
    def test_is_the_one_recorded(self) -> None:
        victims = {"node1": [victim(12, 345), victim(13, 346)]}
        golden.compare(script(Slurm(modules=("rocm/6.4", "it's")), victims), GOLDEN)

    @pytest.mark.parametrize("runtime", ["docker", "podman", "apptainer", "enroot", "none"])
    def test_passes_shellcheck(self, runtime: str) -> None:
        text = script(Slurm.model_validate({"container_runtime": runtime}), {"n": [victim(1, 2)]})
        checking = [str(Path(sysconfig.get_path("scripts"), "shellcheck")), "--shell=bash", "-"]
        done = subprocess.run(checking, capture_output=True, check=False, text=True, input=text)
        assert done.stdout == ""
        assert subprocess.run(["bash", "-n"], check=False, text=True, input=text).returncode == 0

    def test_reads_the_memory_of_gpus(self, tmp_path: Path) -> None:
        stand_in(tmp_path, "nvidia-smi", "printf 'memory.free [MiB], memory.total [MiB]\\n81000, 81559\\n5, 81559\\n'")
        facts = said(tmp_path)
        assert (facts.tool, facts.gpus) == ("nvidia-smi", (Gpu(81000, 81559), Gpu(5, 81559)))
        assert facts.over

    def test_asks_another_tool_where_one_hangs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preflight, "PROBE_SECONDS", 0.3)
        stand_in(tmp_path, "amd-smi", "exec sleep 60")
        stand_in(
            tmp_path,
            "rocm-smi",
            "printf 'device,VRAM Total Memory (B),VRAM Total Used Memory (B)\\ncard0,2097152,0\\n'",
        )
        facts = said(tmp_path)
        assert (facts.tool, facts.gpus) == ("rocm-smi", (Gpu(2, 2),))

    def test_says_why_no_gpu_answers(self, tmp_path: Path) -> None:
        stand_in(tmp_path, "nvidia-smi", "echo 'No devices were found'; exit 6")
        facts = said(tmp_path)
        assert (facts.tool, facts.gpus, facts.trouble) == ("nvidia-smi", (), "No devices were found")

    def test_says_that_a_disk_is_full(self, tmp_path: Path) -> None:
        stand_in(tmp_path, "df", "printf ' Avail\\n  5120\\n'")
        assert said(tmp_path).disks == {"/tmp": 5}  # noqa: S108  # where a node's files go

    def test_says_why_a_runtime_does_not_answer(self, tmp_path: Path) -> None:
        stand_in(tmp_path, "docker", "echo warning; printf 'Cannot\\tconnect\\n' >&2; exit 1")
        facts = said(tmp_path, Slurm())
        assert facts.runtime == "Cannot connect"

    def test_looks_at_the_disk_of_a_runtime_that_answers(self, tmp_path: Path) -> None:
        stand_in(tmp_path, "docker", f"echo warning >&2; echo {tmp_path}")
        facts = said(tmp_path, Slurm())
        assert facts.runtime == ""
        assert str(tmp_path) in facts.disks

    def test_sees_servers_by_their_names_and_keeps_their_arguments_to_itself(self, tmp_path: Path) -> None:
        with process("ray::IDLE", "300.77", job="41") as mine:
            facts = said(tmp_path)
            found = of(facts, mine.pid)
            assert found
            assert found.started > 0
            assert (found.own, found.job, found.command) == (True, "41", "ray::IDLE")
            assert "300.77" not in str(facts)

    @pytest.mark.parametrize("argv", [["vi", "vllm"], ["sh", "-c", "raylet"], ["notvllm"], ["python3", "-m", "http"]])
    def test_leaves_alone_what_only_speaks_of_servers(self, tmp_path: Path, argv: list[str]) -> None:
        with process(*argv, program=sys.executable) as other:
            facts = said(tmp_path)
            assert of(facts, other.pid) is None

    @AS_ROOT
    def test_tells_apart_whose_processes_compute(self, tmp_path: Path) -> None:
        with process("train", "300", user=NOBODY) as theirs, process("train", "300") as mine:
            stand_in(tmp_path, "nvidia-smi", f"case $1 in *apps*) printf '{theirs.pid}\\n{mine.pid}\\n' ;; esac")
            facts = said(tmp_path)
            found = [of(facts, each.pid) for each in (theirs, mine)]
            assert [(each.user, each.own) for each in found if each] == [("nobody", False), ("root", True)]

    @AS_ROOT
    def test_asks_the_driver_of_amd_where_there_is_no_tool(self, tmp_path: Path) -> None:
        with process("train", "300", user=NOBODY) as uses, process("train", "300", user=NOBODY) as idle:
            setup = DEVICES % (uses.pid, idle.pid, uses.pid)
            facts = said(tmp_path, setup=setup)
            assert (facts.tool, facts.gpus) == ("sysfs", (Gpu(500, 1000),))
            assert of(facts, uses.pid)
            assert of(facts, idle.pid) is None

    @AS_ROOT
    def test_sees_who_holds_a_device_but_root(self, tmp_path: Path) -> None:
        holds = ["unshare", "--mount", "bash", "-c"]
        keep = "mount -t tmpfs none /dev && : >/dev/nvidia0 && exec {run} 9</dev/nvidia0"
        drop = f"setpriv --reuid={NOBODY} --clear-groups sleep 300"
        with (
            process(*holds, keep.format(run=drop), program="/usr/bin/unshare") as theirs,
            process(*holds, keep.format(run="sleep 300"), program="/usr/bin/unshare") as system,
        ):
            until(lambda: theirs.name() == system.name() == "sleep")
            facts = said(tmp_path)
            found = of(facts, theirs.pid)
            assert found
            assert found.user == "nobody"
            assert of(facts, system.pid) is None

    @AS_ROOT
    def test_takes_nobody_for_suspect_because_it_may_not_look(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        assert said(tmp_path, user=NOBODY).over

    def test_ends_what_it_is_told_to_even_what_does_not_listen(self, tmp_path: Path) -> None:
        deaf = ["raylet", "-c", "trap '' TERM; while :; do sleep 1; done"]
        with process(*deaf, program="/bin/bash") as mine, process("vllm", "300") as other:
            before = said(tmp_path)
            meant, reused = of(before, mine.pid), of(before, other.pid)
            assert meant
            assert reused
            wrong = victim(reused.pid, reused.started - 1)
            facts = said(tmp_path, victims={"elsewhere": [reused], "here": [meant, wrong]})
            assert facts.ended == (mine.pid,)
            assert of(facts, mine.pid) is None
            assert of(facts, other.pid) == reused

    @AS_ROOT
    def test_never_ends_what_belongs_to_others(self, tmp_path: Path) -> None:
        with process("raylet", "300", user=NOBODY) as theirs:
            found = of(said(tmp_path), theirs.pid)
            assert found
            facts = said(tmp_path, victims={"here": [found]})
            assert facts.ended == ()
            assert of(facts, theirs.pid) == found


class TestWithoutSlurm:
    """A check is no reason to fail a run."""

    @pytest.fixture(autouse=True)
    def _nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

    @pytest.mark.parametrize("stated", [{"nodelist": "node1"}, {"enable_node_check": False}])
    def test_nothing_is_asked_where_it_is_not_wanted(self, stated: dict[str, object]) -> None:
        checks = Preflight()
        assert checks.bad(Slurm.model_validate(stated)) == {}
        assert checks.too_few(Slurm.model_validate(stated)) == ""
        assert checks.told() == []

    def test_what_cannot_be_asked_is_a_warning(self) -> None:
        checks = Preflight()
        assert checks.bad(Slurm()) == {}
        assert [survey.warning for survey in checks.told()] == ["sinfo: command not found"]


class Known(Preflight):
    """Has found something already."""

    def __init__(self, survey: Survey) -> None:
        super().__init__()
        self._known = survey

    def survey(self, stated: Slurm) -> Survey:
        del stated
        return self._known


class TestTooFew:
    BIG = frozenset({"big", "ib"})
    CHECKS = Known(
        Survey((Node("a", "idle", features=BIG), Node("b", "mixed", features=BIG), Node("c", "idle")), {}, {"a": "x"})
    )

    @pytest.mark.parametrize(
        "stated", [{"nodes": 2}, {"constraint": "big"}, {"constraint": "(big|small)", "nodes": 2}, {"nodes": 1}]
    )
    def test_are_not_those_that_suffice_some_day(self, stated: dict[str, object]) -> None:
        section = Slurm.model_validate(stated)
        assert self.CHECKS.too_few(section) == ""
        assert self.CHECKS.bad(section) == {"a": "x"}

    @pytest.mark.parametrize("stated", [{"nodes": 3}, {"nodes": 2, "constraint": "big&ib"}])
    def test_are_told_with_the_reasons(self, stated: dict[str, object]) -> None:
        words = self.CHECKS.too_few(Slurm.model_validate(stated))
        assert words.startswith(f"not enough clean nodes: {stated['nodes']} wanted, ")
        assert "(a: x)" in words
        assert "slurm.allow_submit_without_clean_nodes" in words

    def test_may_be_asked_for_all_the_same(self) -> None:
        section = Slurm(nodes=3, allow_submit_without_clean_nodes=True)
        assert self.CHECKS.too_few(section) == ""
        assert self.CHECKS.bad(section) == {}


def checked(node: str, **stated: object) -> tuple[Survey, Slurm, Preflight]:
    """A check that found this node idle: other tests use the cluster too."""
    section = Slurm.model_validate({"container_runtime": "none", **stated})
    while True:
        checks = Preflight()
        survey = checks.survey(section)
        if node in survey.facts:
            return survey, section, checks
        until(lambda: any(each.name == node and each.state == "idle" for each in preflight._nodes(section)))


def leave(cluster: Cluster, node: str, *commands: str) -> None:
    """Start processes on a node that outlive the job."""
    apart = " ".join(f"(setsid {each} >/dev/null 2>&1 </dev/null &);" for each in commands)
    cluster.text("srun", f"--nodelist={node}", "--ntasks=1", "bash", "-c", f"{apart} sleep 0.2")


@pytest.mark.requires_slurm
class TestOnACluster:
    def test_nodes_that_are_well(self) -> None:
        survey, _, checks = checked("node3", gpus_per_node=2, constraint="small", modules=["none"])
        facts = survey.facts["node3"]
        assert facts.over
        assert facts.given == 2
        assert "node3" not in survey.bad
        assert not {"node1", "node2"} & survey.facts.keys()
        assert {node.name for node in survey.nodes} == {"node1", "node2", "node3", "node4"}
        assert checks.told() == [survey]

    def test_are_left_out_where_the_section_says_so(self) -> None:
        survey, _, _ = checked("node2", partition="debug", exclude="node1")
        assert list(survey.facts) == ["node2"]
        assert {node.name for node in survey.nodes} == {"node1", "node2"}

    def test_what_slurm_refuses_is_a_warning(self) -> None:
        section = Slurm(constraint="purple")
        until(lambda: "Invalid feature specification" in Preflight().survey(section).warning)
        assert Preflight().bad(section) == {}

    def test_own_leftovers_are_ended_and_those_of_others_are_not(self, slurm_cluster: Cluster) -> None:
        mine, theirs = (f"300.{uuid.uuid4().int}" for _ in range(2))
        other = shlex.quote(f"exec -a /opt/raylet sleep {theirs}")
        drop = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
        leave(slurm_cluster, "node1", f"bash -c 'exec -a vllm sleep {mine}'", f"{drop} bash -c {other}")
        try:
            survey, section, checks = checked("node1", partition="debug", nodes=2)
            assert checks.bad(section) == survey.bad
            assert "your process " in survey.bad["node1"]
            assert " (raylet) of nobody is there" in survey.bad["node1"]
            assert "2 wanted, 1 left" in checks.too_few(section)
            survey, _, _ = checked("node1", partition="debug", auto_cleanup_nodes=True)
            assert [each.split(" ")[0] for each in survey.ended] == ["node1:"]
            assert "(vllm)" in survey.ended[0]
            assert "your process" not in survey.bad["node1"]
            assert "of nobody" in survey.bad["node1"]
            assert running(mine) == []
            assert len(running(theirs)) == 1
        finally:
            for each in (*running(mine), *running(theirs)):
                each.kill()

    def test_inside_an_allocation_its_nodes_are_checked_and_jobs_there_are_no_leftovers(
        self, slurm_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        word = f"300.{uuid.uuid4().int}"
        job = slurm_cluster.submit(f"bash -c 'exec -a vllm sleep {word}'", tmp_path / "log")
        slurm_cluster.until(job, "RUNNING")
        until(lambda: running(word))
        node = slurm_cluster.fact(job, "NodeList")
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_JOB_NODELIST", node)
        survey = Preflight().survey(Slurm(container_runtime="none", auto_cleanup_nodes=True))
        assert list(survey.facts) == [node]
        assert job in {each.job for each in survey.facts[node].processes}
        assert survey.good, survey
        assert len(running(word)) == 1

    def test_a_runtime_that_is_dead(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stand_in(tmp_path, "docker", "echo 'Cannot connect to the Docker daemon'; exit 1")
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        survey, _, _ = checked("node4", constraint="small", container_runtime="docker")
        assert survey.bad["node4"] == "the container runtime does not answer: Cannot connect to the Docker daemon"
