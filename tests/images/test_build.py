"""Images are built once for each content, by a real engine."""

from __future__ import annotations

import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pytest_madengine.errors import BuildError, InfrastructureError
from pytest_madengine.images import build
from pytest_madengine.images.image import Image
from pytest_madengine.secrets import Secret
from tests.backends.support import ROOT, MortalEngine, Spy, read, running, until, write
from tests.images import builder

pytestmark = pytest.mark.requires_docker
HIDDEN = "hunter2 'is' my $password"


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@dataclass
class Kitchen:
    """A project with one Dockerfile, whose images are called `ci-<name>`; what it built goes with it."""

    folder: Path
    base: str
    name: str = field(default_factory=lambda: f"kitchen-{secrets.token_hex(5)}")

    def __post_init__(self) -> None:
        self.sessions = 0
        self.records = self.new_session()
        self.dockerfile("COPY . /here")

    def dockerfile(self, *lines: str, base: str = "") -> Path:
        """Write the Dockerfile; its variable keeps BuildKit from knowing the steps of an earlier test."""
        text = "\n".join([f"FROM {base or self.base}", f"ENV KITCHEN={self.name}", *lines, ""])
        return write(self.folder / f"docker/{self.name}.Dockerfile", text)

    def new_session(self) -> Path:
        """The records of a session that knows nothing of earlier ones."""
        self.sessions += 1
        return self.folder / f"records-{self.sessions}"

    def recipe(
        self, arguments: Mapping[str, str] | None = None, hidden: Mapping[str, str] | None = None
    ) -> build.Recipe:
        """All that the build depends on."""
        docker = self.folder / "docker"
        concealed = {name: Secret(value) for name, value in (hidden or {}).items()}
        return build.Recipe(self.folder, docker / f"{self.name}.Dockerfile", docker, arguments or {}, concealed)

    def build(self, arguments: Mapping[str, str] | None = None, hidden: Mapping[str, str] | None = None) -> Image:
        """Build in this session."""
        return build.Builder(self.records).build(self.recipe(arguments, hidden))

    def failure(self) -> BuildError:
        """Build what cannot be built."""
        with pytest.raises(BuildError) as caught:
            self.build()
        return caught.value

    def start(self) -> subprocess.Popen[str]:
        """Build in another process of this session."""
        argv = [sys.executable, "-m", "tests.images.builder", builder.to_json(self.recipe()), str(self.records)]
        return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def says(self, image: Image, *command: str) -> str:
        """What a command prints in a container of an image."""
        return docker("run", "--rm", "--network=none", image.reference, *command)

    def logs(self) -> str:
        """All build logs of this session."""
        return "".join(read(path) for path in sorted(self.records.glob("*/build.log")))

    def close(self) -> None:
        """Remove the images."""
        built = docker("images", "--quiet", f"--filter=reference=ci-{self.name}", f"--filter=reference={self.name}")
        if built:
            docker("rmi", "--force", *built.split())


@pytest.fixture
def kitchen(tmp_path: Path, docker_engine: str) -> Iterator[Kitchen]:
    kitchen = Kitchen(tmp_path, docker_engine)
    yield kitchen
    kitchen.close()


@dataclass
class Gate:
    """A place where a step of a build waits until it is let through.

    Attributes:
        step: the instruction.
    """

    server: socket.socket

    @property
    def step(self) -> str:
        port = self.server.getsockname()[1]
        return f"RUN echo waiting; exec 3<>/dev/tcp/127.0.0.1/{port}; echo here >&3; read -r word <&3; echo $word"

    @contextmanager
    def reached(self) -> Iterator[socket.socket]:
        """The step's connection, once it waits."""
        connection, _ = self.server.accept()
        with connection:
            assert connection.recv(100) == b"here\n"
            yield connection


@pytest.fixture
def gate() -> Iterator[Gate]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield Gate(server)


BASH = 'SHELL ["/bin/bash", "-c"]'
"""The base image's sh knows no /dev/tcp."""


def test_builds_lock_where_this_user_can_write(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/1")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/2")
    monkeypatch.setenv("DOCKER_CONFIG", str(kitchen.folder))
    assert kitchen.build().reference


class TestOnce:
    """The same content is built once."""

    def test_several_recipes_of_one_content(self, kitchen: Kitchen) -> None:
        kitchen.dockerfile("RUN echo building")
        first = kitchen.build()
        second = kitchen.build()
        assert first == second
        assert first.reference.startswith(f"ci-{kitchen.name}:")
        assert first.build_duration > 0
        assert kitchen.logs().count("#0 building with") == 1
        assert json.loads(next(kitchen.records.glob("*/image.json")).read_text()) == first.to_json()

    def test_several_processes_at_the_same_time(self, kitchen: Kitchen, gate: Gate) -> None:
        kitchen.dockerfile(BASH, gate.step)
        processes = [kitchen.start() for _ in range(4)]
        with gate.reached() as step:
            step.sendall(b"go\n")
        answers = [process.communicate(timeout=60) for process in processes]
        assert [process.returncode for process in processes] == [0] * 4, answers
        assert len({output for output, _ in answers}) == 1
        assert kitchen.logs().count("waiting") == 1 + kitchen.logs().count("RUN echo waiting")

    def test_a_later_session_finds_the_image(self, kitchen: Kitchen) -> None:
        first = kitchen.build()
        kitchen.records = kitchen.new_session()
        again = kitchen.build()
        assert (again.reference, again.digest) == (first.reference, first.digest)
        assert (again.build_duration, again.log) == (0, "")
        assert kitchen.logs() == ""

    def test_a_failure_is_remembered_for_the_session(self, kitchen: Kitchen) -> None:
        kitchen.dockerfile("RUN false")
        first = kitchen.failure()
        log = kitchen.logs()
        second = kitchen.failure()
        assert str(first) == str(second)
        assert kitchen.logs() == log
        kitchen.records = kitchen.new_session()
        assert str(kitchen.failure()) != str(first)
        assert kitchen.logs()


class TestContent:
    """Other content is another image."""

    @pytest.mark.parametrize(
        ("arguments", "hidden"),
        [({"A": "2"}, {"S": "1"}), ({"A": "1"}, {"S": "2"}), ({}, {"S": "1"}), ({"A": "1"}, {})],
    )
    def test_another_argument_or_secret(
        self, kitchen: Kitchen, arguments: dict[str, str], hidden: dict[str, str]
    ) -> None:
        kitchen.dockerfile("ARG A")
        first, second = kitchen.build({"A": "1"}, {"S": "1"}), kitchen.build(arguments, hidden)
        assert first.reference != second.reference

    def test_another_dockerfile(self, kitchen: Kitchen) -> None:
        first = kitchen.build()
        kitchen.dockerfile("RUN echo other")
        assert kitchen.build().reference != first.reference

    def test_another_file_in_the_context(self, kitchen: Kitchen) -> None:
        references = {kitchen.build().reference}
        write(kitchen.folder / "docker/words", "words")
        references.add(kitchen.build().reference)
        write(kitchen.folder / "docker/words", "other words")
        image = kitchen.build()
        assert len({*references, image.reference}) == 3
        assert kitchen.says(image, "cat", "/here/words") == "other words"

    def test_an_ignored_file_does_not_count(self, kitchen: Kitchen) -> None:
        write(kitchen.folder / "docker/.dockerignore", "# ours\n*.log\n!keep.log\n")
        write(kitchen.folder / "docker/keep.log", "kept")
        first = kitchen.build()
        write(kitchen.folder / "docker/noise.log", "noise")
        assert kitchen.build() == first
        assert set(kitchen.says(first, "ls", "/here").split()) == {f"{kitchen.name}.Dockerfile", "keep.log"}
        write(kitchen.folder / "docker/keep.log", "changed")
        assert kitchen.build().reference != first.reference

    def test_what_runs_leave_in_the_context_neither_counts_nor_enters_the_image(self, kitchen: Kitchen) -> None:
        write(kitchen.folder / "docker/.dockerignore", "!perf.csv\n")
        first = kitchen.build()
        for name in ("perf.csv", "perf_super.json", ".madengine/runs/1/run.log", ".pytest_cache/v/lastfailed"):
            write(kitchen.folder / "docker" / name, "left by a run")
        write(kitchen.folder / "docker/words", "words")
        image = kitchen.build()
        assert image.reference != first.reference
        assert set(kitchen.says(image, "ls", "-A", "/here").split()) == {
            f"{kitchen.name}.Dockerfile",
            "words",
            ".dockerignore",
        }
        write(kitchen.folder / "docker/.pytest_cache/v/lastfailed", "another")
        assert kitchen.build() == image

    @pytest.mark.parametrize("name", ["perf_entrypoint.sh", "perf_super_utils/x"])
    def test_a_file_that_is_but_called_like_ours_counts_and_enters_the_image(self, kitchen: Kitchen, name: str) -> None:
        first = kitchen.build()
        write(kitchen.folder / "docker" / name, "of the project")
        image = kitchen.build()
        assert image.reference != first.reference
        assert kitchen.says(image, "cat", f"/here/{name}") == "of the project"

    def test_another_base_image_of_the_same_name(self, kitchen: Kitchen) -> None:
        base = f"{kitchen.name}:base"
        docker("tag", kitchen.base, base)
        kitchen.dockerfile("RUN cat /etc/mark || true", base=base)
        first = kitchen.build()
        assert (first.base, first.base_digest) == (base, docker("inspect", "--format={{.Id}}", kitchen.base))
        changed = write(
            kitchen.folder / "changed/Dockerfile", f"FROM {kitchen.base}\nRUN echo {kitchen.name} > /etc/mark\n"
        )
        docker("buildx", "build", "--load", f"--tag={base}", str(changed.parent))
        second = kitchen.build()
        assert second.reference != first.reference
        assert second.base_digest == docker("inspect", "--format={{.Id}}", base) != first.base_digest
        assert kitchen.says(second, "cat", "/etc/mark") == kitchen.name


class TestInputs:
    """What a Dockerfile can use."""

    @pytest.mark.parametrize("place", ["docker/common", "scripts/common/tools"])
    def test_the_context_named_tools(self, kitchen: Kitchen, place: str) -> None:
        write(kitchen.folder / place / "helper", "helped")
        kitchen.dockerfile(
            "COPY --from=tools helper /helper", "RUN --mount=from=tools,target=/t cat /t/helper > /mounted"
        )
        first = kitchen.build()
        assert kitchen.says(first, "cat", "/helper", "/mounted") == "helpedhelped"
        write(kitchen.folder / place / "helper", "changed")
        assert kitchen.build().reference != first.reference

    def test_arguments_arrive_as_they_are(self, kitchen: Kitchen) -> None:
        kitchen.dockerfile("ARG WORDS", 'RUN printf %s "$WORDS" > /words')
        words = """it's "two" $words; `x` = größe"""
        assert kitchen.says(kitchen.build({"WORDS": words}), "cat", "/words") == words

    def test_the_base_image_is_an_argument(self, kitchen: Kitchen) -> None:
        variables = f"ENV KITCHEN={kitchen.name} ROCM_PATH=/opt/rocm-7"
        text = f"ARG BASE_DOCKER=localhost:1/none:x\nFROM $BASE_DOCKER\n{variables}\n"
        write(kitchen.folder / f"docker/{kitchen.name}.Dockerfile", text)
        image = kitchen.build({"BASE_DOCKER": kitchen.base})
        assert image.base == kitchen.base
        assert image.base_digest == docker("inspect", "--format={{.Id}}", kitchen.base)
        assert image.digest == docker("inspect", "--format={{.Id}}", image.reference)
        assert image.rocm_root == "/opt/rocm-7"
        assert image.dockerfile == f"docker/{kitchen.name}.Dockerfile"

    def test_a_mounted_secret_is_known_to_its_step_alone(self, kitchen: Kitchen, gate: Gate) -> None:
        mounted = (
            "RUN --mount=type=secret,id=PASSWORD cat /run/secrets/PASSWORD; wc -c < /run/secrets/PASSWORD > /length"
        )
        kitchen.dockerfile(BASH, mounted, gate.step)
        with ThreadPoolExecutor() as pool, Spy("hunter2") as spy:
            building = pool.submit(kitchen.build, {}, {"PASSWORD": HIDDEN})
            with gate.reached() as step:
                step.sendall(b"go\n")
            image = building.result(timeout=60)
        assert kitchen.says(image, "cat", "/length") == str(len(HIDDEN))
        assert spy.seen == []
        assert "***" in kitchen.logs()
        shown = (kitchen.logs(), docker("history", "--no-trunc", image.reference), docker("inspect", image.reference))
        assert not any("hunter2" in text for text in shown)

    def test_a_secret_is_an_argument_where_it_is_declared(self, kitchen: Kitchen) -> None:
        kitchen.dockerfile(
            "ARG site_PASSWORD", 'RUN printf %s "$site_PASSWORD" | wc -c > /length; echo "$site_PASSWORD"'
        )
        with Spy("hunter2") as spy:
            image = kitchen.build(hidden={"site_PASSWORD": HIDDEN, "site_USERNAME": "somebody else"})
        assert kitchen.says(image, "cat", "/length") == str(len(HIDDEN))
        assert spy.seen == []
        assert "hunter2" not in kitchen.logs()


class TestFailures:
    """Builds that fail say where."""

    def test_the_failing_step_and_the_end_of_the_log(self, kitchen: Kitchen) -> None:
        kitchen.dockerfile("RUN for n in $(seq 200); do echo line $n; done", "RUN echo no good >&2 && exit 7")
        error = kitchen.failure()
        assert error.dockerfile == f"docker/{kitchen.name}.Dockerfile"
        assert error.reason.startswith(f"building docker/{kitchen.name}.Dockerfile failed (exit 1)")
        assert "RUN echo no good >&2 && exit 7" in error.reason
        assert "exit code: 7" in error.reason
        assert any("no good" in line for line in error.tail)
        assert len(error.tail) <= 20
        assert read(Path(error.log)) == kitchen.logs()
        assert "line 200" in kitchen.logs()
        assert error.log in str(error)

    def test_a_dockerfile_that_cannot_be_read(self, kitchen: Kitchen) -> None:
        kitchen.dockerfile("MAKE something")
        error = kitchen.failure()
        assert "unknown instruction: MAKE" in str(error)

    def test_a_file_that_is_not_there(self, kitchen: Kitchen) -> None:
        kitchen.dockerfile("COPY nowhere /x")
        error = kitchen.failure()
        assert "COPY nowhere /x" in error.reason
        assert "not found" in error.reason

    def test_a_secret_does_not_leave_by_an_error(self, kitchen: Kitchen) -> None:
        kitchen.dockerfile("RUN --mount=type=secret,id=PASSWORD cat /run/secrets/PASSWORD; false")
        with pytest.raises(BuildError) as caught:
            kitchen.build(hidden={"PASSWORD": HIDDEN})
        assert "***" in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_a_base_image_that_nobody_has(self, kitchen: Kitchen) -> None:
        kitchen.dockerfile(base="localhost:1/nobody/has-it:ever")
        started = time.monotonic()
        with pytest.raises(InfrastructureError, match="docker pull localhost:1/nobody/has-it:ever failed"):
            kitchen.build()
        assert time.monotonic() - started < 20


class TestProgress:
    """Builds that take their time."""

    def test_the_log_grows_while_building(self, kitchen: Kitchen, gate: Gate) -> None:
        kitchen.dockerfile(BASH, gate.step)
        with ThreadPoolExecutor() as pool:
            building = pool.submit(kitchen.build)
            with gate.reached() as step:
                until(lambda: re.search("^#.* waiting$", kitchen.logs(), re.MULTILINE))
                assert "through" not in kitchen.logs()
                step.sendall(b"through\n")
            building.result(timeout=60)
        assert "through" in kitchen.logs()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interruption_ends_the_build_and_another_can_begin(
        self, kitchen: Kitchen, gate: Gate, number: signal.Signals
    ) -> None:
        kitchen.dockerfile(BASH, gate.step)
        process = kitchen.start()
        with gate.reached() as step:
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
            step.settimeout(30)
            assert step.recv(100) == b""  # the step's end of the connection is closed: it is dead
        assert process.returncode != 0
        assert "KeyboardInterrupt" in said or process.returncode == 128 + signal.SIGTERM
        assert running(str(kitchen.recipe().dockerfile)) == []
        assert list(kitchen.records.glob("*/image.json")) == []
        with ThreadPoolExecutor() as pool:
            building = pool.submit(kitchen.build)
            with gate.reached() as step:
                step.sendall(b"through\n")
            assert building.result(timeout=60).build_duration > 0

    def test_one_who_waits_for_anothers_build_gives_up_when_the_session_ends(
        self, kitchen: Kitchen, gate: Gate
    ) -> None:
        kitchen.dockerfile(BASH, gate.step)
        process = kitchen.start()
        stopping, records = threading.Event(), kitchen.new_session()
        builder = build.Builder(records, stopping=stopping)
        with gate.reached() as step, ThreadPoolExecutor() as pool:
            waiting = pool.submit(builder.build, kitchen.recipe())
            until(lambda: list(records.iterdir()) if records.is_dir() else [])
            assert wait([waiting], timeout=2 * build.PATIENCE).not_done
            stopping.set()
            with pytest.raises(InfrastructureError, match="given up, since the session ends"):
                waiting.result(timeout=1)
            assert process.poll() is None
            step.sendall(b"through\n")
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert list(records.glob("*/*")) == []

    def test_an_engine_that_is_lost_is_no_fault_of_the_dockerfile(
        self, mortal_engine: MortalEngine, kitchen: Kitchen, gate: Gate
    ) -> None:
        kitchen.dockerfile(BASH, gate.step)
        with ThreadPoolExecutor() as pool:
            building = pool.submit(kitchen.build)
            with gate.reached() as step:
                mortal_engine.kill()
                title = f"docker/{kitchen.name}.Dockerfile"
                with pytest.raises(InfrastructureError, match=f"the engine went away while building {title}: "):
                    building.result(timeout=60)
                step.settimeout(30)
                assert step.recv(100) == b""  # the engine ended the build too
            assert list(kitchen.records.glob("*/image.json")) == []
            mortal_engine.start()
            again = pool.submit(kitchen.build)
            with gate.reached() as step:
                step.sendall(b"through\n")
            assert again.result(timeout=60).build_duration > 0
