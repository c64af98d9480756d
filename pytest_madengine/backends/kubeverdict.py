"""What a cluster says of a job's objects, in our words: tables and pure functions over the API's own JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pytest_madengine.backends.base import State
from pytest_madengine.backends.kubepod import CONTAINER
from pytest_madengine.context.kubernetes import amount

Object = Mapping[str, Any]

POD_PHASES = {
    "Pending": State.PENDING,
    "Running": State.RUNNING,
    "Succeeded": State.EXITED,
    "Failed": State.EXITED,
    "Unknown": State.RUNNING,  # its node is silent, and may speak again
}
"""Phases of pods in our words."""
WAITING = {
    "InvalidImageName": 0.0,
    "ErrImageNeverPull": 0.0,
    "CreateContainerConfigError": 0.0,
    "RunContainerError": 0.0,
    "CrashLoopBackOff": 0.0,
    "ErrImagePull": 120.0,
    "ImagePullBackOff": 120.0,
    "CreateContainerError": 60.0,
    "RegistryUnavailable": 120.0,
}
"""Reasons for which a container does not start, and the seconds after which it is given up."""
NEVER = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
"""Those of them that the job itself is to blame for."""
NO_SUCH_IMAGE = re.compile(
    r"not found|not exist|manifest unknown|unauthorized|denied|forbidden|no basic auth|authentication required"
    r"|no match for platform|invalid reference",
    re.IGNORECASE,
)
"""What is said of an image that another try would not bring."""
NO_REGISTRY = re.compile(r"connection refused|no such host", re.IGNORECASE)
"""What is said of an image that does not come today."""
LOST_NODE = "NodeLost"
POD_REASONS = {
    "Evicted": "evicted",
    LOST_NODE: "its node was lost",
    "NodeShutdown": "its node was shut down",
    "Shutdown": "its node was shut down",
    "Terminated": "its node was shut down",
    "Preempting": "preempted",
    "Preempted": "preempted",
    "UnexpectedAdmissionError": "its node could not take it",
    "NodeAffinity": "its node could not take it",
    "OutOfcpu": "its node could not take it",
    "OutOfmemory": "its node could not take it",
    "OutOfpods": "its node could not take it",
}
"""Why pods fail by themselves, none of which is the model's fault."""
OVER_ITS_LIMIT = re.compile(r"exceeds (?:the|its)|exceeded its", re.IGNORECASE)
"""In the words of an eviction that the model brought upon itself."""
DEADLINE = "DeadlineExceeded"
CANNOT_RUN = ("ContainerCannotRun", "StartError", "ContainerStatusUnknown")
OOM = "OOMKilled"
UNUSABLE, UNKEPT = 86, 87
"""Exit codes of the pods' script: nobody could run the model like this; what it wrote could not be kept."""
SIGNALLED, STOPPED = 128, 143
FINISHED = {"Complete": True, "Completed": True, "Failed": False}
"""Conditions of Jobs and JobSets at their end, and whether that is success."""
INDEX = "batch.kubernetes.io/job-completion-index"
WORKER = "leaderworkerset.sigs.k8s.io/worker-index"
REFUSED = "FailedCreate"
"""The reason of the event of a Job whose pods the cluster does not take."""
QUOTA = re.compile(r"exceeded quota: (?P<name>[^,]+), requested: (?P<asked>.*), used: .*, limited: (?P<limit>.*)$")
FORBIDDEN = re.compile(r"is forbidden: |is invalid: |admission webhook .* denied")


@dataclass(frozen=True)
class End:
    """How a container ended.

    Attributes:
        code: its exit code.
        reason: the cluster's word, such as OOMKilled.
        message: what it left as its last words.
    """

    code: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Pod:
    """One try at one rank of a job.

    Attributes:
        rank: from 0.
        created: in the server's notation, which sorts by time.
        reason: why the pod as a whole failed; '' where only its container did.
        message: the cluster's words for that.
        waiting: the reason for which its container does not start, and the words for that.
        end: of its container.
        unscheduled: why it has no node.
        leaving: whether it is being removed.
        disruption: who took it away and why, where the cluster tells.
    """

    name: str
    uid: str
    rank: int
    phase: str
    created: str = ""
    node: str = ""
    reason: str = ""
    message: str = ""
    waiting: tuple[str, str] = ("", "")
    end: End | None = None
    unscheduled: str = ""
    leaving: bool = False
    disruption: str = ""

    @property
    def state(self) -> State:
        """In our words."""
        return POD_PHASES.get(self.phase, State.RUNNING)


@dataclass(frozen=True)
class Lost:
    """Why something will never be a run, or waits.

    Attributes:
        hopeless: whether waiting is in vain.
        refused: whether another try would be in vain too.
    """

    words: str
    hopeless: bool = True
    refused: bool = False


@dataclass(frozen=True)
class Ending:
    """How a pod that is over ended: in which state that leaves its job, with which code, and the words for it."""

    state: State
    code: int | None
    note: str = ""


def pod_of(found: Object) -> Pod:
    """A pod as the API tells it."""
    metadata, status = found["metadata"], found.get("status") or {}
    containers = {each["name"]: each for each in status.get("containerStatuses") or ()}
    state = (containers.get(CONTAINER) or {}).get("state") or {}
    waiting = state.get("waiting") or {}
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        rank=_rank(metadata),
        phase=str(status.get("phase", "Pending")),
        created=str(metadata.get("creationTimestamp", "")),
        node=str((found.get("spec") or {}).get("nodeName") or ""),
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        waiting=(str(waiting.get("reason") or ""), str(waiting.get("message") or "")),
        end=_end(state.get("terminated")),
        unscheduled=_unscheduled(status.get("conditions") or ()),
        leaving="deletionTimestamp" in metadata,
        disruption=_disruption(status.get("conditions") or ()),
    )


def _rank(metadata: Object) -> int:
    known = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    text = str(known.get(INDEX, known.get(WORKER, "0")))
    return int(text) if text.isdecimal() else 0


def _end(found: Object | None) -> End | None:
    if not found:
        return None
    return End(int(found.get("exitCode", 0)), str(found.get("reason") or ""), str(found.get("message") or "").strip())


def _unscheduled(conditions: Iterable[Object]) -> str:
    found = [each for each in conditions if each["type"] == "PodScheduled" and each["status"] == "False"]
    return str(found[0].get("message") or found[0].get("reason") or "") if found else ""


def _disruption(conditions: Iterable[Object]) -> str:
    found = [each for each in conditions if each["type"] == "DisruptionTarget" and each["status"] == "True"]
    return _in_words(str(found[0].get("reason") or ""), str(found[0].get("message") or "")) if found else ""


def finished(runner: Object) -> bool | None:
    """Whether a Job or JobSet ended well; None while it goes on."""
    for each in (runner.get("status") or {}).get("conditions") or ():
        if each["status"] == "True" and each["type"] in FINISHED:
            return FINISHED[each["type"]]
    return None


def suspended(runner: Object, queue: str) -> str:
    """Why a Job has no pods yet, if somebody else decides when it may begin."""
    if not (runner.get("spec") or {}).get("suspend"):
        return ""
    return f"suspended: the queue {queue} has not admitted it" if queue else "suspended"


def latest(pods: Iterable[Pod]) -> dict[int, Pod]:
    """The last try at each rank."""
    return {pod.rank: pod for pod in sorted(pods, key=lambda pod: (pod.created, pod.state.over, pod.name))}


def trouble(pod: Pod, *, waited: float, pull: str, event: str) -> Lost | None:
    """Why a pod does not start; None where nothing is known to be in its way.

    Args:
        pod: which.
        waited: seconds for which its container has been waiting for that reason.
        pull: what was last said of its image.
        event: the last warning about it.
    """
    reason, message = pod.waiting
    if reason in WAITING:
        words = _in_words(reason, pull if "Image" in reason and pull else message or event)
        refused = reason in NEVER or bool(NO_SUCH_IMAGE.search(pull))
        hopeless = refused or waited >= WAITING[reason] or bool(NO_REGISTRY.search(pull))
        return Lost(words, hopeless=hopeless, refused=refused)
    if pod.unscheduled:
        return Lost(_in_words("Unschedulable", pod.unscheduled), hopeless=False)
    return Lost(event, hopeless=False) if event and pod.state is State.PENDING else None


def refusal(event: str) -> Lost:
    """What it means that the cluster does not take a Job's pods."""
    if quota := QUOTA.search(event):
        asked, limit = _amounts(quota["asked"]), _amounts(quota["limit"])
        hopeless = any(asked[name] > limit[name] for name in asked.keys() & limit.keys())
        return Lost(f"quota exceeded: {event}", hopeless=hopeless, refused=hopeless)
    hopeless = bool(FORBIDDEN.search(event))
    return Lost(event, hopeless=hopeless, refused=hopeless)


def _amounts(text: str) -> dict[str, Decimal]:
    pairs = (pair.partition("=") for pair in text.split(","))
    return {name.strip(): _amount(value) for name, _, value in pairs}


def _amount(text: str) -> Decimal:
    try:
        return amount(text.strip())
    except ValueError:
        return Decimal(0)


def _in_words(reason: str, message: str) -> str:
    return f"{reason}: {message}" if message else reason


def impossible(pod: Object, nodes: Iterable[Object]) -> str:
    """What a pod asks for that not even an empty node has; '' where one could take it."""
    wanted = _requests(pod)
    places = [_amounts_of((node.get("status") or {}).get("allocatable") or {}) for node in nodes]
    if not places or any(all(has.get(name, 0) >= value for name, value in wanted.items()) for has in places):
        return ""
    most = {name: max(has.get(name, Decimal(0)) for has in places) for name in wanted}
    short = [f"{wanted[name]} {name} (the most is {most[name]})" for name in wanted if most[name] < wanted[name]]
    return f"no node has {', '.join(short) or 'all that it asks for'}"


def _requests(pod: Object) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {}
    for container in pod["spec"]["containers"]:
        stated = container.get("resources") or {}
        for name, value in {**(stated.get("limits") or {}), **(stated.get("requests") or {})}.items():
            total[name] = total.get(name, Decimal(0)) + _amount(str(value))
    return total


def _amounts_of(found: Object) -> dict[str, Decimal]:
    return {name: _amount(str(value)) for name, value in found.items()}


def ending(pod: Pod, code: int | None, *, whole: bool = True) -> Ending:
    """How a pod ended.

    Args:
        pod: which.
        code: the exit code that it handed over with its results; None where it handed over nothing.
        whole: whether the job's script came to its end.
    """
    end = pod.end
    if pod.reason == DEADLINE:
        return Ending(State.TIMED_OUT, code, "the deadline of its pods in Kubernetes")
    if pod.reason in POD_REASONS and code is None:
        words = _in_words(POD_REASONS[pod.reason], pod.message)
        own = pod.reason == "Evicted" and bool(OVER_ITS_LIMIT.search(pod.message))
        return Ending(State.EXITED if own else State.LOST, end.code if end else None, words)
    if end and end.reason == OOM and code != 0:  # some models outlive it that a part of them is killed
        return Ending(State.EXITED, code or end.code or SIGNALLED + 9, "killed for lack of memory")
    if code is not None:
        return Ending(State.EXITED, code) if whole else Ending(State.LOST, code, f"its script was ended with {code}")
    return _without_results(pod, end)


def taken(pods: Iterable[Pod], retries: int) -> Lost | None:
    """Why a job is lost whose pods were taken away more often than it may be tried again; None where it is not.

    Where a pod failed by itself, the cluster removes the others.

    Args:
        pods: all tries but those that handed over their results.
        retries: how often failed pods are tried again.
    """
    pods = list(pods)
    gone = [pod for pod in pods if pod.leaving and not pod.end]
    if len(gone) <= retries or any(pod.end and pod.end.code for pod in pods):
        return None
    return Lost(_removal(gone[-1]))


def _removal(pod: Pod) -> str:
    """How a pod was taken away."""
    on = f" on {pod.node}" if pod.node else ""
    why = pod.disruption or (_in_words(POD_REASONS[pod.reason], pod.message) if pod.reason in POD_REASONS else "")
    words = f"its pod was removed{on}" if pod.leaving else f"its pod vanished{on}"
    return f"{words}: {why}" if why else words


def _without_results(pod: Pod, end: End | None) -> Ending:
    """Of a pod whose script did not hand anything over."""
    if end is None:
        return Ending(State.LOST, None, _removal(pod))
    if end.code == UNUSABLE or end.reason in CANNOT_RUN:
        return Ending(State.LOST, end.code, end.message or end.reason)
    if end.code == UNKEPT:
        return Ending(State.LOST, end.code, "what the model wrote could not be kept")
    if end.code == 0:
        return Ending(State.LOST, end.code, "its results were gone before they were fetched (k8s.results_wait)")
    if end.code > SIGNALLED:
        return Ending(State.LOST, end.code, f"its container was ended by signal {end.code - SIGNALLED}")
    return Ending(State.EXITED, end.code)


def worst(troubles: Iterable[Lost]) -> Lost | None:
    """What keeps a job from running: what is hopeless before what is not."""
    return min(troubles, key=lambda trouble: not trouble.hopeless, default=None)


def settled(endings: Iterable[Ending]) -> Ending:
    """How a job ended whose pods ended so: what the model did by itself counts before what befell it."""
    found = [each for each in endings if each.code != 0 or each.state is not State.EXITED]
    own = [each for each in found if each.state is State.EXITED and each.code not in (None, STOPPED)]
    other = [each for each in found if each.state is not State.EXITED]
    return next(iter((*own, *other, *found)), Ending(State.EXITED, 0))


def tries(earlier: Sequence[Ending]) -> str:
    """What became of the tries before the last ones; '' where there were none."""
    words = dict.fromkeys(each.note or f"exit code {each.code}" for each in earlier)
    count = "1 failed try" if len(earlier) == 1 else f"{len(earlier)} failed tries"
    return f"after {count} ({'; '.join(words)})" if words else ""


def dead(pod: Object) -> bool:
    """Whether nothing of a pod runs as far as the cluster will ever know, whatever its node still has to tidy up."""
    states = _states(pod)
    lost = (pod.get("status") or {}).get("reason") == LOST_NODE
    return lost or _is_abandoned(pod) or (bool(states) and all("terminated" in state for state in states))


def begun(pod: Object) -> bool:
    """Whether the cluster has heard that a container of a pod ran."""
    return any("terminated" in state or "running" in state for state in _states(pod))


def _states(pod: Object) -> list[Mapping[str, Any]]:
    return [each.get("state") or {} for each in (pod.get("status") or {}).get("containerStatuses") or ()]


def _is_abandoned(pod: Object) -> bool:
    """Whether a pod is to go from a node that says nothing: the cluster takes back that it is ready, and no more."""
    found = {each["type"]: each["status"] for each in (pod.get("status") or {}).get("conditions") or ()}
    silent = found.get("Ready") == "False" and found.get("ContainersReady") == "True"
    return silent and "deletionTimestamp" in (pod.get("metadata") or {})
