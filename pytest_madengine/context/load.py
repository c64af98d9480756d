"""Makes the Context of a session from its options and its manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_madengine.context import parse
from pytest_madengine.context.context import Context, validated
from pytest_madengine.context.layers import merged
from pytest_madengine.images.dockerfile import header_keys
from pytest_madengine.models.cardfile import line_in
from pytest_madengine.validation import Path as KeyPath
from pytest_madengine.validation import dotted

INLINE = "--madengine-context"


@dataclass(frozen=True)
class Below:
    """What a manifest says of the context; the options win over it.

    Attributes:
        where: renders a key path as the reader finds it in the manifest.
    """

    values: Mapping[str, Any]
    where: Callable[[KeyPath], str]


def load(text: str | None, file: Path | None, project: Path, below: Below | None = None) -> Context:
    """The manifest's context, with the file's over it and the inline one on top.

    Raises:
        FaultsError: everything that is wrong in any of them.
    """
    from_file, file_text = parse.file(file) if file else ({}, "")
    from_text = parse.inline(text, INLINE) if text else {}
    where = _places(file, (from_file, file_text), from_text, below)
    layers = (below.values if below else {}, from_file, from_text)
    return validated(merged(*layers), where, lambda: header_keys(project))


def _places(
    file: Path | None, read: tuple[Mapping[str, Any], str], from_text: Mapping[str, Any], below: Below | None
) -> Callable[[KeyPath], str]:
    def where(key: KeyPath) -> str:
        if below and not _holds(from_text, key) and not _holds(read[0], key):
            return below.where(key)
        if file is None or _holds(from_text, key):
            return f"{INLINE}: {dotted(key)}"
        return f"{file}:{line_in(read[1], key) + 1}: {dotted(key)}"

    return where


def _holds(value: Any, key: KeyPath) -> bool:
    for part in key:
        if not isinstance(value, Mapping) or part not in value:
            return isinstance(value, list)
        value = value[part]
    return True
