"""Builds images on nodes of a SLURM cluster, each as a job of its own, and has the nodes push them.

Where builds run there may be no engine on this side, so nobody here can tell which base images a build starts from. An
image is therefore named by all that goes into it but these; the node asks their registries for them each time
(`--pull`), so that it does not matter what the node has seen before. What stands in the registry under that name is
BuildKit's cache (the image carries its own), so a build that would give the same again, on whatever node, only looks.
The name may come to mean another image when a base image changes: what is handed on is the registry's digest.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from pytest_madengine import assets, command
from pytest_madengine.backends import slurmqueue
from pytest_madengine.backends.base import State
from pytest_madengine.backends.slurmqueue import Row
from pytest_madengine.backends.slurmscript import KEPT
from pytest_madengine.context import presets
from pytest_madengine.context.context import Context
from pytest_madengine.context.slurm import Slurm, directive
from pytest_madengine.engine.board import Phase, Progress
from pytest_madengine.errors import BuildError, InfrastructureError, MadengineError, PushError
from pytest_madengine.images import dockerfile as dockerfiles
from pytest_madengine.images.build import TAIL, Build, Builder, Doing, Recipe, arguments, content_of
from pytest_madengine.images.image import Image
from pytest_madengine.images.registry import DIGEST, Login, host, repository, variables
from pytest_madengine.models.model import Model, Source
from pytest_madengine.secrets import Masker

TIME = "02:00:00"
"""SLURM's limit for a build where neither card nor context states one."""
SCRIPT, LOG, ENDED = "build.sh", "slurm.log", "ended"
STOPPED = "stopped"
STEPS = {"prepare": "what comes before the build", "login": "docker login"}
"""Steps of the script that are nobody's build: what to call them."""
LOOK, BETWEEN = 0.2, 1.0
"""Seconds between looks at what a build has written, and between questions to SLURM, one for all builds."""
SILENCE = 600.0
"""Seconds for which SLURM may fail to answer while builds go on."""
ABSENT = 10.0
"""Seconds for which a job may be in no answer of SLURM, as while its controller restarts, before it counts as lost."""
LAG = 5.0
"""Seconds that files may take to show up here after their job ended."""
GRACE = 5.0
"""Seconds that a step is given to tidy up."""


def request(model: Model, context: Context, source: Source, reservation: str = "") -> Slurm:
    """What the build of a model's image asks of SLURM: one node, as card and context say, and none of its GPUs.

    Raises:
        FaultsError: the card's `slurm` is wrong.
    """
    found = presets.for_model(model, context, source, reservation)
    preset = found.origins.get("slurm.time", "presets/").startswith("presets/")
    changes = {"nodes": 1, "gpus_per_node": 0, "exclusive": False, "nodelist": None}
    return found.slurm.variants()[0].model_copy(update=changes | ({"time": TIME} if preset else {}))


@dataclass(frozen=True)
class News:
    """How a build's job stands.

    Attributes:
        over: whether nothing of it runs any more.
        word: its state in SLURM's word, or what else is known; '' where nothing is.
        waits: why it waits; '' where it does not.
    """

    over: bool = False
    word: str = ""
    waits: str = ""


class Queue:
    """What SLURM says of this user's jobs, asked rarely enough for all who want to know it. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        self._asked = -math.inf
        self._heard = time.monotonic()

    def row(self, comment: str, after: float) -> tuple[bool, Row | None]:
        """Whether SLURM was asked after that moment (of the monotonic clock), and what it says of a job.

        Raises:
            InfrastructureError: it has not answered for long.
        """
        with self._lock:
            if time.monotonic() - self._asked >= BETWEEN:
                self._ask()
            return self._heard > after, self._rows.get(comment)

    def _ask(self) -> None:
        self._asked = time.monotonic()
        try:
            self._rows = {row.comment: row for row in slurmqueue.rows()}
            self._heard = self._asked
        except InfrastructureError:
            if time.monotonic() - self._heard > SILENCE:
                raise
            self._asked = time.monotonic()


class Running(Protocol):
    """A build's job."""

    def news(self) -> News:
        """How it stands."""

    def cancel(self) -> None:
        """End it."""


class Batch:
    """A build as a job of its own.

    Args:
        number: SLURM's.
        comment: what it was called.
    """

    def __init__(self, number: str, comment: str, queue: Queue) -> None:
        self._number, self._comment, self._queue = number, comment, queue
        self._seen = time.monotonic()
        self._hopeless = ""

    def news(self) -> News:
        """What the queue says of it; one that SLURM has forgotten is over, as is one that would never begin."""
        if self._hopeless:
            return News(over=True, word=f"it would wait for ever: {self._hopeless}")
        asked, row = self._queue.row(self._comment, self._seen)
        if row is None:
            forgotten = asked and time.monotonic() - self._seen > ABSENT
            return News(over=forgotten, word="it is in no queue" if forgotten else "")
        self._seen = time.monotonic()
        if row.hopeless:
            self._hopeless = row.reason
            self.cancel()
        waits = row.state is State.PENDING
        return News(row.state not in (State.PENDING, State.RUNNING), row.word, row.reason if waits else "")

    def cancel(self) -> None:
        """`scancel`."""
        slurmqueue.cancel([self._number])


class Step:
    """A build as a step of the allocation that pytest runs in.

    Args:
        argv: the `srun` command.
        env: its whole environment.
        directory: the build's folder, where the script says which step it is.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], directory: Path) -> None:
        self._directory = directory
        self._process = command.start(argv, env=env, directory=directory)

    def news(self) -> News:
        """Whether `srun` is there."""
        code = self._process.poll()
        return News(over=code is not None, word="" if code is None else f"srun: exit {code}")

    def cancel(self) -> None:
        """End the step by SLURM, as `srun` itself would kill it before it has tidied up."""
        if step := _text(self._directory / "step"):
            command.run(["scancel", "--signal=TERM", step])
        deadline = time.monotonic() + (GRACE if step else 0)
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(LOOK / 4)
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()


@dataclass(frozen=True)
class Order:
    """One build on a node.

    Attributes:
        build: what is built; its folder is seen by the nodes.
        remote: the name to push it under.
        slurm: what is asked of SLURM.
        logins: those that the node needs.
    """

    build: Build
    remote: str
    slurm: Slurm
    logins: Sequence[Login]

    @property
    def comment(self) -> str:
        """What its job is called, unlike all others."""
        folder = self.build.folder
        return f"{folder.parents[1].name}-{folder.name}"

    @property
    def is_step(self) -> bool:
        """Whether it runs inside the allocation that pytest was started in."""
        return self.slurm.in_allocation == "steps" and "SLURM_JOB_ID" in os.environ

    @property
    def mask(self) -> Masker:
        """Hides what is secret in it."""
        return Masker([*self.build.recipe.secrets.values(), *(login.password for login in self.logins)])

    def secrets(self) -> dict[str, str]:
        """The variables that reach the node, and nothing else does that is secret."""
        hidden = {"MADENGINE_HIDDEN": "\n".join(lines)} if (lines := self._hidden()) else {}
        return {**self.build.recipe.secrets, **variables(self.logins), **hidden}

    def _hidden(self) -> list[str]:
        return [value for value in self.mask.values if len(value.splitlines()) == 1]

    def argv(self, dockerfile: Path, *, afresh: bool = False) -> list[str]:
        """The build command."""
        *options, context = arguments(self.build.recipe, self.remote, dockerfile, afresh=afresh)
        cache = [] if afresh else [f"--cache-from={self.remote}"]
        return [*options, "--pull", *cache, "--cache-to=type=inline", context]

    def script(self, names: Sequence[str], *, afresh: bool = False) -> str:
        """What the node runs, given these variables."""
        return assets.render(
            "slurm/build.sh.j2",
            title=self.build.recipe.title,
            options=self._options(names),
            directory=str(self.build.folder),
            is_step=self.is_step,
            modules=self.slurm.modules,
            prologue=self.slurm.prologue,
            logins=[(login.server, login.username) for login in self.logins],
            runtime="docker",
            hides="MADENGINE_HIDDEN" in names,
            build=shlex.join(self.argv(self.build.folder / self.build.recipe.dockerfile.name, afresh=afresh)),
            remote=self.remote,
        )

    def _options(self, names: Sequence[str]) -> list[str]:
        own = [
            ("job-name", f"madengine-build-{self.build.recipe.name}"),
            ("comment", self.comment),
            ("output", str(self.build.folder / LOG)),
            ("export", exported(names)),
        ]
        stated = self.slurm.sbatch_options()
        return [*(directive(*each) for each in own), directive("no-requeue"), *(directive(*each) for each in stated)]


def exported(names: Sequence[str]) -> str:
    """What `--export` takes: all that a build sees of the environment here."""
    return ",".join([*KEPT, *names])


@dataclass(frozen=True)
class OnCompute(Builder):
    """Builds images for one session, on nodes.

    Attributes:
        queue: what SLURM says of the session's jobs.
    """

    queue: Queue = field(default_factory=Queue)

    def planned(self, recipe: Recipe) -> Build:
        """What a build of this recipe would be, whichever base images it starts from."""
        content = content_of(recipe, {})
        return Build(recipe, {}, content, self.records / f"{recipe.name}-{content[:12]}", _nobody)

    def build_there(self, recipe: Recipe, remote: str, slurm: Slurm, doing: Doing) -> Image:
        """The image of this recipe: built on a node and pushed, once in this session.

        Args:
            recipe: what to build; its folders are seen by the nodes under the same paths.
            remote: the name to push it under.
            slurm: what to ask of SLURM.
            doing: told when the job waits, when the build begins, and of each step.

        Raises:
            BuildError: the build failed; holds the failing step and the end of the log.
            PushError: it was built, and the registry refused or is out of reach.
            InfrastructureError: SLURM refused or lost the job, or the session ends.
        """
        planned = self.planned(recipe)
        told_apart = hashlib.sha256(f"{planned.content} {remote}".encode()).hexdigest()[:12]
        build = replace(planned, folder=self.records / f"{recipe.name}-{told_apart}", doing=doing)
        return self.once(build, lambda each: self._run(Order(each, remote, slurm, self._logins(recipe, remote))))

    def _logins(self, recipe: Recipe, remote: str) -> list[Login]:
        bases = dockerfiles.external_images(recipe.dockerfile, recipe.arguments)
        return self.registries.logins([remote, *bases]) if self.registries else []

    def _run(self, order: Order) -> Image:
        running = self._started(order)
        watch = Watch(order.build)
        try:
            ended, news = self._waited(order, running, watch)
        except BaseException:
            with suppress(InfrastructureError):  # of the two, what ended this is to be told
                running.cancel()
            raise
        watch.look(news)
        if ended == "pushed 0":
            return _image(order, watch.seconds)
        raise self._why(order, ended, news)

    def _started(self, order: Order) -> Running:
        build = order.build
        for name in (ENDED, "step", build.log.name):
            (build.folder / name).unlink(missing_ok=True)
        build.dockerfile()
        secrets = order.secrets()
        script = build.folder / SCRIPT
        script.write_text(order.script(sorted(secrets), afresh=self.afresh), encoding="utf-8")
        environment = {**os.environ, **secrets}
        if order.is_step:
            return Step(_srun(order, script, sorted(secrets)), environment, build.folder)
        done = command.run(["sbatch", "--parsable", str(script)], seconds=120, env=environment, mask=order.mask)
        if not done:
            raise InfrastructureError(f"building {build.recipe.title}: sbatch refused: {slurmqueue.brief(done.output)}")
        number = done.output.strip().splitlines()[-1].partition(";")[0]
        return Batch(number, order.comment, self.queue)

    def _waited(self, order: Order, running: Running, watch: Watch) -> tuple[str, News]:
        """How far the script came, '' where it does not say, and what was last heard of its job."""
        folder, until, news = order.build.folder, math.inf, News()
        while not _settled(ended := _text(folder / ENDED), news) and time.monotonic() < until:
            if self.stopping.wait(LOOK):
                raise InfrastructureError(f"building {order.build.recipe.title} was interrupted")
            news = running.news()
            until = min(until, time.monotonic() + LAG) if news.over else math.inf
            watch.look(news)
        return ended, news

    def _why(self, order: Order, ended: str, news: News) -> MadengineError:
        """What a build died of."""
        step, _, code = ended.partition(" ")
        folder, title = order.build.folder, order.build.recipe.title
        node = _text(folder / "host") or "a node"
        if step == "build":
            return self.failure(order.build, int(code))
        if step == "push":
            said = f"registry {host(order.remote)}: {node} could not push {order.remote}: {_tail(folder / 'push.log')}"
            return PushError(order.mask(said), order.remote)
        said = order.mask(_tail(folder / LOG))
        if step in STEPS:
            return InfrastructureError(f"building {title} on {node}: {STEPS[step]} failed (exit {code}): {said}")
        if news.word in ("TIMEOUT", "DEADLINE"):
            limit = f"{title} was not built within slurm.time, {order.slurm.time}"
            return BuildError(limit, _text(order.build.log).splitlines()[-TAIL:], str(order.build.log), title)
        return InfrastructureError(
            f"the job that was to build {title} on {node} was lost: {news.word or 'no word'}; {said}"
        )


class Watch:
    """Says what becomes of one build while it is waited for.

    Attributes:
        seconds: how long it has not waited for a node any more.
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._position = 0
        self._waits = ""
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the build has been running."""
        return time.monotonic() - self._began

    def look(self, news: News) -> None:
        """Say why its job waits, that the build began, and which step of it."""
        if news.waits:
            self._wait(news.waits)
            return
        for line in self._new_lines():
            self._build.tell(line)

    def _wait(self, reason: str) -> None:
        self._began = time.monotonic()
        if reason != self._waits:
            self._build.doing(Progress(Phase.PENDING, reason))
        self._waits = reason

    def _new_lines(self) -> list[str]:
        if not self._build.log.exists():
            return []
        if not self._position:
            self._build.doing(Progress(Phase.BUILDING, self._build.recipe.title, log=str(self._build.log)))
        with self._build.log.open("rb") as file:
            file.seek(self._position)
            whole, end, _ = file.read().rpartition(b"\n")
        self._position += len(whole) + len(end)
        return whole.decode(errors="replace").splitlines()


def _nobody(_: Progress) -> None:
    """Nobody is told."""


def _srun(order: Order, script: Path, names: Sequence[str]) -> list[str]:
    """The command that runs the script on one node of the allocation, the same one for the same image."""
    node = int(order.build.content[:8], 16) % int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    return [
        *("srun", "--overlap", "--nodes=1", "--ntasks=1", f"--relative={node}", "--input=none"),
        *(f"--job-name=madengine-build-{order.build.recipe.name}", f"--output={order.build.folder / LOG}"),
        *(f"--export={exported(names)}", "/usr/bin/env", "bash", str(script)),
    ]


def _settled(ended: str, news: News) -> bool:
    """Whether a build is over, and why it was stopped is known if it was."""
    return bool(ended) and (news.over or not ended.startswith(STOPPED))


def _image(order: Order, seconds: float) -> Image:
    """The image by what its node wrote down of it.

    Raises:
        InfrastructureError: that is not what a node writes.
    """
    build, folder = order.build, order.build.folder
    identity, *variables = _text(folder / "image").splitlines() or [""]
    pushed = DIGEST.findall(_text(folder / "push.log"))
    if not (identity and pushed):
        raise InfrastructureError(f"{order.remote} was pushed, and {folder} does not say as what")
    base = dockerfiles.base_image(build.recipe.dockerfile, build.recipe.arguments)
    known = {base: {"RepoDigests": [f"@{digest}"]}} if (digest := _base_digest(base, build.log)) else {}
    attributes: dict[str, Any] = {"Id": identity, "Config": {"Env": variables}}
    return replace(
        replace(build, bases=known).image(attributes, seconds),
        reference=f"{repository(order.remote)}@{pushed[-1]}",
        command=order.mask(shlex.join(order.argv(Path(build.recipe.title)))),
        registry_image=order.remote,
        registry_digest=pushed[-1],
        on_compute=True,
    )


def _base_digest(base: str, log: Path) -> str:
    """The digest by which BuildKit took a base image, as its log says; '' where it does not."""
    name = re.escape(base.partition("@")[0])
    found = re.search(rf"FROM (?:docker\.io/(?:library/)?)?{name}(?::latest)?@(sha256:[0-9a-f]{{64}})", _text(log))
    return found[1] if found else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _tail(path: Path) -> str:
    return slurmqueue.brief(_text(path))
