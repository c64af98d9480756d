"""What builds and looks at images: docker's command line for builds, its SDK for questions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_madengine import command
from pytest_madengine.errors import BuildError, InfrastructureError

if TYPE_CHECKING:
    import docker

LONG = 24 * 3600
"""Seconds that images may take to travel; an interruption ends them earlier."""
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


def pull(reference: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Pull an image and say what the engine then knows of it.

    Args:
        reference: the image's name, by tag or by digest.
        env: the docker command's whole environment, or None to inherit ours.

    Raises:
        InfrastructureError: the registry refused, lacks it or cannot be reached.
    """
    argv = ["docker", "pull", "--quiet", reference]
    command.run(argv, seconds=LONG, env=env, endable=True).require(f"docker pull {reference}")
    pulled = inspect(reference)
    if pulled is None:
        raise InfrastructureError(f"docker pull {reference} succeeded but the image is not there")
    return pulled


def local_or_pulled(
    reference: str,
    pulling: Callable[[str], None] = _nobody,
    fetch: Callable[[str], dict[str, Any]] = pull,
) -> dict[str, Any]:
    """A local image as it is; one that is missing is pulled by `fetch`, of which `pulling` is told."""
    found = inspect(reference)
    if found is None:
        pulling(reference)
        found = fetch(reference)
    return found


def remote_digest(reference: str, login: Mapping[str, str] | None = None) -> str:
    """The digest by which the registry knows an image; the engine asks for it without pulling.

    Args:
        reference: the image's name.
        login: `username` and `password`, or None for what docker itself is logged in with.

    Raises:
        InfrastructureError: the registry refused, lacks it or cannot be reached.
    """
    import docker

    action = f"asking for the digest of {reference}"
    try:
        with translated(action):
            return str(client().images.get_registry_data(reference, dict(login) if login else None).id)
    except docker.errors.NotFound as error:
        raise InfrastructureError(f"{action}: {_brief(error)}") from None


def digest(attributes: Mapping[str, Any]) -> str:
    """The registry's digest of an image, or its own id where it never was in a registry."""
    digests = attributes.get("RepoDigests") or [""]
    return str(digests[0]).rpartition("@")[2] or str(attributes["Id"])


def repo_digests(attributes: Mapping[str, Any], repository: str) -> set[str]:
    """The digests by which a repository knows an image, each `sha256:…`; pushed twice it may go by two."""
    names = [name.rpartition("@") for name in attributes.get("RepoDigests") or []]
    return {digest for name, _, digest in names if name == repository}


def environment(attributes: Mapping[str, Any]) -> dict[str, str]:
    """The variables that an image sets."""
    pairs = (attributes.get("Config") or {}).get("Env") or []
    return dict(pair.partition("=")[::2] for pair in pairs)


def rocm_root(attributes: Mapping[str, Any]) -> str:
    """Where an image says that ROCm is, or ''."""
    variables = environment(attributes)
    return variables.get("ROCM_PATH") or variables.get("ROCM_HOME") or ""


def client_environment() -> dict[str, str]:
    """The environment for docker commands: ours, with BuildKit's plain progress."""
    return {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain", "NO_COLOR": "1"}


def _brief(error: Exception) -> str:
    said = str(getattr(error, "explanation", None) or error).strip()  # the engine's own words, without the question
    return said.splitlines()[0][:300] if said else type(error).__name__
