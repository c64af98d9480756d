"""Jobs of one and of several nodes on a real SLURM cluster, seen from pytest's side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_madengine.backends.base import State
from pytest_madengine.backends.slurm import HOPELESS, STATES
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

    @pytest.mark.parametrize(
        ("slurm", "words"),
        [
            ({"partition": "nowhere"}, "*sbatch refused: *invalid partition specified: nowhere*"),
            ({"nodes": 9}, "*PartitionNodeLimit*"),
            ({"constraint": "purple"}, "*Invalid feature specification*"),
        ],
    )
    def test_of_a_request_that_cannot_be(
        self, pytester: pytest.Pytester, slurm_cluster: Cluster, slurm: dict[str, object], words: str
    ) -> None:
        project(pytester.path, card("m"))
        result = run_bare(pytester, *on(slurm=slurm))
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([words])
        assert statuses(pytester.path / "perf.csv") == {"m": "FAILURE"}
        until(
            lambda: (
                nothing_left(slurm_cluster, pytester.path)
                or "CANCELLED" in slurm_cluster.text("squeue", "-hta", "-o%T")
            )
        )

    def test_of_a_job_that_somebody_cancels(self, pytester: pytest.Pytester) -> None:
        cancels = "scancel $SLURM_JOB_ID; sleep 60\n"
        project(pytester.path, card("m"), script=cancels)
        run_bare(pytester, *on()).assert_outcomes(errors=1)
        assert statuses(pytester.path / "perf.csv") == {"m": "FAILURE"}

    def test_of_the_time_limit_of_the_model(self, pytester: pytest.Pytester, slurm_cluster: Cluster) -> None:
        project(pytester.path, card("m"), script="echo begun; sleep 60\n")
        result = run_bare(pytester, *on(), "--madengine-timeout=2")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["m: time limit of 2 s exceeded*"])
        assert nothing_left(slurm_cluster, pytester.path)


def test_every_word_of_slurm_is_one_of_ours() -> None:
    assert all(isinstance(state, State) for state in STATES.values())
    assert STATES["NODE_FAIL"] is State.LOST
    assert not any(word in STATES for word in HOPELESS)
