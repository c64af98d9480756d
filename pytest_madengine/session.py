"""What one process of a pytest session knows of models: made when first needed, kept on the config."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from pytest_madengine import runid
from pytest_madengine.backends.base import Backend
from pytest_madengine.context import credentials, machine
from pytest_madengine.context.context import Context
from pytest_madengine.context.load import load
from pytest_madengine.display import Display
from pytest_madengine.engine import journal, rundir
from pytest_madengine.engine.board import Board, Phase
from pytest_madengine.engine.fleet import Fleet
from pytest_madengine.engine.journal import Journal
from pytest_madengine.engine.lane import Pace
from pytest_madengine.engine.rundir import RunDirectory
from pytest_madengine.errors import Fault, FaultsError, UserError, nearest
from pytest_madengine.images import build, dockerfile, engine
from pytest_madengine.images.image import Image
from pytest_madengine.jobs import compose
from pytest_madengine.launchers.base import Launcher
from pytest_madengine.models import discovery, selection
from pytest_madengine.models.model import Model, Source
from pytest_madengine.results.failures import FailureRule
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
    """The settings of a run and everything that follows from them.

    Attributes:
        detached: node ids of models whose jobs were left to a later session.
        cancelled: of models whose jobs were ended before their time.
        stopping: set when what runs in other threads is to end.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings = settings_of(config, os.environ.get("MODEL_DIR"))
        self.detached: list[str] = []
        self.cancelled: list[str] = []
        self.stopping = threading.Event()

    @property
    def is_worker(self) -> bool:
        """Whether this process is an xdist worker."""
        return hasattr(self.config, "workerinput")

    @cached_property
    def directory(self) -> RunDirectory:
        """The run directory, shared by all processes of the session."""
        return RunDirectory.create(self.settings.start, runid.of(self.config))

    @cached_property
    def past(self) -> Board:
        """What an earlier session did in this run directory; nothing unless this one resumes it."""
        return Board.of(journal.read(self.directory.path)) if self.settings.resume else Board()

    @cached_property
    def journal(self) -> Journal:
        """This process's records; what was there before stands in `past`."""
        _ = self.past
        return Journal(self.directory.path, getattr(self.config, "workerinput", {}).get("workerid", ""))

    @cached_property
    def fleet(self) -> Fleet:
        """All jobs that this process has in flight."""
        return Fleet(self.journal, self.at_once, self.pace)

    @property
    def at_once(self) -> int:
        """How many jobs this process has in flight at most."""
        return self.settings.max_in_flight or self.backends[self.target].at_once

    @cached_property
    def pace(self) -> Pace:
        """How often backends are asked; a site's may differ."""
        return self.config.hook.pytest_madengine_pace(config=self.config) or Pace()

    @cached_property
    def failure_rules(self) -> list[FailureRule]:
        """What sites know of failures that are not the model's."""
        registered = self.config.hook.pytest_madengine_failure_rules(config=self.config)
        return [rule for rules in registered for rule in rules]

    def claim(self) -> None:
        """Keep others from going on with this run while this session lives.

        Raises:
            UserError: some other session has it.
        """
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            opened = Board.of(journal.read(self.directory.path)).run
            raise UserError(
                f"run {self.directory.run_id} is still running (process {opened.get('pid')} on {opened.get('host')}): "
                "see --madengine-status"
            ) from None

    def release(self) -> None:
        """Let others go on with this run."""
        self._lock.release()

    @cached_property
    def _lock(self) -> FileLock:
        return rundir.lock(self.directory.path)

    def open(self, items: list[str]) -> None:
        """Write down what this session is about to do, and forget what another one left unfinished."""
        self.claim()
        for result in self.directory.kept() if self.settings.resume else ():
            course = self.past.jobs.get(result.id)
            if not (course and course.judged):
                self.directory.discard(self.directory.job(result.id))
        machine = platform.node()
        record = {"id": self.directory.run_id, "target": self.target, "host": machine, "pid": os.getpid()}
        self.journal.write({"kind": journal.RUN, "items": items, "tags": [tag.text for tag in self.tags], **record})

    def note_phase(self, item: str, phase: Phase, detail: str = "") -> None:
        """Write down what is being done for a model."""
        self.journal.write({"kind": journal.PHASE, "item": item, "phase": phase.value, "detail": detail})

    @cached_property
    def display(self) -> Display:
        """What people see of models while pytest waits for them."""
        display = Display(self.config)
        self.journal.listen(display.take)
        return display

    def detaches(self, error: BaseException) -> bool:
        """Whether jobs in flight are to go on after this interruption."""
        stopped = isinstance(error, pytest.Session.Interrupted)  # by another plugin, or for what failed
        return isinstance(error, KeyboardInterrupt) and not stopped and self.settings.detach_on_interrupt

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
        target = self.settings.target or self.past.run.get("target") or self.context.target()
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
        tags = selection.parse(self.settings.tags or self.past.run.get("tags", ()))
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

    def image(self, model: Model, source: Source, chosen: Path | None, doing: Callable[[Phase, str], None]) -> Image:
        """The image of a model: named by the context, or built.

        Args:
            model: the card.
            source: where it stands.
            chosen: its Dockerfile where several fit.
            doing: told when a pull or a build begins, and of what.

        Raises:
            BuildError: the build failed.
            InfrastructureError: the engine is out of reach or a pull failed.
            UserError: no Dockerfile fits.
        """
        engine.client()
        if self.context.image:
            attributes = engine.local_or_pulled(self.context.image, lambda name: doing(Phase.PULLING, name))
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
        return build.build(self._recipe(model, source, path), self.directory.images, doing)

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
