"""The cluster is what its users take it for."""

from __future__ import annotations

import base64
import contextlib
import socket
import subprocess
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from kubernetes import client, config, stream

from tests.engines.kube import KubeCluster, refusal
from tests.engines.registries import Images, Registry

pytestmark = pytest.mark.requires_kubernetes


def ended(cluster: KubeCluster, command: str) -> tuple[str, str]:
    """How a pod ends, and what it says."""
    cluster.pod("pod", command)
    cluster.until_phase("pod", "Succeeded", "Failed")
    return cluster.phase("pod"), cluster.log("pod")


@contextlib.contextmanager
def official(configuration: Path) -> Iterator[client.CoreV1Api]:
    """The official client, which leaves its connections open."""
    connection = config.new_client_from_config(str(configuration))  # type: ignore[no-untyped-call]
    yield client.CoreV1Api(connection)
    connection.rest_client.pool_manager.clear()


def test_job_runs_to_its_end(kube_cluster: KubeCluster) -> None:
    kube_cluster.job("job", kube_cluster.template("echo hello"))
    assert kube_cluster.until_ended("job") == "Complete"
    (pod,) = kube_cluster.pods_of("job")
    assert kube_cluster.log(pod["metadata"]["name"]) == "hello\n"


def test_exit_code_is_told(kube_cluster: KubeCluster) -> None:
    kube_cluster.job("job", kube_cluster.template("exit 7"))
    assert kube_cluster.until_ended("job") == "Failed"
    assert kube_cluster.conditions("jobs", "job") == {"Failed": "BackoffLimitExceeded"}
    (pod,) = kube_cluster.pods_of("job")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


def test_official_client_follows_logs_and_runs_commands(kube_cluster: KubeCluster) -> None:
    kube_cluster.pod("pod", "until [[ -e /tmp/go ]]; do sleep 0.05; done; cat /tmp/go")
    kube_cluster.until_phase("pod", "Running")
    command = ["bash", "-c", "echo went > /tmp/going; mv /tmp/going /tmp/go; echo said"]
    with official(kube_cluster.config) as core:
        where = (core.connect_get_namespaced_pod_exec, "pod", kube_cluster.namespace)
        options = {"stdout": True, "stderr": True, "stdin": False, "tty": False, "_preload_content": False}
        running = stream.stream(*where, command=command, **options)
        running.run_forever(timeout=20)
        assert (running.read_stdout(), running.returncode) == ("said\n", 0)
        running.sock.shutdown()  # what the other end closed, close() leaves open
        assert core.read_namespaced_pod_log("pod", kube_cluster.namespace, follow=True) == "went\n"


def test_gpus_are_counted(kube_cluster: KubeCluster) -> None:
    kube_cluster.pod("greedy", "true", gpus=9)
    kube_cluster.until(lambda: "FailedScheduling" in kube_cluster.reasons("greedy"), "no event")
    (condition,) = kube_cluster.get("pods", "greedy")["status"]["conditions"]
    assert (condition["reason"], condition["status"]) == ("Unschedulable", "False")
    assert "Insufficient amd.com/gpu" in condition["message"]


def test_nodes_are_like_machines_with_gpus(kube_cluster: KubeCluster) -> None:
    wish = {"cpu": "64", "memory": "256Gi"}
    template = kube_cluster.template("hostname", gpus=8, nodeName="node2", hostNetwork=True)
    template["spec"]["containers"][0]["resources"]["requests"] = wish
    kube_cluster.job("job", template)
    assert kube_cluster.until_ended("job") == "Complete"
    assert kube_cluster.log(kube_cluster.pods_of("job")[0]["metadata"]["name"]) == "node2\n"


def test_indexed_job_knows_its_indexes_and_names(kube_cluster: KubeCluster) -> None:
    kube_cluster.create("services", "ranks", spec={"clusterIP": "None", "selector": {"job-name": "job"}})
    names = "$(for i in 0 1 2 3; do until getent hosts job-$i.ranks; do sleep 0.1; done; done | wc -l)"
    template = kube_cluster.template(f"echo $JOB_COMPLETION_INDEX $HOSTNAME {names}; sleep 3", subdomain="ranks")
    kube_cluster.job("job", template, completions=4, parallelism=4, completionMode="Indexed")
    assert kube_cluster.get("jobs", "job")["spec"]["completionMode"] == "Indexed"
    assert kube_cluster.until_ended("job") == "Complete"
    said = [kube_cluster.log(pod["metadata"]["name"]) for pod in kube_cluster.pods_of("job")]
    assert said == [f"{index} job-{index} 4\n" for index in range(4)]


def test_index_of_a_failed_pod_is_tried_again(kube_cluster: KubeCluster) -> None:
    template = kube_cluster.template("[[ $JOB_COMPLETION_INDEX == 0 ]] || { mkdir /shared/tried && exit 1 || exit 0; }")
    kube_cluster.create("persistentvolumeclaims", "shared", spec=claim("ReadWriteMany"))
    mount(template)
    kube_cluster.job("job", template, completions=2, parallelism=2, completionMode="Indexed", backoffLimit=2)
    assert kube_cluster.until_ended("job") == "Complete"
    label = "batch.kubernetes.io/job-completion-index"
    tried = [(pod["metadata"]["labels"][label], pod["status"]["phase"]) for pod in kube_cluster.pods_of("job")]
    assert sorted(tried) == [("0", "Succeeded"), ("1", "Failed"), ("1", "Succeeded")]


def test_old_cluster_drops_the_completion_mode(kube_cluster: KubeCluster) -> None:
    kube_cluster.forget_completion_mode()
    kube_cluster.job("job", kube_cluster.template("true"), completions=2, completionMode="Indexed")
    assert kube_cluster.get("jobs", "job")["spec"]["completionMode"] == "NonIndexed"


def test_suspended_job_has_no_pods_until_it_is_resumed(kube_cluster: KubeCluster) -> None:
    kube_cluster.job("job", kube_cluster.template("true"), suspend=True)
    kube_cluster.until(lambda: kube_cluster.conditions("jobs", "job") == {"Suspended": "JobSuspended"}, "not told")
    assert kube_cluster.all_of("pods") == []
    path = kube_cluster.path("jobs", "job")
    kube_cluster.api.ask("PATCH", path, {"spec": {"suspend": False}}, "application/merge-patch+json")
    assert kube_cluster.until_ended("job") == "Complete"


def claim(*modes: str, **spec: object) -> dict[str, object]:
    """The specification of a small claim."""
    return {"accessModes": modes, "resources": {"requests": {"storage": "1Mi"}}, **spec}


def mount(template: dict[str, dict[str, object]]) -> None:
    """Let a template's container see the claim `shared`."""
    spec = template["spec"]
    spec["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}]
    spec["containers"][0]["volumeMounts"] = [{"name": "shared", "mountPath": "/shared"}]  # type: ignore[index]


def test_volume_is_shared_by_nodes_and_goes_with_its_claim(kube_cluster: KubeCluster) -> None:
    kube_cluster.create("persistentvolumeclaims", "shared", spec=claim("ReadWriteMany"))
    for node, command in (
        ("node1", "echo hello > /shared/word"),
        ("node2", "until cat /shared/word; do sleep 0.1; done"),
    ):
        template = kube_cluster.template(command, nodeName=node)
        mount(template)
        kube_cluster.create("pods", node, **template)
    kube_cluster.until_phase("node2", "Succeeded")
    assert kube_cluster.log("node2").endswith("hello\n")
    volume = kube_cluster.get("persistentvolumeclaims", "shared")["spec"]["volumeName"]
    kube_cluster.delete("pods", "node1")
    kube_cluster.delete("pods", "node2")
    kube_cluster.delete("persistentvolumeclaims", "shared")
    path = f"/api/v1/persistentvolumes/{volume}"
    kube_cluster.until(lambda: volume not in str(kube_cluster.api.ask("GET", path.rpartition("/")[0])), "it stays")


def test_class_for_one_node_refuses_to_share(kube_cluster: KubeCluster) -> None:
    spec = claim("ReadWriteMany", storageClassName="single-test")
    kube_cluster.create("persistentvolumeclaims", "shared", spec=spec)
    kube_cluster.until(lambda: "ProvisioningFailed" in kube_cluster.reasons("shared"), "no event")
    assert kube_cluster.get("persistentvolumeclaims", "shared")["status"]["phase"] == "Pending"


def test_quota_refuses_pods(kube_cluster: KubeCluster) -> None:
    kube_cluster.quota(pods=1)
    kube_cluster.job("job", kube_cluster.template("sleep 60"), completions=2, parallelism=2)
    kube_cluster.until(lambda: "FailedCreate" in kube_cluster.reasons("job"), "no event")
    assert len(kube_cluster.all_of("pods")) == 1
    status, text = refusal(lambda: kube_cluster.pod("pod", "true"))
    assert (status, "exceeded quota" in text) == (HTTPStatus.FORBIDDEN, True)


def test_weak_account_may_do_only_what_it_is_told(kube_cluster: KubeCluster) -> None:
    weak = kube_cluster.account({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]})
    with official(weak) as core:
        assert core.list_namespaced_pod(kube_cluster.namespace).items == []
        with pytest.raises(client.ApiException) as refused:
            core.list_namespaced_secret(kube_cluster.namespace)
    assert (refused.value.status, "cannot list resource" in str(refused.value.body)) == (403, True)


def test_memory_has_a_limit(kube_cluster: KubeCluster) -> None:
    template = kube_cluster.template("x=x; while :; do x=$x$x; done")
    template["spec"]["containers"][0]["resources"] = {"limits": {"memory": "32Mi"}}
    kube_cluster.create("pods", "pod", **template)
    kube_cluster.until_phase("pod", "Failed")
    (status,) = kube_cluster.get("pods", "pod")["status"]["containerStatuses"]
    assert status["state"]["terminated"]["reason"] == "OOMKilled"


def test_unknown_image_is_told(kube_cluster: KubeCluster) -> None:
    template = kube_cluster.template("true")
    template["spec"]["containers"][0]["image"] = "127.0.0.1:1/none:1"
    kube_cluster.create("pods", "pod", **template)

    def reason() -> str:
        (status,) = kube_cluster.get("pods", "pod")["status"].get("containerStatuses") or [{"state": {}}]
        return str(status["state"].get("waiting", {}).get("reason"))

    kube_cluster.until(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"), "no reason")


def pushed(image: str, registry: Registry, folder: Path) -> str:
    """The name of an image in a registry, where it now is."""
    docker = ["docker", "--config", str(folder)]
    remote = f"{registry.address}/{image}"
    if login := registry.login:
        argv = [*docker, "login", f"--username={login.username}", "--password-stdin", registry.address]
        subprocess.run(argv, capture_output=True, check=True, input=login.password.encode())
    for argv in ([*docker, "tag", image, remote], [*docker, "push", "--quiet", remote]):
        subprocess.run(argv, capture_output=True, check=True)
    return remote


@pytest.mark.requires_registry
@pytest.mark.parametrize("fixture", ["registry", "private_registry"])
def test_images_are_pulled_from_a_registry(
    kube_cluster: KubeCluster, images: Images, tmp_path: Path, request: pytest.FixtureRequest, fixture: str
) -> None:
    registry: Registry = request.getfixturevalue(fixture)
    containers = [{"name": "main", "image": pushed(images.make(), registry, tmp_path), "command": ["none"]}]
    spec: dict[str, object] = {"containers": containers}
    if registry.login:
        data = {".dockerconfigjson": base64.b64encode((tmp_path / "config.json").read_bytes()).decode()}
        kube_cluster.create("secrets", "login", type="kubernetes.io/dockerconfigjson", data=data)
        spec["imagePullSecrets"] = [{"name": "login"}]
    with kube_cluster.reaching(registry.address):
        kube_cluster.create("pods", "pod", spec=spec)
        kube_cluster.until(lambda: "Pulled" in kube_cluster.reasons("pod"), "not pulled", 20)


def test_pods_reach_the_api_as_the_service_kubernetes(kube_cluster: KubeCluster) -> None:
    call = "exec 3<>/dev/tcp/$KUBERNETES_SERVICE_HOST/$KUBERNETES_SERVICE_PORT && getent hosts kubernetes.default.svc"
    state, said = ended(kube_cluster, call)
    assert (state, said.split()[-1]) == ("Succeeded", "kubernetes.default.svc.cluster.local")


def test_what_is_left_is_listed(kube_cluster: KubeCluster) -> None:
    assert kube_cluster.left() == []
    second = kube_cluster.another_namespace()
    kube_cluster.create("configmaps", "first", data={})
    name = {"metadata": {"name": "second", "labels": {"run": "1"}}}
    kube_cluster.api.ask("POST", kube_cluster.path("secrets", namespace=second), name)
    assert kube_cluster.left() == ["configmaps/first", "secrets/second"]
    assert kube_cluster.left("run=1") == ["secrets/second"]


@pytest.mark.requires_kubernetes(fake_nodes=20)
def test_fake_nodes_run_many_pods_at_once(kube_cluster: KubeCluster) -> None:
    template = kube_cluster.template("true", gpus=1)
    behaviour = {"FAKE_SECONDS": "2", "FAKE_LOG": "pretended"}
    env = [{"name": name, "value": value} for name, value in behaviour.items()]
    template["spec"]["containers"][0]["env"] = env
    kube_cluster.job("job", template, completions=100, parallelism=100)
    assert kube_cluster.until_ended("job") == "Complete"
    pods = kube_cluster.pods_of("job")
    assert len({pod["spec"]["nodeName"] for pod in pods}) > 10
    assert kube_cluster.log(pods[0]["metadata"]["name"]) == "pretended\n"


@pytest.mark.requires_kubernetes(alone=True)
def test_pods_outlive_the_apiserver(kube_cluster: KubeCluster) -> None:
    kube_cluster.pod("pod", "sleep 3; echo done")
    kube_cluster.until_phase("pod", "Running")
    kube_cluster.do("kill-apiserver")
    address = kube_cluster.api.address
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port or 0), 5).close()
    kube_cluster.do("restart-apiserver")
    kube_cluster.until_phase("pod", "Succeeded")
    assert kube_cluster.log("pod") == "done\n"


@pytest.mark.requires_kubernetes(alone=True)
def test_node_without_kubelet_is_given_up_and_comes_back(kube_cluster: KubeCluster) -> None:
    kube_cluster.pod("pod", "sleep 100", nodeName="node2", tolerations=[{"operator": "Exists"}])
    kube_cluster.until_phase("pod", "Running")
    kube_cluster.do("stop-kubelet", "2")
    kube_cluster.until(lambda: not kube_cluster.node_is_ready("node2"), "it is trusted")
    assert kube_cluster.phase("pod") == "Running"
    kube_cluster.do("start-kubelet", "2")
    assert kube_cluster.node_is_ready("node2")
    assert kube_cluster.phase("pod") == "Running"


@pytest.mark.requires_kubernetes(alone=True)
def test_pods_of_a_dead_node_are_given_up(kube_cluster: KubeCluster) -> None:
    kube_cluster.job("job", kube_cluster.template("sleep 100", nodeSelector={"kubernetes.io/hostname": "node2"}))
    kube_cluster.until(lambda: kube_cluster.pods_of("job"), "no pod")
    (pod,) = kube_cluster.pods_of("job")
    kube_cluster.until_phase(pod["metadata"]["name"], "Running")
    kube_cluster.do("kill-node", "2")
    path = kube_cluster.path("pods", pod["metadata"]["name"])
    kube_cluster.until(lambda: "deletionTimestamp" in kube_cluster.api.ask("GET", path)["metadata"], "not given up")
    kube_cluster.do("start-node", "2")
    assert kube_cluster.node_is_ready("node2")
