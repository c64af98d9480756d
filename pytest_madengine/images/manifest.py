"""The build manifest: which model runs in which image, and what it needs to run elsewhere."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pytest_madengine.context.context import DEPLOYMENTS
from pytest_madengine.context.layers import merged
from pytest_madengine.errors import Fault, FaultsError, nearest
from pytest_madengine.images.image import Image
from pytest_madengine.models.model import Model
from pytest_madengine.secrets import Secret, is_secret
from pytest_madengine.validation import Path, Text, faults, unknown_key

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DEPLOYMENT_KEYS = ("slurm", "k8s", "kubernetes", "distributed", "vllm", "primus", "env_vars", "debug")
"""The context's keys that stand under `deployment_config`."""
MACHINE_FACTS = frozenset(
    [
        "MAD_GPU_VENDOR",
        "MAD_SYSTEM_NGPUS",
        "MAD_SYSTEM_GPU_ARCHITECTURE",
        "MAD_SYSTEM_HIP_VERSION",
        "MAD_SYSTEM_GPU_PRODUCT_NAME",
    ]
)
"""Variables that tell of the machine that built: the one that runs finds out its own."""
OF_IMAGE = frozenset(["docker_image", "docker_sha", "build_duration", "built_on_compute"])
"""What a card in a manifest says of its image, and the card itself does not."""
ANOTHERS = frozenset(
    [
        *("image_name", "local_image", "build_time", "prebuilt", "built_on_compute", "build_status"),
        *("push_failures", "local_image_mode", "local_image_name"),
    ]
)
"""Keys of the replaced tool that say nothing which is needed here."""
FOR_ALL = frozenset(["docker_image", "MAD_CONTAINER_IMAGE", "container_image"])
"""Keys of a context that name one image for all models: in a manifest each entry has its own."""
MISSPELT = 0.85
"""How like a known key an unknown one must be to be taken for a slip; others are another program's."""


@dataclass(frozen=True)
class Entry:
    """One model with its image, or with the reason why it has none.

    Attributes:
        key: unique among the entries of a manifest.
        card: the model.
        image: None where it could not be made.
        error: why not; '' where it was made.
    """

    key: str
    card: Model
    image: Image | None
    error: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a manifest tells the rest of the program.

    Attributes:
        entries: the models that have an image, then those that have none.
        context: one layer of configuration, for `context.validated`; secret values in it hide themselves.
        secrets_required: names of the variables that the manifest leaves out; a run must be given them.
        credentials_required: names of entries of credential.json that its models use.
    """

    entries: tuple[Entry, ...]
    context: dict[str, Any]
    secrets_required: tuple[str, ...] = ()
    credentials_required: tuple[str, ...] = ()


@dataclass(frozen=True)
class LostPush:
    """An image that did not arrive in a registry.

    Attributes:
        key: its entry's.
        registry_image: the name that it was to have there.
        error: why it did not arrive.
    """

    key: str
    registry_image: str
    error: str


def _empty_object(value: object) -> object:
    return {} if value is None else value


def _empty_list(value: object) -> object:
    return () if value is None else value


def _always_written(schema: dict[str, Any], kind: type[BaseModel]) -> None:
    """Our own output holds these keys and no others; None stands for a key that may be left out."""
    fields = kind.model_fields.items()
    schema["required"] = [name for name, field in fields if field.default is not None]
    schema["additionalProperties"] = False


OPEN = ConfigDict(frozen=True, extra="allow", protected_namespaces=(), json_schema_extra=_always_written)
"""Other programs' keys are read past."""
Object = Annotated[dict[str, Any], BeforeValidator(_empty_object), Field(default_factory=dict)]
Names = Annotated[tuple[str, ...], BeforeValidator(_empty_list)]


class BuiltImage(BaseModel):
    """An image.

    Attributes:
        docker_image: its name on the machine that built it, or the only name that it has.
        docker_sha: the base image's digest.
        build_duration: seconds.
        image_id: the engine's id of it.
        digest: by which the registry knows it.
        content_hash: of all that it was built from.
    """

    model_config = OPEN

    model: Text = ""
    docker_image: Text = ""
    dockerfile: Text = ""
    base_docker: Text = ""
    docker_sha: Text = ""
    build_duration: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(lambda value: value or 0)] = 0.0
    build_command: Text = ""
    log_file: Text = ""
    gpu_vendor: Text = ""
    gpu_architecture: Text = ""
    image_id: Text = ""
    digest: Text = ""
    content_hash: Text = ""
    rocm_root: Text = ""
    registry: str | None = None
    registry_image: str | None = None
    push_error: str | None = None

    def as_image(self) -> Image:
        """The value that the rest of the program works with; a registry's digest is trusted before any name."""
        remote = self.registry_image or ""
        pinned = f"{repository(remote)}@{self.digest}" if remote and self.digest else ""
        return Image(
            reference=pinned or remote or self.docker_image,
            digest=self.image_id,
            dockerfile="" if self.dockerfile.startswith("N/A") else self.dockerfile,
            base=self.base_docker,
            base_digest=self.docker_sha,
            build_duration=self.build_duration,
            log=self.log_file,
            rocm_root=self.rocm_root,
            content=self.content_hash,
            command=self.build_command,
            vendor=self.gpu_vendor,
            architecture=self.gpu_architecture,
            registry_image=remote,
            registry_digest=self.digest,
        )


def repository(name: str) -> str:
    """An image's name without tag and digest."""
    folder, slash, last = name.partition("@")[0].rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}"


class FailedBuild(BaseModel):
    """A model that has no image; the replaced tool gives no key and no card."""

    model_config = OPEN

    model: str = Field(min_length=1)
    key: Text = ""
    architecture: str | None = None
    error: Text = ""
    card: Model | None = None


class Pushed(BaseModel):
    """An image that arrived in a registry."""

    model_config = OPEN

    image: str
    registry: str
    registry_image: str


class FailedPush(BaseModel):
    """An image that did not arrive in a registry."""

    model_config = OPEN

    image: str
    registry: str
    intended_registry_image: str
    error: str


class Deployment(BaseModel):
    """Where models are to run: `target` and parts of the context."""

    model_config = ConfigDict(frozen=True, extra="allow")

    target: Text = ""


class Listed(BaseModel):
    """What is read of a manifest's summary: its failures, not yet looked into."""

    model_config = OPEN

    failed_builds: Annotated[list[Any], BeforeValidator(lambda value: value or [])] = Field(default_factory=list)


class Frame(BaseModel):
    """A manifest of any kind, its images, cards and failures not yet looked into."""

    model_config = OPEN

    built_images: dict[str, Any]
    built_models: dict[str, Any]
    context: Object
    credentials_required: Names = ()
    secrets_required: Names = ()
    summary: Annotated[Listed, BeforeValidator(_empty_object)] = Field(default_factory=Listed)
    deployment_config: Annotated[Deployment, BeforeValidator(_empty_object)] = Field(default_factory=Deployment)


class Summary(Listed):
    """What was built and pushed; seconds."""

    successful_builds: list[BuiltImage]
    failed_builds: list[FailedBuild]
    total_build_time: float
    successful_pushes: list[Pushed]
    failed_pushes: list[FailedPush]
    total: int
    success: int
    failed: int


class Document(Frame):
    """A build manifest as pytest-madengine writes it."""

    built_images: dict[str, BuiltImage]
    built_models: dict[str, Model]
    summary: Summary


def schema() -> dict[str, Any]:
    """The JSON Schema of what `content` gives."""
    return {"$schema": DIALECT, **Document.model_json_schema(mode="serialization")}


Where = Callable[[Path], str]
Kind = TypeVar("Kind", bound=BaseModel)


def parsed(data: object, where: Where) -> Manifest:
    """A manifest of this program, of the replaced tool, or as the wiki shows it.

    Args:
        data: what the JSON text holds.
        where: renders a key path as the reader finds it in the file.

    Raises:
        FaultsError: everything that is wrong in it.
    """
    found: list[Fault] = []
    frame = _typed(Frame, data, (), where, found)
    if frame is None:
        raise FaultsError(found)
    found += _unpaired(frame, where)
    built = [_built(frame, key, where, found) for key in frame.built_models if key in frame.built_images]
    failed = [_failed(frame, at, where, found) for at in range(len(frame.summary.failed_builds))]
    if found:
        raise FaultsError(found)
    entries = (*filter(None, built), *_keyed(filter(None, failed), set(frame.built_models)))
    return Manifest(entries, _layer(frame), frame.secrets_required, frame.credentials_required)


def _typed(kind: type[Kind], value: object, path: Path, where: Where, found: list[Fault]) -> Kind | None:
    """`value` as one of this kind; else None, with what is wrong added to `found`."""

    def place(key: Path) -> str:
        return where((*path, *key))

    try:
        typed = kind.model_validate(value)
    except ValidationError as error:
        found += faults(error, kind, place)
        return None
    if kind is not Model:
        found += _misspelt(typed, place)
    return typed


def _misspelt(typed: BaseModel, where: Where) -> Iterator[Fault]:
    known = type(typed).model_fields
    for key in sorted((typed.model_extra or {}).keys() - ANOTHERS):
        if difflib.get_close_matches(key, known, n=1, cutoff=MISSPELT):
            yield unknown_key((key,), known, where)


def _unpaired(frame: Frame, where: Where) -> Iterator[Fault]:
    images, models = frame.built_images, frame.built_models
    for key in [key for key in images if key not in models]:
        text = f"the image {key!r} has no model"
        yield Fault(where(("built_images", key)), text, "the same key in built_models", nearest(key, models))
    for key in [key for key in models if key not in images]:
        text = f"the model {key!r} has no image"
        yield Fault(where(("built_models", key)), text, "the same key in built_images", nearest(key, images))
    for key in models:
        yield from _unfit(key, ("built_models", key), where)


def _unfit(key: str, path: Path, where: Where) -> Iterator[Fault]:
    """Keys become names of items."""
    if not key or "::" in key or not key.isprintable():
        yield Fault(
            where(path), f"found the key {key!r}", "a key that is not empty, without '::' and control characters"
        )


def _built(frame: Frame, key: str, where: Where, found: list[Fault]) -> Entry | None:
    of_image, of_card = frame.built_images[key], frame.built_models[key]
    if isinstance(of_image, dict) and isinstance(of_card, dict):
        of_image = {**_said_by_card(of_card), **of_image}
    image = _typed(BuiltImage, of_image, ("built_images", key), where, found)
    card = _typed(Model, _own(of_card), ("built_models", key), where, found)
    if image and not (image.docker_image or image.registry_image):
        valid = "'docker_image' or 'registry_image' with a name"
        found.append(Fault(where(("built_images", key)), "no image is named", valid))
    return Entry(key, card, image.as_image()) if card and image else None


def _said_by_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """What the wiki's cards say of how their images were built, in case the images do not."""
    return {key: card[key] for key in ("dockerfile", "docker_sha", "build_duration") if card.get(key)}


def _own(card: Any) -> Any:
    """The card without what the manifest adds to it; null says nothing."""
    if not isinstance(card, dict):
        return card
    fields = Model.model_fields
    return {
        key: value for key, value in card.items() if key not in OF_IMAGE and (value is not None or key not in fields)
    }


def _failed(frame: Frame, at: int, where: Where, found: list[Fault]) -> Entry | None:
    path = ("summary", "failed_builds", at)
    failed = _typed(FailedBuild, frame.summary.failed_builds[at], path, where, found)
    if failed is None:
        return None
    found += _unfit(failed.key, (*path, "key"), where) if failed.key else ()
    card = failed.card or _typed(Model, {"name": failed.model}, (*path, "model"), where, found)
    key = failed.key or (f"{failed.model}[{failed.architecture}]" if failed.architecture else failed.model)
    return Entry(key, card, None, failed.error or "its build failed, without a word of why") if card else None


def _keyed(failed: Iterable[Entry], taken: set[str]) -> Iterator[Entry]:
    """Each with a key of its own: the replaced tool names only the model, once for each Dockerfile."""
    for entry in failed:
        keys = itertools.chain([entry.key], (f"{entry.key}#{number}" for number in itertools.count(2)))
        key = next(key for key in keys if key not in taken)
        taken.add(key)
        yield Entry(key, entry.card, None, entry.error)


def _layer(frame: Frame) -> dict[str, Any]:
    """The context with `deployment_config` over it."""
    given = [{key: value for key, value in each.items() if value is not None} for each in _configured(frame)]
    layer = {key: value for key, value in merged(*given).items() if key not in FOR_ALL}
    target = frame.deployment_config.target
    if target and "deploy" not in layer and DEPLOYMENTS.get(target, target) != implied(layer):
        layer["deploy"] = target
    variables = layer.get("docker_env_vars")
    if isinstance(variables, dict):
        layer["docker_env_vars"] = {name: value for name, value in variables.items() if name not in MACHINE_FACTS}
    hidden: dict[str, Any] = _hidden(layer)
    return hidden


def _configured(frame: Frame) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return frame.context, frame.deployment_config.model_extra or {}


def implied(context: Mapping[str, Any]) -> str:
    """Where a context without `deploy` runs; not written down as `deploy`, so that a run's own context may differ."""
    if context.get("k8s") is not None or context.get("kubernetes") is not None:
        return "k8s"
    return "slurm" if context.get("slurm") is not None else "docker"


def _hidden(value: Any) -> Any:
    """The value with secrets that tracebacks do not show."""
    if isinstance(value, list):
        return [_hidden(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key: Secret(inner) if isinstance(inner, str) and is_secret(key) else _hidden(inner)
        for key, inner in value.items()
    }


def names(entries: Sequence[Entry]) -> list[str]:
    """What to call the entries, one name for each and no name twice.

    The key where it is a name that we gave; else the model's name where no other entry has it; else with its
    architecture or key in brackets.
    """
    models = Counter(entry.card.name for entry in entries)
    builds = Counter(_build(entry) for entry in entries)
    keys = {entry.key for entry in entries}
    taken: dict[str, None] = {}
    for entry in entries:
        alone = models[entry.card.name] == 1
        told_apart = builds[_build(entry)] == 1 and _build(entry) not in keys
        labels = _labels(entry, alone=alone, told_apart=told_apart)
        taken[next(label for label in labels if label not in taken)] = None
    return list(taken)


def _build(entry: Entry) -> str:
    architecture = entry.image.architecture if entry.image else ""
    return f"{entry.card.name}[{architecture}]"


def _labels(entry: Entry, *, alone: bool, told_apart: bool) -> Iterator[str]:
    """What an entry may be called, the best first."""
    name, key = entry.card.name, entry.key
    if key == name or key.startswith(f"{name}["):
        yield key
    if alone:
        yield name
    if told_apart and entry.image and entry.image.architecture:
        yield _build(entry)
    yield f"{name}[{key}]"
    yield from (f"{name}[{key}]#{number}" for number in itertools.count(2))
