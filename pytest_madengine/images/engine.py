"""What builds and looks at images: docker's command line for builds, its SDK for questions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_madengine import command
from pytest_madengine.errors import BuildError, InfrastructureError

if TYPE_CHECKING:
    import docker

HINT = "start Docker, set DOCKER_HOST, or run without it: --target=host"


def _nobody(_: str) -> None:
    """Nobody wants to be told of pulls."""


@cache
def client() -> docker.DockerClient:
    """The engine's client, asked once whether it answers.

    Raises:
        InfrastructureError: no engine is reachable, or its command line tool is missing.
    """
    import docker

    try:
        engine = docker.from_env(timeout=600, environment={**os.environ, "DOCKER_HOST": _host()})
        engine.ping()
    except (docker.errors.DockerException, InfrastructureError, OSError) as error:
        raise InfrastructureError(f"no Docker engine can be reached ({_brief(error)}); {HINT}") from None
    return engine


def _host() -> str:
    """Where the docker command finds its engine; `docker context use` may have told it."""
    asked = command.run(["docker", "context", "inspect", "--format={{.Endpoints.docker.Host}}"])
    return os.environ.get("DOCKER_HOST") or asked.require("docker context inspect").strip()


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Let the SDK's errors be ours, except that something does not exist.

    Raises:
        InfrastructureError: the engine refused `action` or is out of reach.
    """
    import docker

    try:
        yield
    except docker.errors.NotFound:
        raise
    except (docker.errors.DockerException, OSError) as error:
        raise InfrastructureError(f"{action}: {_brief(error)}") from None


@cache
def require_buildx() -> None:
    """Builds need BuildKit, for build contexts and secrets.

    Raises:
        BuildError: the docker command has no buildx.
    """
    if not command.run(["docker", "buildx", "version"]):
        raise BuildError("`docker buildx` is missing: install the buildx plugin of the Docker command line")


def inspect(reference: str) -> dict[str, Any] | None:
    """What the engine knows of a local image, or None."""
    import docker

    try:
        with translated(f"docker image inspect {reference}"):
            return dict(client().images.get(reference).attrs)
    except docker.errors.NotFound:
        return None


def pull(reference: str) -> dict[str, Any]:
    """Pull an image and say what the engine then knows of it.

    Raises:
        InfrastructureError: the registry refused, lacks it or cannot be reached.
    """
    pull = ["docker", "pull", "--quiet", reference]
    command.run(pull, seconds=24 * 3600, endable=True).require(f"docker pull {reference}")
    pulled = inspect(reference)
    if pulled is None:
        raise InfrastructureError(f"docker pull {reference} succeeded but the image is not there")
    return pulled


def local_or_pulled(reference: str, pulling: Callable[[str], None] = _nobody) -> dict[str, Any]:
    """A local image as it is; one that is missing is pulled, of which `pulling` is told."""
    found = inspect(reference)
    if found is None:
        pulling(reference)
        found = pull(reference)
    return found


def digest(attributes: dict[str, Any]) -> str:
    """The registry's digest of an image, or its own id where it never was in a registry."""
    digests = attributes.get("RepoDigests") or [""]
    return str(digests[0]).rpartition("@")[2] or str(attributes["Id"])


def environment(attributes: dict[str, Any]) -> dict[str, str]:
    """The variables that an image sets."""
    pairs = (attributes.get("Config") or {}).get("Env") or []
    return dict(pair.partition("=")[::2] for pair in pairs)


def client_environment() -> dict[str, str]:
    """The environment for docker commands: ours, with BuildKit's plain progress."""
    return {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain", "NO_COLOR": "1"}


def _brief(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
