"""What one process of a pytest session knows of models: made when first needed, kept on the config."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Hashable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from pytest_madengine import baselines, runid
from pytest_madengine.backends.base import Backend, Versioned
from pytest_madengine.context import credentials, machine, presets
from pytest_madengine.context.context import Context
from pytest_madengine.context.layers import merged
from pytest_madengine.context.load import Below, load
from pytest_madengine.display import Display
from pytest_madengine.engine import journal, rundir
from pytest_madengine.engine.board import Board, Progress
from pytest_madengine.engine.fleet import Fleet
from pytest_madengine.engine.journal import Journal
from pytest_madengine.engine.lane import Pace
from pytest_madengine.engine.rundir import RunDirectory
from pytest_madengine.errors import InfrastructureError, UserError, nearest
from pytest_madengine.images import architecture, batch, manifestfile, registry
from pytest_madengine.images.batch import BatchEntry
from pytest_madengine.images.build import Builder
from pytest_madengine.images.image import Image
from pytest_madengine.images.manifest import Manifest
from pytest_madengine.images.oncompute import OnCompute
from pytest_madengine.images.registry import Registries
from pytest_madengine.images.supply import Orders, Supply
from pytest_madengine.jobs import compose
from pytest_madengine.jobs.job import Logins
from pytest_madengine.launchers.base import Launcher
from pytest_madengine.models import discovery, selection
from pytest_madengine.models.model import Model
from pytest_madengine.results.expectations import Expectations
from pytest_madengine.results.failures import FailureRule
from pytest_madengine.results.gates import Gate
from pytest_madengine.settings import Settings, settings_of

KEY = pytest.StashKey["Session"]()
RESUMED = ("manifest", "batch_manifest")
"""Settings that say where a run's models come from."""
PACKAGE_MANAGERS = {
    "HOST_UBUNTU": "/usr/bin/apt",
    "HOST_CENTOS": "/usr/bin/yum",
    "HOST_SLES": "/usr/bin/zypper",
    "HOST_AZURE": "/usr/bin/tdnf",
}


class UnmadeDirectory(RunDirectory):
    """A run directory that is nowhere: its name, and those of jobs in it, stand for those that a run would have."""

    def new_job(self, nodeid: str) -> Path:
        """A folder named like the item, that nobody makes."""
        return self.path / "jobs" / rundir.UNSAFE.sub("-", nodeid.rpartition("::")[2]).strip("-.")


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
        images_begun: what is made, or was tried to, before the items that want it; by `Supply.key`.
        opened: whether items are run, and not only listed.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings = self._as_before(settings_of(config, os.environ.get("MODEL_DIR")))
        self.opened = False
        self.images_begun: dict[Hashable, Future[Image]] = {}
        self.detached: list[str] = []
        self.cancelled: list[str] = []
        self.stopping = threading.Event()

    def _as_before(self, settings: Settings) -> Settings:
        """The settings with what a resumed run was about, where the user names nothing else."""
        before = Board.of(journal.read(runid.folder(self.config))).run if settings.resume else {}
        manifest, batch_manifest = (Path(before[key]) if before.get(key) else None for key in RESUMED)
        return replace(
            settings,
            manifest=settings.manifest or (None if settings.tags or settings.batch_manifest else manifest),
            batch_manifest=settings.batch_manifest or (None if settings.tags or settings.manifest else batch_manifest),
            build_only=settings.build_only or bool(before.get("build_only")),
            repeat=max(settings.repeat, before.get("repeat", 1)),
            warmup=max(settings.warmup, before.get("warmup", 0)),
            ab=settings.ab or tuple(before.get("ab", ())),
        )

    @property
    def is_worker(self) -> bool:
        """Whether this process is an xdist worker."""
        return hasattr(self.config, "workerinput")

    @cached_property
    def directory(self) -> RunDirectory:
        """The run directory, shared by all processes of the session."""
        if self.settings.dry_run:
            return UnmadeDirectory(runid.folder(self.config).with_name("RUN"))
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
    def containers(self) -> bool:
        """Whether models run in images: as the target does it, unless the context wants none on its nodes."""
        slurm = self.context.slurm
        bare = self.target == "slurm" and slurm is not None and slurm.container_runtime == "none"
        return self.backends[self.target].containers and not bare

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of what runs the jobs, as far as it can be told."""
        backend = self.backends[self.target]
        with suppress(InfrastructureError):
            return dict(backend.versions()) if isinstance(backend, Versioned) else {}
        return {}

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
        if self._lock.is_locked:
            return
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
        self.opened = True
        if self.settings.resume:
            self.directory.forget_images()
        for result in self.directory.kept() if self.settings.resume else ():
            course = self.past.jobs.get(result.id)
            if not (course and course.judged):
                self.directory.discard(self.directory.job(result.id))
        machine = platform.node()
        record = {"id": self.directory.run_id, "target": self.target, "host": machine, "pid": os.getpid()}
        record |= {key: str(getattr(self.settings, key) or "") for key in RESUMED}
        record |= {key: getattr(self.settings, key) for key in ("build_only", "repeat", "warmup", "ab")}
        self.journal.write({"kind": journal.RUN, "items": items, "tags": [tag.text for tag in self.tags], **record})

    def note(self, item: str, progress: Progress) -> None:
        """Write down what is being done for a model; a step of it need not outlive this machine."""
        record = {"kind": journal.PHASE, "item": item, **asdict(progress), "phase": progress.phase.value}
        self.journal.write(record, sync=not progress.step)

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
        return load(settings.context, settings.context_file, settings.project, self._below)

    @property
    def _below(self) -> Below | None:
        """The manifest's context, with the secrets that it leaves out from the environment."""
        path = self.settings.manifest
        if not (path and self.manifest):
            return None
        names = self.manifest[0].secrets_required
        again = {name: os.environ[name] for name in names if name in os.environ}
        layer = merged(self.manifest[0].context, {"secrets": again})
        return Below(layer, manifestfile.context_places(path))

    def require_secrets(self) -> None:
        """Meet the secrets that the manifest's models need and that it rightly does not hold.

        Raises:
            UserError: one is given neither in the context nor in the environment.
        """
        context = self.context
        given = {*context.secrets, *context.env_vars, *context.docker_env_vars}
        needed = self.manifest[0].secrets_required if self.manifest else ()
        if lost := [name for name in needed if name not in given]:
            raise UserError(
                f"{self.settings.manifest}: secrets_required: {', '.join(lost)} is given neither in the environment "
                "nor in the context (secrets, env_vars)"
            )

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
        left_alone = self._machine_is_left_alone or self.backends[self.target].remote
        return machine.stated(self.context) if left_alone else machine.probe(self.context)

    @cached_property
    def tags(self) -> list[selection.Tag]:
        """The parsed `--madengine-tags`.

        Raises:
            UserError: the option is given and names nothing, as with an empty variable of a CI script.
        """
        if self.batch:
            return [selection.Tag(wish.model_name, wish.model_name) for wish in self.batch]
        tags = selection.parse(self.settings.tags or self.past.run.get("tags", ()))
        if self.settings.tags and not tags:
            raise UserError("--madengine-tags: names no tag; valid: names and tags of models, or all")
        return tags

    @cached_property
    def credentials(self) -> dict[str, object]:
        """credential.json with the environment's overrides."""
        return credentials.load(self.settings.project, os.environ)

    @cached_property
    def expectations(self) -> Expectations:
        """What results are compared with: earlier runs as they were when this session began.

        Raises:
            UserError: all that is wrong in the references file, or there are no such earlier runs.
        """
        settings = self.settings
        which = baselines.chosen(settings.baseline_of or baselines.DEFAULT)
        place, run = settings.baseline, runid.of(self.config)
        return Expectations(
            baselines.references(settings.references) if settings.references else {},
            baselines.history(place, which, settings.start, run, settings.output) if place else None,
            Gate(settings.gate),
        )

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
            reservation=self.settings.reservation,
            cluster=self.target if self.backends[self.target].remote else "",
            keep=self.settings.keep_alive,
            logins=self._logins,
        )

    def _logins(self, reference: str) -> Logins:
        found = self.registries.logins([reference])
        return Logins(tuple((login.server, login.username) for login in found), registry.variables(found))

    @cached_property
    def header(self) -> dict[str, object]:
        """What `# CONTEXT` lines of Dockerfiles are compared with."""
        ctx_test = self.settings.project / "ctx_test"
        host = next((name for name, path in PACKAGE_MANAGERS.items() if Path(path).exists()), "")
        return {
            "host_os": host,
            "ctx_test": ctx_test.read_text(encoding="utf-8").strip() if ctx_test.is_file() else "None",
            **self.context.header,
            "gpu_vendor": self.context.gpu_vendor or self._vendor or machine.DEFAULT_VENDOR,
            "guest_os": self.context.guest_os,
        }

    @property
    def _vendor(self) -> str:
        """Whose GPUs images are for where the context's own key does not say; '' where nobody does."""
        if self.target == compose.PODS:
            stated = self.context.pods
            named = stated is not None and "gpu_resource_name" in stated.model_fields_set
            return presets.vendor_of(stated) if stated and named else ""
        return "" if self._machine_is_left_alone else machine.vendor()

    @cached_property
    def supply(self) -> Supply:
        """Where models get their images from."""
        settings = self.settings
        orders = Orders(
            use_image=next(iter(settings.ab), settings.use_image),
            registry=settings.registry,
            batch=self.batch,
            architecture="" if self._machine_is_left_alone else self.machine.architecture,
            build_only=settings.build_only,
            on_nodes=self.backends[self.target].remote,
            ship_to=self._archives,
            in_pods=self.target == compose.PODS and not settings.build_only,
            reservation=settings.reservation,
        )
        kind = OnCompute if settings.build_on_compute else Builder
        builder = kind(self.directory.images, self.registries, settings.no_cache, self.stopping)
        return Supply(orders, self.context, self.header, self.credentials, builder, self.registries)

    @property
    def _archives(self) -> Path | None:
        """Where images lie that nodes can get from nowhere else; None where no model runs in one there."""
        nodes = self.backends[self.target].remote and self.target != compose.PODS
        ships = nodes and self.containers and not self.settings.build_only
        return self.directory.archives if ships else None

    @cached_property
    def registries(self) -> Registries:
        """The registries that images are pushed to and pulled from; what logging in left goes with the session."""
        registries = Registries(self.credentials, self.stopping)
        self.config.add_cleanup(registries.close)
        return registries

    @cached_property
    def batch(self) -> tuple[BatchEntry, ...]:
        """The wishes of `--madengine-batch-manifest`.

        Raises:
            UserError: all that is wrong in it.
        """
        path = self.settings.batch_manifest
        return batch.read(path) if path else ()

    @cached_property
    def manifest(self) -> tuple[Manifest, dict[str, int]] | None:
        """What `--madengine-manifest` holds, with the line of each entry.

        Raises:
            UserError: all that is wrong in it.
        """
        path = self.settings.manifest
        return manifestfile.read(path) if path else None

    @cached_property
    def target_archs(self) -> tuple[str, ...]:
        """The GPU architectures that each image is made for; empty where one image serves all.

        Raises:
            UserError: it is none that is known, or this machine has no GPU to name one.
        """
        if not self.settings.target_archs:
            return ()
        stated = self.context.docker_build_arg.get(architecture.SYSTEM)
        if stated:
            raise UserError(
                f"--madengine-target-archs, and docker_build_arg.{architecture.SYSTEM} of the context is {stated!r}: "
                "name architectures in one of the two"
            )
        archs = architecture.target_archs(self.settings.target_archs)
        here = architecture.canonical(self.machine.architecture) if architecture.NATIVE in archs else ""
        if architecture.NATIVE in archs and not here:
            raise UserError("--madengine-target-archs=native: this machine has no GPU; valid: names such as gfx942")
        return tuple(dict.fromkeys(here if arch == architecture.NATIVE else arch for arch in archs))

    @property
    def _machine_is_left_alone(self) -> bool:
        """Whether this machine's GPUs do not matter: images may be made for others than it has."""
        return self.settings.build_only and not any("native" in given for given in self.settings.target_archs)

    @property
    def files(self) -> list[Path]:
        """The files whose models are meant where no path is given: the manifest, else those of the project.

        Raises:
            UserError: there is none.
        """
        return [self.settings.manifest] if self.settings.manifest else discovery.files(self.settings.project)

    @cached_property
    def catalogue(self) -> list[discovery.Found]:
        """Every card of this session, for tests that name a model."""
        return [found for path in self.files for found in self.read(path)]

    def reads(self, path: Path) -> bool:
        """Whether a file holds models that are meant: the manifest, else cards."""
        manifest = self.settings.manifest
        return path == manifest if manifest else discovery.is_model_file(path)

    def read(self, path: Path) -> list[discovery.Found]:
        """The models of one file; workers of one session run a dynamic script once."""
        if self.manifest and path == self.settings.manifest:
            return discovery.of_manifest(*self.manifest, path, self.settings.project)
        shared = discovery.Shared(self.directory.discovery, self._selected) if self.is_worker else None
        return discovery.read(path, shared)

    def _selected(self, model: Model) -> bool:
        named = selection.Named(model.name, model.tags)
        return not self.tags or any(tag.matches(named) for tag in selection.resolve(self.tags, [named]))
