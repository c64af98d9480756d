"""Where a job in a cluster stands, and what is known of its end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pytest_madengine.backends import kubeleft, kubeverdict
from pytest_madengine.backends.base import State, Status
from pytest_madengine.backends.kubeapi import Object
from pytest_madengine.backends.kubeleft import Remains
from pytest_madengine.backends.kubetrack import Tracked, View
from pytest_madengine.backends.kubeverdict import Ending, Lost, Pod

KILLED = 137
GONE = "what ran it was removed by somebody else"


def status(tracked: Tracked, view: View) -> Status:
    """Where a job stands, by what its view shows."""
    runner = None if tracked.removed else view.runner(tracked.asked)
    _end_absent(tracked, view)
    if tracked.lost:
        return Status(State.LOST, tracked.lost)
    if runner is None:
        return Status(_without_runner(tracked))
    if _is_finished(tracked, runner):
        return Status(_settled(tracked).state if tracked.all_here else State.RUNNING)
    return _unfinished(tracked, view, runner)


def _unfinished(tracked: Tracked, view: View, runner: Object) -> Status:
    found = kubeverdict.worst([*_taken(tracked), *_troubles(tracked, view), *_refusals(tracked, runner)])
    if found and found.hopeless:
        tracked.lost, tracked.refused = found.words, found.refused
        return Status(State.LOST, found.words)
    if tracked.began:
        return Status(State.RUNNING)
    words = found.words if found else kubeverdict.suspended(runner, tracked.asked.queue)
    return Status(State.PENDING, words)


def _end_absent(tracked: Tracked, view: View) -> None:
    """Of pods that are not there any more nothing more will come."""
    for pod in list(tracked.tries.values()):
        if pod.uid in tracked.followed and view.pods.get(pod.name) is None:
            tracked.followed[pod.uid].end()


def _without_runner(tracked: Tracked) -> State:
    """Of a job whose runner was removed."""
    if tracked.all_here or tracked.cancelled:
        return kubeleft.left(tracked.directory, tracked.asked.nodes)
    return State.RUNNING


def _is_finished(tracked: Tracked, runner: Object) -> bool:
    """Whether its runner is done; a LeaderWorkerSet never is, so that its pods' exit codes tell."""
    if tracked.asked.kind != "LeaderWorkerSet":
        return kubeverdict.finished(runner) is not None
    last = tracked.latest()
    return len(last) == tracked.asked.nodes and all(tracked.code(pod) is not None for pod in last.values())


def _settled(tracked: Tracked) -> Ending:
    """How a job ended; what lies on a claim is not read yet, so that pods' own exit codes count."""
    ends = tracked.endings()
    if tracked.asked.collector:
        last = tracked.latest()
        ends = {rank: _unread(last[rank], end) for rank, end in ends.items()}
    return _of_all(tracked, ends)


def _of_all(tracked: Tracked, ends: Mapping[int, Ending]) -> Ending:
    """How a job ended whose ranks ended so; of one whose pods were never seen its folder tells."""
    if ends:
        return kubeverdict.settled(ends.values())
    return Ending(kubeleft.left(tracked.directory, tracked.asked.nodes), None)


def _unread(pod: Pod, end: Ending) -> Ending:
    return Ending(State.EXITED, 0) if pod.end and pod.end.code == 0 and not pod.reason else end


def _taken(tracked: Tracked) -> Iterator[Lost]:
    """What befell pods, none of which failed by itself: where one did, the cluster removes the others."""
    if tracked.cancelled or any(tracked.code(pod) for pod in tracked.latest().values()):
        return
    tries = [pod for pod in list(tracked.tries.values()) if tracked.code(pod) is None]
    if found := kubeverdict.taken(tries, tracked.asked.retries):
        yield found


def _troubles(tracked: Tracked, view: View) -> Iterator[Lost]:
    """What is in the way of pods that have not started."""
    now = time.monotonic()
    for pod in tracked.latest().values():
        waited = now - tracked.waits.get(pod.uid, ("", now))[1]
        pull, event = tracked.pulls.get(pod.uid, ""), tracked.events.get(pod.uid, "")
        found = kubeverdict.trouble(pod, waited=waited, pull=pull, event=event)
        if found:
            several = f"rank {pod.rank}: " if tracked.asked.nodes > 1 else ""
            found = _for_good(found, pod, view) if pod.unscheduled else found
            yield replace(found, words=f"{several}{found.words}")


def _for_good(found: Lost, pod: Pod, view: View) -> Lost:
    """The trouble of a pod without a node, hopeless where no node could ever take it, as far as they can be seen."""
    stated = view.pods.get(pod.name)
    words = kubeverdict.impossible(stated, view.nodes()) if stated else ""
    return Lost(f"{found.words}; {words}", refused=True) if words else found


def _refusals(tracked: Tracked, runner: Object) -> Iterator[Lost]:
    """Why the cluster takes no pods of a job."""
    event = tracked.events.get(runner["metadata"]["uid"], "")
    if event and len(tracked.latest()) < tracked.asked.nodes:
        yield kubeverdict.refusal(event)


def remains(tracked: Tracked, view: View, last: Status) -> Remains:
    """What is known of a job's end.

    Args:
        tracked: the job, all of whose results are here.
        view: what shows it.
        last: where it stood.
    """
    ends = tracked.endings()
    end = _of_all(tracked, ends)
    if last.state is State.LOST:
        removed = GONE if view.runner(tracked.asked) is None else ""
        end = replace(end, state=State.LOST, note=last.reason or removed or end.note)
    tried = kubeverdict.tries([tracked.ending(pod) for pod in tracked.earlier()])
    return Remains(
        nodes=tracked.asked.nodes,
        end=end,
        codes={rank: KILLED if tracked.killed and not each.code else each.code for rank, each in ends.items()},
        hosts=tracked.hosts(),
        notes=() if tracked.cancelled else (end.note, tried),
        cancelled=tracked.cancelled,
        refused=tracked.refused,
    )
