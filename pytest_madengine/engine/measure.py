"""Makes the Result of a run: reads its log and files, then lets the judge decide."""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Outcome, State
from pytest_madengine.context.context import Context
from pytest_madengine.engine import logscan
from pytest_madengine.models.model import Model, Source
from pytest_madengine.results import aggregate, configs, errorscan, multiple, selfmanaged
from pytest_madengine.results.aggregate import Rank
from pytest_madengine.results.judge import Measured, rank_names

HOST, MACHINE = "host", "machine"
"""The files in a rank's folder that hold the name of its node, and NAME=VALUE lines on that node's GPUs."""
ARCHITECTURE = re.compile(r"^architecture=(.+)$", re.MULTILINE)
STATEMENT = re.compile(rb"performance:")
LONGEST = 400
"""Bytes of a line that are looked at before and behind `performance:`."""


def measure(
    model: Model,
    source: Source,
    context: Context,
    outcome: Outcome,
    places: Sequence[str] = (),
    measuring: Collection[int] = (),
) -> Measured:
    """What the run's log, its results CSV and its configuration file say; of a job of several ranks, all of theirs.

    Args:
        model: the card that ran.
        source: where it stands.
        context: the merged configuration.
        outcome: what the run left.
        places: where the job's shell looked for a perf.csv of the model's own; none where it did not.
        measuring: the ranks that measure, where others only serve; none where all do.
    """
    patterns = rules(model, context)
    several = bool(outcome.folders)
    measured = _of_ranks(model, patterns, outcome, measuring) if several else _of_one(model, patterns, outcome)
    if places:
        measured = replace(measured, table=_own_table(model, outcome.artifacts, places), own=True, places=tuple(places))
    return replace(measured, configs=config_of(model, source))


def _of_one(model: Model, patterns: errorscan.Rules, outcome: Outcome) -> Measured:
    scanned = logscan.scan(outcome, patterns)
    return Measured(
        performance=scanned.finder.found,
        unreadable=scanned.finder.unreadable,
        error=scanned.error,
        table=_table(model, outcome.artifacts) if model.multiple_results else None,
    )


def _of_ranks(model: Model, patterns: errorscan.Rules, outcome: Outcome, measuring: Collection[int]) -> Measured:
    left = {number: _left(folder) for number, folder in outcome.folders.items()}
    absent = {number: Rank() for number in outcome.ranks}
    present = {number: _rank(model, patterns, each, outcome.folders[number]) for number, each in left.items()}
    every = {**absent, **present}
    ranks = {number: rank for number, rank in every.items() if not measuring or number in measuring}
    found = aggregate.combine(ranks, model.aggregate, model.multiple_results)
    hosts = {number: rank.host for number, rank in every.items() if rank.host}
    return replace(
        found,
        hosts=hosts,
        notes=(*found.notes, *_unlike(outcome.folders, hosts)),
        phases={number: each.phases for number, each in left.items()},
        telling=_telling(ranks),
    )


def _left(folder: Path) -> Outcome:
    """What one rank left in its folder, which may be anything down to nothing."""
    left = facts.outcome(folder, State.EXITED, exit_code=None, node="", duration=0.0)
    return left if left.log.is_file() else replace(left, phases=())


def _telling(ranks: Mapping[int, Rank]) -> int:
    """The first rank with an error, else the first one without a value."""
    failed = [number for number, rank in ranks.items() if rank.error]
    silent = [number for number, rank in ranks.items() if rank.performance is None and rank.table is None]
    return min(failed or silent, default=0)


def _unlike(folders: Mapping[int, Path], hosts: Mapping[int, str]) -> list[str]:
    """Which ranks had which GPUs, where they were not the same."""
    found: dict[str, list[int]] = {}
    for number, folder in folders.items():
        architecture = ARCHITECTURE.search(facts.word(folder / MACHINE))
        found.setdefault(architecture[1] if architecture else "no known GPU", []).append(number)
    sides = [f"{name} ({rank_names(ranks, hosts)})" for name, ranks in found.items()]
    return [f"the ranks had different GPUs: {', '.join(sides)}"] if len(sides) > 1 else []


def _rank(model: Model, patterns: errorscan.Rules, left: Outcome, folder: Path) -> Rank:
    measured = _of_one(model, patterns, left)
    return Rank(
        host=facts.word(folder / HOST),
        performance=measured.performance,
        unreadable=measured.unreadable,
        declared=_declared(left) if measured.performance else "",
        error=measured.error,
        table=measured.table if PurePosixPath(model.multiple_results).name in left.artifacts else None,
    )


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


def _own_table(model: Model, artifacts: Mapping[str, Path], places: Sequence[str]) -> multiple.Table | None:
    """The results that were found in the first of these places that holds any; None where the log may say it."""
    kept = [path for name, path in artifacts.items() if selfmanaged.KEPT.fullmatch(name)]
    if kept:
        return selfmanaged.joined([_read(path, f"{facts.ARTIFACTS}/{path.name}") for path in kept])
    lost = f"the model wrote no {model.multiple_results} (multiple_results), nor results in {', '.join(places)}"
    return multiple.Table(problem=lost) if model.multiple_results else None


def _table(model: Model, artifacts: Mapping[str, Path]) -> multiple.Table:
    name = PurePosixPath(model.multiple_results).name
    if name not in artifacts:
        return multiple.Table(problem=f"the model wrote no {model.multiple_results} (multiple_results)")
    return _read(artifacts[name], model.multiple_results)


def _read(path: Path, name: str) -> multiple.Table:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return multiple.read(file, name)
