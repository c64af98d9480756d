"""Model files as collectors and models as items."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine import baselines
from pytest_madengine import session as sessions
from pytest_madengine.context import presets
from pytest_madengine.errors import UserError
from pytest_madengine.fixtures import VARIANT, attempt_of, plain_errors
from pytest_madengine.images import batch, dockerfile
from pytest_madengine.images.image import Image
from pytest_madengine.models import selection
from pytest_madengine.models.cardfile import CardWarning
from pytest_madengine.models.discovery import Found
from pytest_madengine.models.model import Model
from pytest_madengine.results.result import Result

ACTING_MARKERS = frozenset(
    [
        "anyio",
        "asyncio",
        "filterwarnings",
        "flaky",
        "madengine",
        "parametrize",
        "skip",
        "skipif",
        "timeout",
        "tryfirst",
        "trylast",
        "usefixtures",
        "xdist_group",
        "xfail",
    ]
)
"""Markers that make pytest or a well-known plugin do something: a tag of that name becomes no marker."""


MARKER = re.compile(r"[^_:(][^:(]*")
"""What pytest can register as a marker; other tags select by --madengine-tags and -k."""


@dataclass(frozen=True)
class Variant:
    """One item to be made from a card.

    Attributes:
        found: the card.
        selected_by: the texts of the tags that select the item.
        args: further arguments, from a tag.
        dockerfile: the item's Dockerfile where the card has several.
        architecture: the GPU architecture that its image is for, where the user names some.
        partition: SLURM's partition that it runs in, where card or context names several.
        suffix: what stands in brackets behind the name.
    """

    found: Found
    selected_by: frozenset[str] = frozenset()
    args: str = ""
    dockerfile: Path | None = None
    architecture: str = ""
    partition: str = ""
    suffix: str = ""

    @property
    def name(self) -> str:
        """The item's name."""
        return f"{self.found.model.name}[{self.suffix}]" if self.suffix else self.found.model.name

    def model(self) -> Model:
        """The card that is to run."""
        card = self.found.complete().with_args(self.args)
        return in_partition(card, self.partition) if self.partition else card

    def more(self, suffix: str, **changes: Any) -> Variant:
        """A further variant of this one."""
        return replace(self, suffix="-".join(filter(None, [self.suffix, suffix])), **changes)


def in_partition(card: Model, partition: str) -> Model:
    """The card with this partition as its own: of several that the context names it runs in this one."""
    others = {key: value for key, value in card.slurm.items() if key != "partitions"}
    return card.model_copy(update={"slurm": {**others, "partition": partition}})


def run_model(result: Result) -> None:
    """The test function of every model item; as for any test that asks for `result`, a failed one fails it."""


@plain_errors
def make_image(image: Image | None, request: pytest.FixtureRequest) -> None:
    """The test function of every model item where only images are made."""
    attempt_of(request.node).image_made(image)


class ModelItem(pytest.Function):
    """A model as a test item."""

    @property
    def variant(self) -> Variant:
        """The card and what was made of it."""
        return self.stash[VARIANT]

    def fixture_info(self) -> Any:
        """What pytest found out of the fixtures that this item asks for; a copy, since conftests add names to it."""
        info = self._fixtureinfo
        return replace(info, names_closure=list(info.names_closure))

    def reportinfo(self) -> tuple[Path, int, str]:
        """The card's place, so that annotations point at it."""
        return self.path, self.variant.found.source.line - 1, self.name


class ModelsFile(pytest.Module):
    """A models.json, a get_models_json.py or a manifest."""

    obj = None

    def collect(self) -> Iterator[ModelItem]:
        """One item for each card and variant."""
        ours = sessions.of(self.config)
        try:
            found = ours.read(self.path)
        except (UserError, CardWarning) as error:
            raise self.CollectError(str(error)) from None
        marks = Marks(ours)
        items = [(variant, marks.of(variant.found)) for variant in variants(found, ours)]
        register(self.config, (mark for _, names in items for mark in names))
        sibling: ModelItem | None = None
        for variant, names in items:
            sibling = self._item(variant, names, sibling)
            yield sibling

    def _item(self, variant: Variant, marks: Iterable[str], sibling: ModelItem | None) -> ModelItem:
        """An item. What fixtures it asks for its sibling knows: to find that out anew costs half of the time."""
        known = {"fixtureinfo": sibling.fixture_info()} if sibling else {}
        act = make_image if sessions.of(self.config).settings.build_only else run_model
        item: ModelItem = ModelItem.from_parent(self, name=variant.name, callobj=act, **known)
        item.stash[VARIANT] = variant
        _as_parsed(item)
        for mark in marks:
            item.add_marker(getattr(pytest.mark, mark))
        item.extra_keyword_matches.update(set(variant.found.model.tags).difference(marks))
        return item


def _as_parsed(item: pytest.Item) -> None:
    """Let the item's id be the one that pytest makes of its text, by which --lf and --sw know items again.

    Since 9.2 ids are objects, in which what stands in brackets is a part of its own.
    """
    known = getattr(item, "_id", None)
    if known is not None:
        item._id = type(known).parse(item.nodeid)  # noqa: SLF001  # there is no other way


class Marks:
    """The markers of models: tags, GPU vendors, training precision and launcher."""

    def __init__(self, ours: sessions.Session) -> None:
        self._context = ours.context
        self._vendors: dict[Path, set[str]] = {}

    def of(self, found: Found) -> list[str]:
        """The markers of one card, each once; names that pytest keeps for itself are left out."""
        model = found.model
        launcher = self._context.distribution(model).launcher
        names = [*model.tags, *sorted(self._vendor(found)), model.training_precision, launcher]
        return [name for name in dict.fromkeys(names) if MARKER.fullmatch(name) and name not in ACTING_MARKERS]

    def _vendor(self, found: Found) -> set[str]:
        if self._context.gpu_vendor:
            return {self._context.gpu_vendor.lower()}
        prefix = found.source.root / found.model.dockerfile
        if prefix not in self._vendors:
            self._vendors[prefix] = _vendors(prefix) if found.model.dockerfile else set()
        return self._vendors[prefix]


def _vendors(prefix: Path) -> set[str]:
    """A Dockerfile that cannot be read is a matter for its items' setup."""
    try:
        return dockerfile.vendors(prefix)
    except UserError:
        return set()


def register(config: pytest.Config, marks: Iterable[str]) -> None:
    """Make the markers known, so that --strict-markers holds."""
    known = {line.partition(":")[0].partition("(")[0].strip() for line in config.getini("markers")}
    for mark in dict.fromkeys(marks):
        if mark not in known:
            config.addinivalue_line("markers", f"{mark}: models with this tag or property")


def variants(found: list[Found], ours: sessions.Session) -> Iterator[Variant]:
    """The items of a file: each card plain and once more for every tag that adds arguments to it.

    A card with several fitting Dockerfiles becomes one item for each, and so it does for GPU architectures and for
    partitions of a cluster.
    """
    named = [selection.Named(each.model.name, each.model.tags) for each in found]
    tags = selection.resolve(ours.tags, named)
    images = Images(ours)
    for each, name in zip(found, named, strict=True):
        matching = [tag for tag in tags if tag.matches(name)]
        for variant in _by_arguments(each, matching):
            for each_image in images.split(variant):
                yield from _by_partition(each_image, ours)


def _by_arguments(found: Found, tags: list[selection.Tag]) -> Iterator[Variant]:
    plain = frozenset(tag.text for tag in tags if not tag.args)
    yield Variant(found, plain, suffix=found.label)
    by_arguments: dict[str, list[selection.Tag]] = {}
    for tag in tags:
        if tag.args:
            by_arguments.setdefault(tag.arguments, []).append(tag)
    for arguments, same in by_arguments.items():
        suffix = ":".join(arg.replace(":", "\\:") for arg in same[0].args)
        yield Variant(found, suffix=found.label).more(
            suffix, selected_by=frozenset(tag.text for tag in same), args=arguments
        )


def _is_chosen(variant: Variant, ours: sessions.Session) -> bool:
    return bool(variant.selected_by) or not ours.tags


def _by_partition(variant: Variant, ours: sessions.Session) -> Iterator[Variant]:
    """One variant for each partition that a model is to run in; what is wrong with its card is its item's matter."""
    several: tuple[str, ...] = ()
    if ours.target == "slurm" and not ours.settings.build_only and _is_chosen(variant, ours):
        with suppress(UserError):
            several = presets.partitions(variant.found.model, ours.context, variant.found.source)
    yield from [variant.more(each, partition=each) for each in several] or [variant]


class Images:
    """Splits variants by the images that are to be built, looking at each Dockerfile prefix once."""

    def __init__(self, ours: sessions.Session) -> None:
        self._ours = ours
        self._wanted = ours.containers and ours.supply.builds()
        self._archs = ours.target_archs
        self._seen: dict[Path, list[Path]] = {}

    def split(self, variant: Variant) -> Iterator[Variant]:
        """One variant for each image; the variant itself where no image is built, or but one."""
        found = variant.found
        if not (self._wanted and _is_chosen(variant, self._ours) and found.entry is None and found.model.dockerfile):
            yield variant
            return
        paths = self._dockerfiles(found)
        several = [variant.more(path.name.replace(".Dockerfile", ""), dockerfile=path) for path in paths]
        for each in several if len(several) > 1 else [variant]:
            yield from [each.more(arch, architecture=arch) for arch in self._archs] or [each]

    def _dockerfiles(self, found: Found) -> list[Path]:
        prefix = found.source.root / found.model.dockerfile
        if prefix not in self._seen:
            try:
                self._seen[prefix] = self._ours.supply.dockerfiles(found.model, found.source)
            except UserError:
                self._seen[prefix] = []
        return self._seen[prefix]


class Collection:
    """The hooks of collection; registered only when models are asked for."""

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
        """Model files become our collectors, and ours alone: pytest would import a .py that is named as argument."""
        collectors = yield
        if not sessions.of(parent.config).reads(file_path):
            return collectors
        return [ModelsFile.from_parent(parent, path=file_path, nodeid=_outside(file_path, parent.config.rootpath))]

    @pytest.hookimpl
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Deselect the models that no tag names; a tag that names none is an error.

        Where not every file was read, for a fault of its own or by --lf, nothing can be said of such a tag.
        """
        ours = sessions.of(config)
        models = [item for item in items if isinstance(item, ModelItem)]
        _warn_of_strange_references(ours, models)
        if not ours.tags:
            return
        lost = _lost_tags(ours, models)
        if lost and not session.testsfailed and not config.getoption("lf", default=False):
            report_usage_error(config, str(lost), items)
            return
        deselected = [item for item in models if not item.variant.selected_by]
        config.hook.pytest_deselected(items=deselected)
        gone = set(deselected)
        items[:] = [item for item in items if item not in gone]


def _warn_of_strange_references(ours: sessions.Session, models: Iterable[ModelItem]) -> None:
    """Tell of references whose model is spelled otherwise than any card's."""
    path = ours.settings.references
    if path is None:
        return
    names = {item.variant.found.model.name for item in models}
    for text in baselines.strange_names(path, baselines.references(path), names):
        warnings.warn(pytest.PytestWarning(text), stacklevel=1)


def _outside(path: Path, rootdir: Path) -> str | None:
    """The node id of a file outside the root directory, where pytest would give a file named as argument none."""
    return None if path.is_relative_to(rootdir) else os.path.relpath(path, rootdir).replace(os.sep, "/")


def _lost_tags(ours: sessions.Session, models: list[ModelItem]) -> UserError | None:
    used = {text for item in models for text in item.variant.selected_by}
    lost = [tag for tag in ours.tags if tag.text not in used]
    if not models:
        places = ", ".join(ours.config.args)
        return UserError(f"--madengine-tags: no model in {places}; leave the paths out or add a models.json to them")
    cards = [item.variant.found.model for item in models]
    named = [selection.Named(card.name, card.tags) for card in cards]
    if ours.settings.batch_manifest:
        return batch.unmatched(ours.settings.batch_manifest, ours.batch, named)
    return selection.unmatched(lost, named)


WORKER_ERROR = "madengine_usage_error"


def report_usage_error(config: pytest.Config, text: str, items: list[pytest.Item]) -> None:
    """End the session with a usage error; an xdist worker leaves that to its controller.

    Raises:
        pytest.UsageError: in a process that is no worker.
    """
    output = getattr(config, "workeroutput", None)
    if output is None:
        raise pytest.UsageError(text)
    output[WORKER_ERROR] = text
    items.clear()
