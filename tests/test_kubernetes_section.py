"""What users state of pods, images, files and results holds on a real cluster."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.support import BASE_IMAGE, until
from tests.cards import PASSES, card, project, rows, run_bare
from tests.engines.kube import KubeCluster
from tests.engines.registries import Registry
from tests.test_dryrun import DRY
from tests.test_kubernetes_disasters import go, waiting
from tests.test_kubernetes_runs import leaks, log, on, values
from tests.test_resume import PATIENCE, pytest_in, said

pytestmark = pytest.mark.requires_kubernetes

EXAMPLES = Path(__file__).parents[1] / "examples/kubernetes"
IMAGE = "registry.example.com/ml/train:1"
SHOWS = """env
ls /var/run/secrets/kubernetes.io/serviceaccount 2>/dev/null
echo "host: $(uname -n)"
"""


class TestPods:
    def test_run_where_and_as_what_the_section_says(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        kube_cluster.create("serviceaccounts", "trainer")
        match = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node2"]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [match]}]}
        spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        section: dict[str, Any] = {
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
            "priority_class": "system-node-critical",
            "service_account": "trainer",
            "host_ipc": True,
            "host_network": True,
            "topology_spread_constraints": [spread],
            "labels": {"team": "llm"},
            "annotations": {"why": 'it\'s "quoted"\nin lines'},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "ttl_seconds_after_finished": 900,
            "pod_spec": {"containers": [{"name": "model", "env": [{"name": "OVERLAID", "value": "yes"}]}]},
        }
        project(pytester.path, card("m"), script=f"{SHOWS}echo ipc: $(readlink /proc/self/ns/ipc)\n{PASSES}")
        run_bare(pytester, *on(kube_cluster, k8s=section), "--madengine-keep-alive").assert_outcomes(passed=1)
        found = values(log(pytester.path, "m"))
        assert (found["MAD_K8S_NODE_NAME"], found["OVERLAID"]) == ("node2", "yes")
        assert "host: node2\n" in log(pytester.path, "m")
        assert "token\n" in log(pytester.path, "m")
        (pod,) = kube_cluster.all_of("pods")
        spec, metadata = pod["spec"], pod["metadata"]
        assert (spec["priorityClassName"], spec["serviceAccountName"]) == ("system-node-critical", "trainer")
        assert (spec["hostIPC"], spec["hostNetwork"]) == (True, True)
        (spreads,) = spec["topologySpreadConstraints"]
        assert spread.items() <= spreads.items()
        assert section["tolerations"][0] in spec["tolerations"]
        assert section["labels"].items() <= metadata["labels"].items()
        assert section["annotations"].items() <= metadata["annotations"].items()
        (runner,) = kube_cluster.all_of("jobs")
        assert runner["spec"]["ttlSecondsAfterFinished"] == 900
        assert runner["spec"]["template"]["spec"]["activeDeadlineSeconds"] > 0

    def test_have_the_network_devices_that_are_asked_for(
        self, pytester: pytest.Pytester, kube_cluster: KubeCluster
    ) -> None:
        project(pytester.path, card("m"))
        result = run_bare(pytester, *on(kube_cluster, k8s={"rdma": {"rdma/hca": 2}}))
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*no node has 2 rdma/hca (the most is 0)*"])
        assert kube_cluster.left() == []

    def test_of_a_queue_wait_until_they_are_admitted(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        args = waiting(tmp_path, kube_cluster, card("m"), k8s={"queue": "gpus"})
        process = pytest_in(tmp_path, *args)
        until(lambda: "pending (suspended: the queue gpus has not admitted it)" in said(tmp_path))
        (held,) = kube_cluster.all_of("jobs")
        assert held["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
        path = kube_cluster.path("jobs", held["metadata"]["name"])
        kube_cluster.api.ask("PATCH", path, {"spec": {"suspend": False}}, "application/merge-patch+json")
        go(tmp_path)
        assert process.wait(PATIENCE) == pytest.ExitCode.OK, said(tmp_path)
        assert kube_cluster.left() == []


@pytest.fixture
def base(docker_engine: str) -> Iterator[str]:
    """Something that no other image has; the images that have it go with the test."""
    mark = secrets.token_hex(6)
    yield mark
    found = ["docker", "images", "--all", "--quiet", f"--filter=label=kubernetes-test={mark}"]
    ids = subprocess.run(found, capture_output=True, check=True, text=True).stdout.split()
    if ids:
        subprocess.run(["docker", "rmi", "--force", *set(ids)], capture_output=True, check=False)


class TestImages:
    @pytest.mark.requires_registry
    def test_are_built_pushed_and_pulled_by_digest_with_a_login(
        self, tmp_path: Path, kube_cluster: KubeCluster, private_registry: Registry, base: str
    ) -> None:
        login = private_registry.login
        assert login
        (tmp_path / "docker").mkdir()
        lines = (f"FROM {BASE_IMAGE}", f"LABEL kubernetes-test={base}", f"RUN echo {base} >/mark")
        (tmp_path / "docker/m.ubuntu.amd.Dockerfile").write_text("\n".join(lines))
        args = waiting(tmp_path, kube_cluster, card("m", dockerfile="docker/m"), k8s={"image_pull_policy": "Always"})
        (tmp_path / "scripts/m.sh").write_text(f"cat /mark\n{(tmp_path / 'scripts/m.sh').read_text()}")
        (tmp_path / "credential.json").write_text(json.dumps({private_registry.address: login.entry()}))
        given = {**json.loads(args[1].partition("=")[2]), "docker_image": None}
        args[1] = f"--madengine-context={json.dumps(given)}"
        with kube_cluster.reaching(private_registry.address):
            process = pytest_in(tmp_path, *args, f"--madengine-registry={private_registry.address}/ml")
            until(lambda: process.poll() is not None or "Running" in phases(kube_cluster))
            pods = kube_cluster.all_of("pods")
            go(tmp_path)
            assert process.wait(PATIENCE) == pytest.ExitCode.OK, said(tmp_path)
        (image,) = (each["spec"]["containers"][0]["image"] for each in pods)
        assert image.startswith(f"{private_registry.address}/ml")
        assert "@sha256:" in image
        assert f"{base}\n" in log(tmp_path, "m")
        assert leaks(tmp_path, login.password) == []
        assert login.password not in said(tmp_path)
        assert kube_cluster.left() == []


def phases(cluster: KubeCluster) -> set[str]:
    return {each["status"]["phase"] for each in cluster.all_of("pods")}


class TestFiles:
    def test_of_any_name_reach_the_pod_also_beyond_a_mebibyte(
        self, pytester: pytest.Pytester, kube_cluster: KubeCluster
    ) -> None:
        project(pytester.path, card("m", scripts="scripts/m"))
        contents = {
            "größe é.txt": "ü\u2028\n".encode(),
            "a-b/c.txt": b"1\n",
            "a/b-c.txt": b"2\n",
            'it\'s "q" $HOME `x`.bin': bytes(range(256)),
            "three.bin": secrets.token_bytes(3 << 20),
            "half.txt": b"x" * (700 << 10),
            "other.txt": b"y" * (700 << 10),
            "empty": b"",
        }
        for name, content in contents.items():
            path = pytester.path / "scripts/m" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (pytester.path / "scripts/m/run.sh").write_text(f"find . -type f -exec sha256sum {{}} +\n{PASSES}")
        run_bare(pytester, *on(kube_cluster)).assert_outcomes(passed=1)
        found = log(pytester.path, "m")
        for name, content in contents.items():
            assert f"{hashlib.sha256(content).hexdigest()}  ./{name}\n" in found
        assert kube_cluster.left() == []

    def test_that_are_too_many_or_too_large_are_named(
        self, pytester: pytest.Pytester, kube_cluster: KubeCluster
    ) -> None:
        project(pytester.path, card("m", scripts="scripts/m"))
        (pytester.path / "scripts/m").mkdir()
        (pytester.path / "scripts/m/run.sh").write_text(PASSES)
        (pytester.path / "scripts/m/weights.bin").write_bytes(bytes(9 << 20))
        result = run_bare(pytester, *on(kube_cluster))
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*m.scripts: 9.0 MiB of files, 'scripts/m/weights.bin' the largest; valid: *"])
        assert kube_cluster.left() == []


@pytest.mark.parametrize("name", ["one-pod", "two-nodes", "queue"])
def test_the_contexts_of_the_example_show_what_would_run(pytester: pytest.Pytester, name: str) -> None:
    project(pytester.path, card("m"))
    given = ("--madengine-tags=m", f"--madengine-context-file={EXAMPLES / name}.yaml", f"--madengine-use-image={IMAGE}")
    result = run_bare(pytester, *given, DRY)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["kind: Job", "  namespace: ml-team"])
    result.stdout.no_fnmatch_line("*warning*")


def test_the_context_of_the_example_runs_a_model(pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
    project(pytester.path, card("m"))
    run_bare(pytester, *on(kube_cluster), f"--madengine-context-file={EXAMPLES}/one-pod.yaml").assert_outcomes(passed=1)
    assert kube_cluster.left() == []


class TestResults:
    def test_and_data_on_claims_of_the_users_stay_there(
        self, pytester: pytest.Pytester, kube_cluster: KubeCluster
    ) -> None:
        for name in ("data", "results"):
            size = {"requests": {"storage": "1Mi"}}
            kube_cluster.create(
                "persistentvolumeclaims", name, spec={"accessModes": ["ReadWriteMany"], "resources": size}
            )
        project(
            pytester.path, card("m"), script=f'cat "$MAD_DATAHOME/words"; echo more >>"$MAD_DATAHOME/words"\n{PASSES}'
        )
        section = {"data_pvc": "data", "results_pvc": "results"}
        for expected in ("performance", "more\n"):
            run_bare(pytester, *on(kube_cluster, k8s=section)).assert_outcomes(passed=1)
            assert expected in log(pytester.path, "m")
        assert kube_cluster.left() == ["persistentvolumeclaims/data", "persistentvolumeclaims/results"]

    def test_of_several_ranks_come_through_a_claim(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        wide = card(
            "m", scripts="scripts/m.sh", multiple_results="r.csv", distributed={"launcher": "torchrun", "nnodes": 2}
        )
        script = 'echo "I am $NODE_RANK"; printf "model,performance,metric\\na,%s,x\\n" $((NODE_RANK + 1)) >r.csv\n'
        project(pytester.path, wide, script=script)
        run_bare(pytester, *on(kube_cluster, k8s={"results": "claim"})).assert_outcomes(passed=1)
        assert [row["status"] for row in rows(pytester.path / "perf.csv")] == ["SUCCESS"]
        for rank in range(2):
            assert f"I am {rank}\n" in log(pytester.path, "m", f"ranks/{rank}/")
        assert kube_cluster.left() == []
