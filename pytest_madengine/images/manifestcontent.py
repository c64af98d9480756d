"""What a build manifest holds when we write it: the replaced tool's keys, the wiki's, and our own; no secret."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from pytest_madengine.context.context import DEPLOYMENTS
from pytest_madengine.errors import UserError
from pytest_madengine.images.image import Image
from pytest_madengine.images.manifest import DEPLOYMENT_KEYS, BuiltImage, Entry, LostPush, implied, repository
from pytest_madengine.secrets import PREFIX, Masker, all_texts, is_secret

VARIABLES = ("docker_env_vars", "env_vars")
"""The context's objects of variables that models get."""
NAMES = frozenset(
    [
        *("docker_image", "registry_image", "intended_registry_image", "registry", "image", "DOCKER_IMAGE_NAME"),
        *("digest", "image_id", "content_hash", "docker_sha", "base_docker", "dockerfile", "dockercontext", "scripts"),
        *("name", "model", "key", "cred", "data", "gpu_vendor", "gpu_architecture", "target"),
    ]
)
"""Keys whose values are names and paths, without which nothing can be run: whatever they resemble, they stay."""
REFERENCES = frozenset(["strategy", "image_pull_secret_names", "runtime_secret_name"])
"""Keys that name a cluster's secrets and hold none."""


def content(
    entries: Iterable[Entry], *, context: Mapping[str, Any], masker: Masker, lost: Iterable[LostPush] = ()
) -> dict[str, Any]:
    """What a manifest file holds: the replaced tool's keys, the wiki's, and our own; no secret.

    Args:
        entries: in the order in which they are to stand.
        context: the merged layers that images were built under.
        masker: knows the secret values; those that entries and context hold under a secret's name are hidden too.
        lost: the images that could not be pushed; all others that have a name in a registry are there.

    Raises:
        UserError: two entries have one key.
    """
    entries = list(entries)
    cards = {entry.key: entry.card.model_dump(mode="json") for entry in entries}
    masker = Masker([*masker.values, *_hidden_texts([_unmounted(context), *cards.values()])])
    if len(cards) != len(entries):
        raise UserError(f"two models of a build manifest have one key: {', '.join(masker(key) for key in cards)}")
    built = [(entry, entry.image, cards[entry.key]) for entry in entries if entry.image]
    errors = {push.key: push for push in lost}
    images = {entry.key: _image_content(entry, image, errors.get(entry.key)) for entry, image, _ in built}
    document = {
        "built_images": images,
        "built_models": {entry.key: _card_content(card, image) for entry, image, card in built},
        "context": _public_context({key: value for key, value in context.items() if key not in DEPLOYMENT_KEYS}),
        "credentials_required": sorted({entry.card.cred for entry, _, _ in built} - {""}),
        "secrets_required": _required(context, [card for _, _, card in built]),
        "summary": {
            **_counts(images, len(entries)),
            "failed_builds": [_failure(entry, cards[entry.key]) for entry in entries if not entry.image],
            "successful_pushes": [_pushed(image) for image in images.values() if "registry_image" in image],
            "failed_pushes": [_unpushed(push, images) for push in errors.values()],
        },
        "deployment_config": {"target": _target(context), **_public(_deployment(context))},
    }
    masked: dict[str, Any] = _masked(document, masker)
    return masked


def _image_content(entry: Entry, image: Image, lost: LostPush | None) -> dict[str, Any]:
    built = BuiltImage(
        model=entry.card.name,
        docker_image=image.reference,
        dockerfile=image.dockerfile,
        base_docker=image.base,
        docker_sha=image.base_digest,
        build_duration=image.build_duration,
        build_command=image.command,
        log_file=image.log,
        gpu_vendor=image.vendor,
        gpu_architecture=image.architecture,
        image_id=image.digest,
        digest=image.registry_digest,
        content_hash=image.content,
        rocm_root=image.rocm_root,
        registry=_registry(image.registry_image) if image.registry_image else None,
        registry_image=image.registry_image or None,
        push_error=lost.error if lost else None,
    )
    return built.model_dump(exclude_none=True)


def _card_content(card: Mapping[str, Any], image: Image) -> dict[str, Any]:
    remote = {"DOCKER_IMAGE_NAME": image.registry_image} if image.registry_image else {}
    return {
        **_public(card),
        "env_vars": {**_public(card["env_vars"]), **remote},
        "docker_image": image.reference,
        "docker_sha": image.base_digest,
        "build_duration": image.build_duration,
        "built_on_compute": image.on_compute,
    }


def _failure(entry: Entry, card: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": entry.card.name, "key": entry.key, "error": entry.error, "card": _public(card)}


def _counts(images: Mapping[str, Mapping[str, Any]], total: int) -> dict[str, Any]:
    return {
        "total": total,
        "success": len(images),
        "failed": total - len(images),
        "total_build_time": math.fsum(image["build_duration"] for image in images.values()),
        "successful_builds": list(images.values()),
    }


def _pushed(image: Mapping[str, Any]) -> dict[str, Any]:
    return {"image": image["docker_image"], "registry": image["registry"], "registry_image": image["registry_image"]}


def _unpushed(push: LostPush, images: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "image": images[push.key]["docker_image"] if push.key in images else push.key,
        "registry": _registry(push.registry_image),
        "intended_registry_image": push.registry_image,
        "error": push.error,
    }


def _registry(image: str) -> str:
    """What stands before an image's own name: `docker.io/team`, `localhost:5000`."""
    place = repository(image).rpartition("/")[0]
    first = place.partition("/")[0]
    named = "." in first or ":" in first or first == "localhost"
    return place if named else "/".join(filter(None, ("docker.io", place)))


def _target(context: Mapping[str, Any]) -> str:
    """In the replaced tool's words."""
    stated = context.get("deploy") or implied(context)
    target = DEPLOYMENTS.get(stated, stated)
    return "local" if target == "docker" else target


def _deployment(context: Mapping[str, Any]) -> dict[str, Any]:
    return {key: context[key] for key in DEPLOYMENT_KEYS if context.get(key) is not None}


def _required(context: Mapping[str, Any], cards: Iterable[Mapping[str, Any]]) -> list[str]:
    """The variables that are left out and that a run needs, unlike those of builds.

    Those that the environment passes on by itself are not named.
    """
    objects = [context.get(key) or {} for key in VARIABLES]
    found = {name for variables in objects for name in variables if is_secret(name)}
    found |= {name for card in cards for name in card["env_vars"] if is_secret(name)}
    found |= {*(context.get("secrets") or {})}
    return sorted(name for name in found if not name.startswith(PREFIX))


def _public_context(context: Mapping[str, Any]) -> dict[str, Any]:
    public: dict[str, Any] = _public(_unmounted(context))
    public.pop("secrets", None)
    return {**public, **{key: context[key] for key in context.keys() & {"docker_mounts"}}}


def _unmounted(context: Mapping[str, Any]) -> dict[str, Any]:
    """Without mounts: their keys are paths, which hold no secret whatever they are called."""
    return {key: value for key, value in context.items() if key != "docker_mounts"}


def _public(value: Any, *, within: bool = False) -> Any:
    """The value without what stands under the name of a secret, or in an object `secrets`."""
    if isinstance(value, list | tuple):
        return [_public(inner, within=within) for inner in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: _public(inner, within=within or key == "secrets")
        for key, inner in value.items()
        if not _hides(key, inner, within=within)
    }


def _hides(key: str, value: Any, *, within: bool) -> bool:
    if key in REFERENCES or (key == "secrets" and isinstance(value, Mapping)):
        return False
    return within or is_secret(key)


def _hidden_texts(value: Any, *, within: bool = False) -> Iterator[str]:
    """The texts that `_public` leaves out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            hides = _hides(key, inner, within=within)
            yield from all_texts(inner) if hides else _hidden_texts(inner, within=within or key == "secrets")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _hidden_texts(inner, within=within)


def _masked(value: Any, masker: Masker) -> Any:
    """The value as JSON can hold it, every secret text in it hidden."""
    if isinstance(value, str):
        return masker(value)
    if isinstance(value, Mapping):
        return {key: inner if key in NAMES else _masked(inner, masker) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner, masker) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def kept(new: dict[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """`new` with what `old` tells of the building of images that were there already.

    So a build that built nothing writes the same manifest again.

    Args:
        new: what `content` gave.
        old: what stood in the file before, of whatever kind.
    """
    before = old.get("built_images")
    known = before if isinstance(before, Mapping) else {}
    images = {key: {**image, **_earlier(image, known.get(key))} for key, image in new["built_images"].items()}
    models = {
        key: {**card, "build_duration": images[key]["build_duration"]} for key, card in new["built_models"].items()
    }
    summary = {**new["summary"], **_counts(images, new["summary"]["total"])}
    return {**new, "built_images": images, "built_models": models, "summary": summary}


def _earlier(image: Mapping[str, Any], old: object) -> dict[str, Any]:
    """How the image was built, where this session found it built."""
    if image["build_duration"] or not (image["image_id"] or image["content_hash"]):
        return {}
    try:
        before = BuiltImage.model_validate(old)
    except ValidationError:
        return {}
    same = (before.image_id, before.content_hash) == (image["image_id"], image["content_hash"])
    told = {"build_duration", "build_command", "log_file"}
    return before.model_dump(include=told) if same else {}
