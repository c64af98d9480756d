"""Builds the image of a model, once for each distinct content."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pytest_madengine import command
from pytest_madengine.engine.board import Phase
from pytest_madengine.errors import BuildError, InfrastructureError
from pytest_madengine.images import dockerfile as dockerfiles
from pytest_madengine.images import engine
from pytest_madengine.images.identity import content_hash, ignored
from pytest_madengine.images.image import Image
from pytest_madengine.secrets import Masker, Secret

TOOLS = ("docker/common", "scripts/common/tools")
"""Where the folder of shared helpers may stand that Dockerfiles see as the build context `tools`."""
STEP = re.compile(r"^#(\d+) (\[.*)$")
ERROR = re.compile(r"^#(\d+) ERROR: ?(.*)$")
TAIL = 20
Doing = Callable[[Phase, str], None]


def _nobody(_: Phase, __: str) -> None:
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
    def name(self) -> str:
        """The Dockerfile's name as part of an image reference."""
        stem = re.sub(r"\.?dockerfile\.?", "", self.dockerfile.name, flags=re.IGNORECASE) or "image"
        return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("._-") or "image"


def context_folder(project: Path, dockercontext: str, prefix: str) -> Path:
    """The build context: the card's, else the project for Primus, else `docker/` (the replaced tool's rule)."""
    if dockercontext:
        return project / dockercontext
    docker = project / "docker"
    return project if "primus" in prefix.lower() or not docker.is_dir() else docker


def build(recipe: Recipe, records: Path, doing: Doing = _nobody) -> Image:
    """The image of this recipe: built unless one of the same content is there.

    Processes that want the same image wait for the one that builds it, and share its failure too.

    Args:
        recipe: what to build.
        records: this session's folder for build logs and outcomes.
        doing: told when a pull or the build begins, and of what.

    Raises:
        BuildError: the build failed; holds the failing step and the end of the log.
        InfrastructureError: the engine or a base image is out of reach.
    """
    engine.require_buildx()
    bases = {name: _base_digest(name, doing) for name in _external(recipe)}
    content = _content(recipe, bases)
    folder = records / f"{recipe.name}-{content[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(_locks() / f"image-{content[:16]}.lock"):
        return _recorded(folder) or _built(recipe, bases, content, folder, doing)


def _base_digest(name: str, doing: Doing) -> str:
    return engine.digest(engine.local_or_pulled(name, lambda reference: doing(Phase.PULLING, reference)))


def _locks() -> Path:
    """A folder that all sessions of this user on this machine share."""
    places = (os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~/.cache"), tempfile.gettempdir())  # noqa: PTH111
    for place in filter(None, places):
        folder = Path(place) / f"pytest-madengine-{os.getuid()}"
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    raise InfrastructureError(f"no folder for locks can be made: tried {', '.join(filter(None, places))}")


def _external(recipe: Recipe) -> list[str]:
    return dockerfiles.external_images(recipe.dockerfile, recipe.arguments)


def _content(recipe: Recipe, bases: Mapping[str, str]) -> str:
    folders = [recipe.context, *([recipe.tools] if recipe.tools else [])]
    return content_hash(recipe.dockerfile, folders, {**recipe.arguments, **recipe.secrets}, bases)


def _recorded(folder: Path) -> Image | None:
    """What this session already knows of the image."""
    record = folder / "image.json"
    if not record.exists():
        return None
    noted = json.loads(record.read_text(encoding="utf-8"))
    if "failure" in noted:
        raise BuildError(**noted["failure"])
    return Image(**noted)


def _built(recipe: Recipe, bases: Mapping[str, str], content: str, folder: Path, doing: Doing) -> Image:
    reference, log, record = f"ci-{recipe.name}:{content[:16]}", folder / "build.log", folder / "image.json"
    started = time.monotonic()
    known = engine.inspect(reference)
    if not known:
        doing(Phase.BUILDING, _relative(recipe.dockerfile, recipe.project))
    try:
        attributes = known or _buildx(recipe, reference, log)
    except BuildError as error:
        record.write_text(json.dumps({"failure": error.to_json()}), encoding="utf-8")
        raise
    base = dockerfiles.base_image(recipe.dockerfile, recipe.arguments)
    variables = engine.environment(attributes)
    image = Image(
        reference=reference,
        digest=str(attributes["Id"]),
        dockerfile=_relative(recipe.dockerfile, recipe.project),
        base=base,
        base_digest=bases.get(base, ""),
        build_duration=0.0 if known else time.monotonic() - started,
        log="" if known else str(log),
        rocm_root=variables.get("ROCM_PATH") or variables.get("ROCM_HOME") or "",
    )
    record.write_text(json.dumps(image.to_json()), encoding="utf-8")
    return image


def _buildx(recipe: Recipe, reference: str, log: Path) -> dict[str, object]:
    environment = {**engine.client_environment(), **recipe.secrets}
    mask = Masker(recipe.secrets.values())
    argv = arguments(recipe, reference, _dockerfile(recipe, log.parent))
    code = command.stream(argv, log, env=environment, mask=mask)
    if code:
        raise _failure(recipe, log, code)
    attributes = engine.inspect(reference)
    if attributes is None:
        raise BuildError(f"{recipe.dockerfile}: built, but the engine does not have {reference}")
    return attributes


def _dockerfile(recipe: Recipe, folder: Path) -> Path:
    """A copy of the Dockerfile, beside a list of what stays out of its context as it does out of the hash."""
    copy = folder / recipe.dockerfile.name
    copy.write_bytes(recipe.dockerfile.read_bytes())
    patterns = ignored(recipe.context, recipe.dockerfile)
    copy.with_name(f"{copy.name}.dockerignore").write_text("\n".join(patterns), encoding="utf-8")
    return copy


def arguments(recipe: Recipe, reference: str, dockerfile: Path) -> list[str]:
    """The `docker buildx build` command; secrets travel in its environment, not in the process list."""
    declared = dockerfiles.declared_args(recipe.dockerfile)
    return [
        *("docker", "buildx", "build", "--load", "--progress=plain", "--network=host"),
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
    name = _relative(recipe.dockerfile, recipe.project)
    return BuildError(f"building {name} failed (exit {code}){step}", tail, str(log), name)


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


def _relative(path: Path, project: Path) -> str:
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(path)
