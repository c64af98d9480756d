"""Jobs in pods of a real cluster; what every backend must do is in contract.py."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_madengine.backends import kubenote, kubepod
from pytest_madengine.backends.base import Handle, Outcome, State
from pytest_madengine.errors import InfrastructureError, UserError
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Job
from pytest_madengine.launchers.base import Topology
from pytest_madengine.secrets import Secret
from tests.backends.contract import WAIT_FOR_GO
from tests.backends.support import K8S, Bench, Place, files, read, text, until, write
from tests.engines.kube import KubeCluster

pytestmark = pytest.mark.requires_kubernetes
ROLE = Path(__file__).parents[2] / "docs/kubernetes-role.yaml"
HIDDEN = Secret("hunter2 'is' my $password")
RESOURCES = ("configmaps", "jobs", "pods", "services")


@pytest.fixture
def place() -> Place:
    return K8S


def job(bench: Bench, script: str, nodes: int = 1, changes: dict[str, Any] | None = None, **k8s: Any) -> Job:
    """A job of these keys, and of other values."""
    made = bench.job(script)
    topology = Topology.of_cluster(nodes, 1)
    return replace(made, **{"topology": topology, "cluster": {**made.cluster, **k8s}, **(changes or {})})


def run(bench: Bench, script: str, nodes: int = 1, changes: dict[str, Any] | None = None, **k8s: Any) -> Outcome:
    return bench.finish(bench.submit(job(bench, script, nodes, changes, **k8s)))


def lost(bench: Bench, made: Job) -> Outcome:
    """What is said of a job that never runs; nothing of it stays."""
    outcome = bench.finish(bench.submit(made), 30)
    assert outcome.state is State.LOST
    assert bench.held() == []
    return outcome


def role_of(cluster: KubeCluster, but: str = "") -> Path:
    """The configuration of an account with the documented rights, without those for one resource."""
    role = next(each for each in yaml.safe_load_all(ROLE.read_text(encoding="utf-8")) if each["kind"] == "Role")
    rules = [{**rule, "resources": [name for name in rule["resources"] if name != but]} for rule in role["rules"]]
    return cluster.account(*(rule for rule in rules if rule["resources"]))


def test_the_projects_files_come_along(bench: Bench) -> None:
    write(bench.project / "scripts/model/lib/it's here.sh", "echo from a file\n").chmod(0o750)
    write(bench.project / "scripts/common/tool", "x" * 500_000)
    script = "'lib/it'\\''s here.sh'; wc -c <../scripts/common/tool; echo 1 > a.csv\n".replace("'lib", "./'lib")
    names = ("scripts/model/run.sh", "scripts/model/lib/it's here.sh", "scripts/common/tool")
    outcome = run(bench, script, changes={"files": names}, pod_spec={})
    assert outcome.exit_code == 0, text(outcome)
    assert text(outcome).splitlines()[-2:] == ["from a file", "500000"]
    assert set(outcome.artifacts) == {"a.csv"}


def test_ranks_know_each_other_and_each_has_a_folder(bench: Bench) -> None:
    script = 'echo "rank $NODE_RANK of $NNODES at $MASTER_ADDR"; echo "$NODE_RANK" > rank.csv\n'
    outcome = run(bench, script, nodes=4)
    assert (outcome.state, outcome.exit_code, outcome.note) == (State.EXITED, 0, "")
    assert outcome.ranks == dict.fromkeys(range(4), 0)
    for rank, folder in outcome.folders.items():
        assert f"rank {rank} of 4 at madengine-model-" in read(folder / "run.log")
        assert read(folder / "artifacts/rank.csv") == f"{rank}\n"
        assert read(folder / "host").strip() in ("node1", "node2")
    assert bench.held() == []


def test_one_rank_that_fails_ends_the_others(bench: Bench) -> None:
    script = f"[ $NODE_RANK != 1 ] || exit 3\nsleep {bench.nap}\n"
    outcome = run(bench, script, nodes=3)
    assert (outcome.state, outcome.exit_code) == (State.EXITED, 3)
    assert outcome.ranks[1] == 3
    assert {outcome.ranks[0], outcome.ranks[2]} <= {143, 137}
    assert bench.sleeping() == []


def test_only_the_last_try_counts(bench: Bench) -> None:
    script = 'mkdir "$MADENGINE_PROJECT/tried" || { echo second; exit 0; }\necho first; echo 1 > a.csv; exit 5\n'
    handle = bench.submit(job(bench, script, backoff_limit=1))
    outcome = bench.finish(handle)
    assert (outcome.state, outcome.exit_code, outcome.artifacts) == (State.EXITED, 0, {})
    assert outcome.note == "after 1 failed try (exit code 5)"
    assert "first" not in text(outcome)
    (earlier,) = (Path(handle.directory) / "earlier").iterdir()
    assert "first\n" in read(earlier / "run.log")
    assert read(earlier / "artifacts/a.csv") == "1\n"


def test_a_model_without_enough_memory(bench: Bench) -> None:
    outcome = run(bench, "echo so far; x=x; while :; do x=$x$x; done\n", memory="32Mi", memory_limit="48Mi")
    assert (outcome.state, outcome.exit_code, outcome.note) == (State.EXITED, 137, "killed for lack of memory")
    assert "so far\n" in text(outcome)


def test_an_image_that_is_not_there(bench: Bench) -> None:
    outcome = lost(bench, job(bench, "true\n", changes={"image": Image("127.0.0.1:1/none:1")}))
    assert "Image" in outcome.note
    assert "connection refused" in outcome.note


def test_an_image_whose_name_is_none(bench: Bench) -> None:
    assert "InvalidImageName" in lost(bench, job(bench, "true\n", changes={"image": Image("NOT A NAME")})).note


def test_a_secret_that_is_not_there(bench: Bench) -> None:
    secrets = {"strategy": "existing", "runtime_secret_name": "nowhere"}
    assert '"nowhere" not found' in lost(bench, job(bench, "true\n", secrets=secrets)).note


def test_an_image_without_what_the_script_needs(bench: Bench) -> None:
    outcome = lost(bench, job(bench, "true\n", pod_spec={"containers": [{"name": "model", "command": ["/none"]}]}))
    assert "/none" in outcome.note


def test_more_gpus_than_any_node_has(bench: Bench) -> None:
    outcome = lost(bench, job(bench, "true\n", gpu_count=9))
    assert "Insufficient amd.com/gpu" in outcome.note
    assert "no node has 9 amd.com/gpu (the most is 8)" in outcome.note


def test_gpus_that_others_have_are_waited_for(bench: Bench, kube_cluster: KubeCluster) -> None:
    kube_cluster.quota(**{"requests.amd.com/gpu": 8})
    first = bench.submit(job(bench, WAIT_FOR_GO, gpu_count=8))
    bench.until_running(first)
    second = bench.submit(job(bench, "true\n", gpu_count=8))
    until(lambda: "exceeded quota" in bench.status(second).reason)
    assert bench.state(second) is State.PENDING
    bench.go(first)
    assert bench.finish(first).exit_code == 0
    bench.backend.cancel([second])
    bench.collect(second)


def test_a_quota_that_leaves_no_room(bench: Bench, kube_cluster: KubeCluster) -> None:
    kube_cluster.quota(pods=0)
    assert "exceeded quota: quota, requested: pods=1" in lost(bench, job(bench, "true\n")).note


def test_a_job_of_a_queue_waits_until_it_is_admitted(bench: Bench, kube_cluster: KubeCluster) -> None:
    handle = bench.submit(job(bench, "true\n", queue="gpus"))
    assert (bench.status(handle).state, bench.status(handle).reason) == (
        State.PENDING,
        "suspended: the queue gpus has not admitted it",
    )
    path = kube_cluster.path("jobs", handle.token.split("/")[1])
    kube_cluster.api.ask("PATCH", path, {"spec": {"suspend": False}}, "application/merge-patch+json")
    assert bench.finish(handle).exit_code == 0


def test_ranks_without_numbers_are_refused(bench: Bench, kube_cluster: KubeCluster) -> None:
    kube_cluster.forget_completion_mode()
    made = job(bench, "true\n", nodes=2)
    with pytest.raises(InfrastructureError, match="without its completion mode"):
        bench.submit(made)
    until(lambda: bench.held() == [])
    assert bench.find(made) is None


@pytest.mark.parametrize("nodes", [1, 2])
def test_results_on_a_claim(bench: Bench, nodes: int) -> None:
    script = 'echo "I am $NODE_RANK"; echo "$NODE_RANK" > rank.csv; : > empty.csv; exit "$NODE_RANK"\n'
    outcome = run(bench, script, nodes=nodes, results="claim", results_storage_size="1Mi")
    assert (outcome.state, outcome.exit_code) == (State.EXITED, nodes - 1)
    for rank, folder in (outcome.folders or {0: outcome.log.parent}).items():
        assert f"I am {rank}\n" in read(folder / "run.log")
        assert read(folder / "artifacts/rank.csv") == f"{rank}\n"
        assert (folder / "artifacts/empty.csv").exists()
    until(lambda: bench.held() == [])


def test_what_somebody_removed_is_lost(bench: Bench, kube_cluster: KubeCluster) -> None:
    handle = bench.submit(job(bench, f"echo so far; sleep {bench.nap}\n"))
    until(lambda: bench.says(handle, "so far"))
    kube_cluster.delete("jobs", handle.token.split("/")[1])
    outcome = bench.finish(handle)
    assert (outcome.state, "removed" in outcome.note) == (State.LOST, True)
    assert "so far\n" in text(outcome)


def test_what_is_to_stay_stays(bench: Bench, kube_cluster: KubeCluster) -> None:
    handle = bench.submit(job(bench, "true\n", changes={"keep": True}))
    assert bench.finish(handle).exit_code == 0
    assert {name.partition("/")[0] for name in bench.held()} == {"Job", "Pod", "ConfigMap"}
    assert bench.fresh_backend().collect(handle).exit_code == 0
    kube_cluster.delete("jobs", handle.token.split("/")[1])
    until(lambda: bench.held() == [])


def test_a_log_that_nobody_may_read_changes_nothing(bench: Bench, kube_cluster: KubeCluster) -> None:
    config = str(role_of(kube_cluster, but="pods/log"))
    outcome = run(bench, "echo fine; exit 3\n", kubeconfig=config)
    assert (outcome.state, outcome.exit_code) == (State.EXITED, 3)
    assert "fine\n" in text(outcome)


def test_the_documented_rights_are_enough(bench: Bench, kube_cluster: KubeCluster) -> None:
    config = str(role_of(kube_cluster))
    made = job(bench, "exit 0\n", nodes=2, changes={"secrets": {"HF_TOKEN": HIDDEN}}, kubeconfig=config)
    handle = bench.submit(made)
    assert bench.find(made) == handle
    outcome = bench.finish(handle)
    assert (outcome.state, outcome.exit_code) == (State.EXITED, 0)
    assert bench.held() == []
    stuck = bench.submit(job(bench, f"sleep {bench.nap}\n", kubeconfig=config, results="claim"))
    until(bench.sleeping)
    bench.backend.cancel([stuck])
    assert bench.collect(stuck).exit_code == 143
    until(lambda: bench.held() == [])


@pytest.mark.parametrize(
    ("missing", "right"),
    [
        ("jobs", "list jobs"),
        ("pods", "list pods"),
        ("secrets", "create secrets"),
        ("configmaps", "create configmaps"),
    ],
)
def test_a_right_that_is_missing_is_named(bench: Bench, kube_cluster: KubeCluster, missing: str, right: str) -> None:
    config = str(role_of(kube_cluster, but=missing))
    made = job(bench, "true\n", changes={"secrets": {"HF_TOKEN": HIDDEN}}, kubeconfig=config)
    with pytest.raises(InfrastructureError) as refused:
        bench.submit(made)
    assert f"lacks the right to {right} in the namespace {kube_cluster.namespace}" in str(refused.value)
    until(lambda: bench.held() == [])


def test_secrets_are_nowhere_but_in_secrets(bench: Bench, kube_cluster: KubeCluster) -> None:
    changes = {"secrets": {"HF_TOKEN": HIDDEN}, "credential": Secret(json.dumps({"hub": {"password": HIDDEN}}))}
    made = job(bench, f"{WAIT_FOR_GO}echo ${{#HF_TOKEN}}; cat ../credential.json | wc -c\n", changes=changes)
    made = replace(made, cluster={**made.cluster, "output_dir": "manifests"})
    assert "hunter2" not in json.dumps(bench.backend.plan(made).request)
    handle = bench.submit(made)
    bench.until_running(handle)
    assert "hunter2" not in "".join(json.dumps(kube_cluster.all_of(kind)) for kind in RESOURCES)
    assert [name for name, data in files(bench.folder).items() if b"hunter2" in data] == []
    (written,) = (bench.project / "manifests").iterdir()
    assert [each["kind"] for each in yaml.safe_load_all(read(written))] == ["Secret", "ConfigMap", "Job"]
    bench.go(handle)
    outcome = bench.finish(handle)
    assert text(outcome).splitlines()[-2:] == [str(len(HIDDEN)), str(len(changes["credential"]))]


def test_the_plan_is_what_is_submitted(bench: Bench, kube_cluster: KubeCluster) -> None:
    made = job(bench, WAIT_FOR_GO, nodes=2)
    request = bench.backend.plan(made).request
    handle = bench.submit(made)
    planned = list(request.values())
    assert list(request) == [f"{each['kind'].lower()}/{each['metadata']['name']}.yaml" for each in planned]
    (script,) = [each for each in planned if each["kind"] == "ConfigMap"]
    assert kube_cluster.get("configmaps", script["metadata"]["name"])["data"] == script["data"]
    bench.backend.cancel([handle], hard=True)
    bench.collect(handle)


def test_the_claim_for_data_stays_and_is_made_anew_once_for_a_run(bench: Bench, kube_cluster: KubeCluster) -> None:
    wish: dict[str, Any] = {"data_storage_size": "1Mi", "recreate_shared_data_pvc": True}
    uids = []
    for run_id in ("run-1", "run-1", "run-2"):
        outcome = run(
            bench, 'echo more >> "$MAD_DATAHOME/words"; wc -l <"$MAD_DATAHOME/words"\n', changes={"run": run_id}, **wish
        )
        uids.append(
            (kube_cluster.get("persistentvolumeclaims", kubepod.SHARED_DATA)["metadata"]["uid"], text(outcome)[-2])
        )
    assert [lines for _, lines in uids] == ["1", "2", "1"]
    assert uids[0][0] == uids[1][0] != uids[2][0]


def test_a_job_whose_submission_was_cut_is_handed_over_again(bench: Bench, kube_cluster: KubeCluster) -> None:
    made = job(bench, "exit 4\n")
    found = kubenote.objects(made)
    made.directory.mkdir(parents=True, exist_ok=True)
    kubenote.asked(made, found).write(made.directory)
    kube_cluster.api.ask("POST", kube_cluster.path("configmaps"), found[0])
    assert bench.find(made) is None
    assert bench.finish(bench.submit(made)).exit_code == 4
    assert bench.held() == []


def test_an_unknown_context_is_told_before_anything_is_made(bench: Bench) -> None:
    with pytest.raises(UserError, match=r"k8s.context: testz; valid: .*; did you mean 'tests'\?"):
        bench.submit(job(bench, "true\n", context="testz"))


def test_a_model_of_a_strange_name(bench: Bench) -> None:
    name = "Größe/x 'y'" + "z" * 80
    handle = bench.submit(job(bench, "exit 3\n", changes={"name": name}))
    assert bench.finish(handle).exit_code == 3


@pytest.mark.requires_kubernetes(alone=True)
@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # urllib3 drops connections that the server broke
def test_an_api_server_that_restarts(bench: Bench, kube_cluster: KubeCluster) -> None:
    waits, ends = (bench.submit(job(bench, WAIT_FOR_GO)) for _ in range(2))
    for handle in (waits, ends):
        until(lambda handle=handle: bench.says(handle, "madengine: "))  # type: ignore[misc]  # a lambda's default
    kube_cluster.do("kill-apiserver")
    bench.go(ends)
    with pytest.raises(InfrastructureError):
        _until_it_raises(lambda: bench.state(waits))
    kube_cluster.do("restart-apiserver")
    until(lambda: _answers(bench, ends))
    assert bench.state(waits) is State.RUNNING
    assert bench.finish(ends).exit_code == 0
    bench.go(waits)
    outcome = bench.finish(waits)
    assert (outcome.exit_code, outcome.note) == (0, "")
    assert bench.held() == []


def _until_it_raises(question: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        question()
        time.sleep(0.05)


def _answers(bench: Bench, handle: Handle) -> bool:
    try:
        bench.state(handle)
    except InfrastructureError:
        return False
    return True


@pytest.mark.requires_kubernetes(alone=True)
def test_a_node_that_dies(bench: Bench, kube_cluster: KubeCluster) -> None:
    pinned: dict[str, Any] = {"node_selector": {"kubernetes.io/hostname": "node2"}}
    handle = bench.submit(job(bench, f"echo so far; sleep {bench.nap}\n", **pinned))
    until(lambda: bench.says(handle, "so far"))
    kube_cluster.do("kill-node", "2")
    bench.await_end(handle)
    started = time.monotonic()
    outcome = bench.collect(handle)
    assert time.monotonic() - started < 10
    assert (outcome.state, outcome.suspects) == (State.LOST, ("node2",))
    assert "its pod was removed on node2" in outcome.note
    assert "so far\n" in text(outcome)
    assert bench.held() == []


@pytest.mark.requires_kubernetes(fake_nodes=10)
def test_many_at_once(bench: Bench) -> None:
    fake = {
        "name": "model",
        "env": [{"name": "FAKE_SECONDS", "value": "3"}, {"name": "FAKE_LOG", "value": "pretended"}],
    }
    wish: dict[str, Any] = {"pod_spec": {"containers": [fake]}, "gpu_count": 1}
    handles = [bench.submit(job(bench, "true\n", **wish)) for _ in range(40)]
    until(lambda: all(status.state.over for status in bench.backend.states(handles).values()))
    outcomes = [bench.collect(handle) for handle in handles]
    assert {text(outcome) for outcome in outcomes} == {"pretended\n"}
    assert {(outcome.state, "k8s.results_wait" in outcome.note) for outcome in outcomes} == {(State.LOST, True)}
    assert bench.held() == []


def test_a_folder_that_vanished_is_no_trouble_for_others(bench: Bench) -> None:
    first, second = (bench.submit(job(bench, f"echo so far\n{WAIT_FOR_GO}exit 3\n")) for _ in range(2))
    until(lambda: bench.says(first, "so far") and bench.says(second, "so far"))
    shutil.rmtree(first.directory)
    for handle in (first, second):
        bench.go(handle)
    assert bench.finish(second).exit_code == 3
    bench.backend.cancel([first], hard=True)
    bench.collect(first)
    assert bench.held() == []
