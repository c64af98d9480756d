"""Finds model files and reads their cards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from pytest_madengine.errors import Fault, FaultsError, UserError
from pytest_madengine.images.manifest import Entry, Manifest, names
from pytest_madengine.models import cardfile, dynamic
from pytest_madengine.models.model import Model, Source, in_scripts_folder

STATIC = "models.json"
DYNAMIC = "get_models_json.py"


@dataclass(frozen=True)
class Found:
    """A card with its source.

    Attributes:
        model: the card; of a dynamic one, as it stood before `update_model`.
        source: where it stands.
        complete: gives the card that is to run; for a dynamic model this calls `update_model` once.
        entry: what a manifest says of its image.
        label: what tells it from others of its name.
    """

    model: Model
    source: Source
    complete: Callable[[], Model]
    entry: Entry | None = None
    label: str = ""


def is_model_file(path: Path) -> bool:
    """Whether pytest should read cards from this file."""
    return path.name in (STATIC, DYNAMIC)


def files(root: Path) -> list[Path]:
    """The model files of a project: its own models.json, then those of each `scripts/<dir>/` by name.

    Raises:
        UserError: there is none.
    """
    folders = [root, *sorted(path for path in (root / "scripts").glob("*") if path.is_dir())]
    found = [folder / name for folder in folders for name in (STATIC, DYNAMIC) if (folder / name).is_file()]
    if not found:
        raise UserError(
            f"no model cards under {root}: looked for {STATIC}, scripts/*/{STATIC} and scripts/*/{DYNAMIC}; "
            "run pytest in the project's folder, set MODEL_DIR to it, or name a file as argument"
        )
    return found


def read(path: Path, shared: Shared | None = None) -> list[Found]:
    """The cards of one model file, in its order.

    Args:
        path: a models.json or get_models_json.py.
        shared: where processes of one session share what dynamic scripts gave; None runs them here.

    Raises:
        FaultsError: everything that is wrong in it.
    """
    other = path.with_name(DYNAMIC if path.name == STATIC else STATIC)
    if other.exists():
        raise FaultsError([Fault(str(path.parent), f"holds both {STATIC} and {DYNAMIC}", "one of them")])
    root, folder = project_of(path)
    if path.name == STATIC:
        return _static(path, root, folder)
    return shared.read(path, root, folder) if shared else _dynamic(path, root, folder)


def of_manifest(manifest: Manifest, lines: Mapping[str, int], path: Path, root: Path) -> list[Found]:
    """The models of a manifest, those that have no image included; their paths start from `root`.

    Raises:
        UserError: it names none.
    """
    if not manifest.entries:
        raise UserError(f"{path} names no model: nothing was selected when it was written")
    found = []
    for entry, name in zip(manifest.entries, names(manifest.entries), strict=True):
        source = Source(path, lines[entry.key], root)
        label = name[len(entry.card.name) :].removeprefix("[").removesuffix("]")
        found.append(Found(entry.card, source, lambda entry=entry: entry.card, entry, label))  # type: ignore[misc]
    return found


def project_of(path: Path) -> tuple[Path, str]:
    """The project that a model file's paths start from, and its `scripts/` sub-folder ('' at the top)."""
    if path.parent.parent.name == "scripts":
        return path.parent.parent.parent, path.parent.name
    return path.parent, ""


def _static(path: Path, root: Path, folder: str) -> list[Found]:
    found = []
    for model, line in cardfile.read(path):
        placed = in_scripts_folder(model, folder)
        found.append(Found(placed, Source(path, line, root), lambda placed=placed: placed))  # type: ignore[misc]
    return found


def _dynamic(path: Path, root: Path, folder: str) -> list[Found]:
    customs = dynamic.load(path, root)
    line = _line_of_list_models(path)
    models = _typed(path, folder, [custom.to_dict() for custom in customs])
    return [
        Found(model, Source(path, line, root), _Completion(custom, path, root, folder))
        for custom, model in zip(customs, models, strict=True)
    ]


class _Completion:
    """Completes one dynamic model, once."""

    def __init__(self, custom: dynamic.CustomModel, path: Path, root: Path, folder: str) -> None:
        self._of = (custom, path, root, folder)
        self._model: Model | None = None

    def __call__(self) -> Model:
        if self._model is None:
            custom, path, root, folder = self._of
            dynamic.update(custom, path, root)
            (self._model,) = _typed(path, folder, [custom.to_dict()])
        return self._model


@dataclass(frozen=True)
class Shared:
    """What dynamic scripts gave, shared by the processes of one session so that each script runs once.

    The process that comes first runs the script, completes the models that `selected` accepts, and writes
    them down for the others.
    """

    folder: Path
    selected: Callable[[Model], bool]

    def read(self, path: Path, root: Path, folder: str) -> list[Found]:
        """The script's cards, from whoever ran it first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = self.folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:24]}.json"
        with FileLock(f"{kept}.lock"):
            if not kept.exists():
                new = kept.with_suffix(".new")
                new.touch(mode=0o600)  # a script may have put a secret into a card
                new.write_text(json.dumps(self._run(path, root, folder)), encoding="utf-8")
                new.replace(kept)
        noted = json.loads(kept.read_text(encoding="utf-8"))
        if "fault" in noted:
            raise UserError(noted["fault"])
        source = Source(path, noted["line"], root)
        return [_noted(card, source) for card in noted["cards"]]

    def _run(self, path: Path, root: Path, folder: str) -> dict[str, Any]:
        try:
            found = _dynamic(path, root, folder)
            line = found[0].source.line if found else 1
            cards = [
                (each.model.model_dump(mode="json"), self._completed(each).model_dump(mode="json")) for each in found
            ]
        except UserError as error:
            return {"fault": str(error)}
        return {"line": line, "cards": cards}

    def _completed(self, found: Found) -> Model:
        return found.complete() if self.selected(found.model) else found.model


def _noted(card: list[dict[str, Any]], source: Source) -> Found:
    model, complete = map(Model.model_validate, card)
    return Found(model, source, lambda: complete)


def _typed(path: Path, folder: str, cards: list[dict[str, Any]]) -> list[Model]:
    raws = [cardfile.Raw(index, 1, "", card) for index, card in enumerate(cards)]
    return [in_scripts_folder(model, folder) for model, _ in cardfile.validated(raws, path)]


def _line_of_list_models(path: Path) -> int:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.startswith("def list_models")), 1)
