"""What a job's folder says of the objects that were asked for, so that any process finds them again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_madengine import files
from pytest_madengine.backends import kubenames, kubescript
from pytest_madengine.backends.kubeapi import Place
from pytest_madengine.backends.kubefiles import File
from pytest_madengine.backends.kubemanifest import collector, data_claim, manifests
from pytest_madengine.backends.kubepod import Load, Manifest
from pytest_madengine.context.kubernetes import Kubernetes
from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.jobs.job import Job

NOTE = "kubernetes.json"


@dataclass(frozen=True)
class Asked:
    """What the cluster was asked for.

    Attributes:
        kubeconfig: the client's file; '' for none that was named, as for the context.
        name: of the runner: the Job, JobSet or LeaderWorkerSet.
        kind: of the runner.
        run: the value of the label for the run, as `job` is that for the job.
        nodes: how many pods.
        retries: how often failed pods are tried again.
        queue: that admits the job; '' for none.
        objects: kind and name of all others, in the order of their creation.
        collector: the pod through which a claim is read; None where results come from the pods themselves.
        results: the folder of the results on that claim.
        keep: whether all of it stays when the job is over.
    """

    kubeconfig: str
    context: str
    namespace: str
    name: str
    kind: str
    run: str
    job: str
    nodes: int
    retries: int
    queue: str
    objects: Sequence[Sequence[str]]
    collector: Manifest | None = None
    results: str = ""
    keep: bool = False

    @property
    def place(self) -> Place:
        """The cluster."""
        return Place(self.kubeconfig, self.context)

    @property
    def group(self) -> tuple[Place, str, str]:
        """By what jobs are asked for together."""
        return self.place, self.namespace, self.run

    @property
    def selector(self) -> str:
        """By what all objects of its run are found."""
        return f"{kubenames.RUN_LABEL}={self.run}"

    @property
    def reader(self) -> str:
        """The name of the pod through which a claim is read; '' where there is none."""
        return str(self.collector["metadata"]["name"]) if self.collector else ""

    def write(self, folder: Path) -> None:
        """Put this into a job's folder, whole or not at all."""
        files.put(folder / NOTE, json.dumps(asdict(self)))


def read(folder: Path) -> Asked | None:
    """What was asked for a job; None where nothing was."""
    try:
        found: dict[str, Any] = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Asked(**found)


def place(stated: Kubernetes) -> Place:
    """The cluster that a section names, wherever it is asked for from."""
    config = str(Path(stated.kubeconfig).expanduser()) if stated.kubeconfig else ""
    config = os.path.abspath(config) if config else ""  # noqa: PTH100  # links stay as they are named
    return Place(config, stated.context or "")


def section(job: Job) -> Kubernetes:
    """The job's `k8s` section."""
    return Kubernetes.model_validate(dict(job.cluster))


def asked(job: Job, found: Sequence[Manifest]) -> Asked:
    """What a job's manifests ask for."""
    stated, (*others, runner) = section(job), found
    labels = kubenames.selector(job)
    return Asked(
        **place(stated)._asdict(),
        namespace=stated.namespace,
        name=runner["metadata"]["name"],
        kind=runner["kind"],
        run=labels[kubenames.RUN_LABEL],
        job=labels[kubenames.JOB_LABEL],
        nodes=job.topology.nodes,
        retries=stated.backoff_limit,
        queue=stated.queue or "",
        objects=[(each["kind"], each["metadata"]["name"]) for each in others],
        collector=collector(job, stated) if stated.results_claimed else None,
        results=kubescript.results_folder(job) if stated.results_claimed else "",
        keep=job.keep,
    )


def objects(job: Job) -> list[Manifest]:
    """All that a job needs, in the order in which to create it; the runner is the last.

    Raises:
        FaultsError: its files are too many or too large, or one of them cannot be read.
        UserError: it cannot run on Kubernetes.
    """
    stated, files = section(job), _files(job)
    data = shares_data(stated)
    script = kubescript.pod_script(job, stated, files, data=data)
    return manifests(job, stated, Load(script, files, job.credential, data))


def _files(job: Job) -> list[File]:
    """The files of the project that the pods need."""
    return [_file(job, path) for path in job.files]


def _file(job: Job, path: str) -> File:
    place = job.project / path
    try:
        return File(path, place.read_bytes(), place.stat().st_mode & 0o777)
    except OSError as error:
        raise FaultsError([Fault(f"{job.name}: {place}", str(error.strerror), "a file that can be read")]) from None


def shares_data(stated: Kubernetes) -> bool:
    """Whether a job sees the claim for data that all runs share: its own keys ask for it."""
    own = (stated.recreate_shared_data_pvc, stated.data_storage_size, stated.data_storage_class is not None)
    return stated.data_pvc is None and any(own)


def data(stated: Kubernetes, run: str) -> Manifest:
    """The claim for data, with the run that made it."""
    found = data_claim(stated)
    return {**found, "metadata": {**found["metadata"], "annotations": {kubenames.RUN_LABEL: run}}}
