"""What one process of a pytest session knows of models: made when first needed, kept on the config."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import pytest

from pytest_madengine import runid
from pytest_madengine.backends.base import Backend
from pytest_madengine.context import credentials, machine
from pytest_madengine.context.context import Context
from pytest_madengine.context.load import load
from pytest_madengine.engine.rundir import RunDirectory
from pytest_madengine.errors import Fault, FaultsError, UserError, nearest
from pytest_madengine.images import build, dockerfile, engine
from pytest_madengine.images.image import Image
from pytest_madengine.jobs import compose
from pytest_madengine.launchers.base import Launcher
from pytest_madengine.models import discovery, selection
from pytest_madengine.models.model import Model, Source
from pytest_madengine.secrets import Secret, is_secret, secrets_of_environment
from pytest_madengine.settings import settings_of

KEY = pytest.StashKey["Session"]()
PACKAGE_MANAGERS = {
    "HOST_UBUNTU": "/usr/bin/apt",
    "HOST_CENTOS": "/usr/bin/yum",
    "HOST_SLES": "/usr/bin/zypper",
    "HOST_AZURE": "/usr/bin/tdnf",
}


def of(config: pytest.Config) -> Session:
    """This process's session."""
    if KEY not in config.stash:
        config.stash[KEY] = Session(config)
    return config.stash[KEY]


class Session:
    """The settings of a run and everything that follows from them."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings = settings_of(config, os.environ.get("MODEL_DIR"))

    @property
    def is_worker(self) -> bool:
        """Whether this process is an xdist worker."""
        return hasattr(self.config, "workerinput")

    @cached_property
    def directory(self) -> RunDirectory:
        """The run directory, shared by all processes of the session."""
        return RunDirectory.create(self.settings.start, runid.of(self.config))

    @cached_property
    def context(self) -> Context:
        """The merged configuration.

        Raises:
            UserError: all that is wrong in it.
        """
        settings = self.settings
        return load(settings.context, settings.context_file, settings.project)

    @cached_property
    def target(self) -> str:
        """The backend's name: stated, or inferred from the context.

        Raises:
            UserError: no such backend is there.
        """
        target = self.settings.target or self.context.target()
        if target not in self.backends:
            known = ", ".join(sorted(self.backends))
            close = nearest(target, self.backends)
            hint = f"; did you mean {close!r}?" if close else ""
            raise UserError(f"--target: no backend {target!r} is installed; valid: {known}{hint}")
        return target

    @cached_property
    def backends(self) -> dict[str, Backend]:
        """Every registered backend; a later registration of a name wins."""
        found: dict[str, Backend] = {}
        for backends in reversed(self.config.hook.pytest_madengine_backends(config=self.config)):
            found.update(backends)
        return found

    @cached_property
    def launchers(self) -> dict[str, Launcher]:
        """Every registered launcher, by name and alias."""
        registered = reversed(self.config.hook.pytest_madengine_launchers(config=self.config))
        each = [launcher for launchers in registered for launcher in launchers]
        return {name: launcher for launcher in each for name in (launcher.name, *launcher.aliases)}

    @cached_property
    def machine(self) -> machine.Machine:
        """This host."""
        return machine.probe(self.context)

    @cached_property
    def tags(self) -> list[selection.Tag]:
        """The parsed `--madengine-tags`.

        Raises:
            UserError: the option is given and names nothing, as with an empty variable of a CI script.
        """
        tags = selection.parse(self.settings.tags)
        if self.settings.tags and not tags:
            raise UserError("--madengine-tags: names no tag; valid: names and tags of models, or all")
        return tags

    @cached_property
    def credentials(self) -> dict[str, object]:
        """credential.json with the environment's overrides."""
        return credentials.load(self.settings.project, os.environ)

    @cached_property
    def jobs(self) -> compose.Session:
        """What all jobs share."""
        return compose.Session(
            run=self.directory.run_id,
            context=self.context,
            machine=self.machine,
            launchers=self.launchers,
            credentials=self.credentials,
            environ=os.environ,
            timeout=self.settings.timeout,
        )

    @cached_property
    def header(self) -> dict[str, object]:
        """What `# CONTEXT` lines of Dockerfiles are compared with."""
        ctx_test = self.settings.project / "ctx_test"
        host = next((name for name, path in PACKAGE_MANAGERS.items() if Path(path).exists()), "")
        return {
            "host_os": host,
            "ctx_test": ctx_test.read_text(encoding="utf-8").strip() if ctx_test.is_file() else "None",
            **self.context.header,
            "gpu_vendor": self.context.gpu_vendor or machine.vendor() or machine.DEFAULT_VENDOR,
            "guest_os": self.context.guest_os,
        }

    @cached_property
    def catalogue(self) -> list[discovery.Found]:
        """Every card of the project, for tests that name a model."""
        return [found for path in discovery.files(self.settings.project) for found in self.read(path)]

    def read(self, path: Path) -> list[discovery.Found]:
        """The cards of one file; workers of one session run a dynamic script once."""
        shared = discovery.Shared(self.directory.discovery, self._selected) if self.is_worker else None
        return discovery.read(path, shared)

    def _selected(self, model: Model) -> bool:
        named = selection.Named(model.name, model.tags)
        return not self.tags or any(tag.matches(named) for tag in selection.resolve(self.tags, [named]))

    def dockerfiles(self, model: Model, source: Source) -> list[Path]:
        """The Dockerfiles that this card builds; several make several items.

        Raises:
            UserError: none fits.
        """
        return dockerfile.matching(source.root / model.dockerfile, self.header)

    def image(self, model: Model, source: Source, chosen: Path | None) -> Image:
        """The image of a model: named by the context, or built.

        Args:
            model: the card.
            source: where it stands.
            chosen: its Dockerfile where several fit.

        Raises:
            BuildError: the build failed.
            InfrastructureError: the engine is out of reach or a pull failed.
            UserError: no Dockerfile fits.
        """
        engine.client()
        if self.context.image:
            attributes = engine.local_or_pulled(self.context.image)
            return Image(self.context.image, digest=str(attributes["Id"]))
        if not model.dockerfile:
            raise UserError(
                f"{source.file}:{source.line}: {model.name}.dockerfile is missing; --target=host needs none"
            )
        folder = build.context_folder(source.root, model.dockercontext, model.dockerfile)
        if not folder.is_dir():
            place = f"{source.file}:{source.line}: {model.name}.dockercontext"
            raise FaultsError([Fault(place, f"{folder} is no folder", "a folder of the project")])
        path = chosen or self.dockerfiles(model, source)[0]
        return build.build(self._recipe(model, source, path), self.directory.images)

    def _recipe(self, model: Model, source: Source, path: Path) -> build.Recipe:
        stated = self.context.docker_build_arg
        arguments = {name: value for name, value in stated.items() if not is_secret(name)}
        hidden = {name: Secret(value) for name, value in stated.items() if is_secret(name)}
        declared = dockerfile.declared_args(path)
        if "MAD_SYSTEM_GPU_ARCHITECTURE" in declared and self.machine.architecture:
            arguments.setdefault("MAD_SYSTEM_GPU_ARCHITECTURE", self.machine.architecture)
        return build.Recipe(
            project=source.root,
            dockerfile=path,
            context=build.context_folder(source.root, model.dockercontext, model.dockerfile),
            arguments=arguments,
            secrets={**secrets_of_environment(os.environ), **compose.credential_variables(model, self.jobs), **hidden},
        )
