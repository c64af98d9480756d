"""The engine that the docker command uses is the one that is asked."""

from __future__ import annotations

import functools
import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from pytest_madengine.errors import InfrastructureError
from pytest_madengine.images import engine
from tests.backends.support import MortalEngine
from tests.engines.registries import LOGIN, Images, Registry

unanswered = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # docker-py does not close them


@pytest.fixture
def client() -> Iterator[Callable[[], docker.DockerClient]]:
    """`engine.client` as a new session has it."""
    fresh = functools.cache(engine.client.__wrapped__)
    yield fresh
    if fresh.cache_info().currsize:
        fresh().close()
    gc.collect()


@unanswered
class TestOutOfReach:
    def test_no_engine_at_docker_host(
        self, client: Callable[[], docker.DockerClient], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
        with pytest.raises(InfrastructureError, match=r"no Docker engine can be reached .*; start Docker"):
            client()

    def test_no_docker_command(
        self, client: Callable[[], docker.DockerClient], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(InfrastructureError, match=r"can be reached \(docker: command not found\)"):
            client()

    @pytest.mark.requires_docker
    def test_an_engine_that_died_in_the_meantime(self, mortal_engine: MortalEngine) -> None:
        assert engine.inspect("madengine-test-base:latest")
        mortal_engine.kill()
        with pytest.raises(InfrastructureError, match="docker image inspect madengine-test-base:latest: "):
            engine.inspect("madengine-test-base:latest")


@pytest.mark.requires_docker
class TestContexts:
    def test_the_engine_of_the_current_docker_context(
        self,
        client: Callable[[], docker.DockerClient],
        mortal_engine: MortalEngine,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        monkeypatch.delenv("DOCKER_HOST")
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
        host = f"host=unix://{mortal_engine.socket}"
        for command in (["create", "mine", "--docker", host], ["use", "mine"]):
            subprocess.run(["docker", "context", *command], check=True, capture_output=True)
        assert client().ping()
        mortal_engine.kill()
        with pytest.raises(OSError, match="No such file or directory"):
            client().ping()


@pytest.mark.requires_docker
class TestQuestions:
    def test_an_unknown_image_is_none(self) -> None:
        assert engine.inspect("nobody/has-it:ever") is None

    def test_a_local_image_is_not_pulled(self, docker_engine: str) -> None:
        known = engine.local_or_pulled(docker_engine)
        assert engine.digest(known) == known["Id"]
        assert engine.environment(known)["LANG"] == "C.UTF-8"

    def test_an_image_that_cannot_be_pulled(self) -> None:
        with pytest.raises(InfrastructureError, match="docker pull localhost:1/none:x failed"):
            engine.local_or_pulled("localhost:1/none:x")

    def test_what_is_missing_is_had_as_the_caller_wants(self) -> None:
        told: list[str] = []
        got = engine.local_or_pulled("nobody/has-it:ever", told.append, lambda reference: {"Id": f"id of {reference}"})
        assert (told, got) == (["nobody/has-it:ever"], {"Id": "id of nobody/has-it:ever"})

    def test_a_pull_has_the_environment_that_it_is_given(self) -> None:
        with pytest.raises(InfrastructureError, match=r"docker pull localhost:1/none:x failed .*context .nowhere"):
            engine.pull("localhost:1/none:x", {**os.environ, "DOCKER_HOST": "", "DOCKER_CONTEXT": "nowhere"})

    def test_a_digest_from_a_registry_that_cannot_be_reached(self) -> None:
        with pytest.raises(InfrastructureError, match=r"asking for the digest of localhost:1/none:x: .*refused"):
            engine.remote_digest("localhost:1/none:x")


@pytest.mark.requires_registry
class TestRegistry:
    def test_a_pulled_image_is_what_was_pushed(self, registry: Registry, images: Images) -> None:
        local = images.make()
        name = f"{registry.address}/{local}"
        for argv in (["tag", local, name], ["push", name]):
            subprocess.run(["docker", *argv], check=True, capture_output=True)
        images.remove()
        pulled = engine.pull(name)
        assert pulled["Id"] == images.ids[0]
        assert engine.local_or_pulled(name) == pulled
        assert engine.digest(pulled) == engine.remote_digest(name)

    def test_a_digest_for_those_who_may_ask(self, private_registry: Registry) -> None:
        name = f"{private_registry.address}/nothing:1"
        with pytest.raises(InfrastructureError, match=f"digest of {name}: .*no basic auth credentials"):
            engine.remote_digest(name)
        with pytest.raises(InfrastructureError, match=f"digest of {name}: manifest unknown"):
            engine.remote_digest(name, LOGIN.entry())


def test_the_digest_is_the_registrys_where_there_is_one() -> None:
    known = {"Id": "sha256:1", "RepoDigests": ["localhost:5000/a@sha256:2"]}
    assert engine.digest(known) == "sha256:2"
    assert engine.environment({}) == {}
