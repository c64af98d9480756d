"""The objects of jobs on a real cluster: taken by its API, run by its kubelets, gone with their Job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_madengine.backends.kubefiles import File
from pytest_madengine.backends.kubemanifest import collector, data_claim, manifests, owned_by
from pytest_madengine.backends.kubenames import of_run
from pytest_madengine.backends.kubepod import Load, Manifest
from pytest_madengine.backends.kubescript import READY, pod_script
from pytest_madengine.context.kubernetes import Kubernetes
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Job, Logins
from pytest_madengine.launchers.base import Topology
from pytest_madengine.secrets import Secret
from tests.backends.kubejobs import FILES
from tests.backends.test_kubemanifest import FULL, PRIVATE
from tests.backends.test_kubescript import LARGE, model
from tests.engines.kube import KubeCluster
from tests.engines.kubeparts.api import Api

pytestmark = pytest.mark.requires_kubernetes
MERGE = "application/merge-patch+json"
AWKWARD = (
    File('scripts/llama3/a "b" $c', b"\x00\xff"),
    File("scripts/llama3/\u00fc\u2028\U0001f600.txt", "\u00fc\x85\n\tx".encode(), 0o600),
    File("scripts/llama3/-rf/..x", b""),
)


def of(cluster: KubeCluster, **stated: Any) -> Kubernetes:
    given = {"image_pull_policy": "IfNotPresent", "namespace": cluster.namespace, "results_wait": 1, "backoff_limit": 0}
    return Kubernetes.model_validate({**given, **stated})


def kind(manifest: Manifest) -> str:
    return f"{manifest['kind'].lower()}s"


def create(cluster: KubeCluster, found: list[Manifest], query: str = "") -> list[dict[str, Any]]:
    return [cluster.api.ask("POST", f"{cluster.path(kind(each))}{query}", each) for each in found]


def made(cluster: KubeCluster, job: Job, files: tuple[File, ...] = (), **stated: Any) -> list[Manifest]:
    section = of(cluster, **stated)
    return manifests(job, section, Load(pod_script(job, section, files), files))


def local(cluster: KubeCluster, script: str, **changes: Any) -> Job:
    """A job whose image the nodes have."""
    return replace(model(script), image=Image(cluster.image), **changes)


def test_the_api_takes_all_that_can_be_stated(kube_cluster: KubeCluster) -> None:
    section = of(kube_cluster, **{**FULL, "namespace": kube_cluster.namespace, "priority_class": None})
    load = Load("x", (*FILES, *LARGE, *AWKWARD), Secret("{}"), data=True)
    found = [*manifests(PRIVATE, section, load), collector(PRIVATE, section), data_claim(section)]
    answers = create(kube_cluster, found, "?dryRun=All")
    assert [each["kind"] for each in answers] == [each["kind"] for each in found]
    script = next(each for each in answers if each["kind"] == "ConfigMap")
    assert script["binaryData"] == next(each for each in found if each["kind"] == "ConfigMap")["binaryData"]


def test_a_pod_runs_the_model_with_its_files_and_secrets(kube_cluster: KubeCluster) -> None:
    script = "./run.sh; ls -A; echo $HF_TOKEN | rev; stat -c %a run.sh; wc -c '../scripts/my model/large.bin'; exit 7"
    job = local(kube_cluster, script, secrets={"HF_TOKEN": Secret("hunter2")}, env={"A": "$(HF_TOKEN) `id`"})
    *needed, runner = made(kube_cluster, job, (*FILES, *AWKWARD, *LARGE), data_pvc=None)
    create(kube_cluster, [*needed, runner])
    name = runner["metadata"]["name"]
    assert kube_cluster.until_ended(name) == "Failed"
    (pod,) = kube_cluster.pods_of(name)
    (status,) = pod["status"]["containerStatuses"]
    log = kube_cluster.log(pod["metadata"]["name"])
    assert status["state"]["terminated"]["exitCode"] == 7, log
    for words in (
        "hello\n",
        "\u00fc\u2028\U0001f600.txt",
        "2retnuh\n755\n",
        "768000 ../scripts/my model/large.bin\n",
        READY,
    ):
        assert words in log


def test_whatever_belongs_to_a_job_vanishes_with_it(kube_cluster: KubeCluster) -> None:
    logins = Logins((("registry.example", "me"),), {"MADENGINE_PASSWORD_0": Secret("hunter4")})
    job = local(kube_cluster, "sleep 7200", secrets={"HF_TOKEN": Secret("x")}, logins=logins)
    job = replace(job, topology=Topology.of_cluster(2, 1))
    found = made(kube_cluster, job, results="claim")
    *needed, runner = create(kube_cluster, found)
    for each, answer in zip(found, needed, strict=False):
        path = kube_cluster.path(kind(each), answer["metadata"]["name"])
        kube_cluster.api.ask("PATCH", path, owned_by({**found[-1], "metadata": runner["metadata"]}), MERGE)
    left = kube_cluster.left(of_run(job.run))
    assert {each.partition("/")[0] for each in left} >= {kind(each) for each in found}
    kube_cluster.delete("jobs", runner["metadata"]["name"])
    kube_cluster.until(lambda: not kube_cluster.left(of_run(job.run)), "something is left")


def test_pods_of_one_job_are_numbered_and_find_each_other(kube_cluster: KubeCluster) -> None:
    script = "echo rank $NODE_RANK, $NODE_IPS, $MASTER_ADDR"
    job = local(kube_cluster, script, topology=Topology.of_cluster(3, 1))
    (*_, runner) = create(kube_cluster, made(kube_cluster, job))
    assert runner["spec"]["completionMode"] == "Indexed"
    name = runner["metadata"]["name"]
    ended = kube_cluster.until_ended(name)
    logs = [kube_cluster.log(pod["metadata"]["name"]) for pod in kube_cluster.pods_of(name)]
    assert ended == "Complete", logs
    by_rank = {pod["spec"]["hostname"]: pod for pod in kube_cluster.pods_of(name)}
    pods = [by_rank[f"{name}-{rank}"] for rank in range(3)]
    addresses = [str(pod["status"]["podIP"]) for pod in pods]
    for rank, pod in enumerate(pods):
        log = kube_cluster.log(pod["metadata"]["name"])
        assert f"rank {rank}, {','.join(addresses)}, {name}-0.{name}\n" in log


def test_the_documented_role_is_enough(kube_cluster: KubeCluster, tmp_path: Path) -> None:
    documents = yaml.safe_load_all(
        (Path(__file__).parents[2] / "docs/kubernetes-role.yaml").read_text(encoding="utf-8")
    )
    (role,) = [each for each in documents if each["kind"] == "Role"]
    config = yaml.safe_load(kube_cluster.account(*role["rules"]).read_text(encoding="utf-8"))
    token = config["users"][0]["user"]["token"]
    job = local(kube_cluster, "echo", secrets={"HF_TOKEN": Secret("x")}, topology=Topology.of_cluster(2, 1))
    for each in made(kube_cluster, job, results="claim"):
        assert _ask_as(kube_cluster.api, token, kube_cluster.path(kind(each)), each) == 201


def _ask_as(api: Api, token: str, path: str, body: Manifest) -> int:
    """The status of creating something as a service account."""
    import http.client
    import json
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(api.address.hostname or "", api.address.port, context=context, timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    connection.request("POST", f"{path}?dryRun=All", json.dumps(body), headers)
    status = connection.getresponse().status
    connection.close()
    return status
