"""Makes the Context of a session from its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def load(text: str | None, file: Path | None, project: Path) -> Context:
    """The file's context with the inline one over it.

    Raises:
        FaultsError: everything that is wrong in either.
    """
    from_file, file_text = parse.file(file) if file else ({}, "")
    from_text = parse.inline(text, INLINE) if text else {}
    where = _places(file, file_text, from_text)
    return validated(merged(from_file, from_text), where, lambda: header_keys(project))


def _places(file: Path | None, file_text: str, from_text: Mapping[str, Any]) -> Callable[[KeyPath], str]:
    def where(key: KeyPath) -> str:
        if file is None or _holds(from_text, key):
            return f"{INLINE}: {dotted(key)}"
        return f"{file}:{line_in(file_text, key) + 1}: {dotted(key)}"

    return where


def _holds(value: Any, key: KeyPath) -> bool:
    for part in key:
        if not isinstance(value, Mapping) or part not in value:
            return isinstance(value, list)
        value = value[part]
    return True
