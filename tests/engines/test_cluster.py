"""The cluster is what its users take it for."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.engines.cluster import Cluster

pytestmark = pytest.mark.requires_slurm


def ended(cluster: Cluster, folder: Path, command: str, *options: str) -> tuple[str, list[str]]:
    """The last state of a job, and its lines."""
    output = folder / "job.out"
    state = cluster.until(cluster.submit(command, output, *options))
    return state, output.read_text(encoding="utf-8").split("\n")[:-1]


def test_job_runs_on_a_node_of_its_own_name(slurm_cluster: Cluster, tmp_path: Path) -> None:
    assert ended(slurm_cluster, tmp_path, "hostname", "--nodelist=node2") == ("COMPLETED", ["node2"])


def test_nodes_of_a_job_differ_and_know_each_other(slurm_cluster: Cluster, tmp_path: Path) -> None:
    command = "srun bash -c 'echo $(hostname) $(getent ahostsv4 node1 | wc -l)'"
    state, lines = ended(slurm_cluster, tmp_path, command, "--nodes=3", "--exclude=node4")
    assert (state, sorted(lines)) == ("COMPLETED", ["node1 3", "node2 3", "node3 3"])


def test_nodes_reach_each_other(slurm_cluster: Cluster, tmp_path: Path) -> None:
    serve = 'python3 -c \'import socket; s = socket.create_server(("", 29500)); s.accept()[0].send(b"hello")\''
    call = "until exec 3<>/dev/tcp/node1/29500; do sleep 0.05; done 2>/dev/null; read -r -N 5 <&3; echo $REPLY"
    script = tmp_path / "rank.sh"
    script.write_text(f"if [[ $(hostname) == node1 ]]; then {serve}; else {call}; fi\n", encoding="utf-8")
    assert ended(slurm_cluster, tmp_path, f"srun bash {script}", "--nodelist=node[1-2]") == ("COMPLETED", ["hello"])


def test_gpus_are_given_out(slurm_cluster: Cluster, tmp_path: Path) -> None:
    options = ("--nodelist=node4", "--gpus-per-node=3")
    slurm_cluster.until(slurm_cluster.submit("exec sleep 60", tmp_path / "other", *options), "RUNNING")
    state, lines = ended(slurm_cluster, tmp_path, "echo $SLURM_JOB_GPUS $CUDA_VISIBLE_DEVICES", *options)
    assert (state, len({*lines[0].replace(" ", ",").split(",")})) == ("COMPLETED", 3)
    assert "0" not in lines[0]


def test_exit_code_is_told(slurm_cluster: Cluster, tmp_path: Path) -> None:
    job = slurm_cluster.submit("exit 7", tmp_path / "out")
    assert slurm_cluster.until(job) == "FAILED"
    assert slurm_cluster.fact(job, "ExitCode") == "7:0"


def test_time_limit_can_be_brought_near(slurm_cluster: Cluster, tmp_path: Path) -> None:
    job = slurm_cluster.submit("exec sleep 100", tmp_path / "out", "--time=5")
    slurm_cluster.until(job, "RUNNING")
    slurm_cluster.text("scontrol", "update", f"jobid={job}", "TimeLimit=0")
    assert slurm_cluster.until(job) == "TIMEOUT"


def test_second_partition_has_two_nodes(slurm_cluster: Cluster) -> None:
    said = slurm_cluster.text("sinfo", "--noheader", "--format=%P %N %l")
    assert said.split("\n") == ["main* node[1-4] infinite", "debug node[1-2] 10:00"]


@pytest.mark.requires_docker
def test_containers_run_on_a_node(slurm_cluster: Cluster, docker_engine: str, tmp_path: Path) -> None:
    command = f'docker run --rm --hostname "$(hostname)-box" --volume {tmp_path}:/shared {docker_engine} hostname'
    assert ended(slurm_cluster, tmp_path, command, "--nodelist=node3") == ("COMPLETED", ["node3-box"])


@pytest.mark.requires_slurm(alone=True)
@pytest.mark.parametrize(("option", "states"), [("--no-requeue", ["NODE_FAIL"]), ("--requeue", ["PENDING"])])
def test_jobs_of_a_dead_node_fail_or_are_queued_again(
    slurm_cluster: Cluster, tmp_path: Path, option: str, states: list[str]
) -> None:
    job = slurm_cluster.submit("exec sleep 100", tmp_path / "out", option, "--nodelist=node4")
    slurm_cluster.until(job, "RUNNING")
    slurm_cluster.do("kill-node", "4")
    slurm_cluster.notice_death("node4")
    assert slurm_cluster.until(job, *states) in states


@pytest.mark.requires_slurm(alone=True)
def test_node_without_cable_comes_back(slurm_cluster: Cluster, tmp_path: Path) -> None:
    job = slurm_cluster.submit("exec sleep 100", tmp_path / "out", "--no-requeue", "--nodelist=node4")
    slurm_cluster.until(job, "RUNNING")
    slurm_cluster.do("unplug-node", "4")
    slurm_cluster.notice_death("node4")
    assert slurm_cluster.until(job, "NODE_FAIL") == "NODE_FAIL"
    slurm_cluster.do("plug-node", "4")
    slurm_cluster.do("start-node", "4")
    assert slurm_cluster.text("sinfo", "--noheader", "--nodes=node4", "--format=%T") == "idle"


@pytest.mark.requires_slurm(alone=True)
def test_jobs_outlive_the_controller(slurm_cluster: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = slurm_cluster.submit(f"until [ -e {go} ]; do sleep 0.05; done; echo done", tmp_path / "out")
    slurm_cluster.until(job, "RUNNING")
    slurm_cluster.until_saved()
    slurm_cluster.do("kill-controller")
    assert "DOWN" in subprocess.run(["scontrol", "ping"], capture_output=True, check=False, text=True).stdout
    slurm_cluster.do("restart-controller")
    assert slurm_cluster.state(job) == "RUNNING"
    go.touch()
    assert slurm_cluster.until(job) == "COMPLETED"


def test_without_accounts_there_is_no_sacct(slurm_cluster: Cluster, tmp_path: Path) -> None:
    done = subprocess.run(["sacct"], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (1, "Slurm accounting storage is disabled\n")
    assert ended(slurm_cluster, tmp_path, "true", "--account=nobody", "--qos=none")[0] == "COMPLETED"


@pytest.mark.requires_slurm(accounting=True)
def test_accounts_are_kept_and_checked(slurm_cluster: Cluster, tmp_path: Path) -> None:
    job = slurm_cluster.submit("exit 3", tmp_path / "out", "--account=research", "--qos=urgent")
    assert slurm_cluster.until(job) == "FAILED"
    fields = "--format=account,qos,state,exitcode"
    until_said(slurm_cluster, "research|urgent|FAILED|3:0", "sacct", "-nXP", f"--jobs={job}", fields)
    argv = ["sbatch", "--account=nobody", "--output=/dev/null", "--wrap=true"]
    refused = subprocess.run(argv, capture_output=True, check=False, text=True)
    assert (refused.returncode, "Invalid account" in refused.stderr) == (1, True)


def until_said(cluster: Cluster, words: str, *argv: str) -> None:
    """Ask until the answer is this: the database lags behind the controller."""
    deadline = time.monotonic() + 20
    while (said := cluster.text(*argv)) != words:
        assert time.monotonic() < deadline, said
