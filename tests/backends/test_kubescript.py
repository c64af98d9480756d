"""The shell text of pods; those that need an engine run it in a container, as a kubelet would."""

from __future__ import annotations

import io
import secrets
import shlex
import subprocess
import sys
import tarfile
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine import assets
from pytest_madengine.backends import kubemanifest, kubenames, kubepod, kubescript
from pytest_madengine.backends.kubefiles import File
from pytest_madengine.backends.kubepod import Load
from pytest_madengine.backends.kubescript import ARCHIVE, END, FETCHED, READY, pod_script
from pytest_madengine.context.kubernetes import Kubernetes
from pytest_madengine.jobs.job import Devices, Job
from pytest_madengine.launchers.base import Topology
from tests.backends.kubejobs import DISAGGREGATED, FILES, JOB, SEVERAL
from tests.backends.support import BASE_IMAGE, until
from tests.golden import compare

GOLDEN = Path(__file__).parent / "golden"
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
LARGE = (File("scripts/my model/large.bin", bytes(range(256)) * 3000, 0o751),)
SCRIPTS: dict[str, tuple[Job, dict[str, Any], tuple[File, ...]]] = {
    "pod": (JOB, {}, ()),
    "pods": (SEVERAL, {"results": "claim", "data_pvc": "d"}, LARGE),
    "jobset": (SEVERAL, {"shape": "jobset"}, ()),
    "leaderworkerset": (SEVERAL, {"shape": "leaderworkerset"}, ()),
    "leaderworkerset-claim": (SEVERAL, {"shape": "leaderworkerset", "results": "claim"}, ()),
    "disaggregated": (DISAGGREGATED, {}, ()),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_of_pods(name: str, tmp_path: Path) -> None:
    job, stated, files = SCRIPTS[name]
    script = pod_script(job, Kubernetes.model_validate(stated), files)
    file = tmp_path / "pod.sh"
    file.write_text(script, encoding="utf-8")
    assert subprocess.run(["bash", "-n", file], check=False, capture_output=True).stderr == b""
    done = subprocess.run([SHELLCHECK, "--severity=warning", file], check=False, capture_output=True, text=True)
    assert done.stdout == ""
    compare(script, GOLDEN / f"kubernetes-{name}.sh")


@settings(max_examples=25, deadline=None)
@given(
    TEXTS,
    st.dictionaries(
        st.from_regex(r"[A-Z_]{1,6}", fullmatch=True),
        TEXTS,
        max_size=3,
    ),
)
def test_no_value_becomes_shell(name: str, env: dict[str, str]) -> None:
    variables = {f"X{key}": value for key, value in env.items()}
    script = pod_script(replace(JOB, name=name, id=f"i{name}", env=variables), Kubernetes())
    begin, end = script.index("variables() {"), script.index("\nrun() {")
    text = f"rank=0 NODE_LIST= NODE_IPS= MAD_K8S_POD_IP= MADENGINE_JOB=/nowhere\n{script[begin:end]}\nvariables\nenv -0"
    done = subprocess.run(["bash"], input=text.encode(), capture_output=True, check=True, env={"PATH": "/usr/bin:/bin"})
    found = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry)
    assert {key: value for key, value in found.items() if key in variables} == variables
    assert found["MADENGINE_JOB_ID"] == f"i{name}"


@dataclass
class Pod:
    """A container that runs the pods' script as a kubelet would start it.

    Attributes:
        folder: of this machine, with the container's folders.
    """

    folder: Path
    job: Job
    name: str

    def start(
        self,
        files: tuple[File, ...] = (),
        variables: dict[str, str] | None = None,
        beside: Pod | None = None,
        **stated: Any,
    ) -> None:
        """Make the files that the manifests say, and start the script, in another pod's network if one is given."""
        section = Kubernetes.model_validate({"results_wait": 60, **stated})
        found = kubemanifest.manifests(self.job, section, Load(pod_script(self.job, section, files), files))
        self._unfold(found)
        given_variables = {"MAD_K8S_POD_NAME": "pod-a", "MAD_K8S_POD_IP": "127.0.0.1", "MAD_K8S_NODE_NAME": "node-a"}
        told = {**given_variables, **(variables or {})}
        mounts = {"files": f"{kubepod.FILES}:ro", "job": kubepod.JOB, "results": kubepod.RESULTS}
        for name in mounts:
            (self.folder / name).mkdir(exist_ok=True)
        self.docker(
            *("run", "--detach", f"--name={self.name}", *self._network(section, beside)),
            *(f"--volume={self.folder / name}:{target}" for name, target in mounts.items()),
            *(f"--tmpfs={place}:exec" for place in (kubepod.PROJECT, kubepod.WORKSPACE)),
            *(f"--env={name}={value}" for name, value in told.items()),
            BASE_IMAGE,
            *pod_spec(found)["containers"][0]["command"],
        )

    def _network(self, section: Kubernetes, beside: Pod | None) -> list[str]:
        """A network of its own, in which all pods of the job have names: each an address of its own on the loopback."""
        if beside:
            return [f"--network=container:{beside.name}"]
        hosts = kubenames.hosts(self.job, section.shape)
        return ["--network=none", *(f"--add-host={host}:127.0.0.{number}" for number, host in enumerate(hosts, 1))]

    def _unfold(self, found: list[dict[str, Any]]) -> None:
        data: dict[str, bytes] = {}
        for each in found:
            if each["kind"] == "ConfigMap":
                data |= {key: text.encode() for key, text in each.get("data", {}).items()}
                data |= {key: b64decode(text) for key, text in each.get("binaryData", {}).items()}
        volumes = pod_spec(found)["volumes"]
        for source in next(each for each in volumes if each["name"] == "files")["projected"]["sources"]:
            for item in source["configMap"]["items"]:
                path = self.folder / "files" / item["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data[item["key"]])
                path.chmod(item["mode"])

    def docker(self, *words: str) -> str:
        """What docker prints."""
        done = subprocess.run(["docker", *words], check=True, capture_output=True, text=True)
        return done.stdout + done.stderr

    @property
    def log(self) -> str:
        """What the pod printed so far."""
        return self.docker("logs", self.name)

    def exec(self, *words: str) -> bytes:
        """What a command in the pod prints."""
        return subprocess.run(["docker", "exec", self.name, *words], check=True, capture_output=True).stdout

    def ready(self) -> bool:
        """Whether the results wait."""
        return READY in self.log

    def fetch(self) -> dict[str, bytes]:
        """The results, after which the pod may end."""
        until(self.ready)
        with tarfile.open(fileobj=io.BytesIO(self.exec("cat", ARCHIVE))) as archive:
            found = {each.name: archive.extractfile(each) for each in archive.getmembers() if each.isfile()}
            results = {name: file.read() for name, file in found.items() if file}
        self.exec("touch", FETCHED)
        return results

    def code(self) -> int:
        """The exit code, when it is over."""
        return int(self.docker("wait", self.name))

    def running(self) -> bool:
        """Whether it runs."""
        return "true" in self.docker("inspect", "--format={{.State.Running}}", self.name)


def pod_spec(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What the pods of a job are."""
    spec = found[-1]["spec"]
    template: dict[str, Any] = spec.get("template") or spec["leaderWorkerTemplate"]["workerTemplate"]
    inner: dict[str, Any] = template["spec"]
    return inner


MakePod = Callable[[Job], Pod]


@pytest.fixture
def make_pod(tmp_path: Path) -> Iterator[MakePod]:
    made: list[Pod] = []

    def make(job: Job) -> Pod:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Pod(folder, job, f"kubescript-{secrets.token_hex(6)}"))
        return made[-1]

    yield make
    for pod in made:
        subprocess.run(["docker", "rm", "--force", pod.name], check=False, capture_output=True)


def model(script: str, **changes: Any) -> Job:
    """A job whose script is that of every backend, around a model's script."""
    run = assets.render(
        "job/run.sh.j2",
        name="m",
        url="",
        run_directory="run_directory",
        scripts_folder="scripts/llama3",
        credential="",
        ssh="",
        artifacts=[],
        pre_scripts=[],
        post_scripts=[],
        command=f"bash -c {shlex.quote(script)}",
        launch="",
        places=[],
    )
    return replace(JOB, script=run, devices=Devices(), **changes)


@pytest.mark.requires_docker
def test_a_pod_runs_the_model_and_keeps_what_it_leaves_until_it_is_fetched(make_pod: MakePod) -> None:
    pod = make_pod(
        model("./run.sh; echo $MAD_DEPLOYMENT_TYPE $RANK $PLAIN; ls ../scripts/llama3; echo a,b >perf.csv; exit 7")
    )
    pod.start(FILES)
    results = pod.fetch()
    assert pod.code() == 7
    assert (results["exit_code"], results["status"], results["host"]) == (b"7\n", b"7\n", b"node-a\n")
    assert results["artifacts/perf.csv"] == b"a,b\n"
    for text in (results["run.log"].decode(), pod.log):
        assert "hello\nkubernetes 0 it's $shown\nrun.sh\nwei ghts.bin\n" in text
    assert b"model" in results["phases"]


@pytest.mark.requires_docker
def test_a_pod_says_again_that_its_results_wait(make_pod: MakePod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubescript, "AGAIN", 1)
    pod = make_pod(model("echo done"))
    pod.start(FILES)
    until(lambda: pod.log.count(READY) > 1)
    assert b"done\n" in pod.fetch()["run.log"]
    assert pod.code() == 0


@pytest.mark.requires_docker
def test_files_that_came_in_parts_are_whole(make_pod: MakePod) -> None:
    pod = make_pod(model('cd "$MADENGINE_PROJECT/scripts/my model" && wc -c large.bin && stat -c %a large.bin'))
    pod.start((*FILES, *LARGE))
    assert "768000 large.bin\n751\n" in pod.fetch()["run.log"].decode()
    assert pod.code() == 0


@pytest.mark.requires_docker
def test_results_go_to_a_claim_without_waiting_for_anybody(make_pod: MakePod) -> None:
    pod = make_pod(model("echo a,b >perf.csv"))
    pod.start(FILES, results="claim")
    assert pod.code() == 0
    (folder,) = (pod.folder / "results").glob("*/0/pod-a")
    assert (folder / "exit_code").read_text() == "0\n"
    assert (folder / "artifacts/perf.csv").read_text() == "a,b\n"


@pytest.mark.requires_docker
def test_a_model_that_is_ended_leaves_its_results(make_pod: MakePod) -> None:
    pod = make_pod(model("echo a,b >perf.csv; echo begun; sleep 7200"))
    pod.start(FILES)
    until(lambda: "begun" in pod.log)
    pod.exec(*END)
    results = pod.fetch()
    assert (pod.code(), results["exit_code"], results["artifacts/perf.csv"]) == (143, b"143\n", b"a,b\n")


@pytest.mark.requires_docker
def test_a_pod_that_is_deleted_does_not_wait_for_its_results_to_be_fetched(make_pod: MakePod) -> None:
    pod = make_pod(model("echo begun; sleep 7200"))
    pod.start(FILES)
    until(lambda: "begun" in pod.log)
    pod.docker("kill", "--signal=TERM", pod.name)
    assert pod.code() == 143


@pytest.mark.requires_docker
def test_a_pod_whose_results_nobody_fetches_ends_all_the_same(make_pod: MakePod) -> None:
    pod = make_pod(model("echo done"))
    pod.start(FILES, results_wait=1)
    assert pod.code() == 0


@pytest.mark.requires_docker
def test_each_of_several_pods_knows_its_rank_and_the_others(make_pod: MakePod) -> None:
    pod = make_pod(
        model(
            "echo $NODE_RANK of $NNODES, $WORLD_SIZE: $NODE_IPS; eval echo $MAD_MULTI_NODE_RUNNER; env | grep HOST_IP",
            topology=SEVERAL.topology,
            expressions=SEVERAL.expressions,
        )
    )
    pod.start(FILES, {"JOB_COMPLETION_INDEX": "2", "MAD_K8S_POD_IP": "10.0.0.9"})
    log = pod.fetch()["run.log"].decode()
    assert "2 of 4, 8: 127.0.0.1,127.0.0.2,10.0.0.9,127.0.0.4\n" in log
    name = kubenames.object_name(JOB)
    assert f"torchrun --node_rank=2 --master_addr={name}-0.{name} --x=" in log
    assert "VLLM_HOST_IP=10.0.0.9" in log


@pytest.mark.requires_docker
def test_a_cluster_that_numbers_no_pods_is_told_so(make_pod: MakePod) -> None:
    pod = make_pod(model("echo begun", topology=SEVERAL.topology))
    pod.start(FILES)
    assert pod.code() == 86
    assert pod.log == "madengine: the cluster did not number the pods: Kubernetes 1.22 and later do\n"


@pytest.mark.requires_docker
def test_a_pod_of_a_leaderworkerset_runs_the_model_once_though_it_is_started_again(make_pod: MakePod) -> None:
    pod = make_pod(model("echo ran", topology=SEVERAL.topology))
    pod.start(FILES, {"LWS_WORKER_INDEX": "0"}, shape="leaderworkerset")
    until(pod.ready)
    pod.docker("restart", "--time=5", pod.name)
    until(lambda: pod.log.count(READY) >= 2)
    assert pod.fetch()["run.log"].count(b"ran\n") == 1
    assert pod.running()


SGLANG = {
    "launch_server": "serve()",
    "srt/disaggregation/mini_lb": "print('balances', *sys.argv[1:], flush=True)\nserve('0.0.0.0')",
}
"""Stand-ins for what SGLang starts."""
SERVE = """import http.server, sys

def serve(host=''):
    told = dict(zip(sys.argv, sys.argv[1:]))
    print('serves', *sys.argv[1:], flush=True)
    address = host or told['--host'], int(told['--port'])
    http.server.HTTPServer(address, http.server.BaseHTTPRequestHandler).serve_forever()

"""


@pytest.mark.requires_docker
def test_prefill_and_decode_serve_until_the_models_script_is_done(make_pod: MakePod) -> None:
    files = (
        *FILES,
        *(File(f"scripts/llama3/sglang/{name}.py", f"{SERVE}{text}\n".encode()) for name, text in SGLANG.items()),
    )
    env = {"PYTHONPATH": f"{kubepod.PROJECT}/scripts/llama3", "MODEL_PATH": "/models/it is"}
    job = model(
        "echo the client of $MASTER_ADDR",
        topology=Topology.of_cluster(3, 2),
        expressions={**DISAGGREGATED.expressions, "SGLANG_DISAGG_DECODE_NODES": "1", "SGLANG_TP_SIZE": "2"},
        env=env,
    )
    pods = [make_pod(job) for _ in range(3)]
    for rank, pod in enumerate(pods):
        variables = {"JOB_COMPLETION_INDEX": str(rank), "MAD_K8S_POD_IP": f"127.0.0.{rank + 1}"}
        pod.start(files, variables, beside=pods[0] if rank else None)
    client, prefill, decode = [pod.fetch() for pod in pods]
    assert [pod.code() for pod in pods] == [0, 0, 0]
    assert b"the client of" in client["run.log"]
    told = "--prefill http://127.0.0.2:30000 --decode http://127.0.0.3:30000 --host 0.0.0.0 --port 29500"
    assert f"balances {told}" in client["balancer.log"].decode()
    for results, mode, address in ((prefill, "prefill", 2), (decode, "decode", 3)):
        words = f"serves --model-path /models/it is --disaggregation-mode {mode} --tp-size 2 --host 127.0.0.{address}"
        assert words in results["run.log"].decode()
        assert results["exit_code"] == b"0\n"
