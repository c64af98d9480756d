"""The objects of Kubernetes that run one job, as plain data."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import yaml

from pytest_madengine.backends import kubefiles, kubenames, kubepod
from pytest_madengine.backends.kubepod import CONTAINER, RESULTS, SHARED_DATA, Load, Manifest, named, of_claim
from pytest_madengine.context.kubernetes import Kubernetes
from pytest_madengine.errors import Fault, FaultsError, UserError
from pytest_madengine.jobs.job import Job
from pytest_madengine.secrets import MASK
from pytest_madengine.validation import ENV_NAME

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
DOCKER_HUB = "https://index.docker.io/v1/"


def manifests(job: Job, stated: Kubernetes, load: Load) -> list[Manifest]:
    """All objects of one job in the order in which to create them; the last one, which runs it, owns the others.

    Raises:
        FaultsError: the files are too many or too large, or a variable for secrets has an impossible name.
        UserError: this model cannot run on Kubernetes.
    """
    if job.self_managed:
        raise UserError(
            f"{job.name} starts its own containers: its launcher runs on SLURM and locally, not on Kubernetes"
        )
    maps = kubefiles.maps(kubefiles.pieces(job, load.script, load.files))
    return [
        *_secrets(job, stated, load),
        *(_config_map(job, stated, number, kubefiles.content(each)) for number, each in enumerate(maps)),
        *_claim(job, stated),
        *_service(job, stated),
        SHAPES[stated.shape](job, stated, kubepod.template(job, stated, load, maps)),
    ]


def data_claim(stated: Kubernetes) -> Manifest:
    """The claim for data that all runs share."""
    metadata = {"name": SHARED_DATA, "namespace": stated.namespace, "labels": dict(kubenames.APP)}
    spec = _claim_spec("ReadWriteMany", stated.data_storage_size or "100Gi", stated.data_class())
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def collector(job: Job, stated: Kubernetes) -> Manifest:
    """A pod from which the results on a claim can be read, for as long as results may wait.

    It runs the job's own image, which the nodes have.
    """
    name = kubenames.object_name(job)
    container = {
        "name": CONTAINER,
        "image": kubepod.image_of(job, stated),
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", str(stated.results_wait)],
        "volumeMounts": [{"name": "results", "mountPath": RESULTS, "readOnly": True}],
    }
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": stated.node_selector,
        "tolerations": list(stated.tolerations),
        "imagePullSecrets": [{"name": secret} for secret in stated.secrets.image_pull_secret_names],
        "containers": [container],
        "volumes": [of_claim("results", stated.results_pvc or f"{name}-results")],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": named(job, stated, "-collector"), "spec": spec}


def owned_by(owner: Mapping[str, Any]) -> Manifest:
    """The patch that makes an object vanish with its owner.

    Args:
        owner: the object as the server gave it when it was created, with its uid.
    """
    metadata = owner["metadata"]
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {"metadata": {"ownerReferences": [reference]}}


def shown(found: Iterable[Manifest]) -> list[Manifest]:
    """Manifests for people, without the content of secrets."""
    return [{**each, "data": dict.fromkeys(each["data"], MASK)} if each["kind"] == "Secret" else each for each in found]


def as_yaml(found: Iterable[Manifest]) -> str:
    """Manifests as YAML documents, with the lines of scripts as lines."""
    return "".join(f"---\n{yaml.dump(each, Dumper=_Dumper, sort_keys=False, allow_unicode=True)}" for each in found)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks where YAML can, and repeats what stands twice."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _FOREIGN_BREAKS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_FOREIGN_BREAKS = re.compile("[\r\x85\u2028\u2029]")
"""What YAML takes for ends of lines too, and would read back as another one."""


_Dumper.add_representer(str, _represent_text)


def _secrets(job: Job, stated: Kubernetes, load: Load) -> Iterator[Manifest]:
    if kubepod.pulls(job, stated):
        data = {".dockerconfigjson": _base64(_logins(job))}
        yield _secret(job, stated, "-pull", "kubernetes.io/dockerconfigjson", data)
    data = {name: _base64(value) for name, value in sorted(job.secrets.items())}
    if wrong := [name for name in data if not ENV_NAME.fullmatch(name)]:
        valid = "letters, digits and _, no digit first"
        raise FaultsError([Fault(f"{job.name}: the variable {name!r}", "no pod can have it", valid) for name in wrong])
    if kubepod.brings_credential(stated, load):
        data["credential.json"] = _base64(load.credential)
    if data:
        yield _secret(job, stated, "-runtime", "Opaque", data)


def _secret(job: Job, stated: Kubernetes, suffix: str, kind: str, data: dict[str, str]) -> Manifest:
    metadata = named(job, stated, suffix)
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data}


def _logins(job: Job) -> str:
    """The logins as a configuration of docker."""
    auths = {}
    for number, (server, user) in enumerate(job.logins.names):
        password = str(job.logins.variables[f"MADENGINE_PASSWORD_{number}"])
        login = {"username": user, "password": password, "auth": _base64(f"{user}:{password}")}
        auths[server or DOCKER_HUB] = login
    return json.dumps({"auths": auths})


def _base64(value: str) -> str:
    return b64encode(value.encode(errors="surrogateescape")).decode()


def _config_map(job: Job, stated: Kubernetes, number: int, content: Mapping[str, Any]) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named(job, stated, f"-files-{number}"), **content}


def _claim(job: Job, stated: Kubernetes) -> Iterator[Manifest]:
    if stated.results_claimed and not stated.results_pvc:
        nodes = job.topology.nodes
        mode = "ReadWriteOnce" if nodes == 1 else "ReadWriteMany"
        spec = _claim_spec(mode, stated.results_storage_size or "10Gi", stated.results_class(nodes))
        metadata = named(job, stated, "-results")
        yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def _claim_spec(mode: str, size: str, storage_class: str | None) -> Manifest:
    named = {} if storage_class is None else {"storageClassName": storage_class}
    return {"accessModes": [mode], "resources": {"requests": {"storage": size}}, **named}


def _service(job: Job, stated: Kubernetes) -> Iterator[Manifest]:
    """The headless service that gives the pods names, before they are ready: each waits for the others'.

    A JobSet and a LeaderWorkerSet bring their own.
    """
    if job.topology.nodes > 1 and stated.shape == "job":
        spec = {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": kubenames.selector(job),
            "ports": [{"name": "rendezvous", "port": job.topology.master_port}],
        }
        yield {"apiVersion": "v1", "kind": "Service", "metadata": named(job, stated), "spec": spec}


def _job(job: Job, stated: Kubernetes, template: Manifest) -> Manifest:
    spec = {**_indexed(job, stated.backoff_limit, template), **_life(stated)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": _queued(job, stated), "spec": spec}


def _indexed(job: Job, backoff: int, template: Manifest) -> Manifest:
    nodes = job.topology.nodes
    return {
        "completions": nodes,
        "parallelism": nodes,
        **({"completionMode": "Indexed"} if nodes > 1 else {}),
        "backoffLimit": backoff,
        "template": template,
    }


def _life(stated: Kubernetes) -> Manifest:
    """What a Job and a JobSet say alike: when to begin, and when to go."""
    ttl = stated.ttl_seconds_after_finished
    return {
        **({"suspend": True} if stated.queue else {}),
        **({} if ttl is None else {"ttlSecondsAfterFinished": ttl}),
    }


def _queued(job: Job, stated: Kubernetes) -> Manifest:
    metadata = named(job, stated)
    queue = {QUEUE_LABEL: stated.queue} if stated.queue else {}
    return {**metadata, "labels": {**metadata["labels"], **queue}}


def _jobset(job: Job, stated: Kubernetes, template: Manifest) -> Manifest:
    """One group of pods; where one of them fails, all begin again."""
    group = {"name": kubenames.RANKS, "replicas": 1, "template": {"spec": _indexed(job, 0, template)}}
    spec = {
        "network": {
            "enableDNSHostnames": True,
            "subdomain": kubenames.object_name(job),
            "publishNotReadyAddresses": True,
        },
        "failurePolicy": {"maxRestarts": stated.backoff_limit},
        "replicatedJobs": [group],
        **_life(stated),
    }
    return {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": _queued(job, stated), "spec": spec}


def _leader_worker_set(job: Job, stated: Kubernetes, template: Manifest) -> Manifest:
    """One group of pods, which last until the set is deleted."""
    spec = {
        "replicas": 1,
        "startupPolicy": "LeaderCreated",
        "networkConfig": {"subdomainPolicy": "Shared"},
        "leaderWorkerTemplate": {"size": job.topology.nodes, "restartPolicy": "None", "workerTemplate": template},
    }
    kind = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet"}
    return {**kind, "metadata": _queued(job, stated), "spec": spec}


SHAPES: Mapping[str, Callable[[Job, Kubernetes, Manifest], Manifest]] = {
    "job": _job,
    "jobset": _jobset,
    "leaderworkerset": _leader_worker_set,
}
