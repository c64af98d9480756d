from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine.backends import containers, kubemanifest, kubepod, kubescript
from pytest_madengine.backends.kubefiles import MOST_BYTES, MOST_FILES, PART, ROOM, File
from pytest_madengine.backends.kubemanifest import as_yaml, collector, data_claim, manifests, owned_by, shown
from pytest_madengine.backends.kubenames import object_name
from pytest_madengine.backends.kubepod import Load, Manifest, image_of, overlaid
from pytest_madengine.context.kubernetes import Kubernetes
from pytest_madengine.errors import FaultsError, UserError
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Job, Logins, Mount
from pytest_madengine.launchers.base import Topology
from pytest_madengine.secrets import Secret
from tests.backends.kubejobs import FILES, JOB, SEVERAL
from tests.golden import compare

GOLDEN = Path(__file__).parent / "golden"
ROLE = Path(__file__).parents[2] / "docs" / "kubernetes-role.yaml"
VERSIONS = ("1.25", kubernetes_validate.latest_version())
FULL: dict[str, Any] = {
    "namespace": "ml-team",
    "gpu_count": 2,
    "memory": "64Gi",
    "memory_limit": "128Gi",
    "cpu": 16,
    "cpu_limit": "32",
    "node_selector": {"zone": "a"},
    "tolerations": [{"key": "amd.com/gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}],
    "ttl_seconds_after_finished": 3600,
    "allow_privileged_profiling": True,
    "secrets": {"image_pull_secret_names": ["regcred"]},
    "data_pvc": "datasets",
    "results_storage_size": "20Gi",
    "multi_node_results_storage_class": "nfs",
    "host_ipc": True,
    "host_network": True,
    "service_account": "trainer",
    "labels": {"team": "llm"},
    "annotations": {"why": "a: b\n c"},
    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}},
    "priority_class": "high",
    "rdma": {"rdma/hca": 1},
    "topology_spread_constraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "shm_size": "32Gi",
    "queue": "gpus",
    "pod_spec": {"schedulerName": "volcano", "containers": [{"name": "model", "tty": True}]},
}
LOAD = Load("#!/usr/bin/env bash\necho pod\n", FILES)
HIDING = replace(LOAD, credential=Secret('{"hub": {"password": "hunter3"}}'))
LOGINS = Logins(
    (("", "me"), ("registry.example:5000", "ci")),
    {"MADENGINE_PASSWORD_0": Secret("hunter4"), "MADENGINE_PASSWORD_1": Secret("hunter5")},
)
PRIVATE = replace(SEVERAL, logins=LOGINS)
TEXTS = st.text(max_size=30)


def made(job: Job = JOB, load: Load = LOAD, **stated: Any) -> list[Manifest]:
    return manifests(job, Kubernetes.model_validate(stated), load)


def kinds(found: list[Manifest]) -> list[str]:
    return [each["kind"] for each in found]


def the(kind: str, found: list[Manifest]) -> Manifest:
    (only,) = [each for each in found if each["kind"] == kind]
    return only


def pod_spec(found: list[Manifest]) -> Manifest:
    spec: Manifest = found[-1]["spec"]["template"]["spec"]
    return spec


def container(found: list[Manifest]) -> Manifest:
    (only,) = pod_spec(found)["containers"]
    assert isinstance(only, dict)
    return only


def known_to_schemas(each: Manifest) -> Iterator[Manifest]:
    """A manifest as objects of which the schemas know; of an operator's the pods that it would make."""
    if each["kind"] == "JobSet":
        for group in each["spec"]["replicatedJobs"]:
            yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": group["name"]}, **group["template"]}
    elif each["kind"] == "LeaderWorkerSet":
        yield {"apiVersion": "v1", "kind": "Pod", **each["spec"]["leaderWorkerTemplate"]["workerTemplate"]}
    else:
        yield each


def check(found: list[Manifest]) -> None:
    """Meet what the strict schemas refuse."""
    for manifest in found:
        for each in known_to_schemas(manifest):
            for version in VERSIONS:
                kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize(
    ("name", "job", "load", "stated"),
    [
        ("pod", JOB, LOAD, {"gpu_count": 2}),
        ("pods", PRIVATE, HIDING, FULL),
        ("jobset", SEVERAL, LOAD, {"shape": "jobset", "queue": "gpus"}),
        ("leaderworkerset", SEVERAL, LOAD, {"shape": "leaderworkerset"}),
    ],
)
def test_the_objects_of_a_job(name: str, job: Job, load: Load, stated: dict[str, Any]) -> None:
    found = made(job, load, **stated)
    check(found)
    compare(as_yaml(shown(found)), GOLDEN / f"kubernetes-{name}.yaml")


def test_paths_are_those_of_containers_everywhere() -> None:
    assert (containers.JOB, containers.PROJECT, containers.WORKSPACE) == (
        kubepod.JOB,
        kubepod.PROJECT,
        kubepod.WORKSPACE,
    )


def test_what_runs_the_job_comes_last_and_what_it_needs_before() -> None:
    assert kinds(made()) == ["ConfigMap", "Job"]
    found = made(PRIVATE, HIDING, results="claim")
    assert kinds(found) == ["Secret", "Secret", "ConfigMap", "PersistentVolumeClaim", "Service", "Job"]
    owner = {**found[-1], "metadata": {**found[-1]["metadata"], "uid": "1234"}}
    assert owned_by(owner)["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": object_name(SEVERAL), "uid": "1234"}
    ]


def test_pods_of_several_nodes_are_numbered_and_have_names() -> None:
    found = made(SEVERAL)
    spec, service = the("Job", found)["spec"], the("Service", found)
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (4, 4, "Indexed")
    assert pod_spec(found)["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_secrets_stand_in_secrets_alone() -> None:
    found = made(PRIVATE, HIDING)
    rest = [each for each in found if each["kind"] != "Secret"]
    assert "hunter" not in json.dumps(rest)
    assert "hunter" not in as_yaml(shown(found))
    (runtime,) = [each for each in found if each.get("type") == "Opaque"]
    assert {name: b64decode(value).decode() for name, value in runtime["data"].items()} == {
        "HF_TOKEN": "hunter2",
        "credential.json": '{"hub": {"password": "hunter3"}}',
    }
    (pull,) = [each for each in found if each.get("type") == "kubernetes.io/dockerconfigjson"]
    assert json.loads(b64decode(pull["data"][".dockerconfigjson"])) == {
        "auths": {
            "https://index.docker.io/v1/": {"username": "me", "password": "hunter4", "auth": "bWU6aHVudGVyNA=="},
            "registry.example:5000": {"username": "ci", "password": "hunter5", "auth": "Y2k6aHVudGVyNQ=="},
        }
    }


@pytest.mark.parametrize(
    ("strategy", "secrets", "pulled"),
    [
        ("from_local_credentials", ["-pull", "-runtime"], ["-pull", "regcred"]),
        ("existing", ["-runtime"], ["regcred"]),
        ("omit", ["-runtime"], ["regcred"]),
    ],
)
def test_the_strategy_says_where_secrets_come_from(strategy: str, secrets: list[str], pulled: list[str]) -> None:
    stated = {"strategy": strategy, "image_pull_secret_names": ["regcred"], "runtime_secret_name": "tokens"}
    found = made(PRIVATE, HIDING, secrets=stated)
    name = object_name(SEVERAL)
    assert [each["metadata"]["name"].removeprefix(name) for each in found if each["kind"] == "Secret"] == secrets
    assert [each["name"].removeprefix(name) for each in pod_spec(found)["imagePullSecrets"]] == pulled
    given_variables = [{"secretRef": {"name": "tokens"}}] if strategy == "existing" else None
    assert container(found).get("envFrom") == given_variables
    mounts = [mount["name"] for mount in container(found)["volumeMounts"]]
    assert ("credential" in mounts) is (strategy == "from_local_credentials")


def test_a_secret_that_no_variable_can_hold_is_refused() -> None:
    with pytest.raises(FaultsError, match="the variable 'MAD_SECRETS-x': no pod can have it; valid: letters"):
        made(replace(JOB, secrets={"MAD_SECRETS-x": Secret("y")}))


@pytest.mark.parametrize(
    ("image", "policy", "name"),
    [
        (JOB.image, "Always", f"registry.example:5000/ml/llama3@sha256:{'d' * 64}"),
        (Image("rocm/vllm:latest"), "Always", "rocm/vllm:latest"),
        (Image("x", content="1", registry_image="r:5000/x:1"), "Always", "r:5000/x:1"),
        (Image("x", registry_image="r:5000/x", registry_digest="sha256:a"), "Always", "r:5000/x@sha256:a"),
        (Image("ci-x:1", content="1"), "IfNotPresent", "ci-x:1"),
    ],
)
def test_nodes_pull_an_image_by_the_name_that_means_one_image(image: Image, policy: str, name: str) -> None:
    assert image_of(replace(JOB, image=image), Kubernetes.model_validate({"image_pull_policy": policy})) == name


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (replace(JOB, image=None), "llama3-8b has no image"),
        (
            replace(JOB, image=Image("ci-x:1", content="1")),
            "its image ci-x:1 is on this machine alone; valid: an image in",
        ),
        (replace(JOB, self_managed=True), "llama3-8b starts its own containers"),
    ],
)
def test_a_job_that_no_pod_can_run_is_refused(job: Job, words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(job)


def test_a_job_without_limits_or_gpus_asks_for_none() -> None:
    found = made(replace(JOB, limit=None))
    assert container(found)["resources"] == {"requests": {}, "limits": {}}
    assert "activeDeadlineSeconds" not in pod_spec(found)


def test_a_pod_outlives_its_models_limit_by_what_else_takes_time() -> None:
    assert pod_spec(made(results_wait=100))["activeDeadlineSeconds"] == 7200 + 100 + 3600


def test_nodes_that_failed_are_avoided_whatever_affinity_is_stated() -> None:
    terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
    stated = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    off = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in ("n1", "n2")]
    avoiding = replace(JOB, avoid=("n2", "n1", "n2"))
    for affinity, wanted in (({}, [{"matchFields": off}]), (stated, [{**terms[0], "matchFields": off}])):
        found = made(avoiding, affinity=affinity)
        check(found)
        node = pod_spec(found)["affinity"]["nodeAffinity"]
        assert node == {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": wanted}}


def test_mounts_of_the_context_are_folders_of_the_nodes() -> None:
    found = made(replace(JOB, mounts=(Mount("/data sets", "/data2", read_only=True),)))
    check(found)
    assert {"name": "host-0", "hostPath": {"path": "/data sets"}} in pod_spec(found)["volumes"]
    assert {"name": "host-0", "mountPath": "/data2", "readOnly": True} in container(found)["volumeMounts"]


def test_options_of_docker_are_heeded() -> None:
    job = replace(JOB, options=("-v", "/models:/m:ro", "-e", "MODE=fast", "--shm-size=64g", "--cap-add=SYS_NICE"))
    found = made(job)
    check(found)
    assert {"name": "host-0", "mountPath": "/m", "readOnly": True} in container(found)["volumeMounts"]
    assert container(found)["securityContext"] == {"capabilities": {"add": ["SYS_NICE"]}}
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}} in pod_spec(found)["volumes"]
    assert "export MODE=fast\n" in kubescript.pod_script(job, Kubernetes())
    stated = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}
    assert stated in pod_spec(made(job, shm_size="1Gi"))["volumes"]


def test_the_data_of_all_runs_is_on_one_claim() -> None:
    stated = Kubernetes.model_validate({"data_storage_class": "nfs", "namespace": "ml"})
    claim = data_claim(stated)
    check([claim])
    assert claim["spec"]["storageClassName"] == "nfs"
    assert "storageClassName" not in data_claim(Kubernetes())["spec"]
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
    assert volume in pod_spec(made(load=replace(LOAD, data=True)))["volumes"]


def test_results_on_a_claim_are_read_by_a_pod_of_the_jobs_image() -> None:
    stated = Kubernetes.model_validate({**FULL, "results_pvc": "kept"})
    found = collector(SEVERAL, stated)
    check([found])
    (volume,) = found["spec"]["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "kept"}
    assert "PersistentVolumeClaim" not in kinds(manifests(SEVERAL, stated, LOAD))


def files_of(found: list[Manifest]) -> dict[str, tuple[bytes, int]]:
    """What the pod finds under its folder of files, as the kubelet makes it."""
    held: dict[tuple[str, str], bytes] = {}
    for each in found:
        if each["kind"] == "ConfigMap":
            name = each["metadata"]["name"]
            held |= {(name, key): text.encode() for key, text in each.get("data", {}).items()}
            held |= {(name, key): b64decode(text) for key, text in each.get("binaryData", {}).items()}
    (volume,) = [volume for volume in pod_spec(found)["volumes"] if volume["name"] == "files"]
    items = [
        (item["path"], (held.pop((source["configMap"]["name"], item["key"])), item["mode"]))
        for source in volume["projected"]["sources"]
        for item in source["configMap"]["items"]
    ]
    assert held == {}
    assert len(dict(items)) == len(items)
    return dict(items)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.lists(
            st.text(min_size=1, max_size=8).filter(lambda part: part not in "..\0/" and not set(part) & set("/\0")),
            min_size=1,
            max_size=3,
        ).map("/".join),
        st.tuples(st.binary(max_size=20) | TEXTS.map(str.encode), st.integers(0, 0o777)),
        max_size=6,
    )
)
def test_files_of_any_name_and_content_reach_the_pod(files: dict[str, tuple[bytes, int]]) -> None:
    found = made(load=Load("x", [File(path, data, mode) for path, (data, mode) in files.items()]))
    reached = files_of(found)
    assert reached.pop("pod.sh") == (b"x", 0o555)
    assert reached.pop("run.sh") == (JOB.script.encode(), 0o555)
    assert reached == {f"project/{path}": (data, mode | 0o444) for path, (data, mode) in files.items()}
    check(found)
    for each in found:
        assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for key in each.get("data", ()))


def test_files_fill_as_many_config_maps_as_they_need() -> None:
    files = [File(f"scripts/{number}", b"a" * 300_000) for number in range(10)]
    files.append(File("scripts/large", bytes(range(256)) * (PART // 100)))
    found = made(load=Load("x", files))
    sizes = [
        sum(map(len, each.get("data", {}).values()))
        + sum(len(b64decode(v)) for v in each.get("binaryData", {}).values())
        for each in found
        if each["kind"] == "ConfigMap"
    ]
    assert len(sizes) > 3
    assert max(sizes) <= ROOM < 2**20
    reached = files_of(found)
    assert b"".join(reached[path][0] for path in sorted(reached) if path.startswith("parts/10/")) == files[-1].data
    check(found)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            [File("scripts/a", b"a"), File("scripts/weights", b"a" * MOST_BYTES)],
            "llama3-8b.scripts: 8.0 MiB of files, 'scripts/weights' the largest; valid: at most 8 MiB: put them into "
            "the image, a git repository (the card's 'url') or k8s.data_pvc",
        ),
        (
            [File(str(number), b"") for number in range(MOST_FILES + 1)],
            "llama3-8b.scripts: 1001 files; valid: at most 1000: ",
        ),
        (
            [File("a/../../b", b"")],
            "llama3-8b.scripts: no pod can have the path 'a/../../b'; valid: UTF-8 without '..'",
        ),
        ([File("\udcff", b"")], "llama3-8b.scripts: no pod can have the path '\\udcff'; valid: UTF-8 without '..'"),
    ],
)
def test_files_that_no_pod_can_have_are_refused(files: list[File], words: str) -> None:
    with pytest.raises(FaultsError) as caught:
        made(load=Load("x", files))
    assert str(caught.value).startswith(words)


def test_the_stated_spec_of_pods_stands_above_all() -> None:
    overlay = {
        "terminationGracePeriodSeconds": 5,
        "subdomain": None,
        "containers": [
            {"name": "model", "env": [{"name": "A", "value": "b"}], "resources": {"limits": {"memory": "1Gi"}}},
            {"name": "sidecar", "image": "x"},
        ],
        "volumes": [{"name": "shm", "emptyDir": {"medium": None}}],
    }
    found = made(SEVERAL, pod_spec=overlay, memory_limit="2Gi", cpu_limit="1")
    check(found)
    spec = pod_spec(found)
    model, sidecar = spec["containers"]
    assert (spec["terminationGracePeriodSeconds"], "subdomain" in spec) == (5, False)
    assert model["resources"]["limits"] == {"memory": "1Gi", "cpu": "1"}
    assert {"name": "A", "value": "b"} in model["env"]
    assert any(each["name"] == "HF_TOKEN" for each in model["env"])
    assert sidecar == {"name": "sidecar", "image": "x"}
    assert {"name": "shm", "emptyDir": {"sizeLimit": "16Gi"}} in spec["volumes"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(TEXTS, JSON, max_size=4), st.dictionaries(TEXTS, JSON, max_size=4))
def test_a_spec_over_another_leaves_no_nulls_of_its_own_and_is_the_same_twice(
    below: dict[str, Any], above: dict[str, Any]
) -> None:
    once = overlaid(below, above)
    assert overlaid(once, above) == once
    assert overlaid(below, {}) == below


@settings(deadline=None, max_examples=30)
@given(TEXTS, TEXTS, TEXTS, st.dictionaries(st.from_regex(r"[A-Z_]{1,6}", fullmatch=True), TEXTS, max_size=3))
def test_manifests_of_any_values_are_valid_and_survive_yaml(
    name: str, script: str, run: str, secrets: dict[str, str]
) -> None:
    hidden = {key: Secret(value) for key, value in secrets.items()}
    job = replace(PRIVATE, name=name, script=script, run=run, id=f"madengine-{run}-{name}", secrets=hidden)
    stated = {"annotations": {"note": name}, "pod_spec": {"containers": [{"name": "model", "args": [script]}]}}
    found = made(job, HIDING, **stated)
    check(found)
    assert list(yaml.safe_load_all(as_yaml(found))) == found
    assert json.loads(json.dumps(found)) == found


def test_a_script_is_shown_line_by_line() -> None:
    assert "data:\n  pod.sh: |\n    #!/usr/bin/env bash\n    echo pod\n" in as_yaml(made())


def test_a_jobset_and_a_leaderworkerset_say_no_more_than_their_operators_know() -> None:
    jobset = made(SEVERAL, shape="jobset", queue="q", ttl_seconds_after_finished=1)[-1]["spec"]
    assert jobset.keys() <= {"network", "failurePolicy", "replicatedJobs", "suspend", "ttlSecondsAfterFinished"}
    assert jobset["network"].keys() <= {"enableDNSHostnames", "subdomain", "publishNotReadyAddresses"}
    assert all(group.keys() == {"name", "replicas", "template"} for group in jobset["replicatedJobs"])
    leader = made(SEVERAL, shape="leaderworkerset")[-1]["spec"]
    assert leader.keys() <= {"replicas", "startupPolicy", "networkConfig", "leaderWorkerTemplate"}
    assert leader["leaderWorkerTemplate"].keys() <= {"size", "restartPolicy", "workerTemplate"}
    assert leader["leaderWorkerTemplate"]["workerTemplate"]["spec"].keys().isdisjoint({"restartPolicy", "subdomain"})


def test_a_job_on_the_pods_of_an_operator_is_the_same_script() -> None:
    job = replace(SEVERAL, topology=Topology(2))
    scripts = {
        shape: kubescript.pod_script(job, Kubernetes.model_validate({"shape": shape})) for shape in kubemanifest.SHAPES
    }
    assert "LWS_WORKER_INDEX" in scripts["leaderworkerset"]
    assert "JOB_COMPLETION_INDEX" in scripts["jobset"]


def test_the_documented_role_is_valid_and_gives_what_manifests_need() -> None:
    documents = list(yaml.safe_load_all(ROLE.read_text(encoding="utf-8")))
    check(documents)
    role = the("Role", documents)
    may = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    for shape in kubemanifest.SHAPES:
        for each in made(PRIVATE, HIDING, shape=shape, results="claim"):
            group = each["apiVersion"].rpartition("/")[0]
            resource = f"{each['kind'].lower()}s"
            assert {(group, resource, verb) for verb in ("create", "get", "delete")} <= may
