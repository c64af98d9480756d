"""What goes wrong with models in pods: one row each, the right blame, nothing left in the cluster."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_madengine.engine import journal
from tests.backends.support import until
from tests.backends.test_slurm_disasters import IMPATIENT, INFRASTRUCTURE, MODEL, NONE, Told, told
from tests.cards import PASSES, card, project, rows, run_bare, statuses
from tests.engines.kube import KubeCluster
from tests.engines.registries import Registry
from tests.test_kubernetes_runs import WAITS, job, log, on
from tests.test_resume import PATIENCE, pytest_in, said

pytestmark = pytest.mark.requires_kubernetes

FAILED = pytest.ExitCode.TESTS_FAILED
PROMPT = 60.0
"""Seconds after which a session that cannot run its models is over, its start on a busy machine included."""
MANY = int(os.environ.get("MADENGINE_TEST_PODS", "300"))
TWO = {"launcher": "torchrun", "nnodes": 2, "nproc_per_node": 1}


def models(folder: Path, *cards: dict[str, Any], script: str = PASSES, **scripts: str) -> Path:
    """A project whose models are tried again without a pause, where that is asked for."""
    project(folder, *cards, script=script, **scripts)
    (folder / "conftest.py").write_text(IMPATIENT)
    return folder


def only(folder: Path, model: str = "m") -> Told:
    """What was said of a model that has one row, as of its only try."""
    (found,) = told(folder, model)
    assert [row["status"] for row in rows(folder / "perf.csv") if row["model"] == model] == [found.status]
    return found


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "too many gpus": ({"gpu_count": 9}, {}, "no node has 9 amd.com/gpu (the most is 8)"),
    "no namespace": ({"namespace": "nowhere"}, {}, 'namespaces "nowhere" not found'),
    "no secret": (
        {"secrets": {"strategy": "existing", "runtime_secret_name": "nowhere"}},
        {},
        'secret "nowhere" not found',
    ),
    "no priority class": ({"priority_class": "nowhere"}, {}, "no PriorityClass with name nowhere was found"),
    "no service account": ({"service_account": "nowhere"}, {}, 'serviceaccount "nowhere" not found'),
    "nonsense in the overlay": (
        {"pod_spec": {"containers": [{"name": "model", "ports": [{"containerPort": 99999999}]}]}},
        {},
        "must be between 1 and 65535",
    ),
    "no operator": ({"shape": "jobset"}, {}, "JobSet"),
}
"""What a cluster never runs: of `k8s`, of the context, and the words for it."""


class TestWhatNeverRuns:
    """Is said promptly, once, and not tried again."""

    @pytest.mark.parametrize("name", REFUSED)
    def test_is_a_failure_of_infrastructure(self, tmp_path: Path, kube_cluster: KubeCluster, name: str) -> None:
        section, context, words = REFUSED[name]
        models(tmp_path, card("m"))
        started = time.monotonic()
        process = pytest_in(tmp_path, *on(kube_cluster, k8s=section, **context), "--madengine-retries=1")
        assert process.wait(PATIENCE) == FAILED, said(tmp_path)
        assert time.monotonic() - started < PROMPT
        found = only(tmp_path)
        assert (found.status, found.blame) == ("FAILURE", INFRASTRUCTURE), found
        assert words in found.reason
        assert kube_cluster.left() == []

    def test_is_an_image_that_no_node_can_pull(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        models(tmp_path, card("m"))
        started = time.monotonic()
        assert pytest_in(tmp_path, *on(kube_cluster, docker_image="127.0.0.1:1/none:1")).wait(PATIENCE) == FAILED
        assert time.monotonic() - started < PROMPT
        found = only(tmp_path)
        assert (found.status, found.blame) == ("FAILURE", INFRASTRUCTURE), found
        assert "connection refused" in found.reason
        assert kube_cluster.left() == []

    @pytest.mark.requires_registry
    def test_is_an_image_that_its_registry_does_not_have(
        self, tmp_path: Path, kube_cluster: KubeCluster, registry: Registry
    ) -> None:
        models(tmp_path, card("m"))
        args = on(kube_cluster, docker_image=f"{registry.address}/none:1")
        with kube_cluster.reaching(registry.address):
            assert pytest_in(tmp_path, *args).wait(PATIENCE) == FAILED
        found = only(tmp_path)
        assert (found.status, found.blame) == ("FAILURE", INFRASTRUCTURE), found
        assert f"{registry.address}/none:1: manifest unknown" in found.reason
        assert kube_cluster.left() == []

    def test_is_what_a_quota_has_no_room_for(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        kube_cluster.quota(pods=0)
        models(tmp_path, card("m"), card("wide", distributed=TWO))
        assert pytest_in(tmp_path, *on(kube_cluster), "--madengine-retries=1").wait(PATIENCE) == FAILED
        for model in ("m", "wide"):
            found = only(tmp_path, model)
            assert (found.status, found.blame) == ("FAILURE", INFRASTRUCTURE), found
            assert "quota exceeded: " in found.reason
        assert kube_cluster.left() == []


class TestClusters:
    """That cannot be used are told of before long, whatever the number of models."""

    def config(self, cluster: KubeCluster, folder: Path, old: str, new: str) -> str:
        """A changed copy of the client's file."""
        text = cluster.config.read_text(encoding="utf-8")
        assert old in text
        (folder / "config").write_text(text.replace(old, new), encoding="utf-8")
        return str(folder / "config")

    def test_out_of_reach(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        (server,) = re.findall(r'server: "(.*?)"', kube_cluster.config.read_text(encoding="utf-8"))
        config = self.config(kube_cluster, tmp_path, server, "https://127.0.0.1:1")
        models(tmp_path, *map(card, "abcde"))
        started = time.monotonic()
        assert pytest_in(tmp_path, *on(kube_cluster, k8s={"kubeconfig": config})).wait(PATIENCE) == FAILED
        assert time.monotonic() - started < PROMPT
        for model in "abcde":
            found = only(tmp_path, model)
            assert (found.status, found.blame) == ("FAILURE", INFRASTRUCTURE)
            assert "127.0.0.1" in found.reason
            assert "Connection refused" in found.reason

    def test_that_do_not_know_who_asks(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        config = yaml.safe_load(kube_cluster.config.read_text(encoding="utf-8"))
        config["users"] = [{"name": each["name"], "user": {"token": "stale"}} for each in config["users"]]
        (tmp_path / "config").write_text(yaml.safe_dump(config), encoding="utf-8")
        models(tmp_path, card("m"))
        args = on(kube_cluster, k8s={"kubeconfig": str(tmp_path / "config")})
        assert pytest_in(tmp_path, *args).wait(PATIENCE) == FAILED
        found = only(tmp_path)
        assert found.blame is INFRASTRUCTURE
        assert "the cluster does not know who asks" in found.reason

    @pytest.mark.parametrize(
        ("k8s", "words"),
        [
            ({"kubeconfig": "/nowhere/config"}, "*k8s.kubeconfig: /nowhere/config: there is no such file; valid: *"),
            ({"context": "testz"}, "*k8s.context: testz; valid: *; did you mean 'tests'?"),
        ],
    )
    def test_that_nobody_described(
        self, pytester: pytest.Pytester, kube_cluster: KubeCluster, k8s: dict[str, str], words: str
    ) -> None:
        models(pytester.path, card("a"), card("b"))
        result = run_bare(pytester, *on(kube_cluster, k8s=k8s))
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([words])
        assert sum("nowhere" in line or "testz" in line for line in result.errlines) == 1


class TestModels:
    def test_that_need_more_memory_than_they_may_have(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        models(tmp_path, card("m"), script="echo so far; x=x; while :; do x=$x$x; done\n")
        args = on(kube_cluster, k8s={"memory": "32Mi", "memory_limit": "48Mi"})
        assert pytest_in(tmp_path, *args, "--madengine-retries=1").wait(PATIENCE) == FAILED
        found = only(tmp_path)
        assert (found.status, found.blame) == ("FAILURE", MODEL)
        assert found.reason == "exit code 137 (killed for lack of memory)"
        assert "so far\n" in log(tmp_path, "m")
        assert kube_cluster.left() == []

    def test_that_succeed_when_tried_again(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        script = "if mkdir /signals/tried; then echo performance: 1 x; exit 5; fi\necho performance: 2 x\n"
        (tmp_path / "signals").mkdir()
        models(tmp_path, card("m"), script=script)
        mounts = {"/signals": str(tmp_path / "signals")}
        args = on(kube_cluster, k8s={"backoff_limit": 1}, docker_mounts=mounts)
        assert pytest_in(tmp_path, *args).wait(PATIENCE) == pytest.ExitCode.OK, said(tmp_path)
        assert only(tmp_path).blame is NONE
        assert [row["performance"] for row in rows(tmp_path / "perf.csv")] == ["2"]
        assert "note: m: after 1 failed try (exit code 5)" in said(tmp_path)
        (earlier,) = job(tmp_path, "m").glob("earlier/*/run.log")
        assert "performance: 1 x" in earlier.read_text()
        assert kube_cluster.left() == []

    def test_of_which_a_rank_fails_end_together(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        models(tmp_path, card("m", distributed=TWO), script=f"[ $NODE_RANK = 0 ] || exit 4\nsleep 600\n{PASSES}")
        started = time.monotonic()
        assert pytest_in(tmp_path, *on(kube_cluster)).wait(PATIENCE) == FAILED
        assert time.monotonic() - started < PROMPT
        found = only(tmp_path)
        assert (found.status, found.blame) == ("FAILURE", MODEL), found
        assert "rank 1 on node" in found.reason
        assert "(exit code 4)" in found.reason
        assert kube_cluster.left() == []


def go(folder: Path) -> None:
    """Let the models of `WAITS` go on."""
    (folder / "signals/go").touch()


def waiting(folder: Path, cluster: KubeCluster, *cards: dict[str, Any], k8s: dict[str, Any] | None = None) -> list[str]:
    """A project whose models wait until they are told to go on, and the options for it."""
    (folder / "signals").mkdir()
    models(folder, *cards, script=WAITS)
    return on(cluster, k8s=k8s, docker_mounts={"/signals": str(folder / "signals")})


def say(folder: Path, *names: str) -> bool:
    """Whether these models have said something here."""
    return all(list(folder.glob(f".madengine/runs/latest/jobs/{name}-*/run.log")) for name in names) and all(
        "so far" in log(folder, name) for name in names
    )


class TestEvictions:
    def test_are_no_models_fault(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        process = pytest_in(tmp_path, *waiting(tmp_path, kube_cluster, card("m")))
        until(lambda: say(tmp_path, "m") or process.poll() is not None)
        (pod,) = kube_cluster.all_of("pods")
        name = pod["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": name}}
        kube_cluster.api.ask("POST", f"{kube_cluster.path('pods', name)}/eviction", eviction)
        assert process.wait(PATIENCE) == FAILED, said(tmp_path)
        found = only(tmp_path)
        assert (found.status, found.blame) == ("FAILURE", INFRASTRUCTURE), found
        assert f"its pod was removed on {pod['spec']['nodeName']}" in found.reason
        assert "so far\n" in log(tmp_path, "m")
        assert kube_cluster.left() == []


class TestOutages:
    """That pass cost no model anything."""

    @pytest.mark.requires_kubernetes(alone=True)
    def test_of_the_api_server(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        args = waiting(tmp_path, kube_cluster, card("a"), card("b"))
        process = pytest_in(tmp_path, *args)
        until(lambda: say(tmp_path, "a", "b") or process.poll() is not None)
        kube_cluster.do("kill-apiserver")
        go(tmp_path)
        time.sleep(3)  # the models are over meanwhile, and nobody can tell
        kube_cluster.do("restart-apiserver")
        assert process.wait(PATIENCE) == pytest.ExitCode.OK, said(tmp_path)
        assert statuses(tmp_path / "perf.csv") == {"a": "SUCCESS", "b": "SUCCESS"}
        assert kube_cluster.left() == []

    @pytest.mark.requires_kubernetes(alone=True)
    def test_of_a_kubelet(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        pinned = {"node_selector": {"kubernetes.io/hostname": "node2"}}
        tolerant = {"tolerations": [{"operator": "Exists", "effect": "NoExecute"}]}
        args = waiting(tmp_path, kube_cluster, card("m"), k8s=pinned | tolerant)
        process = pytest_in(tmp_path, *args)
        until(lambda: say(tmp_path, "m") or process.poll() is not None)
        kube_cluster.do("stop-kubelet", "2")
        go(tmp_path)
        until(lambda: not kube_cluster.node_is_ready("node2"))
        kube_cluster.do("start-kubelet", "2")
        assert process.wait(PATIENCE) == pytest.ExitCode.OK, said(tmp_path)
        assert statuses(tmp_path / "perf.csv") == {"m": "SUCCESS"}
        assert kube_cluster.left() == []

    @pytest.mark.requires_kubernetes(alone=True)
    def test_of_a_node_for_good_are_no_models_fault(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        args = waiting(tmp_path, kube_cluster, card("m"))
        process = pytest_in(tmp_path, *args, "--madengine-retries=1")
        until(lambda: say(tmp_path, "m") or process.poll() is not None)
        (pod,) = kube_cluster.all_of("pods")
        node = pod["spec"]["nodeName"]
        kube_cluster.do("kill-node", node.removeprefix("node"))
        until(lambda: len(told(tmp_path)) == 1)
        go(tmp_path)
        assert process.wait(PATIENCE) == pytest.ExitCode.OK, said(tmp_path)
        lost, ran = told(tmp_path)
        assert (lost.status, lost.blame, ran.status) == ("FAILURE", INFRASTRUCTURE, "SUCCESS")
        assert node in lost.reason
        assert rows(tmp_path / "perf.csv")[-1]["machine_name"] != node
        assert kube_cluster.left() == []


class TestManyAtOnce:
    @pytest.mark.requires_kubernetes(fake_nodes=10)
    def test_are_in_flight_from_one_process(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        """Fake nodes cannot hand results over, so that each model fails, and each by itself."""
        fake = {"name": "model", "env": [{"name": "FAKE_SECONDS", "value": "7200"}]}
        names = [f"m{number:03}" for number in range(MANY)]
        project(tmp_path, *map(card, names))
        process = pytest_in(tmp_path, *on(kube_cluster, k8s={"pod_spec": {"containers": [fake]}}), "-q")
        until(lambda: kinds(tmp_path, journal.SUBMITTED) == MANY or process.poll() is not None, 4 * PATIENCE)
        until(lambda: all(each["status"]["phase"] == "Running" for each in kube_cluster.all_of("pods")))
        assert kinds(tmp_path, journal.ENDED) == 0
        for pod in kube_cluster.all_of("pods"):
            ended(kube_cluster, pod)
        assert process.wait(4 * PATIENCE) == FAILED, said(tmp_path)
        assert sorted(row["model"] for row in rows(tmp_path / "perf.csv")) == names
        found = [only(tmp_path, name) for name in names]
        assert {each.blame for each in found} == {INFRASTRUCTURE}
        assert {"k8s.results_wait" in each.reason for each in found} == {True}
        assert kube_cluster.left() == []


def kinds(folder: Path, kind: str) -> int:
    """How many records of a kind a run has."""
    place = folder / ".madengine/runs/latest"
    return sum(each["kind"] == kind for each in journal.read(place)) if place.exists() else 0


def ended(cluster: KubeCluster, pod: dict[str, Any]) -> None:
    """Have a pod on a fake node succeed."""
    (container,) = pod["status"]["containerStatuses"]
    moments = dict.fromkeys(("startedAt", "finishedAt"), pod["status"]["startTime"])
    state = {"terminated": {"exitCode": 0, "reason": "Completed", **moments}}
    change = {"phase": "Succeeded", "containerStatuses": [{**container, "ready": False, "state": state}]}
    path = f"{cluster.path('pods', pod['metadata']['name'])}/status"
    cluster.api.ask("PATCH", path, {"status": change}, "application/merge-patch+json")


class TestTwoSessions:
    def test_in_one_namespace_leave_each_other_alone(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        folders = [tmp_path / name for name in ("first", "second")]
        processes = []
        for folder in folders:
            folder.mkdir()
            processes.append(pytest_in(folder, *waiting(folder, kube_cluster, card("m"))))
        until(lambda: all(say(folder, "m") for folder in folders))
        go(folders[0])
        assert processes[0].wait(PATIENCE) == pytest.ExitCode.OK, said(folders[0])
        assert {each.partition("/")[0] for each in kube_cluster.left()} == {"pods", "jobs", "configmaps"}
        os.killpg(processes[1].pid, signal.SIGINT)
        assert processes[1].wait(PATIENCE) == pytest.ExitCode.INTERRUPTED
        assert statuses(folders[0] / "perf.csv") == {"m": "SUCCESS"}
        assert statuses(folders[1] / "perf.csv") == {"m": "FAILURE"}
        assert kube_cluster.left() == []
