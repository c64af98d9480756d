"""What a session that only makes images leaves: the manifest, its summary, and a table."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pytest_madengine.context import credentials
from pytest_madengine.engine.rundir import RunDirectory
from pytest_madengine.images import build, manifestcontent, manifestfile
from pytest_madengine.images.image import Image
from pytest_madengine.images.manifest import Entry, LostPush
from pytest_madengine.models.model import Model
from pytest_madengine.reporting.status import aligned
from pytest_madengine.results.result import Result
from pytest_madengine.secrets import Masker, is_secret
from pytest_madengine.session import Session

HEADINGS = ("model", "state", "image")


def write(ours: Session, results: Iterable[Result]) -> bool:
    """Write the manifest, and the summary where one is wanted.

    Args:
        ours: the session, whose run directory holds what was made.
        results: of its items, by which those are known whose process died.

    Returns:
        Whether the manifest is another one than before.

    Raises:
        UserError: a file cannot be written.
    """
    made = _keyed(list(ours.directory.made()))
    entries = {key: _entry(key, each) for key, each in made.items()}
    known = {each["item"] for each in made.values()}
    lost = [result for result in results if result.failed and result.nodeid not in known]
    entries |= {each.title: Entry(each.title, Model(name=each.model), None, each.reason) for each in lost}
    settings = ours.settings
    content = manifestcontent.content(
        [entries[key] for key in sorted(entries)],
        context={**ours.context.given(), **({"deploy": settings.target} if settings.target else {})},
        masker=Masker(secrets(ours)),
        lost=[LostPush(key, each["unpushed"], each["error"]) for key, each in made.items() if each["unpushed"]],
    )
    content = manifestcontent.kept(content, manifestfile.previous(settings.manifest_output))
    if settings.summary_output:
        manifestfile.summary(settings.summary_output, content)
    return manifestfile.write(settings.manifest_output, content)


def _keyed(made: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What was made by the name of each item; where two files have items of one name, the key says which."""
    keys = Counter(each["key"] for each in made)
    return {each["key"] if keys[each["key"]] == 1 else each["item"].replace("::", ":"): each for each in made}


def _entry(key: str, made: dict[str, Any]) -> Entry:
    image = Image(**made["image"]) if made["image"] else None
    return Entry(key, Model.model_validate(made["card"]), image, made["error"])


def secrets(ours: Session) -> Iterator[str]:
    """Every value that is to be shown nowhere: of the context, of logins, of the environment."""
    yield from ours.context.secrets.values()
    yield from credentials.hidden_texts(ours.credentials)
    yield from (value for name, value in os.environ.items() if is_secret(name))


def table(ours: Session) -> Iterator[tuple[str, bool]]:
    """The lines of the closing table, each with whether it tells of a success."""
    made = sorted(ours.directory.made(), key=lambda each: str(each["key"]))
    rows = [(each["key"], _state(each), _name(each)) for each in made]
    good = [True, *(not each["error"] for each in made)]
    yield from zip(aligned([HEADINGS, *rows]), good, strict=True)


def _state(made: dict[str, Any]) -> str:
    if made["error"]:
        return "failed"
    seconds = made["image"]["build_duration"] if made["image"] else 0.0
    return f"built in {seconds:.1f} s" if seconds else "there already"


def _name(made: dict[str, Any]) -> str:
    image = made["image"] or {}
    return image.get("registry_image") or image.get("reference") or "-"


def counts(directory: RunDirectory) -> str:
    """How many images this session built and found; '' where it had to do with none."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in directory.images.glob(f"*/{build.RECORD}")]
    states = Counter(map(_state_of_record, records))
    failed = f", {states['failed']} failed" if states["failed"] else ""
    return f"images: {states['built']} built, {states['there']} there already{failed}" if records else ""


def _state_of_record(record: dict[str, Any]) -> str:
    if "failure" in record:
        return "failed"
    return "built" if record["build_duration"] else "there"
