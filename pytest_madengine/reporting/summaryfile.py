"""A run as one JSON file, for programs; docs/summary.schema.json says what stands in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_madengine import files
from pytest_madengine.reporting.base import AtTheEnd
from pytest_madengine.results import tries
from pytest_madengine.results.comparison import Comparison
from pytest_madengine.results.result import Result
from pytest_madengine.results.tries import Tried
from pytest_madengine.secrets import NO_SECRETS, Masker

VERSION = 1
"""Grows when a key changes its meaning or goes; new keys may come without."""
PLAIN = (
    *("id", "nodeid", "model", "title", "status", "reason", "duration", "started", "ended", "attempt"),
    *("image", "digest", "log", "source"),
)
"""What a result's entry has of the Result as it is."""


class Summary(AtTheEnd):
    """The file of `--madengine-summary`, written when the run ends."""

    name = "--madengine-summary"

    def __init__(self, path: Path, run: Mapping[str, str], mask: Masker = NO_SECRETS) -> None:
        self._path = path
        self._run = run
        self._mask = mask

    def conclude(self, results: Sequence[Result], exit_status: int, /) -> None:
        """See `Concluding`."""
        told = _plain(content(results, self._run, exit_status), self._mask)
        files.replace_target(self._path, json.dumps(told, indent=2, allow_nan=False) + "\n")


def content(results: Sequence[Result], run: Mapping[str, str], exit_status: int) -> dict[str, Any]:
    """What the file holds.

    Args:
        results: all of the run, in the order in which they came.
        run: what is known of the run, such as its `run` (the id) and `target`.
        exit_status: pytest's.
    """
    items = tries.by_item(results)
    return {
        "version": VERSION,
        **run,
        "exit_status": exit_status,
        "counts": asdict(tries.counts(items)),
        "results": [_entry(each) for each in items],
    }


def _entry(item: Tried) -> dict[str, Any]:
    """One item."""
    result = item.result
    return {
        **{name: getattr(result, name) for name in PLAIN},
        "failure": result.failure.value,
        "earlier": [_earlier(each) for each in item.earlier],
        "hosts": list(result.hosts),
        "machine": dict(result.machine),
        "versions": dict(result.versions),
        "artifacts": list(result.artifacts),
        "notes": list(result.notes),
        "rows": [dict(row.columns) for row in result.rows],
        "metrics": [{**asdict(each), "direction": each.direction.value} for each in result.metrics],
        "verdicts": [_verdict(each) for each in result.comparisons],
        "usage": {name: asdict(each) for name, each in result.usage.items()},
    }


def _earlier(result: Result) -> dict[str, Any]:
    names = ("id", "status", "reason", "started", "ended", "log")
    return {**{name: getattr(result, name) for name in names}, "failure": result.failure.value}


def _verdict(comparison: Comparison) -> dict[str, Any]:
    names = ("gates", "reference", "change", "lower", "upper", "source", "reason")
    of = {"row": comparison.metric.row, "metric": comparison.metric.name, "verdict": comparison.judgement.value}
    return {**of, **{name: getattr(comparison, name) for name in names}}


def _plain(value: Any, mask: Masker) -> Any:
    """The same as JSON can hold it, with secrets hidden; a number that is none becomes null."""
    if isinstance(value, Mapping):
        return {key: _plain(inner, mask) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, mask) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return mask(value) if isinstance(value, str) else value
