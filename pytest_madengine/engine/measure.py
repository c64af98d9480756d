"""Makes the Result of a run: reads its log and files, then lets the judge decide."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Outcome, State
from pytest_madengine.context.context import Context
from pytest_madengine.engine import logscan
from pytest_madengine.models.model import Model, Source
from pytest_madengine.results import aggregate, configs, errorscan, multiple
from pytest_madengine.results.aggregate import Rank
from pytest_madengine.results.judge import Measured

HOST = "host"
"""The file in a rank's folder that holds the name of its node."""
STATEMENT = re.compile(rb"performance:")
LONGEST = 400
"""Bytes of a line that are looked at before and behind `performance:`."""


def measure(model: Model, source: Source, context: Context, outcome: Outcome) -> Measured:
    """What the run's log, its results CSV and its configuration file say; of a job of several ranks, all of theirs."""
    patterns = rules(model, context)
    measured = _of_ranks(model, patterns, outcome) if outcome.folders else _of_one(model, patterns, outcome)
    return replace(measured, configs=config_of(model, source))


def _of_one(model: Model, patterns: errorscan.Rules, outcome: Outcome) -> Measured:
    scanned = logscan.scan(outcome, patterns)
    return Measured(
        performance=scanned.finder.found,
        unreadable=scanned.finder.unreadable,
        error=scanned.error,
        table=_table(model, outcome.artifacts) if model.multiple_results else None,
    )


def _of_ranks(model: Model, patterns: errorscan.Rules, outcome: Outcome) -> Measured:
    absent = {number: Rank() for number in outcome.ranks}
    present = {number: _rank(model, patterns, folder) for number, folder in outcome.folders.items()}
    return aggregate.combine({**absent, **present}, model.aggregate, model.multiple_results)


def _rank(model: Model, patterns: errorscan.Rules, folder: Path) -> Rank:
    """What one rank left in its folder, which may be anything down to nothing."""
    left = facts.outcome(folder, State.EXITED, exit_code=None, node="", duration=0.0)
    if not left.log.is_file():
        left = replace(left, phases=())
    measured = _of_one(model, patterns, left)
    return Rank(
        host=_host(folder),
        performance=measured.performance,
        unreadable=measured.unreadable,
        declared=_declared(left) if measured.performance else "",
        error=measured.error,
        table=measured.table if PurePosixPath(model.multiple_results).name in left.artifacts else None,
    )


def _host(folder: Path) -> str:
    path = folder / HOST
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def _declared(outcome: Outcome) -> str:
    """The word in brackets behind the performance that the model's part of the log states first."""
    return next((word for line in _statements(outcome) if (word := aggregate.declared(line)) is not None), "")


def _statements(outcome: Outcome) -> Iterator[str]:
    """The lines of the model's part of the log that may state a performance."""
    phase = outcome.phase("model")
    if phase is None:
        return
    with outcome.log.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        end = phase.log_to if phase.log_to >= 0 else len(text)
        for hit in STATEMENT.finditer(text, phase.log_from, end):
            before = text[max(phase.log_from, hit.start() - LONGEST) : hit.start()].decode(errors="replace")
            behind = text[hit.start() : min(end, hit.start() + LONGEST)].decode(errors="replace")
            yield logscan.LINE_ENDS.split(before)[-1] + logscan.LINE_ENDS.split(behind)[0]


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
