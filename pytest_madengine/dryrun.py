"""Shows what a run would hand over for each model, and hands nothing over.

Nobody is contacted and nothing is written. So RUN stands for the run's id, with which those of jobs begin, and what
only an engine knows of images has a placeholder too.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine import fixtures, loop
from pytest_madengine.attempt import Attempt
from pytest_madengine.backends import kubemanifest
from pytest_madengine.context import credentials
from pytest_madengine.errors import BuildError, MadengineError
from pytest_madengine.images import registry
from pytest_madengine.images.batch import BatchEntry
from pytest_madengine.images.build import Build, Recipe
from pytest_madengine.images.image import Image
from pytest_madengine.images.supply import Supply, Want
from pytest_madengine.items import ModelItem
from pytest_madengine.jobs import compose
from pytest_madengine.makers import RAISED
from pytest_madengine.reporting.status import aligned
from pytest_madengine.secrets import Masker, secrets_of_environment
from pytest_madengine.session import Session

CONTENT, DIGEST = "CONTENT", "sha256:ID"
"""Placeholders: the hash of all that an image is built from, and what an engine or a registry knows an image by."""
UNHEEDED_MARKS = ("skip", "skipif", "xfail")
"""Marks that decide at an item's setup whether it runs."""


@dataclass(frozen=True)
class Preview:
    """What would become of one item; no secret is in it.

    Attributes:
        notes: what is to be known of it, a line each.
        texts: what would be handed over, by title.
        fault: why its model cannot run; '' where it can.
    """

    notes: Sequence[str] = ()
    texts: Mapping[str, str] | None = None
    fault: str = ""


def run(session: pytest.Session, ours: Session) -> None:
    """Show every model of the session; one that cannot run fails the session."""
    terminal: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    items = [item for item in session.items if _asks_for_model(item)]
    at_fault: list[str] = []
    for item in items:
        preview = preview_of(item, ours)
        at_fault += [item.nodeid] if preview.fault else []
        if terminal:
            _show(terminal, item.nodeid, preview)
    session.testsfailed += len(at_fault)
    if terminal:
        _close(terminal, len(items), at_fault, len(session.items) - len(items))


def _asks_for_model(item: pytest.Item) -> bool:
    return isinstance(item, ModelItem) or item.get_closest_marker("madengine") is not None


def _show(terminal: pytest.TerminalReporter, title: str, preview: Preview) -> None:
    terminal.write_sep("=", title)
    for note in preview.notes:
        terminal.write_line(note)
    if preview.fault:
        terminal.write_line(f"ERROR: {preview.fault}", red=True)
    for name, text in (preview.texts or {}).items():
        terminal.write_sep("-", name)
        terminal.write_line(text.removesuffix("\n"))


def _close(terminal: pytest.TerminalReporter, models: int, at_fault: Iterable[str], others: int) -> None:
    unshown = f", tests without one: {others}" if others else ""
    terminal.write_sep("=", "dry run")
    terminal.write_line(f"models: {models}{unshown}; nothing was built or submitted")
    for nodeid in at_fault:
        terminal.write_line(f"ERROR {nodeid} cannot run", red=True)


def preview_of(item: pytest.Item, ours: Session) -> Preview:
    """What would become of an item.

    Args:
        item: a model's item, or a test that names a model.
        ours: a session whose run directory nobody makes.
    """
    known = [*ours.context.secrets.values(), *credentials.hidden_texts(ours.credentials)]
    masker = Masker([*known, *secrets_of_environment(os.environ).values()])
    try:
        return _handed_over(item, ours, masker)
    except pytest.skip.Exception as skipped:
        return Preview([masker(f"would be skipped: {skipped}")])
    except MadengineError as error:
        return Preview(fault=masker(str(error)))
    except RAISED as error:
        return Preview(fault=masker(f"{type(error).__name__}: {error}"))


def _handed_over(item: pytest.Item, ours: Session, masker: Masker) -> Preview:
    attempt = fixtures.attempt_of(item, ahead=True)
    attempt.complete()
    if reason := fixtures.unwanted(attempt.want, ours):
        return Preview([f"would be skipped: {reason}"])
    target = ours.backends[ours.target]
    found = foreseen(attempt.want, ours) if attempt.needs_image(target) else None
    attempt.image = found.image if found else None
    job = fixtures.composed(item, attempt)
    texts = {**(found.texts if found else {}), **texts_of(attempt.backend(target).plan(job).request)}
    if ours.config.get_verbosity() > 0:
        texts = {**_origins(attempt), **texts, "run.sh": job.script}
    mask = Masker([*masker.values, *job.secrets.values()])
    notes = [*(found.notes if found else ()), *_unheeded(item)]
    return Preview(list(map(mask, notes)), {title: mask(text) for title, text in texts.items()})


@dataclass(frozen=True)
class Foreseen:
    """An image as far as it can be told without an engine or a registry.

    Attributes:
        notes: where it would come from.
        build: the command that would build it, as shell text; '' where none would, or on a node.
    """

    image: Image
    notes: tuple[str, ...]
    build: str = ""

    @property
    def texts(self) -> dict[str, str]:
        """What would be handed over for it, by title."""
        return {"build": self.build} if self.build else {}


def foreseen(want: Want, ours: Session) -> Foreseen:
    """The image that a model would run in.

    Raises:
        BuildError: the manifest has none.
        UserError: no Dockerfile fits, or none is named.
    """
    found, folder = _chosen(want, ours.supply, on_compute=ours.settings.build_on_compute), ours.supply.orders.ship_to
    image = found.image
    if folder is None or want.self_managed or image.registry_image or not image.digest:
        return found
    archive = folder / f"{image.digest.removeprefix('sha256:')}.tar"
    return replace(
        found, image=replace(image, archive=str(archive)), notes=(*found.notes, f"would ship it as {archive}")
    )


def _chosen(want: Want, supply: Supply, *, on_compute: bool) -> Foreseen:
    on_nodes = supply.orders.on_nodes
    if want.entry:
        return _as_it_is(_listed(want, on_nodes=on_nodes))
    if name := supply.named(want):
        image = Image(name)
        settled = replace(image, digest=DIGEST) if not on_nodes else _pinned(image)
        return _as_it_is(image if want.self_managed else settled)
    wish = supply.wish(want.model)
    if wish and not wish.build_new:
        return _as_it_is(_there_already(want, wish, supply))
    return _built(want, wish, supply, on_compute=on_compute)


def _as_it_is(image: Image) -> Foreseen:
    return Foreseen(image, (f"image {image.registry_image or image.reference}",))


def _listed(want: Want, *, on_nodes: bool) -> Image:
    entry = want.entry
    if entry is None or entry.image is None:
        raise BuildError(f"the manifest has no image of {want.model.name}: {entry.error if entry else ''}")
    image = entry.image
    if on_nodes and image.registry_image:
        return image if image.registry_digest else _pinned(image)
    return image if image.digest or want.self_managed else replace(image, digest=DIGEST)


def _pinned(image: Image) -> Image:
    """An image of a registry by the digest that the registry would say."""
    name = image.registry_image or image.reference
    digest = name.partition("@")[2] or DIGEST
    return replace(
        image, reference=f"{registry.repository(name)}@{digest}", registry_image=name, registry_digest=digest
    )


def _there_already(want: Want, wish: BatchEntry, supply: Supply) -> Image:
    known = Image("") if wish.registry_image else _of_recipe(supply.recipe(want))
    remote = supply.remote_name(want, wish, known.reference)
    return _pinned(Image(remote)) if remote else known


def _built(want: Want, wish: BatchEntry | None, supply: Supply, *, on_compute: bool) -> Foreseen:
    image = _of_recipe(supply.recipe(want))
    remote = supply.remote_name(want, wish, image.reference)
    pushes = [f"would push it as {remote}"] if remote else []
    if on_compute:
        there = replace(_pinned(Image(remote)), digest=image.digest, content=image.content)
        return Foreseen(there, (f"would build {image.dockerfile} on a node", *pushes))
    notes = (f"would build {image.dockerfile}, unless an image of its present content is there", *pushes)
    pushed = replace(image, registry_image=remote, registry_digest=DIGEST) if remote else image
    return Foreseen(pushed, notes, command(shlex.split(image.command)))


def _of_recipe(recipe: Recipe) -> Image:
    build = Build(recipe, bases={}, content=CONTENT, folder=Path(), doing=lambda _: None)
    return build.image({"Id": DIGEST})


def _unheeded(item: pytest.Item) -> Iterator[str]:
    """What may make the item's own run another one."""
    known = item.fixture_info().name2fixturedefs if isinstance(item, ModelItem) else {}
    yield from (
        f"not heeded here: the fixture {name!r} of a conftest.py" for name in loop.OURS if len(known.get(name, ())) > 1
    )
    yield from (f"not heeded here: the mark {name!r}" for name in UNHEEDED_MARKS if item.get_closest_marker(name))


def _origins(attempt: Attempt) -> dict[str, str]:
    """Where each value of a job on a cluster comes from."""
    ours = attempt.session
    merged = compose.on_cluster(attempt.model, attempt.source, attempt.image, ours.jobs)
    if merged is None:
        return {}
    rows = [(f"{key} = {_value(value)}", origin) for key, value, origin in merged.lines()]
    return {"origins": "\n".join(aligned(rows))}


def _value(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def texts_of(request: Any) -> dict[str, str]:
    """What a plan would hand over, as texts by title."""
    if isinstance(request, Mapping):
        return {str(title): _text(part) for title, part in request.items()}
    return {"command": _text(request)}


def _text(part: Any) -> str:
    """A text as it is, arguments as a command, variables a line each, an object of Kubernetes as YAML, else JSON."""
    if isinstance(part, str):
        return part
    if isinstance(part, list) and _all_texts(part):
        return command(part)
    if isinstance(part, Mapping) and _all_texts(part.values()):
        return "\n".join(f"{name}={shlex.quote(value)}" for name, value in part.items())
    if isinstance(part, Mapping) and {"apiVersion", "kind"} <= part.keys():
        return kubemanifest.as_yaml([dict(part)])
    return json.dumps(part, indent=2, default=str)


def _all_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def command(argv: Iterable[str]) -> str:
    """Arguments as a shell would take them, an option and its value on each line."""
    lines: list[str] = []
    before = ""
    for word in argv:
        if lines and (word.startswith("-") or "=" in before):
            lines.append(shlex.quote(word))
        else:
            lines[-1:] = [" ".join([*lines[-1:], shlex.quote(word)])]
        before = word
    return " \\\n  ".join(lines)
