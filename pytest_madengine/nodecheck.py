"""Tells people what the checks of nodes found: as a table of its own, and at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_madengine.backends.health import HEADINGS, Survey
from pytest_madengine.backends.preflight import Preflight
from pytest_madengine.reporting.status import aligned, plain

if TYPE_CHECKING:
    from pytest_madengine.session import Session

Lines = Iterator[tuple[str, bool]]
"""Lines to print, each with whether it is good news."""


def show(config: pytest.Config) -> int:
    """Check the nodes, print a table of each partition, and give the exit status: 1 unless all that was seen is well.

    Raises:
        pytest.UsageError: the target is another one than SLURM, or the configuration is wrong.
    """
    from pytest_madengine.errors import UserError

    config._do_configure()  # noqa: SLF001  # as pytest's own --help and --markers do
    try:
        surveys = _surveys(config)
        writer = config.get_terminal_writer()
        for line, good in (each for survey in surveys for each in (*_table(survey), *_remarks(survey))):
            writer.line(line, red=not good)
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    finally:
        config._ensure_unconfigure()  # noqa: SLF001  # see above
    return pytest.ExitCode.OK if all(survey.good for survey in surveys) else pytest.ExitCode.TESTS_FAILED


def _surveys(config: pytest.Config) -> list[Survey]:
    """The nodes that a model may get whose card says nothing of them, for each partition that models run in."""
    from pytest_madengine import session
    from pytest_madengine.context import presets
    from pytest_madengine.models.model import Model

    ours = session.of(config)
    if ours.target != "slurm":
        raise pytest.UsageError(f"--madengine-preflight: the target {ours.target} has no nodes; valid: --target=slurm")
    merged = presets.for_model(Model(name="preflight"), ours.context, None, ours.settings.reservation)
    preflight = Preflight()
    return [preflight.survey(stated) for stated in merged.slurm.variants()]


def told(ours: Session) -> Lines:
    """What is to be said when a run is over: what was wrong, and all of it where the user asked for that."""
    preflights = (getattr(backend, "preflight", None) for backend in ours.backends.values())
    for survey in (each for found in preflights if isinstance(found, Preflight) for each in found.told()):
        if survey.verbose:
            yield from _table(survey)
        yield from ((plain(f"madengine: {note}"), True) for note in survey.notes())


def _table(survey: Survey) -> Lines:
    rows = survey.rows()
    lines = aligned([HEADINGS, *(tuple(map(plain, cells)) for cells, _ in rows)])
    yield from zip(lines, [True, *(good for _, good in rows)], strict=True)


def _remarks(survey: Survey) -> Lines:
    """What the table does not say."""
    yield from ((f"ended on {plain(each)}", True) for each in survey.ended)
    if not survey.facts:
        none = "no node is idle" if survey.nodes else "SLURM lists no node of this partition"
        yield plain(survey.warning or f"nothing was checked: {none}"), False
