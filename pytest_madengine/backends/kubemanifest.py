"""The objects of Kubernetes that run one job, as plain data."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pytest_madengine.backends import kubenames, kubeoptions
from pytest_madengine.context.kubernetes import Kubernetes
from pytest_madengine.errors import Fault, FaultsError, UserError
from pytest_madengine.jobs.job import Job, Mount
from pytest_madengine.secrets import MASK, Secret
from pytest_madengine.validation import ENV_NAME

Manifest = dict[str, Any]

CONTAINER = "model"
FILES, JOB, PROJECT, WORKSPACE = "/madengine/files", "/madengine/job", "/madengine/project", "/myworkspace"
CREDENTIAL, RESULTS, DATA = "/madengine/credential", "/results", "/data"
"""Folders of the model's container."""
POD_SCRIPT, JOB_SCRIPT = "pod.sh", "run.sh"
SHARED_DATA = "madengine-shared-data"
"""The claim for data that all runs of a namespace share; it belongs to no job."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
ROOM = 900 * 1024
"""Bytes of one ConfigMap: of the 1 MiB that a cluster takes, some is for names."""
PART = ROOM // 2
"""Bytes of a file from which on it comes in parts of that size."""
MOST_BYTES, MOST_FILES = 8 * 1024 * 1024, 1000
"""What the files of a job may come to; clusters keep all of them in one small database."""
ELSEWHERE = "put them into the image, a git repository (the card's 'url') or k8s.data_pvc"
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
DOCKER_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True)
class File:
    """A file of the project that the job needs.

    Attributes:
        path: from the project's root, with slashes.
        data: its content.
        mode: its permission bits.
    """

    path: str
    data: bytes
    mode: int = 0o644


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


@dataclass(frozen=True)
class _Piece:
    """A file, or a part of a large one, within a ConfigMap: its key there, and where it appears in the pod."""

    key: str
    path: str
    data: bytes
    mode: int

    @property
    def size(self) -> int:
        return len(self.data) + len(self.key)


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
    pieces = _pieces(job, load)
    maps = _maps(pieces)
    return [
        *_secrets(job, stated, load),
        *(_config_map(job, stated, number, content) for number, content in enumerate(maps)),
        *_claim(job, stated),
        *_service(job, stated),
        SHAPES[stated.shape](job, stated, _template(job, stated, load, maps)),
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
        "image": image_of(job, stated),
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
        "volumes": [_of_claim("results", stated.results_pvc or f"{name}-results")],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _named(job, stated, "-collector"), "spec": spec}


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


def _named(job: Job, stated: Kubernetes, suffix: str = "") -> Manifest:
    annotations = {**stated.annotations, kubenames.NAME: job.name, kubenames.JOB: job.id}
    return {
        "name": f"{kubenames.object_name(job)}{suffix}",
        "namespace": stated.namespace,
        "labels": {**stated.labels, **kubenames.labels(job)},
        "annotations": annotations,
    }


def _secrets(job: Job, stated: Kubernetes, load: Load) -> Iterator[Manifest]:
    if _pulls(job, stated):
        data = {".dockerconfigjson": _base64(_logins(job))}
        yield _secret(job, stated, "-pull", "kubernetes.io/dockerconfigjson", data)
    data = {name: _base64(value) for name, value in sorted(job.secrets.items())}
    if wrong := [name for name in data if not ENV_NAME.fullmatch(name)]:
        valid = "letters, digits and _, no digit first"
        raise FaultsError([Fault(f"{job.name}: the variable {name!r}", "no pod can have it", valid) for name in wrong])
    if _brings_credential(stated, load):
        data["credential.json"] = _base64(load.credential)
    if data:
        yield _secret(job, stated, "-runtime", "Opaque", data)


def _secret(job: Job, stated: Kubernetes, suffix: str, kind: str, data: dict[str, str]) -> Manifest:
    metadata = _named(job, stated, suffix)
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data}


def _pulls(job: Job, stated: Kubernetes) -> bool:
    return bool(job.logins.names) and stated.secrets.strategy == "from_local_credentials"


def _logins(job: Job) -> str:
    """The logins as a configuration of docker."""
    auths = {}
    for number, (server, user) in enumerate(job.logins.names):
        password = str(job.logins.variables[f"MADENGINE_PASSWORD_{number}"])
        login = {"username": user, "password": password, "auth": _base64(f"{user}:{password}")}
        auths[server or DOCKER_HUB] = login
    return json.dumps({"auths": auths})


def _brings_credential(stated: Kubernetes, load: Load) -> bool:
    return bool(load.credential) and stated.secrets.strategy == "from_local_credentials"


def _base64(value: str) -> str:
    return b64encode(value.encode(errors="surrogateescape")).decode()


def _pieces(job: Job, load: Load) -> list[_Piece]:
    """The scripts and the project's files; a file that no ConfigMap holds is in parts, which the pod puts together.

    Raises:
        FaultsError: they are too many, too large, or a path is none that a pod can have.
    """
    _require_fit(job, load.files)
    pieces = [
        _Piece(POD_SCRIPT, POD_SCRIPT, _bytes(load.script), 0o555),
        _Piece(JOB_SCRIPT, JOB_SCRIPT, _bytes(job.script), 0o555),
    ]
    for number, file in enumerate(load.files):
        pieces += _parts(number, file) if _is_large(file) else [_whole(number, file)]
    return pieces


def _whole(number: int, file: File) -> _Piece:
    """A file of its own, which any user of the container may read."""
    return _Piece(f"file-{number}", f"project/{file.path}", file.data, file.mode & 0o777 | 0o444)


def _parts(number: int, file: File) -> list[_Piece]:
    cut = [file.data[at : at + PART] for at in range(0, len(file.data), PART)]
    return [_Piece(f"part-{number}-{at}", f"parts/{number}/{at:03}", part, 0o444) for at, part in enumerate(cut)]


def _is_large(file: File) -> bool:
    return len(file.data) > PART


def large(files: Sequence[File]) -> Iterator[tuple[int, File]]:
    """The files that come in parts, with the number of the folder that has these."""
    return ((number, file) for number, file in enumerate(files) if _is_large(file))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _require_fit(job: Job, files: Sequence[File]) -> None:
    where, size = f"{job.name}.scripts", sum(len(file.data) for file in files)
    found = [Fault(where, f"no pod can have the path {f.path!r}", "UTF-8 without '..'") for f in files if _odd(f.path)]
    if len(files) > MOST_FILES:
        found.append(Fault(where, f"{len(files)} files", f"at most {MOST_FILES}: {ELSEWHERE}"))
    if size > MOST_BYTES:
        largest = max(files, key=lambda file: len(file.data))
        words = f"{size / 2**20:.1f} MiB of files, {largest.path!r} the largest"
        found.append(Fault(where, words, f"at most {MOST_BYTES >> 20} MiB: {ELSEWHERE}"))
    if found:
        raise FaultsError(found)


def _odd(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return True
    return not path or path.startswith("/") or "\0" in path or ".." in path.split("/")


def _maps(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """The pieces of each ConfigMap, in their order."""
    maps: list[list[_Piece]] = [[]]
    room = ROOM
    for piece in pieces:
        if piece.size > room and maps[-1]:
            maps.append([])
            room = ROOM
        maps[-1].append(piece)
        room -= piece.size
    return maps


def _config_map(job: Job, stated: Kubernetes, number: int, pieces: Sequence[_Piece]) -> Manifest:
    texts = {piece.key: text for piece in pieces if (text := _as_text(piece.data)) is not None}
    binary = {piece.key: b64encode(piece.data).decode() for piece in pieces if piece.key not in texts}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _named(job, stated, f"-files-{number}"),
        **({"data": texts} if texts else {}),
        **({"binaryData": binary} if binary else {}),
    }


def _as_text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _claim(job: Job, stated: Kubernetes) -> Iterator[Manifest]:
    if stated.results_claimed and not stated.results_pvc:
        nodes = job.topology.nodes
        mode = "ReadWriteOnce" if nodes == 1 else "ReadWriteMany"
        spec = _claim_spec(mode, stated.results_storage_size or "10Gi", stated.results_class(nodes))
        metadata = _named(job, stated, "-results")
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
        yield {"apiVersion": "v1", "kind": "Service", "metadata": _named(job, stated), "spec": spec}


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
    metadata = _named(job, stated)
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


def _template(job: Job, stated: Kubernetes, load: Load, maps: Sequence[Sequence[_Piece]]) -> Manifest:
    named = _named(job, stated)
    spec = {
        **_ending(job, stated),
        **_place(job, stated),
        "containers": [_container(job, stated, load)],
        "volumes": list(_volumes(job, stated, load, maps)),
    }
    metadata = {"labels": named["labels"], "annotations": named["annotations"]}
    return {"metadata": metadata, "spec": overlaid(spec, stated.pod_spec)}


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


def _pull_secrets(job: Job, stated: Kubernetes) -> list[str]:
    own = [f"{kubenames.object_name(job)}-pull"] if _pulls(job, stated) else []
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
    yield from ({"name": name, "mountPath": path} for name, path in _SCRATCH.items())
    yield {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108  # the folder of shared memory
    if stated.results_claimed:
        yield {"name": "results", "mountPath": RESULTS}
    if _data(stated, load):
        yield {"name": "data", "mountPath": DATA}
    if _brings_credential(stated, load):
        yield {"name": "credential", "mountPath": CREDENTIAL, "readOnly": True}
    for number, mount in enumerate(_of_nodes(job)):
        yield {"name": f"host-{number}", "mountPath": mount.target, "readOnly": mount.read_only}


_SCRATCH = {"job": JOB, "project": PROJECT, "workspace": WORKSPACE}
"""Volumes that vanish with the pod."""


def _volumes(job: Job, stated: Kubernetes, load: Load, maps: Sequence[Sequence[_Piece]]) -> Iterator[Manifest]:
    name = kubenames.object_name(job)
    sources = [_source(f"{name}-files-{number}", pieces) for number, pieces in enumerate(maps)]
    yield {"name": "files", "projected": {"sources": sources}}
    yield from ({"name": scratch, "emptyDir": {}} for scratch in _SCRATCH)
    yield {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _shm_size(job, stated)}}
    if stated.results_claimed:
        yield _of_claim("results", stated.results_pvc or f"{name}-results")
    if claim := _data(stated, load):
        yield _of_claim("data", claim)
    if _brings_credential(stated, load):
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


def _source(name: str, pieces: Iterable[_Piece]) -> Manifest:
    items = [{"key": piece.key, "path": piece.path, "mode": piece.mode} for piece in pieces]
    return {"configMap": {"name": name, "items": items}}


def _of_claim(name: str, claim: str) -> Manifest:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def _data(stated: Kubernetes, load: Load) -> str:
    """The claim with data; '' where the job has none."""
    return stated.data_pvc or (SHARED_DATA if load.data else "")


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
