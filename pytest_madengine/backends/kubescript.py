"""The shell text that every pod of a job runs; pure but for reading templates."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_madengine import assets
from pytest_madengine.backends import kubefiles, kubenames, kubeoptions, kubepod
from pytest_madengine.backends.kubefiles import File
from pytest_madengine.context.kubernetes import Kubernetes
from pytest_madengine.jobs.job import Job
from pytest_madengine.launchers.base import quoted

RANK = {"leaderworkerset": "${LWS_WORKER_INDEX:-}"}
"""What numbers the pods, by shape."""
DEFAULT_RANK = "${JOB_COMPLETION_INDEX:-}"
HINT = {"leaderworkerset": "is the operator for LeaderWorkerSets there?"}
DEFAULT_HINT = "Kubernetes 1.22 and later do"
PATIENCE = 600
"""Seconds for which a pod waits until the others have addresses."""
READY = "madengine: results of "
"""What the line of a pod's log begins with that says that they can be fetched."""
AGAIN = 5
"""Seconds after which a pod says so once more."""
ARCHIVE, FETCHED = f"{kubepod.JOB}/results.tar", f"{kubepod.JOB}/fetched"
"""The results in a pod, and the file that lets the pod end."""
END = ("bash", "-c", "kill -USR1 1")
"""The command that, in a pod, ends its model and leaves the results to be fetched."""
LEAVE = ("bash", "-c", "kill -TERM 1")
"""The one that ends the pod."""
KEPT = ("run.log", "phases", "started", "git_commit", "artifacts", "machine", "host", "balancer.log", "status")
"""What comes back of a pod, beside the exit code."""


def pod_script(job: Job, stated: Kubernetes, files: Sequence[File] = (), *, data: bool = False) -> str:
    """What each pod runs.

    Args:
        job: what is to run.
        stated: its section.
        files: those of the project that go into the pods.
        data: whether the shared data claim is mounted.
    """
    return assets.render(
        "kubernetes/pod.sh.j2",
        name=job.name,
        id=job.id,
        files=kubepod.FILES,
        job=kubepod.JOB,
        project=kubepod.PROJECT,
        workspace=kubepod.WORKSPACE,
        credential=kubepod.CREDENTIAL,
        data=kubepod.DATA if data or stated.data_pvc else "",
        claim=results_folder(job) if stated.results_claimed else "",
        large=list(_large(files)),
        wait=stated.results_wait,
        patience=PATIENCE,
        again=AGAIN,
        kept=" ".join(KEPT),
        expressions=[(name, quoted(value)) for name, value in job.expressions.items()],
        variables=list({**job.env, **kubeoptions.read(job).env}.items()),
        **_ranks(job, stated),
        **_servers(job),
    )


def _ranks(job: Job, stated: Kubernetes) -> Mapping[str, object]:
    """How many pods there are, what numbers them, and what each has."""
    nodes, processes = job.topology.nodes, job.topology.processes_per_node
    gpus = len(job.devices.gpus)
    return {
        "nodes": nodes,
        "processes": processes,
        "world_size": nodes * processes,
        "gpus": gpus,
        "visible": job.visible_devices if gpus else (),
        "port": job.topology.master_port,
        "hosts": kubenames.hosts(job, stated.shape) if nodes > 1 else ["127.0.0.1"],
        "rank": RANK.get(stated.shape, DEFAULT_RANK) if nodes > 1 else "0",
        "hint": HINT.get(stated.shape, DEFAULT_HINT),
        "forever": stated.shape == "leaderworkerset",
    }


def results_folder(job: Job) -> str:
    """Where on the volume for results a job's lie: in it, a folder for each rank, with one for each of its pods."""
    return posixpath.join(kubepod.RESULTS, kubenames.object_name(job))


def _large(files: Sequence[File]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, file in kubefiles.large(files):
        yield number, {"path": file.path, "folder": posixpath.dirname(file.path) or ".", "mode": file.mode & 0o777}


def _servers(job: Job) -> Mapping[str, object]:
    """How many pods prefill where each has a role of its own, so that the model's script is their client."""
    variables = {**job.expressions, **job.env}
    enabled = variables.get("SGLANG_DISAGG_MODE") == "enabled"
    return {"servers": enabled, "prefill": int(variables["SGLANG_DISAGG_PREFILL_NODES"]) if enabled else 0}
