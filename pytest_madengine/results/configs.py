"""The configuration file that a model's `--config` argument names."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

ARGUMENT = re.compile(r"""(?:^|\s)--config\s+(?:"([^"]+)"|'([^']+)'|(\S+))""")
REPOSITORIES = ("MAD", "MAD-private", "MAD-internal")
"""Sub-folders of scripts/ that are repositories with a root of their own."""


def argument(args: str) -> str:
    """The path behind `--config`, or ''."""
    match = ARGUMENT.search(args)
    return match[match.lastindex or 0] if match else ""


def candidates(path: str, scripts_folder: str) -> list[str]:
    """Where a relative path may stand, best first, from the project's root.

    The scripts' own folder, then `scripts/`'s part that holds it, then every folder up to the repository.
    """
    folder = PurePosixPath(scripts_folder)
    parts = folder.parts
    inside = len(parts) > 1 and parts[0] == "scripts"
    root = PurePosixPath(*parts[:2]) if inside and parts[1] in REPOSITORIES else PurePosixPath("scripts")
    walk = [parent for parent in folder.parents if parent.is_relative_to(root)]
    return list(dict.fromkeys(str(place / path) for place in (folder, root, *walk)))


def parse(text: str, suffix: str) -> Any:
    """The content of a .csv (list of rows), .json or .yaml file; None for other kinds, and for NaN within.

    Raises:
        ValueError: it cannot be parsed.
    """
    text = text.removeprefix("\ufeff")
    try:
        if suffix == ".csv":
            return _table(text)
        if suffix == ".json":
            return _json(text)
        return _json(json.dumps(yaml.safe_load(text), default=str)) if suffix in (".yaml", ".yml") else None
    except (csv.Error, yaml.YAMLError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def for_row(configs: Any, row: Mapping[str, str]) -> Any:
    """The entry of a configuration list that a result row belongs to; a configuration without list is its own.

    An entry fits when one name holds the other (`/` and `-` as `_`, case aside) and, where both have one,
    the `benchmark` is equal; of several the name most like the row's. None where no entry fits: a wrong one
    would be worse.
    """
    if not isinstance(configs, Sequence) or isinstance(configs, str):
        return configs
    if len(configs) == 1:
        return configs[0]
    fitting = [entry for entry in configs if isinstance(entry, Mapping) and _fits(entry, row)]
    return min(fitting, key=lambda entry: abs(len(str(entry["model"])) - len(row["model"])), default=None)


def _fits(entry: Mapping[str, Any], row: Mapping[str, str]) -> bool:
    ours, theirs = _plain(str(row.get("model", ""))), _plain(str(entry.get("model", "")))
    benchmarks = [str(side["benchmark"]) for side in (entry, row) if side.get("benchmark")]
    return bool(ours and theirs) and (theirs in ours or ours in theirs) and len(set(benchmarks)) < 2  # noqa: PLR2004


def _plain(name: str) -> str:
    return re.sub(r"[/-]", "_", name).lower()


def _json(text: str) -> Any:
    return json.loads(text, parse_constant=lambda _: None)


def _table(text: str) -> list[dict[str, str | None]]:
    rows = [{key: value or None for key, value in row.items()} for row in csv.DictReader(io.StringIO(text), restkey="")]
    return [row for row in rows if any(row.values())]
