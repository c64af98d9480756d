"""The Kubernetes cluster that tests share, as they use and break it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import select
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from pathlib import Path

from tests.engines.kubeparts.admission import FAKE, OLD
from tests.engines.kubeparts.api import Api, Object, RefusedError

SCRIPT = Path(__file__).with_name("kubernetes.sh")
LONG = 60.0
"""Seconds after which something that never happens is a failure."""
GROUPS = {
    "jobs": "/apis/batch/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "statefulsets": "/apis/apps/v1",
    "deployments": "/apis/apps/v1",
}
"""The API group of each kind that is not in the first, `/api/v1`."""
KINDS = ("pods", "services", "configmaps", "secrets", "persistentvolumeclaims", "serviceaccounts", *GROUPS)
"""What a run may leave."""
NATIVE = ("serviceaccounts/default", "configmaps/kube-root-ca.crt", "secrets/default-token-")
"""How those begin that a namespace has from the start."""


def _text(*argv: str | Path, **variables: str) -> str:
    done = subprocess.run(argv, capture_output=True, check=False, text=True, env={**os.environ, **variables})
    assert done.returncode == 0, f"{argv} (exit {done.returncode}): {done.stdout}{done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True)
class KubeCluster:
    """Two nodes, node1 and node2, that claim 96 CPUs, 512 GiB and 8 `amd.com/gpu` each; and one test's place there.

    Storage class `local-test` (default) serves all access modes, `single-test` ReadWriteOnce alone.

    Attributes:
        etc: folder that describes the cluster.
        config: what KUBECONFIG must say; it is set while a test has the fixture `kube_cluster`.
        namespace: the test's own, which is the default one in `config`.
        image: of the containers that this object makes; the nodes have it.
        namespaces: all that are removed in the end.
        home: where the cluster is found, whatever home a test gives itself later.
    """

    etc: Path
    config: Path
    namespace: str
    image: str
    namespaces: list[str] = field(default_factory=list)
    home: str = field(default_factory=lambda: os.environ.get("HOME", "/"))

    @classmethod
    def of_this_machine(cls, folder: Path, image: str) -> KubeCluster:
        """The cluster that `kubernetes.sh ensure` has made.

        Args:
            folder: for configuration files.
            image: what its containers run.
        """
        given = Path(shlex.split(_text(SCRIPT, "env"))[1].partition("=")[2])
        return cls(given.parent, folder / "config", f"test-{secrets.token_hex(4)}", image)

    @cached_property
    def api(self) -> Api:
        """Asks the cluster as its administrator, in plain JSON."""
        return Api(self.etc)

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Keep those out who want it alone; afterwards remove what is in the namespaces."""
        with contextlib.ExitStack() as held:
            with self._locked("turnstile", fcntl.LOCK_EX):  # whoever waits to be alone holds it: newcomers wait behind
                held.enter_context(self._locked("tests", fcntl.LOCK_SH))
            held.enter_context(self._furnished())
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep all others out; afterwards the cluster is whole again."""
        with self._locked("turnstile", fcntl.LOCK_EX), self._locked("tests", fcntl.LOCK_EX):
            try:
                with self._furnished():
                    yield
            finally:
                self.do("ensure", MADENGINE_ALONE="1")
                self.remove()

    @contextlib.contextmanager
    def with_fake_nodes(self, count: int) -> Iterator[None]:
        """Have the namespace's pods run on so many fake nodes (kubeparts/fakenodes.py); 0 changes nothing."""
        if not count:
            yield
            return
        with self._locked("fakes", fcntl.LOCK_EX):
            self.do("fake-nodes", str(count))
            self.label(self.namespace, FAKE, "fake")
            try:
                yield
            finally:
                self.remove()
                self.do("fake-nodes", "0")

    @contextlib.contextmanager
    def _locked(self, name: str, how: int) -> Iterator[None]:
        with (self.etc.parent / f"{name}.lock").open("w") as file:
            fcntl.flock(file, how)
            yield

    @contextlib.contextmanager
    def _furnished(self) -> Iterator[None]:
        self._add_namespace(self.namespace)
        given = (self.etc / "kubeconfig").read_text(encoding="utf-8")
        self.config.write_text(given.replace("namespace: default", f"namespace: {self.namespace}"), encoding="utf-8")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # an API that the test has ended
                self.remove()

    def _add_namespace(self, name: str) -> None:
        self.api.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        self.namespaces.append(name)
        self.until(lambda: self._has_account(name), f"no account in {name}")

    def _has_account(self, namespace: str) -> bool:
        """Whether the account is there that pods have; the API creates none without its token."""
        return any(each.get("secrets") for each in self.all_of("serviceaccounts", namespace))

    def another_namespace(self) -> str:
        """The name of one more, which is removed like the first."""
        name = f"{self.namespace}-{len(self.namespaces) + 1}"
        self._add_namespace(name)
        return name

    def label(self, namespace: str, name: str, value: str) -> None:
        """Label a namespace."""
        change = {"metadata": {"labels": {name: value}}}
        self.api.ask("PATCH", f"/api/v1/namespaces/{namespace}", change, "application/merge-patch+json")

    def forget_completion_mode(self) -> None:
        """From now on, Jobs created in the namespace lose their `completionMode`, as before Kubernetes 1.21."""
        self.label(self.namespace, OLD, "old")
        container = {"name": "probe", "image": self.image}
        template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
        probe = {
            "metadata": {"name": "probe"},
            "spec": {"template": template, "completionMode": "Indexed", "completions": 1},
        }
        place = f"{self.path('jobs')}?dryRun=All"
        self.until(lambda: self.api.ask("POST", place, probe)["spec"]["completionMode"] == "NonIndexed", "not seen yet")

    def do(self, *arguments: str, **variables: str) -> str:
        """Let kubernetes.sh do something to the cluster: `stop-kubelet 2`, `restart-apiserver`, `load IMAGE`."""
        return _text(SCRIPT, *arguments, HOME=self.home, **variables)

    # objects

    def path(self, kind: str, name: str = "", namespace: str = "") -> str:
        """Where objects of a kind are, `jobs`, or the one of that name."""
        place = f"{GROUPS.get(kind, '/api/v1')}/namespaces/{namespace or self.namespace}/{kind}"
        return f"{place}/{name}" if name else place

    def create(self, kind: str, name: str, **content: object) -> Object:
        """Create an object; RefusedError if the API says no."""
        return self.api.ask("POST", self.path(kind), {"metadata": {"name": name}, **content})

    def get(self, kind: str, name: str) -> Object:
        """An object as it is now."""
        return self.api.ask("GET", self.path(kind, name))

    def all_of(self, kind: str, namespace: str = "") -> list[Object]:
        """All of a kind."""
        return list(self.api.ask("GET", self.path(kind, namespace=namespace))["items"])

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and what belongs to it."""
        self.api.remove(self.path(kind, name), propagationPolicy="Background")

    def template(self, command: str, gpus: int = 0, **spec: object) -> Object:
        """The template of a pod whose only container, `main`, runs a bash command; `spec` adds to the pod's."""
        main: Object = {"name": "main", "image": self.image, "imagePullPolicy": "IfNotPresent"}
        main |= {"command": ["bash", "-c", command], "resources": {"limits": {"amd.com/gpu": gpus} if gpus else {}}}
        return {"spec": {"containers": [main], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, **spec}}

    def pod(self, name: str, command: str, gpus: int = 0, **spec: object) -> Object:
        """Create such a pod."""
        return self.create("pods", name, **self.template(command, gpus, **spec))

    def job(self, name: str, template: Object, **spec: object) -> Object:
        """Create a Job of such pods, without retries unless `spec` says otherwise."""
        return self.create("jobs", name, spec={"template": template, "backoffLimit": 0, **spec})

    def quota(self, **hard: object) -> None:
        """Limit what the namespace may have, `pods=1`."""
        self.create("resourcequotas", "quota", spec={"hard": {name: str(value) for name, value in hard.items()}})
        self.until(lambda: self.get("resourcequotas", "quota").get("status", {}).get("hard"), "the quota is not seen")

    def account(self, *rules: Object, name: str = "weak") -> Path:
        """A configuration file of a service account that has these rights and no others.

        Args:
            rules: of a Role: `{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}`.
            name: of the account.
        """
        group = "rbac.authorization.k8s.io"
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.namespace}
        self.create("serviceaccounts", name)
        self.create("roles", name, rules=rules)
        role = {"apiGroup": group, "kind": "Role", "name": name}
        self.create("rolebindings", name, roleRef=role, subjects=[subject])
        request = {"spec": {"audiences": [], "expirationSeconds": 3600}}
        token = self.api.ask("POST", f"{self.path('serviceaccounts', name)}/token", request)["status"]["token"]
        lines = self.config.read_text(encoding="utf-8").partition("- name: admin\n")
        config = self.config.with_name(name)
        config.write_text(f"{lines[0]}- name: admin\n  user: {{token: {token}}}\n", encoding="utf-8")
        return config

    # what became of them

    def until(self, is_so: Callable[[], object], complaint: object, seconds: float = LONG) -> None:
        """Return as soon as something is so; an API that is away meanwhile is asked again."""
        deadline = time.monotonic() + seconds
        while not self._is(is_so):
            assert time.monotonic() < deadline, f"after {seconds} s: {complaint}"
            time.sleep(0.05)

    @staticmethod
    def _is(is_so: Callable[[], object]) -> bool:
        with contextlib.suppress(OSError):
            return bool(is_so())
        return False

    def phase(self, pod: str) -> str:
        """`Pending`, `Running`, `Succeeded` or `Failed`."""
        return str(self.get("pods", pod)["status"]["phase"])

    def until_phase(self, pod: str, *phases: str) -> None:
        """Return as soon as a pod is in one of these."""
        self.until(lambda: self.phase(pod) in phases, f"{pod} is not {phases}")

    def conditions(self, kind: str, name: str) -> dict[str, str]:
        """The reasons of the conditions that an object fulfils, by type."""
        found = self.get(kind, name)["status"].get("conditions") or []
        return {each["type"]: each.get("reason", "") for each in found if each["status"] == "True"}

    def until_ended(self, job: str) -> str:
        """Return as soon as a Job has ended: `Complete` or `Failed`."""
        ends = {"Complete", "Failed"}
        self.until(lambda: ends & {*self.conditions("jobs", job)}, f"{job} has not ended")
        return min(ends & {*self.conditions("jobs", job)})

    def pods_of(self, job: str) -> Sequence[Object]:
        """The pods of a Job, by name."""
        found = [each for each in self.all_of("pods") if each["metadata"].get("labels", {}).get("job-name") == job]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def log(self, pod: str) -> str:
        """What a pod's first container has written."""
        connection = self.api.connect()
        try:
            connection.request("GET", f"{self.path('pods', pod)}/log")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def reasons(self, name: str) -> list[str]:
        """The reasons of the events about an object."""
        return [each["reason"] for each in self.all_of("events") if each["involvedObject"]["name"] == name]

    def node_is_ready(self, node: str) -> bool:
        """Whether the control plane trusts a node."""
        conditions = self.api.ask("GET", f"/api/v1/nodes/{node}")["status"]["conditions"]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def left(self, selector: str = "") -> list[str]:
        """What is in the namespaces, `jobs/NAME`, beside what each has from the start.

        Args:
            selector: of labels; without it, everything.
        """
        names = []
        for namespace in self.namespaces:
            for kind in KINDS:
                found = self.api.ask("GET", f"{self.path(kind, namespace=namespace)}?labelSelector={selector}")
                names += [f"{kind}/{each['metadata']['name']}" for each in found["items"]]
        return [name for name in names if not name.startswith(NATIVE)]

    def remove(self) -> None:
        """Remove the namespaces; what runs in them is ended at once."""
        for name in self.namespaces:
            with contextlib.suppress(RefusedError):  # it is gone
                self.api.remove(self.path("jobs", namespace=name), propagationPolicy="Background")
                self.api.remove(self.path("pods", namespace=name), gracePeriodSeconds=0)
                self.api.remove(f"/api/v1/namespaces/{name}")

    # images

    @contextlib.contextmanager
    def reaching(self, registry: str) -> Iterator[None]:
        """Let the nodes pull from a registry that listens on this machine's loopback, `127.0.0.1:5000`."""
        near = (self.etc / "server").read_text(encoding="utf-8").partition("//")[2].rpartition(".")[0] + ".254"
        host, _, port = registry.partition(":")
        with socket.create_server((near, 0)) as listening:
            threading.Thread(target=_forward, args=(listening, (host, int(port))), daemon=True).start()
            self.do("mirror", registry, f"http://{near}:{listening.getsockname()[1]}")
            yield
            listening.shutdown(socket.SHUT_RDWR)


def _forward(listening: socket.socket, address: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):
        while True:
            near, _ = listening.accept()
            threading.Thread(target=_carry, args=(near, address), daemon=True).start()


def _carry(near: socket.socket, address: tuple[str, int]) -> None:
    with contextlib.suppress(OSError), near, socket.create_connection(address) as far:
        while True:
            for source in select.select([near, far], [], [])[0]:
                if not (data := source.recv(1 << 16)):
                    return
                (far if source is near else near).sendall(data)


def refusal(attempt: Callable[[], object]) -> tuple[HTTPStatus, str]:
    """The status and the text by which the API refuses something."""
    try:
        attempt()
    except RefusedError as error:
        return HTTPStatus(error.status), str(error.args[1])
    raise AssertionError("the API has not refused it")
