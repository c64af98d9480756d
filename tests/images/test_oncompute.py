"""Images are built on nodes of a real cluster and pushed to real registries; the session needs no engine."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_madengine.context.context import validated
from pytest_madengine.context.slurm import Slurm
from pytest_madengine.errors import BuildError, InfrastructureError, MadengineError, PushError
from pytest_madengine.images import oncompute
from pytest_madengine.images.build import Recipe
from pytest_madengine.images.oncompute import OnCompute, Order, Queue
from pytest_madengine.images.registry import Login, Registries, configuration
from pytest_madengine.models.model import Model, Source
from pytest_madengine.secrets import Secret
from tests.backends.support import BASE_IMAGE, ROOT, until
from tests.cards import BARE, PASSES, UNLOADED, card, project, rows, run_bare
from tests.engines.cluster import Cluster
from tests.engines.registries import Registry
from tests.golden import compare
from tests.images.test_build import BASH, Gate, docker
from tests.jobs.test_compose import SHELLCHECK
from tests.test_building import Yard, errors, gate, together, yard
from tests.test_resume import PATIENCE, pytest_in, said

__all__ = ["gate", "yard"]  # fixtures
GOLDEN = Path(__file__).with_name("golden")
ON_COMPUTE, BUILD, ALL = "--madengine-build-on-compute", "--madengine-build-only", "--madengine-tags=all"
LABEL = "madengine.test-oncompute"
HIDDEN = "planted 'secret' of $HOME"
NOWHERE = "unix:///nowhere/docker.sock"


def recipe(folder: Path, *lines: str, **hidden: str) -> Recipe:
    """A build of a Dockerfile with these lines."""
    docker = folder / "docker"
    docker.mkdir(exist_ok=True)
    path = docker / "x.ubuntu.Dockerfile"
    path.write_text("\n".join(["FROM base:1", *lines, ""]))
    concealed = {name: Secret(value) for name, value in hidden.items()}
    return Recipe(folder, path, docker, {"FLAVOUR": "it's $weet"}, concealed)


def order(folder: Path, case: str) -> Order:
    """What is built in one of the cases."""
    slurm: dict[str, Any] = {"time": "02:00:00"}
    hidden, logins = {}, []
    if case == "guarded":
        slurm |= {"partition": "cpu", "account": "ml", "modules": ["docker/27"], "prologue": "ulimit -n 4096"}
        slurm |= {"options": {"mem": "16G"}, "exclude": "node1"}
        hidden = {"MAD_SECRETS_TOKEN": HIDDEN}
        logins = [Login("reg.example", "o'neil", Secret("password")), Login("docker.io", "hub", Secret("password"))]
    recipe_ = recipe(folder, "ARG MAD_SECRETS_TOKEN", **hidden)
    planned = OnCompute(folder / "20260101-run/images").planned(recipe_)
    return Order(planned, "reg.example/ml/ci-x:1", Slurm.model_validate(slurm), logins)


def script(folder: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if case == "step":
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    each = order(folder, case)
    text = each.script(sorted(each.secrets()), afresh=case == "step")
    return re.sub("ubuntu-[0-9a-f]{12}", "ubuntu-HASH", text.replace(str(folder), "/site"))


@pytest.mark.parametrize("case", ["open", "guarded", "step"])
class TestScript:
    """What nodes run."""

    def test_is_as_recorded(self, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
        compare(script(tmp_path, case, monkeypatch), GOLDEN / f"build-{case}.sh")

    def test_bash_understands_it(self, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
        text = script(tmp_path, case, monkeypatch)
        checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")

    def test_shellcheck_has_nothing_to_say(self, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
        checking = [str(SHELLCHECK), "--shell=bash", "--severity=warning", "-"]
        text = script(tmp_path, case, monkeypatch)
        checked = subprocess.run(checking, input=text, capture_output=True, text=True, check=False)
        assert checked.stdout == ""

    def test_holds_no_secret(self, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "planted" not in script(tmp_path, case, monkeypatch)
        assert "password\n" not in script(tmp_path, case, monkeypatch)


def asked(card: dict[str, Any], reservation: str = "", **slurm: Any) -> Slurm:
    """What is asked of SLURM for a build, given a card's section and the context's."""
    source = Source(Path("models.json"), 1, Path())
    context = validated({"slurm": slurm} if slurm else {}, str, set)
    return oncompute.request(Model(name="m", slurm=card), context, source, reservation)


class TestRequest:
    """What a build asks of SLURM is what card and context say, as far as it concerns one node without GPUs."""

    def test_is_modest_where_nobody_says_anything(self) -> None:
        assert asked({}).sbatch_options() == [("nodes", "1"), ("time", "02:00:00")]

    def test_is_what_card_and_context_say(self) -> None:
        of_card = {
            "partition": "cpu",
            "qos": "low",
            "time": "00:10:00",
            "nodes": 4,
            "gpus_per_node": 8,
            "nodelist": "n[1-4]",
        }
        found = asked(of_card, qos="high", options={"mem": "1G"}, exclude="n7", constraint="big", account="ml")
        assert dict(found.sbatch_options()) == {
            "partition": "cpu",
            "nodes": "1",
            "time": "00:10:00",
            "exclude": "n7",
            "constraint": "big",
            "qos": "high",
            "account": "ml",
            "mem": "1G",
        }

    def test_is_in_the_reservation_of_the_option(self) -> None:
        assert ("reservation", "now") in asked({"reservation": "then"}, "now").sbatch_options()

    def test_is_for_the_first_of_several_partitions(self) -> None:
        assert ("partition", "a") in asked({"partitions": ["a", "b"]}).sbatch_options()

    def test_asks_for_gpus_where_an_option_does(self) -> None:
        assert ("gpus", "1") in asked({"gpus_per_node": 8, "options": {"gpus": 1}}).sbatch_options()


@dataclass
class FakeQueue:
    """A `squeue` that counts how often it is asked."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def says(self, text: str, code: int = 0) -> None:
        program = self.folder / "squeue"
        program.write_text(f"#!/bin/sh\necho asked >>{self.folder}/asked\necho '{text}'\nexit {code}\n")
        program.chmod(0o755)
        self.monkeypatch.setenv("PATH", f"{self.folder}:{os.environ['PATH']}")

    @property
    def times(self) -> int:
        return (self.folder / "asked").read_text().count("asked")


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    return FakeQueue(tmp_path, monkeypatch)


class TestQueue:
    """SLURM is asked for all builds at once, and not often."""

    def test_many_threads_ask_once(self, squeue: FakeQueue) -> None:
        squeue.says("5|RUNNING|None|n1|one")
        queue = Queue()
        threads = [threading.Thread(target=queue.row, args=("one", 0.0)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fresh, row = queue.row("one", 0.0)
        assert (fresh, row and row.word, squeue.times) == (True, "RUNNING", 1)

    def test_what_was_heard_before_a_job_says_nothing_of_it(self, squeue: FakeQueue) -> None:
        squeue.says("5|RUNNING|None|n1|one")
        queue = Queue()
        queue.row("one", 0.0)
        assert queue.row("two", time.monotonic()) == (False, None)

    def test_a_controller_that_is_away_costs_no_build(self, squeue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        squeue.says("5|RUNNING|None|n1|one")
        monkeypatch.setattr(oncompute, "BETWEEN", 0.0)
        queue = Queue()
        queue.row("one", 0.0)
        squeue.says("slurm_load_jobs error: Unable to contact slurm controller", 1)
        now = time.monotonic()
        fresh, row = queue.row("one", now)
        assert (fresh, row and row.word) == (False, "RUNNING")
        monkeypatch.setattr(oncompute, "SILENCE", 0.0)
        with pytest.raises(InfrastructureError, match="Unable to contact"):
            queue.row("one", now)


@dataclass
class FakeCluster:
    """Programs that take a job and say what became of it; it never runs."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        self.monkeypatch.setattr(oncompute, "LAG", 0.1)
        self.monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        self.monkeypatch.setenv("PATH", f"{self.folder}:{os.environ['PATH']}")
        self.program("sbatch", f"sed -n 's/^#SBATCH --comment=//p' \"$2\" >{self.folder}/comment; echo '5;cluster'")

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def ends(self, word: str, **files: str) -> MadengineError:
        """What a build dies of whose job ends so, having written these files."""
        writes = [f"printf '%s\\n' '{text}' >{name}" for name, text in files.items()]
        row = f'echo "5|{word}|NonZeroExitCode|n1|$(cat {self.folder}/comment)"' if word else "true"
        self.program("squeue", "\n".join([f"cd {self.folder}/records/x*", *writes, row]))
        builder = OnCompute(self.folder / "records")
        with pytest.raises(MadengineError) as caught:
            builder.build_there(recipe(self.folder), "reg.example/x:1", Slurm(time="00:05:00"), lambda _: None)
        return caught.value


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    return FakeCluster(tmp_path, monkeypatch)


class TestEnds:
    """However a job ends, the build has one failure that says whose fault it is."""

    def test_a_node_that_fails(self, cluster: FakeCluster) -> None:
        error = cluster.ends("NODE_FAIL", host="n1", **{"slurm.log": "*** JOB 5 CANCELLED DUE TO NODE FAILURE ***"})
        assert type(error) is InfrastructureError
        assert "build docker/x.ubuntu.Dockerfile on n1 was lost: NODE_FAIL; *** JOB 5 CANCELLED" in str(error)

    def test_a_job_that_is_forgotten(self, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(oncompute, "ABSENT", 0.1)
        error = cluster.ends("")
        assert type(error) is InfrastructureError
        assert "was lost: it is in no queue" in str(error)

    def test_the_time_limit(self, cluster: FakeCluster) -> None:
        error = cluster.ends("TIMEOUT", ended="stopped 143", **{"build.log": "#5 compiling"})
        assert isinstance(error, BuildError)
        assert list(error.tail) == ["#5 compiling"]
        assert "docker/x.ubuntu.Dockerfile was not built within slurm.time, 00:05:00" in str(error)

    def test_an_engine_that_is_away(self, cluster: FakeCluster) -> None:
        error = cluster.ends("FAILED", ended="build 1", **{"build.log": "ERROR: Cannot connect to the Docker daemon"})
        assert type(error) is InfrastructureError

    def test_a_push_that_is_refused(self, cluster: FakeCluster) -> None:
        error = cluster.ends("FAILED", ended="push 1", host="n1", **{"push.log": "denied: no"})
        assert isinstance(error, PushError)
        assert error.registry_image == "reg.example/x:1"
        assert "registry reg.example: n1 could not push reg.example/x:1: denied: no" in str(error)

    def test_a_node_without_docker(self, cluster: FakeCluster) -> None:
        error = cluster.ends("FAILED", ended="prepare 127", host="n1", **{"slurm.log": "docker: command not found"})
        assert type(error) is InfrastructureError
        assert "on n1: what comes before the build failed (exit 127): docker: command not found" in str(error)

    def test_an_image_of_which_nothing_is_said(self, cluster: FakeCluster) -> None:
        assert "does not say as what" in str(cluster.ends("COMPLETED", ended="pushed 0"))


class TestLogins:
    """Nodes get the logins that a build needs, in a copy of the user's docker configuration."""

    def test_one_for_each_registry_of_the_build(self) -> None:
        known = {name: {"username": name, "password": "p"} for name in ("reg.example", "other.example", "dockerhub")}
        registries = Registries(known, threading.Event())
        found = registries.logins(["reg.example/a:1", "reg.example/b", "ubuntu:22.04", "ghcr.io/x"])
        assert found == [Login("reg.example", "reg.example", Secret("p")), Login("docker.io", "dockerhub", Secret("p"))]
        assert [login.server for login in found] == ["reg.example", ""]

    def test_which_go_into_no_credential_store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        users = {"auths": {"ghcr.io": {"auth": "x"}}, "credsStore": "pass", "credHelpers": {"gcr.io": "gcloud"}}
        (tmp_path / "config.json").write_text(json.dumps(users))
        text = configuration([Login("reg.example", "u", Secret("p")), Login("docker.io", "u", Secret("p"))])
        helpers = {"gcr.io": "gcloud", "reg.example": "", "https://index.docker.io/v1/": ""}
        assert json.loads(text) == {**users, "credHelpers": helpers}
        assert repr(text) == "'***'"


class TestUsage:
    """What cannot be meant is a usage error."""

    def test_without_a_registry(self, yard: Yard) -> None:
        yard.shared("a")
        assert "no registry is named" in errors(yard.run(ALL, ON_COMPUTE))

    def test_without_a_registry_for_each_model_of_a_batch(self, yard: Yard) -> None:
        yard.shared("a")
        (yard.folder / "batch.json").write_text('[{"model_name": "a", "build_new": true}]')
        assert "no registry is named" in errors(yard.run("--madengine-batch-manifest=batch.json", ON_COMPUTE))


@dataclass
class Site:
    """A project, a registry that has the base image, and a cluster that builds.

    Attributes:
        token: is in the names of this test's Dockerfiles, and so of its images.
    """

    yard: Yard
    registry: Registry
    token: str = field(default_factory=lambda: f"x{secrets.token_hex(5)}")

    def __post_init__(self) -> None:
        self.base = f"{self.registry.address}/base:{self.token}"
        self.folder = self.yard.folder
        argv = [
            "docker",
            "build",
            "--quiet",
            f"--tag={self.base}",
            "-",
        ]  # an image of its own: digests stay with images
        text = f"FROM {BASE_IMAGE}\nLABEL {LABEL}={self.token}\n"
        subprocess.run(argv, input=text, text=True, capture_output=True, check=True)
        if not self.registry.login:
            docker("push", "--quiet", self.base)

    def dockerfile(self, name: str, *lines: str) -> None:
        text = "\n".join([f"FROM {self.base}", f"ENV OF={self.token}", *lines, ""])
        path = self.folder / f"docker/{self.token}-{name}.Dockerfile"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def card(self, name: str, of: str = "", **more: Any) -> dict[str, Any]:
        return card(name, dockerfile=f"docker/{self.token}-{of or name}", **more)

    def args(self, *more: str, **context: Any) -> list[str]:
        context["slurm"] = {"time": "00:05:00", **context.get("slurm", {})}
        registry = f"--madengine-registry={self.registry.address}"
        return [ALL, ON_COMPUTE, registry, f"--madengine-context={json.dumps(context)}", *more]

    def start(self, *more: str, **context: Any) -> subprocess.Popen[bytes]:
        """pytest, where no engine answers."""
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("DOCKER_HOST", NOWHERE)
            return pytest_in(self.folder, *self.args(*more, **context))

    def build(self, *more: str, **context: Any) -> str:
        """What a session says that only builds."""
        self.start(BUILD, *more, **context).wait(PATIENCE)
        return said(self.folder)

    @property
    def images(self) -> dict[str, Any]:
        built: dict[str, Any] = self.yard.manifest()["built_images"]
        return built

    def files(self) -> Iterator[Path]:
        """All that the session left in the project."""
        return (path for path in self.folder.rglob("*") if path.is_file())

    def forget(self) -> None:
        """Let the engine, which is the nodes' as well, lose the images."""
        made = set(docker("images", "--quiet", f"--filter=label={LABEL}={self.token}").split())
        if made:
            docker("rmi", "--force", *made)


def logins() -> list[Path]:
    """Folders in which nodes keep logins; they share this machine's."""
    return list(Path("/tmp").glob("madengine-docker-*"))  # noqa: S108  # where nodes put them


def jobs(cluster: Cluster, site: Site) -> str:
    return cluster.text("squeue", "--noheader", f"--name=madengine-build-{site.token}-a", "--format=%T")


@pytest.fixture
def site(yard: Yard, registry: Registry) -> Iterator[Site]:
    site = Site(yard, registry)
    yield site
    site.forget()


@pytest.fixture
def private_site(yard: Yard, private_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(yard, private_registry)
    assert private_registry.login
    own = str(tmp_path_factory.mktemp("config"))
    name, password = private_registry.login
    argv = ["docker", "--config", own, "login", "--username", name, "--password-stdin", private_registry.address]
    subprocess.run(argv, input=password, text=True, capture_output=True, check=True)
    docker("--config", own, "push", "--quiet", site.base)
    yield site
    site.forget()


@pytest.mark.requires_slurm
@pytest.mark.requires_registry
class TestOnNodes:
    """Builds, each a job of its own."""

    def test_of_two_images_side_by_side_which_then_run_elsewhere(self, site: Site, gate: Gate) -> None:
        project(
            site.folder,
            site.card("a", dockercontext="kitchen"),
            site.card("team/B", "b"),
            script="cat /made\n" + PASSES,
        )
        (site.folder / "kitchen").mkdir()
        (site.folder / "kitchen/salt").write_text("salt")
        (site.folder / "scripts/common/tools").mkdir(parents=True)
        (site.folder / "scripts/common/tools/knife").write_text("knife")
        site.dockerfile(
            "a",
            BASH,
            gate.step,
            "COPY salt /salt",
            "COPY --from=tools knife /knife",
            "RUN echo $(cat /salt /knife) >/made",
        )
        site.dockerfile("b", "ARG FLAVOUR", 'RUN echo "$FLAVOUR" >/made', BASH, gate.step)
        flavour = """it's "$weet" """
        with together(gate, 2):
            out = site.build(docker_build_arg={"FLAVOUR": flavour})
        assert "2 passed" in out, out
        manifest = site.yard.manifest()
        assert all(each["built_on_compute"] is True for each in manifest["built_models"].values())
        base = docker("image", "inspect", "--format={{range .RepoDigests}}{{println .}}{{end}}", site.base).split()
        for each in site.images.values():
            assert each["docker_image"] == f"{each['registry_image'].rpartition(':')[0]}@{each['digest']}"
            assert each["registry_image"].startswith(f"{site.registry.address}/ci-{site.token}-")
            assert f"{site.base.rpartition(':')[0]}@{each['docker_sha']}" in base
            assert each["image_id"].startswith("sha256:")
            assert each["build_duration"] > 0
        site.forget()
        site.yard.run("--madengine-manifest=build_manifest.json").assert_outcomes(passed=2)
        logs = "".join(path.read_text() for path in site.yard.latest.glob("jobs/*/run.log"))
        assert "saltknife" in logs
        assert flavour in logs

    def test_that_fail_tell_why_to_all_who_want_the_image(self, site: Site) -> None:
        project(site.folder, site.card("a"), site.card("b", "a"))
        site.dockerfile("a", "RUN echo it is burnt; exit 7")
        out = site.build("--madengine-exit-codes")
        assert "2 errors" in out, out
        assert re.search(
            r"building docker/\S+ failed \(exit 1\): \[2/2\] RUN echo it is burnt; exit 7: .*exit code: 7", out
        )
        assert out.count("it is burnt") > 1
        assert [each["model"] for each in site.yard.manifest()["summary"]["failed_builds"]] == ["a", "b"]
        assert len(list(site.yard.latest.glob("images/*/build.sh"))) == 1

    def test_repeated_build_nothing(self, site: Site) -> None:
        project(site.folder, site.card("a"))
        site.dockerfile("a", "RUN date +%N >/stamp")
        site.build()
        first = dict(site.images)
        site.build()
        assert site.images["a"]["digest"] == first["a"]["digest"]
        assert re.search(r"RUN date \+%N >/stamp\n#\d+ CACHED", site.yard.log())

    def test_without_a_cache_build_again(self, site: Site) -> None:
        project(site.folder, site.card("a"))
        site.dockerfile("a", "RUN date +%N >/stamp")
        site.build()
        first = dict(site.images)
        site.build("--madengine-no-cache")
        assert site.images["a"]["digest"] != first["a"]["digest"]

    def test_that_wait_say_why_and_then_which_step_they_are_at(self, site: Site) -> None:
        project(site.folder, site.card("a"))
        site.dockerfile("a", "RUN echo building && sleep 3")
        site.build(slurm={"options": {"begin": "now+2"}})
        told = [each for each in site.yard.records() if each["kind"] == "phase"]
        phases = list(dict.fromkeys((each["phase"], each["detail"]) for each in told))
        building = "building", f"docker/{site.token}-a.Dockerfile"
        assert building not in phases[: phases.index(("pending", "BeginTime"))]
        assert building in phases
        assert any("RUN echo building" in each["step"] for each in told)

    def test_with_secrets_leave_none_anywhere(self, private_site: Site) -> None:
        site = private_site
        assert site.registry.login
        known = {site.registry.address: site.registry.login.entry(), "vault": {"username": "u", "password": HIDDEN}}
        (site.folder / "credential.json").write_text(json.dumps(known))
        project(site.folder, site.card("a", cred="vault"))
        reads = "RUN --mount=type=secret,id=vault_PASSWORD cat /run/secrets/vault_PASSWORD; sleep 1"
        site.dockerfile("a", reads)
        before = logins()
        seen = set[str]()
        process = site.start(BUILD)
        while process.poll() is None:
            seen |= {" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])}
            time.sleep(0.02)
        assert "1 passed" in said(site.folder), said(site.folder)
        assert "***" in site.yard.log()
        planted = (HIDDEN, site.registry.login.password)
        assert not any(text in each for each in seen for text in planted)
        assert any("docker buildx build" in each for each in seen)
        (site.folder / "credential.json").unlink()
        assert [path for path in site.files() for text in planted if text.encode() in path.read_bytes()] == []
        assert logins() == before

    def test_refused_by_a_registry_are_infrastructure(self, private_site: Site) -> None:
        site = private_site
        known = {site.registry.address: {"username": "nobody", "password": "wrong-password"}}
        (site.folder / "credential.json").write_text(json.dumps(known))
        project(site.folder, site.card("a"))
        site.dockerfile("a")
        out = site.build()
        assert re.search(r"building docker/\S+ on node\d: docker login failed \(exit 1\): .*401 Unauthorized", out), out
        assert "wrong-password" not in out

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
    def test_of_an_interrupted_session_end(
        self, site: Site, gate: Gate, slurm_cluster: Cluster, number: signal.Signals
    ) -> None:
        project(site.folder, site.card("a"))
        site.dockerfile("a", BASH, gate.step)
        process = site.start(BUILD)
        with gate.reached() as step:
            assert jobs(slurm_cluster, site) == "RUNNING"
            process.send_signal(number)
            assert process.wait(PATIENCE) == pytest.ExitCode.INTERRUPTED
            step.settimeout(PATIENCE)
            assert step.recv(100) == b""
        until(lambda: not jobs(slurm_cluster, site))

    def test_that_somebody_cancels_are_lost(self, site: Site, gate: Gate, slurm_cluster: Cluster) -> None:
        project(site.folder, site.card("a"))
        site.dockerfile("a", BASH, gate.step)
        process = site.start(BUILD)
        with gate.reached():
            slurm_cluster.text("scancel", f"--name=madengine-build-{site.token}-a")
            process.wait(PATIENCE)
        assert re.search(r"on node\d was lost: CANCELLED", said(site.folder)), said(site.folder)

    @pytest.mark.parametrize(
        ("slurm", "words"),
        [
            ({"partition": "nowhere"}, "sbatch refused: .*invalid partition specified: nowhere"),
            ({"partition": "debug", "time": "01:00:00"}, "PartitionTimeLimit"),
        ],
    )
    def test_that_cannot_begin(self, site: Site, slurm: dict[str, Any], words: str) -> None:
        project(site.folder, site.card("a"))
        site.dockerfile("a")
        out = site.build(slurm=slurm)
        assert re.search(words, out), out
        assert "1 error" in out

    def test_inside_an_allocation_are_steps_of_it(self, site: Site) -> None:
        project(site.folder, site.card("a"))
        site.dockerfile("a", "RUN echo building")
        out, _ = _in_allocation(site).communicate(timeout=PATIENCE)
        assert "1 passed" in out, out
        (step,) = site.yard.latest.glob("images/*/step")
        assert re.fullmatch(r"\d+\.\d+\n", step.read_text())

    def test_before_jobs_of_the_same_session(self, site: Site) -> None:
        project(site.folder, site.card("a", slurm={"nodes": 2, "gpus_per_node": 0}), script="cat /made\n" + PASSES)
        site.dockerfile("a", "RUN echo done >/made")
        site.start("--target=slurm", slurm={"exclusive": False}).wait(PATIENCE)
        assert "1 passed" in said(site.folder), said(site.folder)
        (row,) = rows(site.folder / "perf.csv")
        assert (row["status"], row["nnodes"]) == ("SUCCESS", "2")

    def test_inside_an_allocation_end_with_an_interrupted_session(self, site: Site, gate: Gate) -> None:
        project(site.folder, site.card("a"))
        site.dockerfile("a", BASH, gate.step)
        process = _in_allocation(site)
        with gate.reached() as step:
            (child,) = psutil.Process(process.pid).children()
            child.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)
            assert step.recv(100) == b""
        (ended,) = site.yard.latest.glob("images/*/ended")
        assert ended.read_text() == "stopped 143\n"

    def test_of_two_images_for_one_name_are_refused(self, site: Site) -> None:
        project(site.folder, site.card("a"), site.card("b"))
        remote = f"{site.registry.address}/ci-{site.token}:same"
        for name in "ab":
            site.dockerfile(name, f"ENV IS={name}")
        batch = [{"model_name": name, "build_new": True, "registry_image": remote} for name in "ab"]
        (site.folder / "batch.json").write_text(json.dumps(batch))
        result = run_bare(site.yard.pytester, BUILD, ON_COMPUTE, "--madengine-batch-manifest=batch.json")
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines([f"*{remote} is to hold two images*"])


def _in_allocation(site: Site) -> subprocess.Popen[str]:
    """pytest as the command of an allocation of two nodes."""
    argv = ["salloc", "--nodes=2", "--time=5", sys.executable, "-m", "pytest", *BARE, *site.args(BUILD)]
    own = {**os.environ, **UNLOADED, "PYTHONPATH": str(ROOT), "DOCKER_HOST": NOWHERE}
    return subprocess.Popen(argv, cwd=site.folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
