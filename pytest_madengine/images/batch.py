"""Reads a batch file: which models to build, which to take as they are, and where images go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pytest_madengine.errors import Fault, FaultsError, nearest
from pytest_madengine.images.manifest import DIALECT
from pytest_madengine.images.manifestfile import Places, loaded
from pytest_madengine.models.selection import Named, Tag
from pytest_madengine.validation import Text, dotted, faults


@dataclass(frozen=True)
class BatchEntry:
    """One model of a batch file.

    Attributes:
        index: its position in the list.
        line: the 1-based line on which it begins.
        model_name: the model's name.
        build_new: whether to build its image; else it is there already, on this machine or in the registry.
        registry: where its image goes or is, instead of where the others do; '' where nothing else is said.
        registry_image: the image's whole name there; '' where it follows from the registry.
    """

    index: int
    line: int
    model_name: str
    build_new: bool
    registry: str
    registry_image: str


class Item(BaseModel):
    """One model: built anew, or taken as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), title="Model of a batch")

    model_name: str = Field(min_length=1)
    build_new: bool = Field(default=False, strict=True)
    registry: Text = ""
    registry_image: Text = ""


def schema() -> dict[str, Any]:
    """The JSON Schema of a batch file."""
    item = Item.model_json_schema(mode="validation")
    comments = {"^_": {"description": "A comment."}}
    return {
        "$schema": DIALECT,
        "title": "Batch manifest",
        "description": "Models to build, or to take as they are, one after another.",
        "type": "array",
        "minItems": 1,
        "items": {**item, "patternProperties": comments},
    }


def read(path: Path) -> tuple[BatchEntry, ...]:
    """The models that the file names, in its order; keys that begin with `_` are comments.

    Raises:
        FaultsError: the file cannot be read, or all that is wrong in it.
    """
    data, places = loaded(path)
    if not isinstance(data, list) or not data:
        found = "an empty list" if data == [] else f"a {type(data).__name__}"
        raise FaultsError([Fault(places(()), f"found {found}", 'a list of objects such as {"model_name": "llama"}')])
    found_faults: list[Fault] = []
    items = [_typed(value, index, places, found_faults) for index, value in enumerate(data)]
    found_faults += _twice(items, places)
    if found_faults:
        raise FaultsError(found_faults)
    return tuple(
        BatchEntry(index, places.line((index,)), **item.model_dump()) for index, item in enumerate(items) if item
    )


def _typed(value: object, index: int, places: Places, found: list[Fault]) -> Item | None:
    given = (
        {key: inner for key, inner in value.items() if not key.startswith("_")} if isinstance(value, dict) else value
    )
    try:
        return Item.model_validate(given)
    except ValidationError as error:
        found += faults(error, Item, lambda key: places((index, *key)))
        return None


def _twice(items: Iterable[Item | None], places: Places) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        if item and first.setdefault(item.model_name, index) != index:
            line = places.line((first[item.model_name], "model_name"))
            text = f"{item.model_name!r} already stands on line {line}"
            yield Fault(places((index, "model_name")), text, "each model once")


def unmatched(path: Path, entries: Iterable[BatchEntry], models: Sequence[Named]) -> FaultsError | None:
    """The entries that select no model by its name or a tag, each with the nearest spelling; None where all do."""
    names = {model.name for model in models} | {tag for model in models for tag in model.tags}
    lost = [entry for entry in entries if not any(_tag(entry).matches(model) for model in models)]
    if not lost:
        return None
    return FaultsError(
        Fault(
            f"{path}:{entry.line}: {dotted((entry.index, 'model_name'))}",
            f"{entry.model_name!r} selects no model",
            f"one of {len(names)} names and tags" if names else "no model was found at all",
            nearest(entry.model_name, names),
        )
        for entry in lost
    )


def _tag(entry: BatchEntry) -> Tag:
    return Tag(entry.model_name, entry.model_name)
