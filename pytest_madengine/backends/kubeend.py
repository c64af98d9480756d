"""Makes models in pods end, and removes what a cluster holds for jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from pytest_madengine.backends import kubeverdict
from pytest_madengine.backends.base import State
from pytest_madengine.backends.kubeapi import Object, api
from pytest_madengine.backends.kubenames import JOB_LABEL
from pytest_madengine.backends.kubenote import Asked
from pytest_madengine.backends.kubepod import CONTAINER
from pytest_madengine.backends.kuberefusal import StatusError
from pytest_madengine.backends.kubescript import END, LEAVE
from pytest_madengine.backends.kubetrack import Tracked, Tracker
from pytest_madengine.errors import InfrastructureError

HALT: Mapping[str, Object] = {
    "Job": {"spec": {"parallelism": 0}},
    "JobSet": {"spec": {"suspend": True}},
    "LeaderWorkerSet": {"spec": {"replicas": 0}},
}
"""The change by which what runs a job makes no pods any more."""
GRACE = 60.0
"""Seconds that models are given to end."""
DOUBTFUL, LEAVING, STUCK = 3.0, 30.0, 120.0
"""Seconds that pods are given to go: then their nodes are asked whether anything runs in them, since clusters may learn
it late; then the cluster is told to forget them; and then somebody else holds them."""
HURRY = 3
"""Seconds that a pod has to end, one less whenever it is told again: a node that was told while it started the pod
takes no notice before something changes."""
NO_CONTAINER = "container not found"
TIDYING = 60.0
"""Seconds for which the removal of objects is tried."""
POLL, EACH, AGAIN = 0.1, 0.005, 1.0
"""Seconds between looks, for each pod that is there at least; and until a pod is told again."""
TOLD = 16
"""Pods that are told something at the same time."""


def end_models(tracker: Tracker, wanted: Sequence[Tracked]) -> None:
    """Tell models to end, and wait until what they wrote is here, or there was time enough for that."""
    deadline = time.monotonic() + GRACE
    told: dict[str, float] = {}
    with ThreadPoolExecutor(TOLD, "madengine-pods-end") as pool:
        _follow_young(tracker, wanted, pool)
        while (left := [pair for each in wanted for pair in _unended(each)]) and time.monotonic() < deadline:
            now = time.monotonic()
            due = [pair for pair in left if now - told.get(pair[1], -AGAIN) >= AGAIN]
            told.update(dict.fromkeys((name for _, name in due), now))
            list(pool.map(lambda pair: _told_to_end(*pair), due))
            time.sleep(POLL)


def _follow_young(tracker: Tracker, wanted: Sequence[Tracked], pool: ThreadPoolExecutor) -> None:
    """Pods may run although the cluster does not say so yet: those that can be told to end do."""
    young = [(each, pod) for each in wanted for pod in each.latest().values() if pod.state is State.PENDING]
    placed = [(each, pod) for each, pod in young if pod.node and pod.waiting[0] not in kubeverdict.WAITING]
    heard = pool.map(lambda pair: _told_to_end(pair[0].asked, pair[1].name), placed)
    for (each, pod), told in zip(placed, heard, strict=True):
        if told:
            tracker.follow(each, pod)


def _unended(tracked: Tracked) -> list[tuple[Asked, str]]:
    """The pods that run and have not handed over what they have."""
    return [
        (tracked.asked, pod.name)
        for pod in tracked.latest().values()
        if not pod.state.over and not pod.end and not pod.leaving
        if (followed := tracked.followed.get(pod.uid)) and not followed.done.is_set()
    ]


def _told_to_end(asked: Asked, pod: str) -> bool:
    """Whether a pod could be told to end its model."""
    with suppress(InfrastructureError):
        return api(asked.place).run(asked.namespace, pod, CONTAINER, END, lambda _: b"") == 0
    return False


def free(wanted: Sequence[Asked]) -> str:
    """Remove what a cluster holds for jobs; the words for why that failed, if it did."""
    deadline = time.monotonic() + TIDYING
    while True:
        try:
            vanish(wanted)
        except InfrastructureError as error:
            if time.monotonic() > deadline:
                return f"objects are still there: {error}"
        else:
            return ""
        time.sleep(AGAIN)


def remove(asked: Asked) -> None:
    """Have all objects of a job removed, first what would make others anew.

    Raises:
        InfrastructureError: the cluster is out of reach.
    """
    cluster = api(asked.place)
    cluster.delete(asked.kind, asked.namespace, asked.name)
    if asked.reader:
        cluster.delete("Pod", asked.namespace, asked.reader, grace=1)
    for kind, name in asked.objects:
        cluster.delete(kind, asked.namespace, name)


def vanish(wanted: Sequence[Asked]) -> None:
    """Remove the objects of jobs; returns when their pods are gone.

    Pods that run go first: a node that still wants to mount the files of one would not end it without them.

    Raises:
        InfrastructureError: the cluster is out of reach, or keeps the pods.
    """
    found = list(_pods_of(wanted))
    alive = {asked.job: asked for asked, pod in found if not kubeverdict.dead(pod)}
    dead = [_Going(asked, pod) for asked, pod in found if kubeverdict.dead(pod)]
    with ThreadPoolExecutor(TOLD, "madengine-jobs-end") as pool:
        list(pool.map(_halt, alive.values()))
        _clear(list(alive.values()), pool)
        list(pool.map(remove, wanted))
        list(pool.map(_remove_pod, dead))
        _clear(wanted, pool)


def _halt(asked: Asked) -> None:
    with suppress(StatusError):  # it is gone, or somebody else decides that: its end comes all the same
        api(asked.place).patch(asked.kind, asked.namespace, asked.name, HALT[asked.kind])


def _clear(wanted: Sequence[Asked], pool: Executor) -> None:
    """Remove the pods of jobs, and wait until they are gone."""
    begun = time.monotonic()
    told: dict[tuple[str, bool], list[float]] = {}
    while left := list(_pods_of(wanted)):
        waited = time.monotonic() - begun
        list(pool.map(_remove_pod, list(_due(left, told, waited))))
        if waited > STUCK:
            raise InfrastructureError(f"Kubernetes: pods that do not go: {', '.join(sorted(_names(left)))}")
        time.sleep(max(POLL, EACH * len(left)))


class _Going(NamedTuple):
    """A pod that is to go.

    Attributes:
        grace: seconds that it has for that.
        doubtful: whether its node may not have heard of it, or the cluster not of its end.
    """

    asked: Asked
    pod: Object
    grace: int = 0
    doubtful: bool = False

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])


def _due(
    left: Sequence[tuple[Asked, Object]], told: dict[tuple[str, bool], list[float]], waited: float
) -> Iterator[_Going]:
    """The pods that are to be told to go, now or once more."""
    for asked, pod in left:
        over = kubeverdict.dead(pod) or waited > LEAVING
        before = told.setdefault((pod["metadata"]["uid"], over), [])
        if not before or waited - before[-1] > AGAIN:
            grace = 0 if over else max(1, HURRY - len(before))
            yield _Going(asked, pod, grace, waited > DOUBTFUL and not over)
            before.append(waited)


def _names(pods: Sequence[tuple[Asked, Object]]) -> Iterator[str]:
    return (str(pod["metadata"]["name"]) for _, pod in pods)


def _remove_pod(going: _Going) -> None:
    """Have a pod removed; at once if it is dead, since its node may still have to tidy up, which takes long."""
    grace = 0 if going.doubtful and _has_ended(going) else going.grace
    api(going.asked.place).delete("Pod", going.asked.namespace, going.name, grace=grace)


def _has_ended(going: _Going) -> bool:
    """Whether a pod's node says that nothing runs in it any more; what does is told to end, if its node forgot to."""
    cluster, namespace = api(going.asked.place), going.asked.namespace
    try:
        cluster.run(namespace, going.name, CONTAINER, LEAVE, lambda _: b"")
    except StatusError as error:
        return NO_CONTAINER in str(error) and (kubeverdict.begun(going.pod) or _was_started(going))
    except InfrastructureError:
        pass
    return False


def _was_started(going: _Going) -> bool:
    """Whether a pod's node told of its start, if of nothing else; else it may still be about to."""
    fields = f"involvedObject.name={going.name},reason=Started"
    with suppress(StatusError):  # no right to see events
        found = api(going.asked.place).listed("Event", going.asked.namespace, field_selector=fields)
        return bool(found["items"])
    return False


def _pods_of(wanted: Sequence[Asked]) -> Iterator[tuple[Asked, Object]]:
    """The pods of jobs that are still there, by one question for each run and namespace."""
    by_label = {asked.job: asked for asked in wanted}
    for asked in {asked.group: asked for asked in wanted}.values():
        selector = asked.selector + (f",{JOB_LABEL}={asked.job}" if len(wanted) == 1 else "")
        for found in api(asked.place).listed("Pod", asked.namespace, label_selector=selector)["items"]:
            if owner := by_label.get(found["metadata"]["labels"].get(JOB_LABEL, "")):
                yield owner, found
