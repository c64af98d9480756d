"""What a reporter is."""

from __future__ import annotations

from typing import Protocol

from pytest_madengine.results.result import Result


class Reporter(Protocol):
    """Writes results somewhere; lives only where no results come from: the controller of a session."""

    name: str

    def write(self, result: Result) -> None:
        """One result, as soon as it is known; it is on disk when this returns."""
        ...
