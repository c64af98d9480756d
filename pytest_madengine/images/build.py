"""Builds the image of a model, once for each distinct content."""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pytest_madengine import command
from pytest_madengine.engine.board import Phase, Progress
from pytest_madengine.errors import BuildError, InfrastructureError, MadengineError
from pytest_madengine.images import architecture, engine
from pytest_madengine.images import dockerfile as dockerfiles
from pytest_madengine.images.identity import content_hash, ignored
from pytest_madengine.images.image import Image
from pytest_madengine.images.registry import Registries
from pytest_madengine.secrets import Masker, Secret

TOOLS = ("docker/common", "scripts/common/tools")
"""Where the folder of shared helpers may stand that Dockerfiles see as the build context `tools`."""
RECORD = "image.json"
STEP = re.compile(r"^#(\d+) (\[.*)$")
ASIDE = ("[internal]", "[context")
"""What steps begin with that are no instructions of a Dockerfile."""
ERROR = re.compile(r"^#(\d+) ERROR: ?(.*)$")
LOST = re.compile(r"code = Unavailable|error reading from server|Cannot connect to the Docker daemon|failed to dial")
"""What the docker command says where its engine is gone."""
TAIL = 20
PATIENCE = 0.2
"""Seconds between looks, while another build is waited for, at whether to go on waiting."""
Doing = Callable[[Progress], None]


def _nobody(_: Progress) -> None:
    """Nobody wants to be told."""


@dataclass(frozen=True)
class Recipe:
    """All that a build depends on.

    Attributes:
        project: folder that the other paths start from.
        dockerfile: the Dockerfile.
        context: build context folder.
        arguments: build arguments that may be shown.
        secrets: build arguments that may not: given as BuildKit secrets, and as arguments where declared.
    """

    project: Path
    dockerfile: Path
    context: Path
    arguments: Mapping[str, str]
    secrets: Mapping[str, Secret]

    @property
    def tools(self) -> Path | None:
        """The folder of shared helpers, if the project has one."""
        return next((path for name in TOOLS if (path := self.project / name).is_dir()), None)

    @property
    def title(self) -> str:
        """The Dockerfile's path as people write it."""
        path = self.dockerfile
        return str(path.relative_to(self.project)) if path.is_relative_to(self.project) else str(path)

    @property
    def name(self) -> str:
        """The Dockerfile's name as part of an image reference."""
        return name_of(self.dockerfile)


def name_of(dockerfile: Path) -> str:
    """A Dockerfile's name as part of an image reference."""
    stem = re.sub(r"\.?dockerfile\.?", "", dockerfile.name, flags=re.IGNORECASE) or "image"
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("._-") or "image"


def context_folder(project: Path, dockercontext: str, prefix: str) -> Path:
    """The build context: the card's, else the project for Primus, else `docker/` (the replaced tool's rule)."""
    if dockercontext:
        return project / dockercontext
    docker = project / "docker"
    return project if "primus" in prefix.lower() or not docker.is_dir() else docker


@dataclass(frozen=True)
class Builder:
    """Builds images for one session.

    Attributes:
        records: the session's folder for build logs and outcomes.
        registries: where base images are pulled from with the session's logins; None pulls as the user is logged in.
        afresh: build also what is there, once in this session, without the engine's cache.
        stopping: set when the session ends; no build begins then.
    """

    records: Path
    registries: Registries | None = None
    afresh: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)

    def build(self, recipe: Recipe, doing: Doing = _nobody) -> Image:
        """The image of this recipe: built unless one of the same content is there.

        Processes that want the same image wait for the one that builds it, and share its failure too.

        Args:
            recipe: what to build.
            doing: told when a pull or the build begins, and of each step.

        Raises:
            BuildError: the build failed; holds the failing step and the end of the log.
            InfrastructureError: the engine or a base image is out of reach.
        """
        engine.require_buildx()
        build = self.prepared(recipe, doing)
        return self.once(build, self._made)

    def once(self, build: Build, make: Callable[[Build], Image]) -> Image:
        """The image of a build as this session knows it already, else as `make` makes it; its outcome is noted."""
        build.folder.mkdir(parents=True, exist_ok=True)
        with locked(f"image-{build.content[:16]}", self.stopping):
            return _recorded(build.record) or _noted(build, make)

    def prepared(self, recipe: Recipe, doing: Doing = _nobody) -> Build:
        """What a build of this recipe would be, the digests of its base images looked up.

        Raises:
            InfrastructureError: the engine or a base image is out of reach.
        """
        bases = self._bases(recipe, doing)
        content = content_of(recipe, {name: str(attributes["Id"]) for name, attributes in bases.items()})
        return Build(recipe, bases, content, self.records / f"{recipe.name}-{content[:12]}", doing)

    def _bases(self, recipe: Recipe, doing: Doing) -> dict[str, dict[str, Any]]:
        names = dockerfiles.external_images(recipe.dockerfile, recipe.arguments)
        pull = self.registries.pull if self.registries else engine.pull
        return {
            name: engine.local_or_pulled(name, lambda each: doing(Progress(Phase.PULLING, each)), pull)
            for name in names
        }

    def _made(self, build: Build) -> Image:
        started = time.monotonic()
        known = None if self.afresh else engine.inspect(build.reference)
        attributes = known or self._buildx(build)
        return build.image(attributes) if known else build.image(attributes, time.monotonic() - started)

    def _buildx(self, build: Build) -> dict[str, object]:
        recipe = build.recipe
        build.doing(Progress(Phase.BUILDING, recipe.title, log=str(build.log)))
        logins = self.registries.environment() if self.registries else {}
        environment = {**engine.client_environment(), **logins, **recipe.secrets}
        mask = Masker(recipe.secrets.values())
        argv = arguments(recipe, build.reference, build.dockerfile(), afresh=self.afresh)
        code = command.stream(argv, build.log, env=environment, mask=mask, line=build.tell)
        if code:
            raise self.failure(build, code)
        attributes = engine.inspect(build.reference)
        if attributes is None:
            raise BuildError(f"{recipe.dockerfile}: built, but the engine does not have {build.reference}")
        return attributes

    def failure(self, build: Build, code: int) -> MadengineError:
        """What a build that ended with this exit code died of."""
        failure = _failure(build.recipe, build.log, code)
        if self.stopping.is_set():
            return InfrastructureError(f"building {build.recipe.title} was interrupted")
        if LOST.search("\n".join(failure.tail)):
            return InfrastructureError(f"the engine went away while building {build.recipe.title}: {failure.tail[-1]}")
        return failure


@dataclass(frozen=True)
class Build:
    """One build: a recipe, and what follows from it here and now.

    Attributes:
        bases: what the engine knows of each external image, by name.
        content: hash of everything that goes in.
        folder: where its log and outcome are kept.
    """

    recipe: Recipe
    bases: Mapping[str, Mapping[str, Any]]
    content: str
    folder: Path
    doing: Doing

    @property
    def reference(self) -> str:
        """The image's name."""
        return f"ci-{self.recipe.name}:{self.content[:16]}"

    @property
    def log(self) -> Path:
        """What the build prints."""
        return self.folder / "build.log"

    @property
    def record(self) -> Path:
        """Its outcome, for others of this session."""
        return self.folder / RECORD

    def tell(self, line: str) -> None:
        """Say which step has begun, if this line of output does."""
        step = STEP.match(line)
        if step and not step[2].startswith(ASIDE):
            self.doing(Progress(Phase.BUILDING, self.recipe.title, step[2].strip(), str(self.log)))

    def dockerfile(self) -> Path:
        """A copy of the Dockerfile, beside a list of what stays out of its context as it does out of the hash."""
        recipe = self.recipe
        copy = self.folder / recipe.dockerfile.name
        copy.write_bytes(recipe.dockerfile.read_bytes())
        patterns = ignored(recipe.context, recipe.dockerfile)
        copy.with_name(f"{copy.name}.dockerignore").write_text("\n".join(patterns), encoding="utf-8")
        return copy

    def image(self, attributes: Mapping[str, Any], duration: float = 0.0) -> Image:
        """The image that the engine has.

        Args:
            attributes: what the engine says of it.
            duration: seconds that this session spent building it.
        """
        recipe = self.recipe
        base = dockerfiles.base_image(recipe.dockerfile, recipe.arguments)
        declared = dockerfiles.declarations(recipe.dockerfile, recipe.arguments)
        return Image(
            reference=self.reference,
            digest=str(attributes["Id"]),
            dockerfile=recipe.title,
            base=base,
            base_digest=engine.digest(self.bases[base]) if base in self.bases else "",
            build_duration=duration,
            log=str(self.log) if duration else "",
            rocm_root=engine.rocm_root(attributes),
            content=self.content,
            command=Masker(recipe.secrets.values())(shlex.join(arguments(recipe, self.reference, Path(recipe.title)))),
            vendor=dockerfiles.vendor(recipe.dockerfile, base),
            architecture=architecture.given_architecture(declared, recipe.arguments),
        )


@contextmanager
def locked(name: str, stopping: threading.Event) -> Iterator[None]:
    """Let only one process of this user on this machine, and one thread of it, be here for `name`.

    Raises:
        InfrastructureError: `stopping` was set meanwhile.
    """
    lock = FileLock(_locks() / f"{name}.lock")
    while not lock.is_locked:
        if stopping.is_set():
            raise InfrastructureError("given up, since the session ends")
        with suppress(Timeout):
            lock.acquire(timeout=PATIENCE)
    try:
        yield
    finally:
        lock.release()


def _locks() -> Path:
    """A folder that all sessions of this user on this machine share."""
    places = (os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~/.cache"), tempfile.gettempdir())  # noqa: PTH111
    for place in filter(None, places):
        folder = Path(place) / f"pytest-madengine-{os.getuid()}"
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    raise InfrastructureError(f"no folder for locks can be made: tried {', '.join(filter(None, places))}")


def content_of(recipe: Recipe, bases: Mapping[str, str]) -> str:
    """Hash of all that a build depends on, `bases` being the digest of each external image by name."""
    folders = [recipe.context, *([recipe.tools] if recipe.tools else [])]
    return content_hash(recipe.dockerfile, folders, {**recipe.arguments, **recipe.secrets}, bases)


def _noted(build: Build, make: Callable[[Build], Image]) -> Image:
    try:
        image = make(build)
    except BuildError as error:
        build.record.write_text(json.dumps({"failure": error.to_json()}), encoding="utf-8")
        raise
    build.record.write_text(json.dumps(image.to_json()), encoding="utf-8")
    return image


def _recorded(record: Path) -> Image | None:
    """What this session already knows of the image."""
    if not record.exists():
        return None
    noted = json.loads(record.read_text(encoding="utf-8"))
    if "failure" in noted:
        raise BuildError(**noted["failure"])
    return Image(**noted)


def arguments(recipe: Recipe, reference: str, dockerfile: Path, *, afresh: bool = False) -> list[str]:
    """The `docker buildx build` command; secrets travel in its environment, not in the process list."""
    declared = dockerfiles.declared_args(recipe.dockerfile)
    return [
        *("docker", "buildx", "build", "--load", "--progress=plain", "--network=host"),
        *(["--no-cache"] if afresh else []),
        *("--tag", reference, "--file", str(dockerfile)),
        *([f"--build-context=tools={recipe.tools}"] if recipe.tools else []),
        *(f"--build-arg={name}={value}" for name, value in recipe.arguments.items()),
        *(f"--build-arg={name}" for name in recipe.secrets if name in declared),
        *(f"--secret=id={name},env={name}" for name in recipe.secrets),
        str(recipe.context),
    ]


def _failure(recipe: Recipe, log: Path, code: int) -> BuildError:
    with log.open(encoding="utf-8", errors="replace") as file:
        step = failing_step(file)
    with log.open(encoding="utf-8", errors="replace") as file:
        tail = [line.rstrip() for line in deque(file, TAIL)]
    return BuildError(f"building {recipe.title} failed (exit {code}){step}", tail, str(log), recipe.title)


def failing_step(lines: Iterable[str]) -> str:
    """The step that a plain BuildKit log marks as failed, as `: [2/3] RUN make: exit code: 2`."""
    steps: dict[str, str] = {}
    found = ""
    for line in lines:
        if step := STEP.match(line):
            steps.setdefault(step[1], step[2].strip())
        elif error := ERROR.match(line):
            found = f": {steps.get(error[1], '')}: {error[2].strip()}"
    return found
