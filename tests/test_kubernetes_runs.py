"""Models in pods of a real Kubernetes cluster, seen from pytest's side."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_madengine.backends import kubenames
from pytest_madengine.backends.kubepod import SHARED_DATA
from tests.backends import launched
from tests.backends.support import until
from tests.backends.test_kubescript import SERVE, SGLANG
from tests.cards import PASSES, card, project, rows, run_bare, statuses
from tests.engines.kube import KubeCluster
from tests.test_dryrun import DRY, one
from tests.test_resume import PATIENCE, pytest_in, ran, said

pytestmark = pytest.mark.requires_kubernetes

SMALL = {"image_pull_policy": "IfNotPresent", "cpu": "100m", "memory": "64Mi", "gpu_count": 0, "backoff_limit": 0}
HOSTILE = """it's "q" $HOME `x` \\ a $(HF_TOKEN)
second line"""
HIDDEN = 'planted, "quoted" and\nin two lines'
WAITS = "echo so far\nuntil [ -e /signals/go ]; do sleep 0.1; done\n" + PASSES
"""A model that goes on when the test says so."""
GPUS = 2


def on(cluster: KubeCluster, *, k8s: Mapping[str, Any] | None = None, **context: Any) -> list[str]:
    """The options for models in pods of the test's namespace."""
    section = {"namespace": cluster.namespace, **SMALL, **(k8s or {})}
    given = {"docker_image": cluster.image, **context, "k8s": section}
    return ["--madengine-tags=all", f"--madengine-context={json.dumps(given)}"]


def job(folder: Path, model: str) -> Path:
    (found,) = folder.glob(f".madengine/runs/latest/jobs/{model}-{'[0-9a-f]' * 8}")
    return found


def log(folder: Path, model: str, rank: str = "") -> str:
    """What a model printed."""
    return (job(folder, model) / f"{rank}run.log").read_text(encoding="utf-8")


def values(log: str) -> dict[str, str]:
    """The variables that a model showed."""
    lines = (line.partition("=") for line in log.splitlines())
    return {name: value for name, equals, value in lines if equals and re.fullmatch(r"\w+", name)}


def leaks(folder: Path, text: str) -> list[str]:
    """The files of the latest run that hold a text."""
    files = [path for path in folder.glob(".madengine/runs/latest/**/*") if path.is_file()]
    return [str(path) for path in files if text.encode() in path.read_bytes()]


class TestModels:
    """Each model is a job of its own."""

    def test_of_one_pod(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        one_model = card("one", env_vars={"TEXT": HOSTILE}, args="--x 'a b'")
        shows = 'echo "text: $TEXT"; echo "args: $*"; echo "token: $MY_TOKEN"; echo "$MAD_MULTI_NODE_RUNNER"\n'
        project(pytester.path, one_model, card("team/Other_1"), script=shows + PASSES)
        run_bare(pytester, *on(kube_cluster, secrets={"MY_TOKEN": HIDDEN})).assert_outcomes(passed=2)
        assert statuses(pytester.path / "perf.csv") == {"one": "SUCCESS", "team/Other_1": "SUCCESS"}
        found = log(pytester.path, "one")
        assert f"text: {HOSTILE}\n" in found
        assert "args: --x a b" in found
        assert "torchrun --standalone --nproc_per_node=1" in found
        assert leaks(pytester.path, "planted") == []
        (row, _) = rows(pytester.path / "perf.csv")
        assert (row["deployment_type"], row["nnodes"], row["n_gpus"]) == ("kubernetes", "1", "0")
        assert row["machine_name"] in ("node1", "node2")
        assert '"kubernetes": "v1.' in (pytester.path / ".madengine/runs/latest/results.jsonl").read_text()
        assert kube_cluster.left() == []

    def test_of_four_ranks(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        wide = card("wide", distributed={"launcher": "torchrun", "nnodes": 4, "nproc_per_node": 2})
        shows = 'echo "$NODE_RANK of $NNODES, $WORLD_SIZE: $MAD_MULTI_NODE_RUNNER"\n'
        project(pytester.path, wide, script=shows + "echo performance: $((NODE_RANK + 1)) tokens_per_second\n")
        run_bare(pytester, *on(kube_cluster)).assert_outcomes(passed=1)
        (row,) = rows(pytester.path / "perf.csv")
        assert (row["status"], row["performance"], row["nnodes"], row["n_gpus"]) == ("SUCCESS", "10", "4", "0")
        for rank in range(4):
            text = log(pytester.path, "wide", f"ranks/{rank}/")
            assert (
                f"{rank} of 4, 8: torchrun --nnodes=4 --nproc_per_node=2 --node_rank={rank} --master_addr=mad" in text
            )
        assert kube_cluster.left() == []

    def test_bring_scripts_credentials_and_results(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        rich = card("rich", scripts="scripts/rich", multiple_results="out/r.csv")
        project(pytester.path, rich)
        texts = {
            "scripts/rich/run.sh": "cat 'a b/größe.txt' ../credential.json; mkdir out; cp before out/r.csv\n",
            "scripts/rich/a b/größe.txt": "read me\n",
            "scripts/common/before.sh": "cat ../scripts/common/lib/table >before\n",
            "scripts/common/lib/table": "model,performance,metric\na,1.5,x\n",
            "after.sh": "echo the last\n",
            "credential.json": '{"GIT": {"username": "me", "password": "planted-password"}}',
        }
        for name, text in texts.items():
            (pytester.path / name).parent.mkdir(parents=True, exist_ok=True)
            (pytester.path / name).write_text(text, encoding="utf-8")
        scripts: dict[str, Any] = {"pre_scripts": ["scripts/common/before.sh"], "post_scripts": ["after.sh"]}
        run_bare(pytester, *on(kube_cluster, **scripts)).assert_outcomes(passed=1)
        (row,) = rows(pytester.path / "perf.csv")
        assert (row["model"], row["performance"], row["metric"]) == ("rich_a", "1.5", "x")
        found = log(pytester.path, "rich")
        assert "read me\n" in found
        assert '"username": "me"' in found
        assert "the last\n" in found
        assert leaks(pytester.path, "planted") == []

    def test_that_no_image_was_pushed_for(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        (pytester.mkdir("docker") / "d.ubuntu.amd.Dockerfile").write_text("FROM nowhere.example/base:1\n")
        project(pytester.path, card("m", dockerfile="docker/d"))
        args = on(kube_cluster, k8s={"image_pull_policy": "Always"})
        given = {key: value for key, value in json.loads(args[1].partition("=")[2]).items() if key != "docker_image"}
        result = run_bare(pytester, args[0], f"--madengine-context={json.dumps(given)}")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*its image would be on this machine alone*--madengine-registry*"])
        assert kube_cluster.left() == []


class TestFailures:
    """Whatever happens is one row with the reason."""

    def test_of_some_models(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        scripts = {"bad": "echo the last words\nexit 3\n", "wide": f"[ $NODE_RANK = 0 ] || exit 4\n{PASSES}"}
        wide = card("wide", distributed={"launcher": "torchrun", "nnodes": 2, "nproc_per_node": 1})
        project(pytester.path, card("good"), card("bad"), wide, **scripts)
        result = run_bare(pytester, *on(kube_cluster))
        result.assert_outcomes(passed=1, failed=2)
        result.stdout.fnmatch_lines_random(["bad: exit code 3*", "wide: rank 1 on node? (exit code 4)* of 2 failed*"])
        assert statuses(pytester.path / "perf.csv") == {"good": "SUCCESS", "bad": "FAILURE", "wide": "FAILURE"}
        assert kube_cluster.left() == []

    def test_of_time(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        project(pytester.path, card("slow"), script="echo begun\nsleep 600\n")
        result = run_bare(pytester, *on(kube_cluster), "--madengine-timeout=5")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["slow: time limit of 5 s exceeded*"])
        assert kube_cluster.left() == []


class TestSelection:
    """What pytest has for tests works on models in pods."""

    def test_by_name(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        project(pytester.path, card("llama"), card("qwen"))
        run_bare(pytester, *on(kube_cluster), "-k", "qwen").assert_outcomes(passed=1, deselected=1)
        assert statuses(pytester.path / "perf.csv") == {"qwen": "SUCCESS"}

    def test_until_the_first_failure(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        project(pytester.path, card("bad"), card("slow"), bad="exit 1\n", slow="sleep 600\n")
        result = run_bare(pytester, *on(kube_cluster), "-x")
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        assert statuses(pytester.path / "perf.csv")["bad"] == "FAILURE"
        assert kube_cluster.left() == []


class TestSessionsThatEndEarly:
    def test_by_ctrl_c_leave_nothing(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        project(tmp_path, card("slow"), script="echo so far\nsleep 600\n")
        process = pytest_in(tmp_path, *on(kube_cluster))
        until(lambda: "Running" in {each["status"]["phase"] for each in kube_cluster.all_of("pods")})
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == pytest.ExitCode.INTERRUPTED
        assert statuses(tmp_path / "perf.csv") == {"slow": "FAILURE"}
        assert kube_cluster.left() == []

    def test_by_kill_are_gone_on_with(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        (tmp_path / "signals").mkdir()
        project(tmp_path, card("waits"), script=f"echo once >>/signals/runs\n{WAITS}")
        args = on(kube_cluster, docker_mounts={"/signals": str(tmp_path / "signals")})
        process = pytest_in(tmp_path, *args)
        until((tmp_path / "signals/runs").exists)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        (tmp_path / "signals/go").touch()
        assert ran(tmp_path, *args, "--madengine-resume") == pytest.ExitCode.OK, said(tmp_path)
        assert (tmp_path / "signals/runs").read_text() == "once\n"
        assert [row["status"] for row in rows(tmp_path / "perf.csv")] == ["SUCCESS"]
        assert kube_cluster.left() == []


class TestSecrets:
    def test_are_nowhere_but_in_secrets(self, tmp_path: Path, kube_cluster: KubeCluster) -> None:
        (tmp_path / "signals").mkdir()
        (tmp_path / "credential.json").write_text('{"GIT": {"username": "me", "password": "planted-password"}}')
        project(tmp_path, card("m", cred="GIT", env_vars={"HF_TOKEN": "planted-token"}), script=f"env\n{WAITS}")
        mounts = {"/signals": str(tmp_path / "signals")}
        folder = {"output_dir": str(tmp_path / "manifests")}
        args = on(kube_cluster, k8s=folder, docker_mounts=mounts, secrets={"KEY": HIDDEN})
        process = pytest_in(tmp_path, *args, "-v")
        until(lambda: "Running" in {each["status"]["phase"] for each in kube_cluster.all_of("pods")})
        kinds = ("pods", "jobs", "configmaps", "services", "events")
        told = json.dumps([kube_cluster.all_of(kind) for kind in kinds])
        (tmp_path / "signals/go").touch()
        assert process.wait(PATIENCE) == pytest.ExitCode.OK, said(tmp_path)
        assert "planted" not in told
        assert "planted" not in said(tmp_path)
        assert leaks(tmp_path, "planted") == []
        assert list((tmp_path / "manifests").rglob("*"))
        assert not [
            path for path in (tmp_path / "manifests").rglob("*") if path.is_file() and "planted" in path.read_text()
        ]
        assert "HF_TOKEN=***" in log(tmp_path, "m")


def replaced(found: Any, pairs: Mapping[str, str]) -> Any:
    """An object with other ids, wherever they stand."""
    text = json.dumps(found)
    for old in sorted(pairs, key=len, reverse=True):
        text = text.replace(old, pairs[old])
    return json.loads(text)


def lacks(shown: Any, real: Any, where: str = "") -> list[str]:
    """What an object of the cluster, which adds to what it is given, does not have of what was shown."""
    if isinstance(shown, dict) and isinstance(real, dict):
        return [line for key in shown for line in lacks(shown[key], real.get(key), f"{where}.{key}")]
    if isinstance(shown, list) and isinstance(real, list) and len(shown) == len(real):
        return [line for n, pair in enumerate(zip(shown, real, strict=True)) for line in lacks(*pair, f"{where}[{n}]")]
    if isinstance(shown, str) and isinstance(real, str):
        return list(difflib.unified_diff(shown.splitlines(), real.splitlines(), where, lineterm="", n=0))
    return (
        []
        if shown == (False if real is None and shown is False else real)
        else [f"{where}: {shown!r} shown, {real!r} there"]
    )


def shown_objects(texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """The manifests among the texts of a dry run."""
    documents = [yaml.safe_load_all(text) for title, text in texts.items() if title not in ("", "origins", "run.sh")]
    return [each for document in documents for each in document if isinstance(each, dict) and "kind" in each]


class TestDryRun:
    def test_shows_the_objects_of_the_run(
        self, tmp_path: Path, pytester: pytest.Pytester, kube_cluster: KubeCluster
    ) -> None:
        (tmp_path / "signals").mkdir()
        distributed = {"launcher": "torchrun", "nnodes": 2, "nproc_per_node": 1}
        wide = card("team/Wide", env_vars={"TEXT": HOSTILE, "MY_TOKEN": "planted-token"}, distributed=distributed)
        project(pytester.path, wide, script=WAITS)
        given = {"MAD_ROCM_PATH": "/opt/rocm"}  # else only an engine knows it
        mounts = {"/signals": str(tmp_path / "signals")}
        args = on(kube_cluster, docker_mounts=mounts, secrets={"KEY": HIDDEN}, docker_env_vars=given)
        before = one(run_bare(pytester, *args, "-v", DRY))
        assert "planted" not in "".join(before.values())
        shown = shown_objects(before)
        assert {each["kind"] for each in shown} == {"Secret", "ConfigMap", "Service", "Job"}
        process = pytest_in(pytester.path, *args)
        until(lambda: "Running" in {each["status"]["phase"] for each in kube_cluster.all_of("pods")})
        real = [kube_cluster.all_of(f"{each['kind'].lower()}s") for each in shown]
        (tmp_path / "signals/go").touch()
        assert process.wait(PATIENCE) == pytest.ExitCode.OK, said(pytester.path)
        self.compare(
            shown, [each for kind in real for each in kind if kubenames.JOB in each["metadata"].get("annotations", {})]
        )

    def compare(self, shown: list[dict[str, Any]], real: list[dict[str, Any]]) -> None:
        """Each object that was shown is there, and no other."""
        names = [self.ids(found) for found in (real, shown)]
        pairs = dict(zip(*names, strict=True))
        pairs['"image": "madengine-test-base:latest"'] = '"image": "madengine-test-base@sha256:ID"'  # nobody was asked
        found = {(each["metadata"]["name"], self.kind(each)): each for each in replaced(real, pairs)}
        assert len(found) == len(shown)
        for each in shown:
            there = found[each["metadata"]["name"], self.kind(each)]
            hidden: dict[str, Any] = {"data": {}} if each["kind"] == "Secret" else {}
            assert each.get("data", {}).keys() == there.get("data", {}).keys()
            assert lacks({**each, **hidden, "kind": None, "apiVersion": None}, there) == []

    def kind(self, found: Mapping[str, Any]) -> str:
        """Lists of the cluster do not say what each of them is."""
        spec = found.get("spec") or {}
        return (
            "Job"
            if "template" in spec
            else "Service"
            if "clusterIP" in spec
            else "Secret"
            if "type" in found
            else "Map"
        )

    def ids(self, found: list[dict[str, Any]]) -> list[str]:
        (runner,) = [each for each in found if self.kind(each) == "Job"]
        metadata = runner["metadata"]
        return [
            metadata["name"],
            metadata["annotations"][kubenames.JOB],
            *(metadata["labels"][key] for key in (kubenames.RUN_LABEL, kubenames.JOB_LABEL)),
        ]

    def test_says_where_each_value_is_from(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        project(pytester.path, card("m", k8s={"shm_size": "2Gi"}, env_vars={"HF_TOKEN": "s3"}))
        shown = one(run_bare(pytester, *on(kube_cluster), "-v", DRY))["origins"]
        found = {line.split("  ")[0]: line.split()[-1] for line in shown.splitlines()}
        expected = {
            "k8s.shm_size = 2Gi": "(card)",
            "k8s.cpu = 100m": "context",
            "k8s.gpu_resource_name = amd.com/gpu": "presets/kubernetes/gpu-vendors/amd.json",
            "env_vars.HF_TOKEN = ***": "(card)",
        }
        assert expected.items() <= found.items()


class TestKeepAlive:
    def test_leaves_what_was_made_until_somebody_deletes_it(
        self, pytester: pytest.Pytester, kube_cluster: KubeCluster
    ) -> None:
        project(pytester.path, card("m"))
        run_bare(pytester, *on(kube_cluster), "--madengine-keep-alive").assert_outcomes(passed=1)
        (kept,) = kube_cluster.all_of("jobs")
        assert kube_cluster.pods_of(kept["metadata"]["name"])
        kube_cluster.delete("jobs", kept["metadata"]["name"])
        kube_cluster.until(lambda: kube_cluster.left() == [], "something stays")


OF_TORCHRUN = ("torchrun", "megatron", "torchtitan")
LAUNCHERS = (*OF_TORCHRUN, "deepspeed", "primus", "vllm", "sglang")
SHOWS = """env | grep -E '^[A-Z][A-Za-z_]*=' | grep -v '^PATH='
printf 'args: %s\\n' "$*"
PATH=$MADENGINE_PROJECT/scripts/bin:$PATH
[ -z "$MAD_MULTI_NODE_RUNNER" ] || $MAD_MULTI_NODE_RUNNER train.sh "$@" || exit
echo "performance: $((NODE_RANK + 1)) tokens_per_second"
"""
TRAINS = 'echo "$MET: $RANK of $WORLD_SIZE, $LOCAL_RANK, $*"\n'
OWN = {
    "megatron": {"TENSOR_MODEL_PARALLEL_SIZE": "2", "CONTEXT_PARALLEL_SIZE": "1"},
    "torchtitan": {"TORCHTITAN_TENSOR_PARALLEL_SIZE": "2"},
    "vllm": {"VLLM_TENSOR_PARALLEL_SIZE": "2"},
    "sglang": {"SGLANG_TENSOR_PARALLEL_SIZE": "2"},
    "primus": {"PRIMUS_CONFIG_PATH": "exp.yaml"},
}
"""Some of what only a launcher's models get."""


def stand_ins(folder: Path) -> None:
    """Programs that launchers and SGLang start, beside the scripts."""
    (folder / "scripts/train.sh").write_text(TRAINS)
    (folder / "scripts/bin").mkdir()
    for name in ("torchrun", "deepspeed"):
        shutil.copy(launched.__file__, folder / "scripts/bin" / name)
        (folder / "scripts/bin" / name).chmod(0o755)
    for name, text in SGLANG.items():
        path = folder / f"scripts/sglang/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{SERVE}{text}\n")


def of_launcher(launcher: str, nodes: int) -> dict[str, Any]:
    distributed = {"launcher": launcher, "nnodes": nodes, "nproc_per_node": GPUS}
    primus = {"primus": {"config_path": "exp.yaml"}} if launcher == "primus" else {}
    more = {"args": "--name 'a b'", "scripts": "scripts/run.sh"}
    return card(f"{launcher}-{nodes}", distributed=distributed | primus, **more)


class TestLaunchers:
    def test_give_models_what_they_promise(self, pytester: pytest.Pytester, kube_cluster: KubeCluster) -> None:
        kinds = [(launcher, nodes) for launcher in LAUNCHERS for nodes in (1, 2)]
        cards = [of_launcher(*kind) for kind in kinds]
        disaggregated = of_launcher("sglang-disagg", 3)
        disaggregated["env_vars"] = {"PYTHONPATH": "/madengine/project/scripts", "MODEL_PATH": "/models/it"}
        project(pytester.path, *cards, disaggregated, script=SHOWS)
        stand_ins(pytester.path)
        result = run_bare(pytester, *on(kube_cluster, k8s={"gpu_count": GPUS}), "--madengine-max-in-flight=2")
        result.assert_outcomes(passed=len(kinds) + 1)
        for launcher, nodes in kinds:
            for rank in range(nodes):
                text = log(pytester.path, f"{launcher}-{nodes}", f"ranks/{rank}/" if nodes > 1 else "")
                self.check(launcher, nodes, rank, text)
        self.check_disaggregated(pytester.path)
        found = {row["model"]: row for row in rows(pytester.path / "perf.csv")}
        for launcher, nodes in (*kinds, ("sglang-disagg", 3)):
            row = found[f"{launcher}-{nodes}"]
            assert (row["launcher"], row["nnodes"], row["gpus_per_node"]) == (launcher, str(nodes), str(GPUS))
            assert row["performance"] == ("3" if nodes == 2 else "1")
        assert kube_cluster.left() == []

    def check(self, launcher: str, nodes: int, rank: int, text: str) -> None:
        """Compare what a rank printed with what it was to get."""
        env = values(text)
        expected = {
            "NNODES": str(nodes),
            "NODE_RANK": str(rank),
            "WORLD_SIZE": str(nodes * GPUS),
            "NPROC_PER_NODE": str(GPUS),
            "GPUS_PER_NODE": str(GPUS),
            "MAD_LAUNCHER_TYPE": launcher,
            "MAD_DEPLOYMENT_TYPE": "kubernetes",
            "MAD_MODEL_NAME": f"{launcher}-{nodes}",
            "MAD_RUNTIME_NGPUS": str(GPUS),
            **OWN.get(launcher, {}),
        }
        assert {name: env.get(name) for name in expected} == expected
        assert "args: --name a b\n" in text
        visible = "HIP_VISIBLE_DEVICES" if launcher in ("vllm", "sglang") else "ROCR_VISIBLE_DEVICES"
        assert env[visible] == "0,1"
        if launcher in (*OF_TORCHRUN, "deepspeed"):
            world = nodes * GPUS
            met = "alone" if nodes == 1 else ",".join(map(str, range(world)))
            assert f"{met}: {rank * GPUS} of {world}, 0, --name a b" in text.splitlines()

    def check_disaggregated(self, folder: Path) -> None:
        """The first pod is the client of servers in the others."""
        client, prefill, decode = (log(folder, "sglang-disagg-3", f"ranks/{rank}/") for rank in range(3))
        assert values(client)["SGLANG_DISAGG_TOTAL_NODES"] == "3"
        assert "args: --name a b\n" in client
        assert "serves --model-path /models/it --disaggregation-mode prefill --tp-size 2" in prefill
        assert "serves --model-path /models/it --disaggregation-mode decode --tp-size 2" in decode


RECIPES: dict[str, dict[str, Any]] = {
    "llama3": {"k8s": {"gpu_count": 4}},
    "llama3-infer": {"k8s": {"namespace": "ml-team", "gpu_count": 4}},
    "vllm-serve": {
        "k8s": {"namespace": "ml-team", "gpu_count": 8},
        "distributed": {"launcher": "vllm", "nnodes": 2, "nproc_per_node": 4},
    },
    "model": {
        "k8s": {"namespace": "ml", "gpu_count": 8, "data_storage_class": "nfs-banff"},
        "secrets": {"HF_TOKEN": "hf_xxx_planted", "WANDB_API_KEY": "yyy_planted"},
    },
    "vllm-llama3-70b": {
        "k8s": {"namespace": "ml-team", "gpu_count": 8, "host_ipc": True, "data_storage_class": "nfs-banff"},
        "distributed": {"launcher": "vllm", "nnodes": 2, "nproc_per_node": 8},
        "secrets": {"HF_TOKEN": "hf_xxxxxxx_planted"},
        "env_vars": {"VLLM_TENSOR_PARALLEL_SIZE": "8", "VLLM_PIPELINE_PARALLEL_SIZE": "2"},
    },
    "llm-serve": {
        "k8s": {"namespace": "ml", "gpu_count": 8},
        "secrets": {"HF_TOKEN": "hf_xxx_planted", "WANDB_API_KEY": "yyy_planted", "S3_KEY": "zzz_planted"},
    },
}
"""The configurations that the wiki of the replaced tool gives as examples, by the tag that it runs."""


def _of_recipes() -> Iterator[object]:
    """Each by its name; one that takes all GPUs of both nodes waits until nobody else has any."""
    for name, recipe in RECIPES.items():
        wide = recipe.get("distributed", {}).get("nnodes", 1) > 1
        yield pytest.param(name, marks=pytest.mark.requires_kubernetes(alone=True) if wide else ())


@pytest.mark.parametrize("name", [*_of_recipes()])
def test_the_recipes_of_the_wiki_run(pytester: pytest.Pytester, kube_cluster: KubeCluster, name: str) -> None:
    recipe = RECIPES[name]
    project(pytester.path, card("m", tags=[name]), script=f"env\n{PASSES}")
    there = {"namespace": kube_cluster.namespace, "image_pull_policy": "IfNotPresent", "cpu": "100m", "memory": "64Mi"}
    data = {"data_storage_class": "local-test"} if "data_storage_class" in recipe["k8s"] else {}
    given = {**recipe, "k8s": {**recipe["k8s"], **there, **data}, "docker_image": kube_cluster.image}
    run_bare(pytester, f"--madengine-tags={name}", f"--madengine-context={json.dumps(given)}").assert_outcomes(passed=1)
    nodes, gpus = recipe.get("distributed", {}).get("nnodes", 1), recipe["k8s"]["gpu_count"]
    (row,) = rows(pytester.path / "perf.csv")
    assert (row["nnodes"], row["gpus_per_node"], row["deployment_type"]) == (str(nodes), str(gpus), "kubernetes")
    for rank in range(nodes):
        found = values(log(pytester.path, "m", f"ranks/{rank}/" if nodes > 1 else ""))
        hidden = {name: "*" * len(value) for name, value in recipe.get("secrets", {}).items()}
        stated = {**recipe.get("env_vars", {}), **hidden}
        assert {key: found.get(key) for key in stated} == stated
    assert leaks(pytester.path, "_planted") == []
    assert kube_cluster.left() == ([f"persistentvolumeclaims/{SHARED_DATA}"] if data else [])
