"""Jobs of one and of several nodes on a real SLURM cluster, seen from pytest's side."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_madengine.backends import slurm
from pytest_madengine.backends.base import Handle, Outcome, State
from pytest_madengine.backends.slurm import SlurmBackend
from tests.backends.support import until
from tests.cards import PASSES, card, project, rows, run_bare, statuses
from tests.engines.cluster import Cluster

BARE = {"container_runtime": "none", "exclusive": False, "time": "00:05:00", "gpus_per_node": 1}
HOSTILE = """it's "q" $HOME `x` \\ a
second line"""


def on(target: str = "slurm", **context: object) -> list[str]:
    slurm = {**BARE, **context.pop("slurm", {})}  # type: ignore[dict-item]
    given = json.dumps({**context, "slurm": slurm})
    return ["--madengine-tags=all", f"--target={target}", f"--madengine-context={given}"]


def log(folder: Path, model: str, rank: str = "") -> str:
    """What a model printed."""
    (found,) = folder.glob(f".madengine/runs/latest/jobs/{model}-*/{rank}run.log")
    return found.read_text()


def nothing_left(cluster: Cluster, folder: Path) -> bool:
    run = (folder / ".madengine/runs/latest").resolve().name
    return run not in cluster.text("squeue", "--noheader", "--format=%k")


@pytest.mark.requires_slurm
class TestModels:
    """Each model is a job of its own."""

    def test_of_one_node(self, pytester: pytest.Pytester, slurm_cluster: Cluster) -> None:
        one = card("one", env_vars={"TEXT": HOSTILE}, args="--x 'a b'")
        shows = 'echo "text: $TEXT"; echo "args: $*"; echo "token: $MY_TOKEN"; echo "$MAD_MULTI_NODE_RUNNER"\n'
        project(pytester.path, one, card("team/other"), script=shows + PASSES)
        hidden = 'planted, "quoted" and\nin two lines'
        run_bare(pytester, *on(secrets={"MY_TOKEN": hidden})).assert_outcomes(passed=2)
        assert statuses(pytester.path / "perf.csv") == {"one": "SUCCESS", "team/other": "SUCCESS"}
        found = log(pytester.path, "one")
        assert f"text: {HOSTILE}\n" in found
        assert "args: --x a b" in found
        assert "torchrun --standalone --nproc_per_node=1" in found
        files = [path for path in pytester.path.glob(".madengine/runs/latest/**/*") if path.is_file()]
        assert not any(b"planted" in path.read_bytes() for path in files)
        assert nothing_left(slurm_cluster, pytester.path)
        assert {row["machine_name"] for row in rows(pytester.path / "perf.csv")} <= {"node1", "node2", "node3", "node4"}

    def test_of_several_nodes(self, pytester: pytest.Pytester) -> None:
        wide = card("wide", distributed={"launcher": "torchrun", "nnodes": 3, "nproc_per_node": 2})
        shows = 'echo "$NODE_RANK of $NNODES on $(uname -n), $WORLD_SIZE: $MAD_MULTI_NODE_RUNNER"\n'
        project(pytester.path, wide, script=shows + "echo performance: $((NODE_RANK + 1)) tokens_per_second\n")
        run_bare(pytester, *on()).assert_outcomes(passed=1)
        (row,) = rows(pytester.path / "perf.csv")
        assert (row["status"], row["performance"], row["nnodes"], row["n_gpus"]) == ("SUCCESS", "6", "3", "3")
        logs = [log(pytester.path, "wide", f"ranks/{rank}/") for rank in range(3)]
        hosts = {text.partition(" on ")[2].split()[0] for text in logs}
        assert len(hosts) == 3
        for rank, text in enumerate(logs):
            assert f"{rank} of 3 on node" in text
            assert f", 6: torchrun --nnodes=3 --nproc_per_node=2 --node_rank={rank} --master_addr=node" in text

    @pytest.mark.requires_docker
    def test_in_a_container_on_its_node(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("boxed"), script='echo "in $PWD"; cat /.dockerenv && ' + PASSES)
        slurm = {"container_runtime": "docker", "gpus_per_node": 0}
        args = on(slurm=slurm, docker_image="madengine-test-base:latest")
        run_bare(pytester, *args).assert_outcomes(passed=1)
        assert "in /myworkspace/run_directory" in log(pytester.path, "boxed")


@pytest.mark.requires_slurm
class TestFailures:
    """Whatever happens is one row with the reason."""

    def test_of_one_rank(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("wide", slurm={"nodes": 2}), script=f"[ $NODE_RANK = 0 ] || exit 3\n{PASSES}")
        result = run_bare(pytester, *on())
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["wide: rank 1 on node* (exit code 3) of 2 failed*"])
        assert statuses(pytester.path / "perf.csv") == {"wide": "FAILURE"}


def job_of(cluster: Cluster, folder: Path, script: str) -> str:
    """The number of a job that this backend's script could be, but for its comment."""
    (folder / "job.sh").write_text(f"#!/bin/bash\n{script}\n")
    number = cluster.text("sbatch", "--parsable", "--output=/dev/null", str(folder / "job.sh"))
    cluster.jobs.append(number)
    return number


def on_record(cluster: Cluster, number: str, word: str) -> None:
    """Return when the accounts tell all of a job; they lag behind the controller."""
    asked = ("sacct", "-nXP", f"--jobs={number}", "--format=State,SubmitLine")
    until(lambda: word in (said := cluster.text(*asked)) and said.endswith("job.sh"))


def seen(handle: Handle) -> tuple[State, Outcome]:
    """What a fresh backend says of a job."""
    backend = SlurmBackend()
    return backend.states([handle])[handle].state, backend.collect(handle)


class TestJobsThatLeftTheQueue:
    """Nothing in it has their comment."""

    @pytest.mark.requires_slurm(accounting=True)
    def test_accounts_tell_how_they_ended(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        number = job_of(slurm_cluster, tmp_path, "sleep 600")
        slurm_cluster.text("scancel", number)
        on_record(slurm_cluster, number, "CANCELLED")
        state, outcome = seen(Handle("slurm", f"{number}/nobody", str(tmp_path)))
        assert (state, outcome.note) == (State.LOST, "cancelled in SLURM by somebody else")

    @pytest.mark.requires_slurm(accounting=True)
    def test_accounts_of_another_job_of_that_number_do_not_count(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        number = job_of(slurm_cluster, tmp_path, "sleep 600")
        slurm_cluster.text("scancel", number)
        on_record(slurm_cluster, number, "CANCELLED")
        (tmp_path / "own").mkdir()
        state, outcome = seen(Handle("slurm", f"{number}/nobody", str(tmp_path / "own")))
        assert (state, outcome.note) == (State.LOST, "its script did not come to its end")

    @pytest.mark.requires_slurm
    @pytest.mark.parametrize(("files", "state"), [(["exit_code"], State.EXITED), ([], State.LOST)])
    def test_without_accounts_the_folder_tells(self, tmp_path: Path, files: list[str], state: State) -> None:
        for name in files:
            (tmp_path / name).write_text("3\n")
        assert seen(Handle("slurm", "999999/nobody", str(tmp_path)))[0] is state

    @pytest.mark.requires_slurm
    def test_they_are_given_a_while_to_come_back(
        self, tmp_path: Path, slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        number = slurm_cluster.submit("exec sleep 600", tmp_path / "out", f"--comment={tmp_path.name}")
        handle, backend = Handle("slurm", f"{number}/{tmp_path.name}", str(tmp_path)), SlurmBackend()
        until(lambda: backend.states([handle])[handle].state is State.RUNNING)
        slurm_cluster.text("scontrol", "update", f"jobid={number}", "comment=gone")
        assert backend.states([handle])[handle].state is State.RUNNING
        monkeypatch.setattr(slurm, "PATIENCE", 0.0)
        assert backend.states([handle])[handle].state is State.LOST
        assert slurm_cluster.state(number) == "RUNNING"


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Handle]:
    """A job of one node in a SLURM that says no more than a word and a reason."""

    def says(word: str, reason: str) -> Handle:
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "squeue").write_text(f"#!/bin/sh\necho '7|{word}|{reason}|node1|token'\n")
        (programs / "squeue").chmod(0o755)
        monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
        return Handle("slurm", "7/token", str(tmp_path))

    return says


NOT_LAUNCHED = """\
srun: error: Task launch for StepId=12.0 failed on node node2: Communication connection failure
srun: error: Application launch failed: Communication connection failure
srun: Job step aborted
"""


class TestEndsThatAreHardToHave:
    @pytest.mark.parametrize(
        ("word", "reason", "note"),
        [
            ("NODE_FAIL", "NodeDown", "a node failed: node1"),
            ("BOOT_FAIL", "None", "a node did not boot: node1"),
            ("PREEMPTED", "None", "preempted"),
            ("REVOKED", "None", "its script did not come to its end"),
        ],
    )
    def test_that_no_model_is_to_blame_for(
        self, tmp_path: Path, says: Callable[[str, str], Handle], word: str, reason: str, note: str
    ) -> None:
        (tmp_path / "started").touch()
        state, outcome = seen(says(word, reason))
        assert (state, outcome.state, outcome.note) == (State.LOST, State.LOST, note)

    def test_of_a_node_that_dies_just_before_its_rank_begins(
        self, tmp_path: Path, says: Callable[[str, str], Handle]
    ) -> None:
        (tmp_path / "nodes").write_text("node1,node2,node3\n")
        (tmp_path / "finished").write_text("233\n")
        (tmp_path / "slurm.log").write_text(NOT_LAUNCHED)
        for rank in (0, 2):
            (tmp_path / f"ranks/{rank}").mkdir(parents=True)
            (tmp_path / f"ranks/{rank}/exit_code").write_text("143\n")
        state, outcome = seen(says("FAILED", "NonZeroExitCode"))
        assert (state, outcome.suspects, outcome.ranks) == (State.LOST, ("node2",), {0: 143, 2: 143})
        assert outcome.note == (
            "its script ended with 233: "
            "srun: error: Task launch for StepId=12.0 failed on node node2: Communication connection failure"
        )

    def test_for_lack_of_memory(self, tmp_path: Path, says: Callable[[str, str], Handle]) -> None:
        (tmp_path / "started").touch()
        state, outcome = seen(says("OUT_OF_MEMORY", "OutOfMemory"))
        assert (state, outcome.state, outcome.note) == (State.EXITED, State.EXITED, "killed for lack of memory")
        assert outcome.exit_code is None

    def test_in_a_word_of_a_later_slurm(self, tmp_path: Path, says: Callable[[str, str], Handle]) -> None:
        handle = says("EXPEDITING", "None")
        assert SlurmBackend().states([handle])[handle].state is State.RUNNING
        (tmp_path / "exit_code").write_text("0\n")
        assert SlurmBackend().states([handle])[handle].state is State.EXITED
