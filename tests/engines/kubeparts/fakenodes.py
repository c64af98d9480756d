"""fakenodes.py ETC ADDRESS COUNT: nodes fake1, fake2... that only pretend to run pods, for hundreds of them.

A pod runs for FAKE_SECONDS (1), ends with the status FAKE_EXIT (0) and has logged FAKE_LOG, which are variables of its
first container. With 0 all are removed. The nodes serve logs; they cannot exec. Their taint keeps other pods away.
"""

from __future__ import annotations

import logging
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.engines.kubeparts.admission import FAKE
from tests.engines.kubeparts.api import MERGE, TROUBLE, Api, Key, Mirror, Object, key, now

PORT = 10250
BEAT = 4.0
"""Seconds between the signs of life of a node."""
CAPACITY = {"cpu": "96", "memory": "512Gi", "pods": "110", "amd.com/gpu": "8"}


def behaviour(pod: Object) -> dict[str, str]:
    """The literal variables of a pod's first container."""
    return {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0].get("env") or []}


def remove(api: Api) -> None:
    """Let the cluster forget all fake nodes."""
    for node in api.ask("GET", f"/api/v1/nodes?labelSelector={FAKE}")["items"]:
        api.remove(f"/api/v1/nodes/{node['metadata']['name']}")


class Nodes:
    """A number of nodes, all served by this process.

    Args:
        api: the cluster.
        address: of all of them.
        names: what they are called.
    """

    def __init__(self, api: Api, address: str, names: list[str]) -> None:
        self._api, self._address, self._names = api, address, names
        self._gone: dict[str, threading.Event] = {}  # by the pods' uid
        for name in names:
            self._appear(name)
        self.pods = Mirror(api, "/api/v1/pods", self._see, self._forget)

    def _appear(self, name: str) -> None:
        labels = {"kubernetes.io/hostname": name, FAKE: "fake"}
        taint = {"key": FAKE, "value": "fake", "effect": "NoSchedule"}
        self._api.provide("/api/v1/nodes", {"metadata": {"name": name, "labels": labels}, "spec": {"taints": [taint]}})
        self._be_ready(name)
        lease = {"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}}
        self._api.provide("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease)

    def _be_ready(self, name: str) -> None:
        """Say so again and again: the control plane may have decided otherwise before it heard of it."""
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        status = {
            "capacity": CAPACITY,
            "allocatable": CAPACITY,
            "addresses": [{"type": "InternalIP", "address": self._address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}},
            "conditions": [{**ready, "lastHeartbeatTime": now()[:19] + "Z", "lastTransitionTime": now()[:19] + "Z"}],
        }
        self._api.ask("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, MERGE)

    def beat(self) -> None:
        """Show that all are alive, for ever."""
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        while True:
            for name in self._names:
                try:
                    self._api.ask("PATCH", f"{path}/{name}", {"spec": {"renewTime": now()}}, MERGE)
                    self._be_ready(name)
                except TROUBLE as error:  # noqa: PERF203  # it tries again
                    logging.warning("%s: %r", name, error)
            time.sleep(BEAT)

    def _see(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if pod["spec"].get("nodeName") not in self._names:
            return
        if pod["metadata"].get("deletionTimestamp"):
            self._forget(pod)
            self._api.remove(_path(pod), gracePeriodSeconds=0)
        elif uid not in self._gone and pod["status"].get("phase") == "Pending":
            self._gone[uid] = threading.Event()
            threading.Thread(target=self._run, args=(pod, self._gone[uid]), daemon=True).start()

    def _forget(self, pod: Object) -> None:
        self._gone.setdefault(pod["metadata"]["uid"], threading.Event()).set()

    def _run(self, pod: Object, gone: threading.Event) -> None:
        begun, wish = now()[:19] + "Z", behaviour(pod)
        try:
            self._tell(pod, "Running", {"running": {"startedAt": begun}})
            if gone.wait(float(wish.get("FAKE_SECONDS", 1))):
                return
            code = int(wish.get("FAKE_EXIT", 0))
            ended = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": begun}
            ended["finishedAt"] = now()[:19] + "Z"
            self._tell(pod, "Failed" if code else "Succeeded", {"terminated": ended})
        except TROUBLE as error:
            logging.warning("%s: %r", key(pod), error)

    def _tell(self, pod: Object, phase: str, state: Object) -> None:
        ready = "running" in state
        moment = now()[:19] + "Z"
        conditions = [
            {"type": each, "status": str(ready or each == "Initialized"), "lastTransitionTime": moment}
            for each in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        ]
        container: Object = {"imageID": "", "ready": ready, "restartCount": 0, "state": state}
        containers = [{"name": each["name"], "image": each["image"], **container} for each in pod["spec"]["containers"]]
        status: Object = {"phase": phase, "hostIP": self._address, "podIP": self._address, "startTime": moment}
        status |= {"conditions": conditions, "containerStatuses": containers}
        self._patch(pod, {"status": status})

    def _patch(self, pod: Object, change: Object) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self._api.ask("PATCH", f"{_path(pod)}/status", change, MERGE)
            except OSError:  # noqa: PERF203  # it tries again
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def log(self, pod: Key, *, to_the_end: bool) -> str:
        """What a pod logged."""
        found = self.pods.objects.get(pod)
        while to_the_end and found and found["status"].get("phase") in ("Pending", "Running"):
            time.sleep(0.05)
            found = self.pods.objects.get(pod)
        return behaviour(found).get("FAKE_LOG", "") + "\n" if found else ""


def _path(pod: Object) -> str:
    namespace, name = key(pod)
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


def serve(folder: Path, address: str, nodes: Nodes) -> None:
    """Answer for logs in a thread, for ever."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:  # http.server's name
            path, _, wishes = self.path.partition("?")
            _, _, namespace, pod, *_ = path.split("/")  # /containerLogs/NAMESPACE/POD/CONTAINER
            self.send_response(200)
            self.end_headers()
            self.wfile.write(nodes.log((namespace, pod), to_the_end="follow=true" in wishes).encode())

    server = ThreadingHTTPServer((address, PORT), Handler)
    server.daemon_threads = True
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.crt", folder / "server.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s")
    folder, address, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    api = Api(folder)
    remove(api)
    if not count:
        return
    nodes = Nodes(api, address, [f"fake{number}" for number in range(1, count + 1)])
    serve(folder, address, nodes)
    nodes.beat()


if __name__ == "__main__":
    main()
