"""The jobs that this process knows in clusters, and what the watched lists say of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pytest_madengine.backends import facts, kubeleft, kubenote, kuberesults, kubeverdict
from pytest_madengine.backends.base import Handle, State
from pytest_madengine.backends.kubeapi import Api, Object, Place, api
from pytest_madengine.backends.kubefollow import Followed, Followers
from pytest_madengine.backends.kubeleft import Remains
from pytest_madengine.backends.kubenames import JOB_LABEL
from pytest_madengine.backends.kubenote import Asked
from pytest_madengine.backends.kubeverdict import Ending, Pod, pod_of
from pytest_madengine.backends.kubeview import Mirror

CLOSER, CLOSELY = 3.0, 2.0
"""Seconds that a job waits before its events are read, and between two readings."""
STABLE = 10.0
"""Seconds for which it is remembered what nodes there are."""


@dataclass(eq=False)
class Tracked:
    """A job that this process knows.

    Attributes:
        token: of its handle.
        asked: what the cluster was asked for.
        since: when this process came to know it, by the monotonic clock.
        tries: all of its pods that were seen, by uid.
        followed: those whose logs are read, by uid.
        waits: what kind of trouble a pod waits in and since when, by uid.
        pulls: what was last said of a pod's image, by uid.
        events: the last warning, by the uid of its object.
        cancelled: whether this process ended it.
        killed: whether it did so without a grace period.
        removed: whether it has removed the job's objects, which the watched lists learn later.
        lost: why it will never be a run.
        refused: whether another try would be in vain too.
        remains: how it ended, of one whose objects were removed.
    """

    token: str
    directory: Path
    asked: Asked
    since: float = field(default_factory=time.monotonic)
    tries: dict[str, Pod] = field(default_factory=dict)
    followed: dict[str, Followed] = field(default_factory=dict)
    waits: dict[str, tuple[str, float]] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)
    events: dict[str, str] = field(default_factory=dict)
    cancelled: bool = False
    killed: bool = False
    removed: bool = False
    lost: str = ""
    refused: bool = False
    remains: Remains | None = None

    def folder(self, rank: int) -> Path:
        """Where what a rank leaves goes."""
        return kubeleft.folder(self.directory, rank, self.asked.nodes)

    def latest(self) -> dict[int, Pod]:
        """The last try at each rank."""
        return kubeverdict.latest(list(self.tries.values()))

    def earlier(self) -> list[Pod]:
        """The tries before those."""
        last = {pod.uid for pod in self.latest().values()}
        return [pod for pod in list(self.tries.values()) if pod.uid not in last]

    def hosts(self) -> dict[int, str]:
        """The node of each rank's last try that had one; where pods were taken away, of the last of these.

        The cluster makes others at once, which have nothing to do with what befell those.
        """
        placed = [pod for pod in list(self.tries.values()) if pod.node]
        gone = [pod for pod in placed if self.lost and pod.leaving and not pod.end]
        found = {**kubeverdict.latest(placed), **kubeverdict.latest(gone)}
        return {rank: found[rank].node if rank in found else "" for rank in self.latest()}

    def code(self, pod: Pod) -> int | None:
        """The exit code that a pod handed over; None where it did not."""
        place = self._place(pod)
        return kubeleft.code(place) if kuberesults.kept(place, pod.name) else None

    def ending(self, pod: Pod) -> Ending:
        """How a pod ended."""
        code = self.code(pod)
        whole = code is None or (self._place(pod) / facts.EXIT_CODE).exists()
        return kubeverdict.ending(pod, code, whole=whole)

    def endings(self) -> dict[int, Ending]:
        """How the last try at each rank ended."""
        return {rank: self.ending(pod) for rank, pod in sorted(self.latest().items())}

    def _place(self, pod: Pod) -> Path:
        put_aside = self.directory / kuberesults.EARLIER / pod.name
        return put_aside if put_aside.is_dir() else self.folder(pod.rank)

    @property
    def began(self) -> bool:
        """Whether each rank had a pod that ran."""
        begun = {pod.rank for pod in list(self.tries.values()) if pod.state is not State.PENDING}
        return len(begun) >= self.asked.nodes

    @property
    def all_here(self) -> bool:
        """Whether all that its pods print and leave is in its folder, as far as it can be had."""
        return all(followed.done.is_set() for followed in list(self.followed.values()))

    def take_down(self, pod: Pod) -> None:
        """Remember a pod as it is now."""
        self.tries[pod.uid] = pod
        reason, message = pod.waiting
        kind = "Image" if "Image" in reason else reason
        if self.waits.get(pod.uid, ("", 0.0))[0] != kind:
            self.waits[pod.uid] = (kind, time.monotonic())
        if reason == "ErrImagePull" and message:
            self.pulls[pod.uid] = message


class View:
    """The objects of one run in one namespace, as long as jobs of it are in flight.

    Args:
        asked: of any of its jobs.
        changed: is called with each pod that changed.
        wake: is called when a runner changed.
    """

    def __init__(self, asked: Asked, changed: Callable[[Object], None], wake: Callable[[], None]) -> None:
        self.api: Api = api(asked.place)
        self.namespace = asked.namespace
        self.users: set[str] = set()
        self._selector = asked.selector
        self._wake = wake
        self.pods = Mirror(self.api, "Pod", self.namespace, self._selector, changed)
        self._runners: dict[str, Mirror] = {}
        self._looked = 0.0
        self._nodes: tuple[float, list[Object]] = (0.0, [])

    def runners(self, kind: str) -> Mirror:
        """The runners of a kind."""
        if kind not in self._runners:
            self._runners[kind] = Mirror(self.api, kind, self.namespace, self._selector, lambda _: self._wake())
        return self._runners[kind]

    def runner(self, asked: Asked) -> Object | None:
        """What runs a job; None where it is not there."""
        return self.runners(asked.kind).get(asked.name)

    def require(self, patience: float) -> None:
        """Know all objects by now.

        Raises:
            InfrastructureError: the cluster is out of reach.
        """
        for mirror in (*self._runners.values(), self.pods):
            mirror.require(patience)

    def close(self) -> None:
        """Watch no more."""
        for mirror in (*self._runners.values(), self.pods):
            mirror.close()

    def look_closer(self, waiting: Iterable[Tracked]) -> None:
        """Read the warnings about jobs that wait, all at once and not often."""
        now = time.monotonic()
        long = [each for each in waiting if now - each.since > CLOSER and not each.began]
        if not long or now - self._looked < CLOSELY:
            return
        self._looked = now
        warnings = self.api.listed("Event", self.namespace, field_selector="type=Warning")["items"]
        said = {str(each["involvedObject"].get("uid")): str(each.get("message") or "") for each in warnings}
        for each in long:
            each.events.update(said)

    def nodes(self) -> list[Object]:
        """The cluster's nodes; nothing where this account may not see them."""
        if time.monotonic() - self._nodes[0] > STABLE:
            self._nodes = (time.monotonic(), self.api.nodes())
        return self._nodes[1]


class Tracker:
    """All jobs that this process knows, each with its view.

    Args:
        wake: is called when something became of one of them.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._followers = Followers(wake)
        self._lock = threading.RLock()
        self._views: dict[tuple[Place, str, str], View] = {}
        self._tracked: dict[str, Tracked] = {}
        self._by_label: dict[str, Tracked] = {}

    def of(self, handle: Handle) -> Tracked | None:
        """The job of a handle; None of one that was collected, or about which nothing is known."""
        directory = Path(handle.directory)
        with self._lock:
            if handle.token in self._tracked:
                return self._tracked[handle.token]
            asked = kubenote.read(directory)
            if asked is None or (directory / facts.ENDED).exists():
                return None
            return self.track(handle.token, directory, asked)

    def track(self, token: str, directory: Path, asked: Asked) -> Tracked:
        """Know a job from now on."""
        with self._lock:
            if token not in self._tracked:
                tracked = Tracked(token, directory, asked)
                self._tracked[token] = self._by_label[asked.job] = tracked
                view = self.view(tracked)
                view.users.add(token)
                for found in view.pods.all():
                    self._see(found)
            return self._tracked[token]

    def beside(self, tracked: Tracked) -> list[Tracked]:
        """Other jobs of the same run, all of whose results are here."""
        with self._lock:
            known = [each for each in self._tracked.values() if each.asked.group == tracked.asked.group]
        free = [each for each in known if not (each is tracked or each.remains or each.cancelled)]
        return [each for each in free if each.all_here and not each.asked.collector]

    def forget(self, tracked: Tracked) -> None:
        """Know a job no more."""
        with self._lock:
            view = self.view(tracked)
            self._tracked.pop(tracked.token, None)
            self._by_label.pop(tracked.asked.job, None)
            view.users.discard(tracked.token)
            if not view.users:
                view.close()
                self._views.pop(tracked.asked.group, None)

    def view(self, tracked: Tracked) -> View:
        """Where a job is seen."""
        asked = tracked.asked
        with self._lock:
            view = self._views.get(asked.group)
            if view is None:
                view = self._views[asked.group] = View(asked, self._see, self._wake)
            view.runners(asked.kind)
            return view

    def require(self, tracked: Iterable[Tracked], patience: float = 0.0) -> None:
        """Know what became of these jobs by now.

        Args:
            tracked: which.
            patience: seconds that a cluster may take which was in reach before, and is not now.

        Raises:
            InfrastructureError: a cluster is out of reach.
        """
        seen: dict[View, list[Tracked]] = {}
        for each in tracked:
            seen.setdefault(self.view(each), []).append(each)
        for view, jobs in seen.items():
            view.require(patience)
            view.look_closer(jobs)

    def _see(self, found: Object) -> None:
        """Take down what became of a pod."""
        with self._lock:
            tracked = self._by_label.get((found["metadata"].get("labels") or {}).get(JOB_LABEL, ""))
            pod = pod_of(found)
            if tracked is None or pod.name == tracked.asked.reader or tracked.tries.get(pod.uid) == pod:
                return
            tracked.take_down(pod)
            if pod.state is not State.PENDING:
                self.follow(tracked, pod)
        self._wake()

    def follow(self, tracked: Tracked, pod: Pod) -> None:
        """Have a pod's log read, and its results fetched."""
        with self._lock:
            followed = tracked.followed.get(pod.uid) or self._begin(tracked, pod)
            if followed and (pod.state.over or pod.end):
                followed.end()

    def _begin(self, tracked: Tracked, pod: Pod) -> Followed | None:
        if (tracked.directory / facts.ENDED).exists() or not tracked.directory.is_dir():
            return None
        followed = Followed(
            api(tracked.asked.place),
            tracked.asked.namespace,
            pod.name,
            tracked.folder(pod.rank),
            tracked.directory,
            packed=tracked.asked.collector is None,
        )
        tracked.followed[pod.uid] = followed
        if (pod.state.over or pod.end) and kuberesults.kept(followed.folder, pod.name):
            followed.done.set()
        else:
            self._followers.add(followed)
        return followed
