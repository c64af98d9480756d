"""Makes the Result of a run: reads its log and files, then lets the judge decide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pytest_madengine.backends.base import Outcome
from pytest_madengine.context.context import Context
from pytest_madengine.engine import logscan
from pytest_madengine.models.model import Model, Source
from pytest_madengine.results import configs, errorscan, multiple
from pytest_madengine.results.judge import Measured


def measure(model: Model, source: Source, context: Context, outcome: Outcome) -> Measured:
    """What the run's log, its results CSV and its configuration file say."""
    scanned = logscan.scan(outcome, rules(model, context))
    return Measured(
        performance=scanned.finder.found,
        unreadable=scanned.finder.unreadable,
        error=scanned.error,
        table=_table(model, outcome.artifacts) if model.multiple_results else None,
        configs=config_of(model, source),
    )


def rules(model: Model, context: Context) -> errorscan.Rules:
    """The error patterns: the context's settings win over the card's, benign lists add up."""
    first = model if context.log_error_pattern_scan is None else context
    patterns = model.log_error_patterns if context.log_error_patterns is None else context.log_error_patterns
    benign = (*model.log_error_benign_patterns, *context.log_error_benign_patterns)
    return errorscan.rules(first.log_error_pattern_scan, patterns, benign)


def config_of(model: Model, source: Source) -> Any:
    """The content of the file behind `--config`; None without one; a text that says so where it is unreadable."""
    named = configs.argument(model.args)
    if not named:
        return None
    places = [named] if named.startswith("/") else configs.candidates(named, model.scripts_folder)
    found = next((path for place in places if (path := source.root / place).is_file()), None)
    if found is None:
        return None
    try:
        return configs.parse(found.read_text(encoding="utf-8"), found.suffix)
    except (OSError, ValueError) as error:
        return f"{found.name} cannot be read: {error}"


def _table(model: Model, artifacts: Mapping[str, Path]) -> multiple.Table:
    name = PurePosixPath(model.multiple_results).name
    if name not in artifacts:
        return multiple.Table(problem=f"the model wrote no {model.multiple_results} (multiple_results)")
    with artifacts[name].open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return multiple.read(file, model.multiple_results)
