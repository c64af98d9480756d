"""Ends what processes of a run left in flight when they died."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pytest_madengine.backends.base import Backend, Handle
from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Course
from pytest_madengine.engine.journal import Journal
from pytest_madengine.errors import InfrastructureError


def cancel(courses: Iterable[Course], backends: Mapping[str, Backend], records: Journal) -> None:
    """Cancel these jobs.

    Raises:
        InfrastructureError: some could not be cancelled; the others are.
    """
    problems = [_cancel(course, backends[course.backend], records) for course in courses]
    if any(problems):
        raise InfrastructureError("\n".join(filter(None, problems)))


def handle_of(course: Course, backend: Backend) -> Handle | None:
    """The handle of a job; a submission whose answer never came is looked for by its id.

    Raises:
        InfrastructureError: the backend cannot be reached.
    """
    return course.handle or backend.find({course.id: Path(course.directory)}).get(course.id)


def _cancel(course: Course, backend: Backend, records: Journal) -> str:
    """What went wrong; '' when nothing did."""
    try:
        if handle := handle_of(course, backend):
            backend.cancel([handle])
            backend.collect(handle)
    except Exception as error:  # noqa: BLE001  # a backend is other people's code, and the other jobs are to be ended too
        return f"{course.id} may still run: {error}"
    records.write({"kind": journal.ENDED, "job": course.id, "state": "cancelled"})
    return ""
