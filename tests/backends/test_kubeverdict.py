from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_madengine.backends.base import State
from pytest_madengine.backends.kubeverdict import (
    End,
    Ending,
    Lost,
    Pod,
    begun,
    dead,
    ending,
    finished,
    impossible,
    latest,
    pod_of,
    refusal,
    settled,
    suspended,
    taken,
    tries,
    trouble,
    worst,
)

QUOTA = 'Error creating: pods "m-1" is forbidden: exceeded quota: q, requested: {}, used: pods=0, limited: {}'


def pod(**changes: Any) -> Pod:
    return Pod(**{"name": "m-0-x", "uid": "1", "rank": 0, "phase": "Failed", "node": "node1", **changes})


def found(state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    containers = [{"name": "model", "state": state}, {"name": "sidecar", "state": {"running": {}}}] if state else []
    metadata = {"name": "m-3-x", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {
        "metadata": {**metadata, "annotations": {"batch.kubernetes.io/job-completion-index": "3"}},
        "spec": {"nodeName": "node2"},
        "status": {"containerStatuses": containers, **status},
    }


def test_a_pod_that_ended() -> None:
    state = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": " last words\n"}}
    seen = pod_of(found(state, phase="Failed"))
    assert (seen.rank, seen.node, seen.state) == (3, "node2", State.EXITED)
    assert seen.end == End(137, "OOMKilled", "last words")


def test_a_pod_without_a_status_waits() -> None:
    seen = pod_of({"metadata": {"name": "m", "uid": "1"}, "spec": {}})
    assert (seen.state, seen.rank, seen.end, seen.unscheduled) == (State.PENDING, 0, None, "")


def test_a_pod_without_a_place() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    assert pod_of(found(conditions=[condition])).unscheduled == "0/2 nodes are available"


@pytest.mark.parametrize("phase", ["Running", "Unknown", "Something new"])
def test_phases_in_which_a_pod_is_not_over(phase: str) -> None:
    assert pod(phase=phase).state is State.RUNNING


@pytest.mark.parametrize(
    ("conditions", "outcome"),
    [
        ([], None),
        ([{"type": "Suspended", "status": "True"}], None),
        ([{"type": "Failed", "status": "False"}], None),
        ([{"type": "Complete", "status": "True"}], True),
        ([{"type": "Completed", "status": "True"}], True),
        ([{"type": "FailureTarget", "status": "True"}, {"type": "Failed", "status": "True"}], False),
    ],
)
def test_the_end_of_a_runner(conditions: list[dict[str, str]], outcome: object) -> None:
    assert finished({"status": {"conditions": conditions}}) is outcome


def test_the_last_try_of_each_rank_counts() -> None:
    pods = [
        pod(uid="1", created="2026-01-01T00:00:02Z"),
        pod(uid="2", created="2026-01-01T00:00:10Z", phase="Running"),
        pod(uid="3", rank=1, created="2026-01-01T00:00:01Z"),
    ]
    assert {rank: each.uid for rank, each in latest(pods).items()} == {0: "2", 1: "3"}


@pytest.mark.parametrize(
    ("reason", "pull", "waited", "given_up"),
    [
        ("InvalidImageName", "", 0, "for good"),
        ("CreateContainerConfigError", "", 0, "for good"),
        ("ErrImagePull", "dial tcp: i/o timeout", 5, ""),
        ("ImagePullBackOff", "dial tcp: i/o timeout", 121, "for now"),
        ("ErrImagePull", "dial tcp: connection refused", 0, "for now"),
        ("ImagePullBackOff", "", 5, ""),
        ("ImagePullBackOff", "registry.example/x: not found", 5, "for good"),
        ("ErrImagePull", "pull access denied", 0, "for good"),
        ("CreateContainerError", "", 5, ""),
        ("CreateContainerError", "", 61, "for now"),
    ],
)
def test_why_a_container_does_not_start(reason: str, pull: str, waited: float, given_up: str) -> None:
    seen = trouble(pod(phase="Pending", waiting=(reason, "its words")), waited=waited, pull=pull, event="")
    words = f"{reason}: {pull or 'its words'}"
    assert seen == Lost(words, hopeless=bool(given_up), refused=given_up == "for good")


def test_a_pod_that_waits_without_trouble() -> None:
    waits = pod(phase="Pending", waiting=("ContainerCreating", ""))
    assert trouble(waits, waited=999, pull="", event="") is None
    mounts = trouble(waits, waited=999, pull="", event="MountVolume.SetUp failed")
    assert mounts == Lost("MountVolume.SetUp failed", hopeless=False)
    assert trouble(pod(phase="Running"), waited=0, pull="", event="an old warning") is None


def test_a_pod_without_a_place_waits() -> None:
    seen = trouble(pod(phase="Pending", unscheduled="0/2 nodes"), waited=9999, pull="", event="")
    assert seen == Lost("Unschedulable: 0/2 nodes", hopeless=False)


@pytest.mark.parametrize(
    ("requested", "limited", "hopeless"),
    [
        ("pods=1", "pods=0", True),
        ("pods=1", "pods=1", False),
        ("limits.memory=2Gi,pods=1", "limits.memory=1Gi,pods=5", True),
        ("requests.amd.com/gpu=2", "requests.amd.com/gpu=4", False),
    ],
)
def test_a_quota_is_in_vain_only_below_what_is_asked_for(requested: str, limited: str, hopeless: object) -> None:
    seen = refusal(QUOTA.format(requested, limited))
    assert (seen.hopeless, seen.refused) == (hopeless, hopeless)
    assert seen.words.startswith("quota exceeded: ")


def test_other_refusals() -> None:
    assert refusal('pods "m-1" is forbidden: violates PodSecurity "restricted"').refused
    assert not refusal("Internal error occurred: failed calling webhook").hopeless


GPUS = {"spec": {"containers": [{"resources": {"limits": {"amd.com/gpu": 9}, "requests": {"cpu": "500m"}}}]}}


def node(**allocatable: str) -> dict[str, Any]:
    return {"status": {"allocatable": {"cpu": "8", **{key.replace("_", "/"): v for key, v in allocatable.items()}}}}


def test_what_no_node_has() -> None:
    nodes = [node(**{"amd.com_gpu": "8"}), node()]
    assert impossible(GPUS, nodes) == "no node has 9 amd.com/gpu (the most is 8)"
    assert impossible(GPUS, [*nodes, node(**{"amd.com_gpu": "16"})]) == ""


def test_what_no_node_has_at_once() -> None:
    nodes = [node(**{"amd.com_gpu": "9", "cpu": "100m"}), node()]
    assert impossible(GPUS, nodes) == "no node has all that it asks for"


def test_nothing_is_impossible_where_nodes_cannot_be_seen() -> None:
    assert impossible(GPUS, []) == ""


@pytest.mark.parametrize(
    ("changes", "code", "outcome"),
    [
        ({"end": End(0)}, 0, Ending(State.EXITED, 0)),
        ({"end": End(3)}, 3, Ending(State.EXITED, 3)),
        ({"end": End(3)}, None, Ending(State.EXITED, 3)),
        ({"end": End(137, "OOMKilled")}, None, Ending(State.EXITED, 137, "killed for lack of memory")),
        ({"end": End(0, "OOMKilled")}, 0, Ending(State.EXITED, 0)),
        ({"end": End(86, "Error", "no tar")}, None, Ending(State.LOST, 86, "no tar")),
        ({"end": End(87)}, None, Ending(State.LOST, 87, "what the model wrote could not be kept")),
        ({"end": End(128, "StartError", "no bash")}, None, Ending(State.LOST, 128, "no bash")),
        ({"end": End(137)}, None, Ending(State.LOST, 137, "its container was ended by signal 9")),
        ({"reason": "DeadlineExceeded"}, None, Ending(State.TIMED_OUT, None, "the deadline of its pods in Kubernetes")),
        ({"reason": "Evicted", "message": "low on disk"}, None, Ending(State.LOST, None, "evicted: low on disk")),
        ({"reason": "NodeLost"}, None, Ending(State.LOST, None, "its node was lost")),
        ({"leaving": True}, None, Ending(State.LOST, None, "its pod was removed on node1")),
        ({}, None, Ending(State.LOST, None, "its pod vanished on node1")),
    ],
)
def test_how_a_pod_ended(changes: dict[str, Any], code: int | None, outcome: Ending) -> None:
    assert ending(pod(**changes), code) == outcome


def test_an_eviction_that_the_model_brought_upon_itself() -> None:
    words = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."
    seen = ending(pod(reason="Evicted", message=words, end=End(137)), None)
    assert seen == Ending(State.EXITED, 137, f"evicted: {words}")


def test_success_without_results_is_none() -> None:
    assert ending(pod(phase="Succeeded", end=End(0)), None).state is State.LOST


def test_a_script_that_did_not_come_to_its_end() -> None:
    assert ending(pod(end=End(137)), 137, whole=False) == Ending(State.LOST, 137, "its script was ended with 137")


def test_a_job_is_as_good_as_its_worst_pod() -> None:
    fine, failed = Ending(State.EXITED, 0), Ending(State.EXITED, 3)
    stopped, lost = Ending(State.EXITED, 143), Ending(State.LOST, None, "gone")
    assert settled([fine, fine]) == fine
    assert settled([fine, stopped, lost, failed]) == failed
    assert settled([fine, stopped, lost]) == lost
    assert settled([fine, stopped]) == stopped


def test_tries_before_the_last_ones() -> None:
    failed, lost = Ending(State.EXITED, 5), Ending(State.LOST, None, "evicted")
    assert tries([]) == ""
    assert tries([failed]) == "after 1 failed try (exit code 5)"
    assert tries([failed, failed, lost]) == "after 3 failed tries (exit code 5; evicted)"


def test_pods_that_were_taken_away() -> None:
    fine, gone = pod(uid="1", phase="Running"), pod(uid="2", phase="Running", leaving=True)
    assert taken([fine], 0) is None
    assert taken([fine, gone], 1) is None
    assert taken([fine, gone], 0) == Lost("its pod was removed on node1")
    lost = replace(gone, reason="NodeLost", message="node1 is unresponsive")
    assert taken([lost], 0) == Lost("its pod was removed on node1: its node was lost: node1 is unresponsive")
    drained = replace(gone, disruption="EvictionByEvictionAPI: drained")
    assert taken([drained], 0) == Lost("its pod was removed on node1: EvictionByEvictionAPI: drained")


def test_pods_that_go_because_another_failed() -> None:
    failed, gone = pod(uid="1", end=End(3)), pod(uid="2", phase="Running", leaving=True)
    assert taken([failed, gone], 0) is None


def test_a_dead_pod_runs_nothing() -> None:
    ended: dict[str, Any] = {"terminated": {"exitCode": 0}}
    runs: dict[str, Any] = {"running": {}}
    assert dead({"spec": {"nodeName": "n"}, "status": {"containerStatuses": [{"state": ended}]}})
    assert not dead({"spec": {"nodeName": "n"}, "status": {"containerStatuses": [{"state": ended}, {"state": runs}]}})
    assert not dead({"spec": {"nodeName": "n"}, "status": {}})
    assert not dead({"spec": {}, "status": {}})
    assert dead({"spec": {"nodeName": "n"}, "status": {"reason": "NodeLost", "containerStatuses": [{"state": runs}]}})


@pytest.mark.parametrize(
    ("metadata", "ready", "containers", "gone"),
    [
        ({"deletionTimestamp": "now"}, "False", "True", True),
        ({"deletionTimestamp": "now"}, "True", "True", False),
        ({"deletionTimestamp": "now"}, "False", "False", False),
        ({}, "False", "True", False),
    ],
)
def test_a_pod_that_is_to_go_from_a_silent_node(
    metadata: dict[str, str], ready: str, containers: str, *, gone: bool
) -> None:
    conditions = [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": containers}]
    states: list[dict[str, Any]] = [{"state": {"running": {}}}]
    status = {"conditions": conditions, "containerStatuses": states}
    assert dead({"metadata": metadata, "spec": {"nodeName": "n"}, "status": status}) is gone


def test_a_pod_that_has_begun() -> None:
    states: list[dict[str, Any]] = [{"state": {"waiting": {}}}, {"state": {"running": {}}}]
    assert begun({"status": {"containerStatuses": states}})
    assert not begun({"status": {"containerStatuses": states[:1]}})
    assert not begun({})


def test_the_worst_that_keeps_a_job_from_running() -> None:
    patient, hopeless = Lost("busy", hopeless=False), Lost("no such image")
    assert worst([]) is None
    assert worst([patient]) == patient
    assert worst([patient, hopeless]) == hopeless


def test_a_suspended_job_waits_for_its_queue() -> None:
    assert suspended({"spec": {}}, "gpus") == ""
    assert suspended({"spec": {"suspend": True}}, "gpus") == "suspended: the queue gpus has not admitted it"
    assert suspended({"spec": {"suspend": True}}, "") == "suspended"
