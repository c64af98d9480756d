"""The template of a job's pods, as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_madengine.backends import kubenames, kubeoptions
from pytest_madengine.backends.kubefiles import POD_SCRIPT, File, Piece
from pytest_madengine.context.kubernetes import Kubernetes
from pytest_madengine.errors import UserError
from pytest_madengine.jobs.job import Job, Mount
from pytest_madengine.secrets import Secret

Manifest = dict[str, Any]

CONTAINER = "model"
FILES, JOB, PROJECT, WORKSPACE = "/madengine/files", "/madengine/job", "/madengine/project", "/myworkspace"
CREDENTIAL, RESULTS, DATA = "/madengine/credential", "/results", "/data"
"""Folders of the model's container."""
SCRATCH = {"job": JOB, "project": PROJECT, "workspace": WORKSPACE}
"""Volumes that vanish with the pod."""
SHARED_DATA = "madengine-shared-data"
"""The claim for data that all runs of a namespace share; it belongs to no job."""
GRACE = 60
"""Seconds that a pod has to end."""
PULL = 3600
"""Seconds of a pod's deadline that the image may take to come."""
OF_POD = {
    "MAD_K8S_POD_NAME": "metadata.name",
    "MAD_K8S_NAMESPACE": "metadata.namespace",
    "MAD_K8S_POD_IP": "status.podIP",
    "MAD_K8S_NODE_NAME": "spec.nodeName",
}
"""Variables that tell a pod about itself."""
MERGE_KEYS = {"volumeMounts": "mountPath", "ports": "containerPort"}
"""By which key the items of a list of `pod_spec` merge with those here; by `name` in other lists that have it."""
NO_SECRET = Secret("")


@dataclass(frozen=True)
class Load:
    """What goes into the pods beside the job's own values.

    Attributes:
        script: what each pod runs.
        files: of the project: the model's scripts, and those that run before and after it.
        credential: the text of credential.json; '' for none.
        data: whether the shared data claim is mounted.
    """

    script: str
    files: Sequence[File] = ()
    credential: Secret = NO_SECRET
    data: bool = False


def template(job: Job, stated: Kubernetes, load: Load, maps: Sequence[Sequence[Piece]]) -> Manifest:
    """What each pod of a job is made of.

    Args:
        job: what runs in it.
        stated: its section.
        load: what goes into it.
        maps: the pieces of files in each of the job's ConfigMaps.

    Raises:
        UserError: the job has no image that nodes could pull.
    """
    own = named(job, stated)
    spec = {
        **_ending(job, stated),
        **_place(job, stated),
        "containers": [_container(job, stated, load)],
        "volumes": list(_volumes(job, stated, load, maps)),
    }
    metadata = {key: own[key] for key in ("labels", "annotations")}
    return {"metadata": metadata, "spec": overlaid(spec, stated.pod_spec)}


def named(job: Job, stated: Kubernetes, suffix: str = "") -> Manifest:
    """The metadata of an object of a job; the suffix tells it from the others of its kind."""
    annotations = {**stated.annotations, kubenames.NAME: job.name, kubenames.JOB: job.id}
    return {
        "name": f"{kubenames.object_name(job)}{suffix}",
        "namespace": stated.namespace,
        "labels": {**stated.labels, **kubenames.labels(job)},
        "annotations": annotations,
    }


def image_of(job: Job, stated: Kubernetes) -> str:
    """The name by which the nodes pull a job's image: by digest where a registry's is known.

    Raises:
        UserError: there is none.
    """
    image = job.image
    if image is None:
        raise UserError(f"{job.name} has no image, and pods run nothing else")
    if image.registry_image and image.registry_digest:
        name = image.registry_image.partition("@")[0]
        tagged = name.rpartition("/")[2].partition(":")[1]
        return f"{name.rpartition(':')[0] if tagged else name}@{image.registry_digest}"
    if not image.registry_image and image.content and stated.image_pull_policy == "Always":
        raise UserError(
            f"{job.name}: its image {image.reference} is on this machine alone; valid: an image in a registry, as by "
            "--madengine-registry or --madengine-use-image, or k8s.image_pull_policy 'IfNotPresent' where nodes have it"
        )
    return image.registry_image or image.reference


def _ending(job: Job, stated: Kubernetes) -> Manifest:
    """When pods end. The deadline is for pods that nobody watches any more: pytest ends late jobs itself."""
    if stated.shape == "leaderworkerset":
        return {"terminationGracePeriodSeconds": GRACE}
    deadline = {} if job.limit is None else {"activeDeadlineSeconds": math.ceil(job.limit) + stated.results_wait + PULL}
    return {"restartPolicy": "Never", "terminationGracePeriodSeconds": GRACE, **deadline}


def _place(job: Job, stated: Kubernetes) -> Manifest:
    """Where pods run, as whom, and what they share with others."""
    several = job.topology.nodes > 1 and stated.shape == "job"
    account = {"serviceAccountName": stated.service_account} if stated.service_account else {}
    optional = {
        "subdomain": kubenames.object_name(job) if several else "",
        "hostIPC": stated.host_ipc,
        "hostNetwork": stated.host_network,
        "dnsPolicy": "ClusterFirstWithHostNet" if stated.host_network else "",
        "imagePullSecrets": [{"name": name} for name in _pull_secrets(job, stated)],
        "priorityClassName": stated.priority_class,
        "nodeSelector": stated.node_selector,
        "tolerations": list(stated.tolerations),
        "affinity": _affinity(stated.affinity, job.avoid),
        "topologySpreadConstraints": list(stated.topology_spread_constraints),
    }
    return {
        "enableServiceLinks": False,
        **(account or {"automountServiceAccountToken": False}),
        **{key: value for key, value in optional.items() if value},
    }


def pulls(job: Job, stated: Kubernetes) -> bool:
    """Whether a job has a Secret of its own for pulling its image."""
    return bool(job.logins.names) and stated.secrets.strategy == "from_local_credentials"


def _pull_secrets(job: Job, stated: Kubernetes) -> list[str]:
    own = [f"{kubenames.object_name(job)}-pull"] if pulls(job, stated) else []
    return [*own, *stated.secrets.image_pull_secret_names]


def _affinity(stated: Mapping[str, Any], avoid: Sequence[str]) -> Manifest:
    """The stated affinity, off the nodes on which earlier attempts failed."""
    if not avoid:
        return dict(stated)
    off = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in sorted(set(avoid))]
    of_nodes = dict(stated.get("nodeAffinity") or {})
    required = dict(of_nodes.get("requiredDuringSchedulingIgnoredDuringExecution") or {})
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [
        {**term, "matchFields": [*(term.get("matchFields") or ()), *off]} for term in terms
    ]
    of_nodes["requiredDuringSchedulingIgnoredDuringExecution"] = required
    return {**stated, "nodeAffinity": of_nodes}


def _container(job: Job, stated: Kubernetes, load: Load) -> Manifest:
    security = _security(job, stated)
    return {
        "name": CONTAINER,
        "image": image_of(job, stated),
        "imagePullPolicy": stated.image_pull_policy,
        "command": ["bash", f"{FILES}/{POD_SCRIPT}"],
        "env": [*map(_of_field, OF_POD.items()), *(_of_secret(job, name) for name in sorted(job.secrets))],
        **_given_secret(stated),
        "resources": _resources(stated),
        **({"securityContext": security} if security else {}),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": list(_mounts(job, stated, load)),
    }


def _of_field(pair: tuple[str, str]) -> Manifest:
    name, path = pair
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _of_secret(job: Job, name: str) -> Manifest:
    reference = {"name": f"{kubenames.object_name(job)}-runtime", "key": name}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _given_secret(stated: Kubernetes) -> Manifest:
    """The secret of the namespace that the user names, as variables."""
    name = stated.secrets.runtime_secret_name
    if not name or stated.secrets.strategy != "existing":
        return {}
    return {"envFrom": [{"secretRef": {"name": name}}]}


def _resources(stated: Kubernetes) -> Manifest:
    """Devices are limited to what is requested, as Kubernetes wants it."""
    gpus = {stated.gpu_resource_name: str(stated.gpu_count)} if stated.gpu_count else {}
    devices = {**gpus, **stated.rdma}
    requests = {"memory": stated.memory, "cpu": stated.cpu, **devices}
    limits = {"memory": stated.memory_limit, "cpu": stated.cpu_limit, **devices}
    return {
        "requests": {name: value for name, value in requests.items() if value is not None},
        "limits": {name: value for name, value in limits.items() if value is not None},
    }


def _security(job: Job, stated: Kubernetes) -> Manifest:
    traces = {"SYS_PTRACE"} if stated.allow_privileged_profiling else set[str]()
    added = sorted({*traces, *({"IPC_LOCK"} if stated.rdma else ()), *kubeoptions.read(job).capabilities})
    return {
        **({"capabilities": {"add": added}} if added else {}),
        **({"seccompProfile": {"type": "Unconfined"}} if traces else {}),
    }


def _mounts(job: Job, stated: Kubernetes, load: Load) -> Iterator[Manifest]:
    yield {"name": "files", "mountPath": FILES, "readOnly": True}
    yield from ({"name": name, "mountPath": path} for name, path in SCRATCH.items())
    yield {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108  # the folder of shared memory
    if stated.results_claimed:
        yield {"name": "results", "mountPath": RESULTS}
    if _data(stated, load):
        yield {"name": "data", "mountPath": DATA}
    if brings_credential(stated, load):
        yield {"name": "credential", "mountPath": CREDENTIAL, "readOnly": True}
    for number, mount in enumerate(_of_nodes(job)):
        yield {"name": f"host-{number}", "mountPath": mount.target, "readOnly": mount.read_only}


def _volumes(job: Job, stated: Kubernetes, load: Load, maps: Sequence[Sequence[Piece]]) -> Iterator[Manifest]:
    name = kubenames.object_name(job)
    sources = [_source(f"{name}-files-{number}", pieces) for number, pieces in enumerate(maps)]
    yield {"name": "files", "projected": {"sources": sources}}
    yield from ({"name": scratch, "emptyDir": {}} for scratch in SCRATCH)
    yield {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _shm_size(job, stated)}}
    if stated.results_claimed:
        yield of_claim("results", stated.results_pvc or f"{name}-results")
    if claim := _data(stated, load):
        yield of_claim("data", claim)
    if brings_credential(stated, load):
        only = [{"key": "credential.json", "path": "credential.json"}]
        yield {"name": "credential", "secret": {"secretName": f"{name}-runtime", "items": only}}
    for number, mount in enumerate(_of_nodes(job)):
        yield {"name": f"host-{number}", "hostPath": {"path": mount.source}}


def _of_nodes(job: Job) -> tuple[Mount, ...]:
    """Folders of the nodes that the context or the card names."""
    return (*job.mounts, *kubeoptions.read(job).mounts)


def _shm_size(job: Job, stated: Kubernetes) -> str:
    """What the section states, else the card's option, else the default."""
    of_card = "" if "shm_size" in stated.model_fields_set else kubeoptions.read(job).shm_size
    return of_card or stated.shm_size


def _source(name: str, pieces: Iterable[Piece]) -> Manifest:
    items = [{"key": piece.key, "path": piece.path, "mode": piece.mode} for piece in pieces]
    return {"configMap": {"name": name, "items": items}}


def of_claim(name: str, claim: str) -> Manifest:
    """A volume that is a claim."""
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def _data(stated: Kubernetes, load: Load) -> str:
    """The claim with data; '' where the job has none."""
    return stated.data_pvc or (SHARED_DATA if load.data else "")


def brings_credential(stated: Kubernetes, load: Load) -> bool:
    """Whether a job's Secret holds credential.json."""
    return bool(load.credential) and stated.secrets.strategy == "from_local_credentials"


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> Manifest:
    """A spec with another over it: objects merge key by key, lists of named things by name, and null removes a key."""
    result = dict(below)
    for key, value in above.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _over(key, below.get(key), value)
    return result


def _over(key: str, below: Any, above: Any) -> Any:
    if isinstance(above, Mapping):
        return overlaid(below if isinstance(below, Mapping) else {}, above)
    by = MERGE_KEYS.get(key, "name")
    if isinstance(above, list | tuple) and isinstance(below, list) and _all_have(by, [*below, *above]):
        return _by_key(by, below, above)
    return above


def _all_have(key: str, items: Iterable[Any]) -> bool:
    return all(isinstance(item, Mapping) and key in item for item in items)


def _by_key(by: str, below: Sequence[Mapping[str, Any]], above: Sequence[Mapping[str, Any]]) -> list[Manifest]:
    result = {item[by]: dict(item) for item in below}
    for item in above:
        result[item[by]] = overlaid(result.get(item[by], {}), item)
    return list(result.values())
