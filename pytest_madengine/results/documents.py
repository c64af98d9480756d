"""What a database of documents holds of Results, and of rows in files."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pytest_madengine.errors import Fault, nearest
from pytest_madengine.results.perf import PERF_COLUMNS
from pytest_madengine.results.result import Result, Row
from pytest_madengine.secrets import NO_SECRETS, Masker

ID = "_id"
NUMBERS = (
    *("n_gpus", "nnodes", "gpus_per_node", "performance", "relative_change", "build_duration", "test_duration"),
    *("data_download_duration", "build_number"),
)
"""Columns of perf.csv that hold numbers; a text in another one stays a text, such as a commit of digits alone."""
TEXTS = frozenset(PERF_COLUMNS) - frozenset(NUMBERS)
WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
"""Numbers as programs write them; `007` and `1_000` are none."""
LARGEST = 1 << 63
OF_ROWS = ("rows", "metrics", "comparisons")
WHICH = ("run", "model", "row", "attempt", "metric")
"""What tells one row of a run from another, as far as a file says it."""
MOST_FAULTS = 20

Content = Mapping[str, Any]


class Document(NamedTuple):
    """One document of a database.

    Attributes:
        key: what it is found by, so that it is there once however often it is sent.
        content: all else; only what JSON knows, and names without dots.
        title: what people call it.
    """

    key: Content
    content: Content
    title: str


class Line(NamedTuple):
    """A row of a file.

    Attributes:
        where: in words: `perf.csv:3`.
        cells: its values by column.
    """

    where: str
    cells: Content


def of_result(result: Result, run: str, mask: Masker = NO_SECRETS) -> list[Document]:
    """A document for each row, found by the run, the job and the row's place: each run's are kept.

    Args:
        result: what an item came to.
        run: the run's id, where the Result does not say it.
        mask: hides secrets.
    """
    details = json.loads(result.to_json())
    shared = {key: value for key, value in details.items() if key not in OF_ROWS}
    shared["run"] = result.run or run
    return [
        Document(
            {ID: f"{shared['run']}/{result.id}/{number}"},
            plain({**shared, **_of_row(row, details)}, mask),
            f"{result.nodeid}, row {row.columns.get('model', number)}",
        )
        for number, row in enumerate(result.rows)
    ]


def _of_row(row: Row, details: Content) -> Content:
    name = row.columns.get("model", "")
    return {
        **typed(row.columns),
        "configs": row.configs,
        "multi_results": row.multi_results and typed(row.multi_results),
        "metrics": [each for each in details["metrics"] if each["row"] == name],
        "comparisons": [each for each in details["comparisons"] if each["metric"]["row"] == name],
    }


def of_lines(lines: Iterable[Line], file: str) -> Iterator[Document]:
    """A document for each row of a file, found by its run and model where it says them, else by file and content.

    Equal rows are counted: the second of them is always the same second one. A row may bring an `_id` of its own.

    Args:
        lines: the rows.
        file: what tells the file from others of the same name.
    """
    seen: Counter[str] = Counter()
    for line in lines:
        content = dict(plain(typed(line.cells)))
        own = content.pop(ID, None)
        start = _start(line.cells, file)
        key = own if own is not None else f"{start}/{seen[start]}"
        seen[start] += 1
        yield Document({ID: key}, content, line.where)


def _start(cells: Content, file: str) -> str:
    if cells.get("run") and cells.get("model"):
        return "/".join(str(cells[name]) for name in WHICH if cells.get(name))
    text = json.dumps([file, cells], sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:32]


def keyed(documents: Iterable[Document], fields: Sequence[str]) -> Iterator[Document]:
    """The documents, found by fields of theirs instead."""
    for document in documents:
        yield document._replace(key={name: document.content[name] for name in fields})


def unkeyed(documents: Iterable[Document], fields: Sequence[str]) -> list[Fault]:
    """What stands in the way of `keyed`: documents in which one of the fields is not there or holds nothing."""
    found: list[Fault] = []
    for document in documents:
        lost = [name for name in fields if document.content.get(name) is None]
        found += [_lost(document, name) for name in lost]
        if len(found) >= MOST_FAULTS:
            break
    return found[:MOST_FAULTS]


def _lost(document: Document, name: str) -> Fault:
    known = sorted(key for key, value in document.content.items() if value is not None)
    if name in document.content:
        return Fault(f"--unique-key: {document.title}", f"nothing stands in {name!r}", "fields that every row fills")
    return Fault(f"--unique-key: {document.title}", f"no field {name!r}", ", ".join(known), nearest(name, known))


def typed(cells: Content) -> dict[str, Any]:
    """The values of a row, texts that are numbers, lists and objects as these, and None where nothing stands."""
    return {name: _typed(name, value) for name, value in cells.items()}


def _typed(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value == "" or (name not in TEXTS and value.lower() == "nan"):
        return None
    if value[0] in "{[":
        return _parsed(value)
    return value if name in TEXTS else _number(value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _number(text: str) -> Any:
    if WHOLE.fullmatch(text):
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else text


def plain(value: Any, mask: Masker = NO_SECRETS) -> Any:
    """`value` as a database can hold it: no NaN, no number beyond 64 bits, no name with a dot or a leading `$`."""
    if isinstance(value, str):
        return mask(value.encode(errors="backslashreplace").decode())
    if isinstance(value, Mapping):
        return _named(value, mask)
    if isinstance(value, list | tuple):
        return [plain(each, mask) for each in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    beyond = isinstance(value, int) and not -LARGEST <= value < LARGEST
    return str(value) if beyond else value


def _named(value: Content, mask: Masker) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, each in value.items():
        name = _name(str(key))
        while name in made:
            name += "_"
        made[name] = plain(each, mask)
    return made


def _name(key: str) -> str:
    name = key.encode(errors="backslashreplace").decode().replace(".", "_").replace("\0", "_")
    return f"_{name[1:]}" if name.startswith("$") else name
