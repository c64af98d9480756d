"""Talks to clusters through the official client; the only module that knows it."""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from pytest_madengine.backends import kubestream
from pytest_madengine.backends.kuberefusal import AwayError, BusyError, StatusError, brief, refusal
from pytest_madengine.errors import Fault, FaultsError, InfrastructureError, nearest

Object = dict[str, Any]

CORE, BATCH, CUSTOM = "CoreV1Api", "BatchV1Api", "CustomObjectsApi"
KINDS: Mapping[str, tuple[str, str]] = {
    "Job": (BATCH, "job"),
    "Pod": (CORE, "pod"),
    "ConfigMap": (CORE, "config_map"),
    "Secret": (CORE, "secret"),
    "Service": (CORE, "service"),
    "PersistentVolumeClaim": (CORE, "persistent_volume_claim"),
    "Event": (CORE, "event"),
}
"""Which of the client's classes asks for a kind, and what its methods call it."""
OPERATORS: Mapping[str, Mapping[str, str]] = {
    "JobSet": {"group": "jobset.x-k8s.io", "version": "v1alpha2", "plural": "jobsets"},
    "LeaderWorkerSet": {"group": "leaderworkerset.x-k8s.io", "version": "v1", "plural": "leaderworkersets"},
}
"""Kinds that the client does not know."""
CONNECT, ANSWER = 5.0, 35.0
"""Seconds for a connection, and for the next bytes of an answer, a silent watch's too."""
BEGIN = 10.0
"""Seconds until a command in a container has begun; of a node that is gone the cluster may not know."""
HOPELESS = 60.0
"""Seconds for which a cluster that was never reached is not tried again."""
TRIES = 10.0
"""Seconds for which a request is repeated that the cluster had no time for, or that did not reach it."""
LOOK = 30
"""Seconds after which a watch is begun anew, so that one whose connection died unseen is missed no longer."""
CONNECTIONS = 32
IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
VALID_CONFIG = "a file of kubectl's kind, as k8s.kubeconfig, $KUBECONFIG or ~/.kube/config"


class Place(NamedTuple):
    """A cluster as a user names it: the client's file and the context in it; '' for what holds without a name."""

    kubeconfig: str
    context: str


@functools.cache
def api(place: Place) -> Api:
    """The one way to a cluster that all of this process share."""
    return Api(place)


class Api:
    """One cluster. All methods may be used by many threads.

    Args:
        place: which.

    Raises:
        FaultsError: it is not described, or not readably.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._answered = False
        self._hopeless, self._hopeless_until = "", 0.0
        self._configuration = _configuration(place)
        self._client = self._new_client()

    @property
    def host(self) -> str:
        """The address."""
        return str(self._configuration.host)

    def version(self) -> str:
        """That of the cluster: `v1.31.2`."""
        with _translated("read the version"):
            answer = self._class("VersionApi").get_code(_preload_content=False, _request_timeout=(CONNECT, ANSWER))
            return str(json.loads(answer.data)["gitVersion"])

    def create(self, manifest: Object) -> Object:
        """Create an object; the one that is there already under its name, if there is one."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        try:
            return self._ask("create", kind, metadata["namespace"], body=manifest)
        except StatusError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
        found = self.get(kind, metadata["namespace"], metadata["name"])
        if found is None:
            return self._ask("create", kind, metadata["namespace"], body=manifest)
        return found

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object as it is now; None where there is none."""
        return self._unless_absent("get" if kind in OPERATORS else "read", kind, namespace, name=name)

    def patch(self, kind: str, namespace: str, name: str, change: Object) -> None:
        """Change an object."""
        self._ask("patch", kind, namespace, name=name, body=change)

    def delete(self, kind: str, namespace: str, name: str, grace: int | None = None) -> None:
        """Have an object removed, and what belongs to it; one that is not there is no error.

        Args:
            kind: of the object.
            namespace: where it is.
            name: what it is called.
            grace: seconds that a pod has to end; None for its own.
        """
        given: Object = {} if grace is None else {"grace_period_seconds": grace}
        self._unless_absent("delete", kind, namespace, name=name, propagation_policy="Background", **given)

    def listed(self, kind: str, namespace: str, **selectors: str) -> Object:
        """The list of a kind; `items` has the objects.

        Args:
            kind: of the objects.
            namespace: where they are.
            selectors: `label_selector` and `field_selector`.
        """
        return self._ask("list", kind, namespace, **selectors)

    def nodes(self) -> list[Object]:
        """All nodes; nothing where the account may not see them, as with the documented rights."""
        try:
            with _translated("list nodes"):
                answer = self._core().list_node(_preload_content=False, _request_timeout=(CONNECT, ANSWER))
                found: list[Object] = json.loads(answer.data)["items"]
                return found
        except InfrastructureError:
            return []

    def watched(self, kind: str, namespace: str, version: str, **selectors: str) -> Iterator[Object]:
        """What happens to objects of a kind from a version of their list on, for LOOK seconds.

        Raises:
            StatusError: the version is too old (410), or the account may not watch.
            AwayError: the connection broke.
        """
        options = {"watch": True, "resource_version": version, "timeout_seconds": LOOK, "allow_watch_bookmarks": True}
        if kind in OPERATORS:
            del options["allow_watch_bookmarks"]
        with _translated(f"watch {kind}"):
            answer = self._call("list", kind, namespace, **options, **selectors)
            for line in kubestream.lines(answer):
                event: Object = json.loads(line)
                if event["type"] == "ERROR":
                    raise StatusError(str(event["object"].get("message")), event["object"].get("code", 0))
                yield event

    def log(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        since: int | None = None,
        latest: int | None = None,
        follow: bool = False,
    ) -> Iterator[bytes]:
        """What a container writes, in pieces, each line with its time before it.

        Args:
            namespace: of the pod.
            pod: its name.
            container: its name.
            since: only what was written in the last so many seconds.
            latest: only so many of its lines that are there.
            follow: go on until the container ends, or is silent for some seconds.
        """
        stated = {"since_seconds": since, "tail_lines": latest}
        options = {name: value for name, value in stated.items() if value is not None}
        with _translated(f"read the log of {pod}"), _silence():
            answer = self._core().read_namespaced_pod_log(
                pod,
                namespace,
                container=container,
                timestamps=True,
                follow=follow,
                _preload_content=False,
                _request_timeout=(CONNECT, CONNECT if follow else ANSWER),
                **options,
            )
            yield from kubestream.pieces(answer)

    def run(
        self, namespace: str, pod: str, container: str, command: Sequence[str], answer: Callable[[bytes], bytes]
    ) -> int | None:
        """Run a command in a container, and talk with it.

        Whoever needs all of its output has it wait for an answer at its end: servers may drop what is under way then.

        Args:
            namespace: of the pod.
            pod: its name.
            container: its name.
            command: the program and its arguments.
            answer: is given each piece of its output, and gives what it is to read next, or nothing.

        Returns:
            Its exit code; None where the connection broke, or it was silent for too long.
        """
        from kubernetes import client

        with _translated(f"run a command in {pod}"), closing(self._new_client()) as own:  # the stream changes it
            core = client.CoreV1Api(own)
            running = _stream()(
                core.connect_get_namespaced_pod_exec,
                pod,
                namespace,
                container=container,
                command=list(command),
                stdout=True,
                stderr=False,
                stdin=True,
                tty=False,
                binary=True,
                _preload_content=False,
                _request_timeout=ANSWER,
            )
            try:
                return kubestream.carried(running, answer, ANSWER)
            finally:
                running.sock.shutdown()  # what the other end closed, close() leaves open

    def _core(self) -> Any:
        return self._class(CORE)

    def _class(self, name: str) -> Any:
        from kubernetes import client

        return getattr(client, name)(self._client)

    def _new_client(self) -> Any:
        from kubernetes import client

        return client.ApiClient(self._configuration)

    def _unless_absent(self, verb: str, kind: str, namespace: str, **given: Any) -> Object | None:
        try:
            return self._ask(verb, kind, namespace, **given)
        except StatusError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def _renew(self, client: Any) -> None:
        """Read again what says who we are, unless another thread did since it gave us this client."""
        with self._lock:
            if self._client is client:
                self._configuration = _configuration(self._place)
                self._client = self._new_client()

    def _ask(self, verb: str, kind: str, namespace: str, **given: Any) -> Object:
        """One request, repeated once where it was too late for a token."""
        client = self._client
        try:
            return self._patiently(verb, kind, namespace, **given)
        except StatusError as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
        self._renew(client)
        return self._patiently(verb, kind, namespace, **given)

    def _patiently(self, verb: str, kind: str, namespace: str, **given: Any) -> Object:
        """One request, repeated while the cluster is busy or out of reach."""
        again = Retrying(
            retry=retry_if_exception_type((BusyError, AwayError)),
            stop=stop_after_delay(TRIES),
            wait=wait_random_exponential(multiplier=0.2, max=2.0),
            reraise=True,
        )
        if time.monotonic() < self._hopeless_until:
            raise AwayError(self._hopeless)
        try:
            answer: Object = again(self._once, verb, kind, namespace, **given)
        except AwayError as error:
            self._missed(str(error))
            raise
        self._answered = True
        return answer

    def _missed(self, words: str) -> None:
        """Of a cluster that never answered, the next jobs are told at once: hundreds may wait for it."""
        if not self._answered:
            self._hopeless, self._hopeless_until = words, time.monotonic() + HOPELESS

    def _once(self, verb: str, kind: str, namespace: str, **given: Any) -> Object:
        with _translated(f"{verb} {kind} {given.get('name', '')}".strip()):
            answer = self._call(verb, kind, namespace, **given)
            found: Object = json.loads(answer.data or b"{}")
            return found

    def _call(self, verb: str, kind: str, namespace: str, **given: Any) -> Any:
        given |= {"_preload_content": False, "_request_timeout": (CONNECT, ANSWER)}
        if kind in OPERATORS:
            method = getattr(self._class(CUSTOM), f"{verb}_namespaced_custom_object")
            return method(**OPERATORS[kind], namespace=namespace, **given)
        name, words = KINDS[kind]
        return getattr(self._class(name), f"{verb}_namespaced_{words}")(namespace=namespace, **given)


def _configuration(place: Place) -> Any:
    """The client's settings: of the file that is named, else of the environment's, else of the pod that this is."""
    from kubernetes import client, config

    given = place.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    made = client.Configuration()
    made.connection_pool_maxsize = CONNECTIONS
    made.retries = False  # `_patiently` tries again, and others have their own times for that
    try:
        if not place.kubeconfig and not _exists(given) and IN_POD.exists():
            config.load_incluster_config(client_configuration=made)  # type: ignore[no-untyped-call]
        else:
            _require(place, given)
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=given, context=place.context or None, client_configuration=made, persist_config=False
            )
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, LookupError) as error:
        raise FaultsError([Fault(f"k8s.kubeconfig: {given}", brief(str(error)), VALID_CONFIG)]) from None
    return made


def _exists(paths: str) -> bool:
    return any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path)


def _require(place: Place, given: str) -> None:
    """Meet a file or a context that is not there.

    Raises:
        FaultsError: it is not.
    """
    from kubernetes import config

    if not _exists(given):
        raise FaultsError([Fault(f"k8s.kubeconfig: {given}", "there is no such file", VALID_CONFIG)])
    if place.context:
        found, _ = config.list_kube_config_contexts(given)  # type: ignore[no-untyped-call]
        names = [each["name"] for each in found]
        if place.context not in names:
            valid = f"one of {given}: {', '.join(names)}"
            raise FaultsError([Fault("k8s.context", place.context, valid, nearest(place.context, names))])


@functools.cache
def _stream() -> Callable[..., Any]:
    """The client's way to run commands; by itself it would wait for ever until one begins."""
    import websocket
    from kubernetes import stream

    class Limited(websocket.WebSocket):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.timeout = BEGIN

    stream.ws_client.WebSocket = Limited  # type: ignore[attr-defined, assignment]  # it takes no time limit otherwise
    found: Callable[..., Any] = stream.stream
    return found


@contextmanager
def _silence() -> Iterator[None]:
    """Let an answer end where nothing more comes of it."""
    import urllib3

    with suppress(urllib3.exceptions.ReadTimeoutError):
        yield


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Make the client's errors ours."""
    import urllib3
    import websocket
    from kubernetes.client import ApiException

    try:
        yield
    except ApiException as error:
        raise refusal(doing, error.status or 0, error.body, str(error.reason)) from None
    except (urllib3.exceptions.HTTPError, websocket.WebSocketException, OSError) as error:
        raise AwayError(f"Kubernetes: cannot {doing}: {brief(str(error))}") from None
