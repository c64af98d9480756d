"""Reads the text of a models.json: every card with its line, every fault of the file at once."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pytest_madengine.errors import Fault, FaultsError, nearest
from pytest_madengine.models.model import Model
from pytest_madengine.validation import Path as KeyPath
from pytest_madengine.validation import dotted, faults, shown

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
BLANK = " \t\r\n"


class CardWarning(UserWarning):
    """Something in a card is odd but the card still works."""


class _DuplicateKeyError(ValueError):
    pass


@dataclass(frozen=True)
class Raw:
    """A card before validation: its position in the list, 1-based line, JSON text and value."""

    index: int
    line: int
    text: str
    value: Any


def read(path: Path) -> list[tuple[Model, int]]:
    """The cards of the file, each with its line.

    Raises:
        FaultsError: all that is wrong in it.
    """
    try:
        raws = list(_elements(path, path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise FaultsError([Fault(str(path), f"cannot be read: {error}")]) from None
    return validated(raws, path)


def validated(raws: list[Raw], path: Path) -> list[tuple[Model, int]]:
    """The cards typed.

    Raises:
        FaultsError: every fault of every card, and names that stand twice.
    """
    cards: list[tuple[Model, int]] = []
    found: list[Fault] = []
    lines: dict[str, int] = {}
    for raw in raws:
        try:
            model = Model.model_validate(raw.value)
        except ValidationError as error:
            found += faults(error, Model, lambda key, raw=raw: _where(path, raw, key))  # type: ignore[misc]
            continue
        if model.name in lines:
            name_fault = f"the name {model.name!r} already stands on line {lines[model.name]}"
            found.append(Fault(_where(path, raw, ("name",)), name_fault, "a name of its own for each card"))
        lines.setdefault(model.name, raw.line)
        _warn_of_unknown_keys(path, raw, model)
        cards.append((model, raw.line))
    if found:
        raise FaultsError(found)
    return cards


NO_LINE = 0
"""Of a warning that names its line itself: pytest would show the whole line, with what is secret in it."""


def _warn_of_unknown_keys(path: Path, raw: Raw, model: Model) -> None:
    for key in model.model_extra or ():
        if not key.startswith("_"):
            close = nearest(key, Model.model_fields)
            hint = f"; did you mean {close!r}?" if close else ""
            text = f"{_where(path, raw, (key,))}: unknown key kept{hint}"
            warnings.warn_explicit(text, CardWarning, str(path), NO_LINE)


def _elements(path: Path, text: str) -> Iterator[Raw]:
    """The elements of the top-level list, decoded one by one so that each line is known."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    at, line, counted = _skip(text, 0), 1, 0
    if text[at : at + 1] != "[":
        found = shown(text[at : at + 20]) if text.strip() else "an empty file"
        raise FaultsError([Fault(f"{path}:1", f"found {found}", "a JSON list of model cards")])
    at, index = _skip(text, at + 1), 0
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, end = _decode(decoder, text, at, path)
        yield Raw(index, line, text[at:end], value)
        at, index = _after_separator(text, end, path), index + 1
    if rest := text[at + 1 :].strip():
        raise _syntax(path, text, at + 1, f"found {shown(rest[:20])} behind the list", "nothing")


def _decode(decoder: json.JSONDecoder, text: str, at: int, path: Path) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise _syntax(path, text, error.pos, f"not JSON: {error.msg}", "") from None
    except _DuplicateKeyError as error:
        raise _syntax(path, text, at, f"the key {error} stands twice in one card", "each key once") from None
    except (ValueError, RecursionError) as error:
        raise _syntax(path, text, at, f"not JSON that can be read: {error}", "") from None


def _after_separator(text: str, end: int, path: Path) -> int:
    at = _skip(text, end)
    if text[at : at + 1] == "]":
        return at
    following = _skip(text, at + 1)
    if text[at : at + 1] != "," or text[following : following + 1] == "]":
        raise _syntax(path, text, at, f"found {shown(text[at : at + 1])}", "',' and another card, or ']'")
    return following


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in BLANK and at < len(text):
        at += 1
    return at


def _syntax(path: Path, text: str, at: int, found: str, valid: str) -> FaultsError:
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    return FaultsError([Fault(f"{path}:{line}:{column}", found, valid)])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(repr(next(key for key in keys if keys.count(key) > 1)))
    return value


def _where(path: Path, raw: Raw, key: KeyPath) -> str:
    """`models.json:12: [3].distributed.nnodes (llama3)`."""
    name = raw.value.get("name") if isinstance(raw.value, dict) else None
    owner = f" ({name})" if isinstance(name, str) else ""
    return f"{path}:{raw.line + line_in(raw.text, key)}: {dotted((raw.index, *key))}{owner}"


def line_in(text: str, key: KeyPath) -> int:
    """On which line of a JSON or YAML text, counted from 0, the key stands; the deepest part that exists."""
    try:
        node = yaml.compose(text.replace("\t", " "), Loader=LOADER)  # JSON may be indented by tabs
    except yaml.YAMLError:
        return 0
    line = 0
    for part in key:
        found = _child(node, part)
        if found is None:
            break
        line, node = found
    return line


def _child(node: Any, part: str | int) -> tuple[int, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line, node.value[part]
    return None
