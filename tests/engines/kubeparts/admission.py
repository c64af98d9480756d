"""What happens to objects on their way into the cluster: webhooks that make up for what Kubernetes 1.20 lacks.

The pods of Jobs with `completionMode: Indexed` get their index, as since 1.21. Pods in namespaces labelled
`tests/nodes=fake` run on fake nodes. Jobs in namespaces labelled `tests/jobs=old` lose their completion mode.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.engines.kubeparts.api import TROUBLE, Api, Mirror, Object

PORT = 9443
INDEX = "batch.kubernetes.io/job-completion-index"
TICKET = "tests/admission"
FAKE = "tests/nodes"
OLD = "tests/jobs"
HOLD = 5.0
"""Seconds after which an index is free again that was given to a pod which was then refused."""


class Indexes:
    """Gives the pods of Indexed Jobs their index: the lowest that no pod has which runs or succeeded.

    Args:
        api: the cluster.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._held: dict[str, tuple[str, int, float]] = {}  # by ticket: the Job's uid, the index, since when
        self._pods = Mirror(api, "/api/v1/pods", self._see)

    def _see(self, pod: Object) -> None:
        with self._lock:
            self._held.pop((pod["metadata"].get("annotations") or {}).get(TICKET, ""), None)

    def changes(self, request: Object) -> list[Object]:
        """What is added to a pod that is about to be created, as JSON patch."""
        pod = request["object"]
        owners = [each for each in pod["metadata"].get("ownerReferences", []) if each["kind"] == "Job"]
        if not owners:
            return []
        job = self._api.ask("GET", f"/apis/batch/v1/namespaces/{request['namespace']}/jobs/{owners[0]['name']}")
        if job["spec"].get("completionMode") != "Indexed":
            return []
        return _with_index(pod, job, self._take(job, request["uid"]), request["uid"])

    def _take(self, job: Object, ticket: str) -> int:
        uid = job["metadata"]["uid"]
        with self._lock:
            since = time.monotonic() - HOLD
            self._held = {each: held for each, held in self._held.items() if held[2] > since}
            used = {index for owner, index, _ in self._held.values() if owner == uid} | self._used(uid)
            index = min(set(range(job["spec"]["completions"])) - used)  # ValueError if none is left
            self._held[ticket] = (uid, index, time.monotonic())
        return index

    def _used(self, uid: str) -> set[int]:
        mine = [
            each["metadata"]["annotations"].get(INDEX)
            for each in list(self._pods.objects.values())
            if (each["metadata"].get("labels") or {}).get("controller-uid") == uid
            and each["metadata"].get("annotations")
            and each["status"].get("phase") != "Failed"
            and "deletionTimestamp" not in each["metadata"]
        ]
        return {int(index) for index in mine if index is not None}


def _with_index(pod: Object, job: Object, index: int, ticket: str) -> list[Object]:
    meta, name = pod["metadata"], f"{job['metadata']['name']}-{index}"
    added = {
        "/metadata/annotations": {**meta.get("annotations", {}), INDEX: str(index), TICKET: ticket},
        "/metadata/labels": {**meta.get("labels", {}), INDEX: str(index)},
        "/metadata/generateName": f"{name}-",
        "/spec/hostname": pod["spec"].get("hostname") or name,
    }
    source = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    for kind in ("initContainers", "containers"):
        for place, container in enumerate(pod["spec"].get(kind) or []):
            env = [*(container.get("env") or []), {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}]
            added[f"/spec/{kind}/{place}/env"] = env
    return _additions(added)


def fake_nodes(request: Object) -> list[Object]:
    """Let a pod run on fake nodes, and on no other."""
    spec = request["object"]["spec"]
    toleration = {"key": FAKE, "operator": "Exists"}
    return _additions(
        {
            "/spec/tolerations": [*(spec.get("tolerations") or []), toleration],
            "/spec/nodeSelector": {**(spec.get("nodeSelector") or {}), FAKE: "fake"},
        }
    )


def old_jobs(request: Object) -> list[Object]:
    """Drop what an old Kubernetes would not know."""
    return _additions({"/spec/completionMode": "NonIndexed"}) if request["object"]["spec"] else []


def _additions(added: Object) -> list[Object]:
    return [{"op": "add", "path": path, "value": value} for path, value in added.items()]


def configurations(authority: bytes) -> list[Object]:
    """What the API must know of the webhooks."""
    job_pods = {"objectSelector": {"matchExpressions": [{"key": "job-name", "operator": "Exists"}]}}
    on_fakes = {"namespaceSelector": {"matchLabels": {FAKE: "fake"}}}
    of_old = {"namespaceSelector": {"matchLabels": {OLD: "old"}}}
    return [
        _configuration("indexes", authority, _rule("", "pods"), job_pods),
        _configuration("fake-nodes", authority, _rule("", "pods"), on_fakes),
        _configuration("old-jobs", authority, _rule("batch", "jobs"), of_old),
    ]


def _rule(group: str, resource: str) -> Object:
    return {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}


def _configuration(name: str, authority: bytes, rule: Object, which: Object) -> Object:
    client = {"url": f"https://127.0.0.1:{PORT}/{name}", "caBundle": base64.b64encode(authority).decode()}
    webhook = {"name": f"{name}.tests.local", "clientConfig": client, "rules": [rule], "timeoutSeconds": 10, **which}
    webhook |= {"sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail"}
    return {"metadata": {"name": name}, "webhooks": [webhook]}


def serve(api: Api, folder: Path) -> None:
    """Answer the API in a thread, for ever.

    Args:
        api: the cluster.
        folder: its `etc`.
    """
    deciders = {"/indexes": Indexes(api).changes, "/fake-nodes": fake_nodes, "/old-jobs": old_jobs}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_POST(self) -> None:  # http.server's name
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            response: Object = {"uid": request["uid"], "allowed": True}
            try:
                patch = json.dumps(deciders[self.path.partition("?")[0]](request)).encode()
                response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
            except TROUBLE as error:
                response |= {"allowed": False, "status": {"message": repr(error)}}
            body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.crt", folder / "server.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    api.provide(path, *configurations((folder / "ca.crt").read_bytes()))
