"""How commands show tables: for people, as JSON, as CSV."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

TABLE, JSON, CSV = "table", "json", "csv"
WIDEST = 10_000
"""Columns of a table that goes to a file or a pipe, where nothing is to be cut off."""
STYLES = {"SUCCESS": "green", "FAILURE": "red", "regression": "red", "improvement": "green", "no verdict": "yellow"}

Record = Mapping[str, Any]


def add_format(parser: argparse.ArgumentParser) -> None:
    """The option by which a command's output is chosen."""
    parser.add_argument(
        "--format", choices=(TABLE, JSON, CSV), default=TABLE, help="table for people (default), json or csv"
    )


def show(kind: str, records: Sequence[Record], shown: Mapping[str, str], columns: Sequence[str]) -> None:
    """Write records to standard output.

    Args:
        kind: `table`, `json` or `csv`.
        records: with equal keys.
        shown: the columns of the table, each with its heading; a column that is empty in all records is left out.
        columns: the keys, for the header of a CSV without records.
    """
    if kind == JSON:
        sys.stdout.write(json.dumps(list(records), indent=2) + "\n")
    elif kind == CSV:
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    else:
        _table(records, shown)


def note(text: str) -> None:
    """Tell of something beside the output."""
    sys.stderr.write(f"pytest-madengine: {text}\n")


def _table(records: Sequence[Record], shown: Mapping[str, str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    used = [name for name in shown if any(record[name] not in (None, "") for record in records)]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in used:
        right = any(isinstance(record[name], int | float) for record in records)
        table.add_column(shown[name], justify="right" if right else "left", overflow="fold")
    for record in records:
        texts = [_cell(name, record[name]) for name in used]
        table.add_row(*(Text(text, style=STYLES.get(text, "")) for text in texts))
    width = None if sys.stdout.isatty() else WIDEST
    Console(file=sys.stdout, width=width, highlight=False, markup=False).print(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return FORMS.get(name, _plain)(value)


def _plain(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else " ".join(str(value).split())


def _percent(value: float) -> str:
    return f"{value:+.1%}".replace("%", " %")


def _minutes(value: str) -> str:
    try:
        return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M}"
    except ValueError:
        return value


FORMS: Mapping[str, Callable[[Any], str]] = {
    "change": _percent,
    "recorded": _minutes,
    "when": _minutes,
    "duration": lambda value: f"{value:.1f}",
    "worse": lambda value: "worse" if value else "better",
}
"""How a table shows the columns that are not shown as they are."""
