"""Small models as jobs, and a bench that drives one backend through its protocol."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pytest_madengine.backends import kubeapi
from pytest_madengine.backends.base import Backend, Handle, Outcome, State, Status
from pytest_madengine.backends.containers import RUN_LABEL
from pytest_madengine.backends.docker import DockerBackend
from pytest_madengine.backends.fake import FakeBackend
from pytest_madengine.backends.host import HostBackend
from pytest_madengine.backends.kubernetes import KubernetesBackend
from pytest_madengine.backends.processes import ID_VARIABLE
from pytest_madengine.backends.slurm import SlurmBackend
from pytest_madengine.context.context import Context
from pytest_madengine.context.machine import Machine
from pytest_madengine.engine.rundir import RunDirectory
from pytest_madengine.images import engine
from pytest_madengine.images.image import Image
from pytest_madengine.jobs import compose
from pytest_madengine.jobs.job import Job
from pytest_madengine.launchers import torchrun
from pytest_madengine.models.model import Model, Source

ROOT = Path(__file__).parents[2]
SOCKET = Path(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
BASE_IMAGE = "madengine-test-base:latest"
SIGNALS = ".signals"
"""A folder of the project, which every node sees: a model waits for `$MADENGINE_PROJECT/$GO`."""
LONG = 60.0
"""Seconds after which something that never happens is a failure; nothing waits this long when all is well."""


def containers(run: str) -> list[str]:
    """The containers of a run, ended ones included."""
    listed = subprocess.run(
        ["docker", "ps", "--all", f"--filter=label={RUN_LABEL}={run}", "--format={{.Names}}"],
        capture_output=True,
        check=True,
        text=True,
    )
    return listed.stdout.split()


def processes(run: str) -> list[str]:
    """The live processes that jobs of a run left on this machine."""
    found = psutil.process_iter(["environ", "cmdline", "status"])
    return [
        f"{process.pid}: {process.info['cmdline']}"
        for process in found
        if process.info["status"] != psutil.STATUS_ZOMBIE
        and run in (process.info["environ"] or {}).get(ID_VARIABLE, "")
    ]


def queued(run: str) -> list[str]:
    """The jobs of a run that are in SLURM's queue, and their containers."""
    listed = subprocess.run(["squeue", "--noheader", "--format=%k"], capture_output=True, check=True, text=True)
    return [job for job in listed.stdout.split() if run in job] + containers(run)


def in_pods(folder: Path) -> dict[str, Any]:
    """What contexts say of a cluster's nodes that see the project: here all have this machine's files."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text(encoding="utf-8"))
    project = {"name": "project", "emptyDir": None, "hostPath": {"path": str(folder / "project")}}
    small = {"image_pull_policy": "IfNotPresent", "backoff_limit": 0, "cpu": "50m", "memory": "64Mi", "gpu_count": 0}
    namespace = config["contexts"][0]["context"]["namespace"]
    return {"k8s": {**small, "namespace": namespace, "results_wait": 60, "pod_spec": {"volumes": [project]}}}


def kept(run: str) -> list[str]:
    """What a cluster has of a run."""
    place = kubeapi.api(kubeapi.Place("", ""))
    namespace = in_pods(Path())["k8s"]["namespace"]
    kinds = sorted(kubeapi.KINDS.keys() - {"Event"})
    found = ((kind, place.listed(kind, namespace, label_selector=f"madengine.run={run}")["items"]) for kind in kinds)
    return [f"{kind}/{each['metadata']['name']}" for kind, items in found for each in items]


def _nothing(_: Path) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Place:
    """A backend under test.

    Attributes:
        backend: makes a fresh one, as a new session in that folder would.
        held: names what the backend still holds for jobs of a run.
        image: what its jobs run in; None where it needs none.
        context: what its jobs' contexts say beside a test's.
        more: the same, for a bench in that folder.
        shared: whether a job writes to its folder itself, so that all that it writes is there at once.
        slow: how many times longer than elsewhere things take that happen at once.
    """

    name: str
    backend: Callable[[Path], Backend]
    held: Callable[[str], list[str]]
    image: Image | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    more: Callable[[Path], Mapping[str, Any]] = _nothing
    shared: bool = True
    slow: int = 1


HOST = Place("host", lambda _: HostBackend(), processes)
DOCKER = Place("docker", lambda _: DockerBackend(), containers, Image(BASE_IMAGE))
FAKE = Place("fake", lambda folder: FakeBackend(folder / "fake"), processes)
SLURM = Place(
    "slurm",
    lambda _: SlurmBackend(),
    queued,
    Image(BASE_IMAGE),
    {"slurm": {"exclusive": False, "gpus_per_node": 0, "time": "00:10:00", "enable_node_check": False}},
)
K8S = Place("k8s", lambda _: KubernetesBackend(), kept, Image(BASE_IMAGE), more=in_pods, shared=False, slow=3)
PLACES = {place.name: place for place in (HOST, DOCKER, FAKE, SLURM, K8S)}
EACH = [
    pytest.param(HOST, id="host"),
    pytest.param(DOCKER, id="docker", marks=pytest.mark.requires_docker),
    pytest.param(FAKE, id="fake"),
    pytest.param(SLURM, id="slurm", marks=[pytest.mark.requires_slurm, pytest.mark.requires_docker]),
    pytest.param(K8S, id="k8s", marks=[pytest.mark.requires_kubernetes, pytest.mark.requires_docker]),
]
"""The parameters of what every backend must do."""


def until(happened: Callable[[], object], seconds: float = LONG) -> None:
    """Return as soon as `happened()` is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.02)


def running(word: str) -> list[psutil.Process]:
    """The live processes of this machine, containers included, with `word` among their arguments."""
    found = psutil.process_iter(["cmdline", "status"])
    return [
        process
        for process in found
        if process.info["status"] != psutil.STATUS_ZOMBIE and word in (process.info["cmdline"] or [])
    ]


class Spy:
    """Collects, while it lives, the arguments of all processes that hold a word."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.seen: list[list[str]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Spy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.03):
            lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
            self.seen += [line for line in lines if any(self.word in argument for argument in line)]


def write(path: Path, text: str) -> Path:
    """A file with its folders; one that says so already is left alone, since a job may be copying it."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path


def read(path: Path) -> str:
    """A file's text; nothing where it is not there yet."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def files(folder: Path) -> dict[str, bytes]:
    """The content of every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Bench:
    """One backend, one project, one run directory.

    Attributes:
        nap: a duration that only this bench's processes sleep, so that they can be found.
        woken: set when the backend says that a job has ended.
    """

    place: Place
    folder: Path
    backend: Backend = field(init=False)
    project: Path = field(init=False)
    directory: RunDirectory = field(init=False)
    nap: str = field(init=False)
    run_id: str = field(default_factory=lambda: f"test-{secrets.token_hex(5)}")
    submitted: list[Handle] = field(default_factory=list)
    woken: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.backend = self.fresh_backend()
        self.backend.watch(self.woken.set)
        self.project = self.folder / "project"
        (self.project / SIGNALS).mkdir(parents=True, exist_ok=True)
        self.directory = RunDirectory.create(self.folder, self.run_id)
        self.nap = f"7200.{secrets.randbelow(10**9):09}"

    def fresh_backend(self) -> Backend:
        """One that knows nothing yet, as a later session's would."""
        return self.place.backend(self.folder)

    def job(
        self,
        script: str = "",
        *,
        directory: Path | None = None,
        context: Mapping[str, Any] | None = None,
        credentials: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        limit: float = 0,
        **card: Any,
    ) -> Job:
        """The job of a card named `model` whose scripts folder is `scripts/model` unless it says otherwise."""
        directory = directory or self.directory.new_job("model")
        signal = {"GO": f"{SIGNALS}/{directory.name}"}
        variables = {**signal, **card.pop("env_vars", {})}
        model = Model(**{"name": "model", "scripts": "scripts/model", "env_vars": variables, **card})
        if script:
            write(self.project / model.scripts_folder / model.entry, script)
        session = compose.Session(
            run=self.run_id,
            context=Context(**{**self.place.context, **self.place.more(self.folder), **(context or {})}),
            machine=Machine("testhost"),
            launchers={launcher.name: launcher for launcher in torchrun.LAUNCHERS},
            credentials=credentials or {},
            environ=environ or {},
            timeout=limit,
            cluster=self.backend.name if self.backend.remote else "",
        )
        source = Source(self.project / "models.json", 1, self.project)
        image = self.place.image
        if image and self.backend.remote:
            known = engine.inspect(image.reference)
            image = replace(image, digest=known["Id"] if known else "")
        made = compose.job(
            model.model_copy(update={"n_gpus": 0}),
            source,
            image,
            directory,
            session,
        )
        return replace(made, files=())  # all nodes see the project

    def submit(self, job: Job) -> Handle:
        """Hand a job over; `close` ends it if the test does not."""
        handle = self.backend.submit(self.backend.plan(job))
        self.submitted.append(handle)
        return handle

    def go(self, handle: Handle) -> None:
        """Let a waiting model go on."""
        (self.project / SIGNALS / Path(handle.directory).name).touch()

    def says(self, handle: Handle, word: str) -> bool:
        """Whether the job's log holds a word by now."""
        return word in read(Path(handle.directory) / "run.log")

    def begun(self, handle: Handle, phase: str) -> bool:
        """Whether that step of the job has begun by now."""
        if not self.place.shared:
            return self.says(handle, "madengine: ")
        return f"{phase} " in read(Path(handle.directory) / "phases")

    def status(self, handle: Handle) -> Status:
        """What the backend says of one job."""
        return self.backend.states([handle])[handle]

    def until_running(self, handle: Handle) -> None:
        """Return when the job runs; where a scheduler decides, it may wait a while."""
        until(lambda: self.state(handle) is State.RUNNING)

    def state(self, handle: Handle) -> State:
        """Where one job stands."""
        return self.status(handle).state

    def find(self, job: Job) -> Handle | None:
        """The handle by which a later session would know a job."""
        return self.fresh_backend().find({job.id: job.directory}).get(job.id)

    def finish(self, handle: Handle, seconds: float = LONG) -> Outcome:
        """Wait for a job's end and collect it."""
        self.await_end(handle, seconds, glance=1)
        return self.collect(handle)

    def await_end(self, handle: Handle, seconds: float = LONG, *, glance: float = LONG) -> None:
        """Sleep until the backend wakes us at a job's end; look every `glance` seconds unless it does."""
        deadline = time.monotonic() + seconds
        while True:
            self.woken.clear()
            if self.state(handle).over:
                return
            assert time.monotonic() < deadline, f"still {self.state(handle)} after {seconds} s"
            self.woken.wait(min(glance, seconds))

    def collect(self, handle: Handle) -> Outcome:
        """Collect a job that is over."""
        if handle in self.submitted:
            self.submitted.remove(handle)
        return self.backend.collect(handle)

    def run(self, script: str = "", **keywords: Any) -> Outcome:
        """Run one job from beginning to end."""
        return self.finish(self.submit(self.job(script, **keywords)))

    def sleeping(self) -> list[psutil.Process]:
        """The processes that sleep this bench's nap."""
        return running(self.nap)

    def held(self) -> list[str]:
        """What the backend still holds for jobs of this bench."""
        return self.place.held(self.run_id)

    def close(self) -> None:
        """End what still runs."""
        left = list(self.submitted)
        self.backend.cancel(left)
        for handle in left:
            self.collect(handle)


class MortalEngine:
    """A way to the engine that can be cut: for those who use it, the engine is dead."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.start()

    def start(self) -> None:
        """Let the engine come to life."""
        argv = [
            sys.executable,
            str(Path(__file__).with_name("proxy.py")),
            str(self.socket),
            str(SOCKET),
        ]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """Let it die."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self.socket.unlink(missing_ok=True)


class Submitter:
    """Another process that uses the same backend in the same run directory."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._process: subprocess.Popen[str] | None = None

    def submit(self, script: str, job: Job | None = None) -> Handle:
        """The handle of a job that the other process submitted, which lives until `kill`; of `job`, if given."""
        self._process = self._start("hold", script, directory=str(job.directory) if job else "")
        assert self._process.stdout
        handle = Handle(**json.loads(self._process.stdout.readline()))
        self.bench.submitted.append(handle)
        return handle

    def kill(self) -> None:
        """End the other process as nobody wants to be ended."""
        assert self._process
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def as_plain_user(self, script: str) -> dict[str, Any]:
        """What a run gave that a user without privileges submitted; where tests run as one, that one."""
        with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
            output, _ = self._start("plain", script, folder=folder).communicate(timeout=LONG)
        outcome: dict[str, Any] = json.loads(output)
        return outcome

    def _start(self, mode: str, script: str, *, folder: str = "", directory: str = "") -> subprocess.Popen[str]:
        bench = self.bench
        where = (bench.place.name, folder or str(bench.folder), bench.run_id)
        argv = [sys.executable, "-m", "tests.backends.elsewhere", *where, mode, script, directory]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def close(self) -> None:
        """End the other process if it still lives."""
        if self._process and self._process.poll() is None:
            self.kill()


def text(outcome: Outcome) -> str:
    """The log of a run."""
    return outcome.log.read_text(encoding="utf-8", errors="replace")
