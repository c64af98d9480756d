"""What a reporter is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from pytest_madengine.results.result import Result


class Reporter(Protocol):
    """Writes results somewhere; lives only where no results come from: the controller of a session."""

    name: str

    def write(self, result: Result) -> None:
        """One result, as soon as it is known; it is on disk when this returns."""
        ...


@runtime_checkable
class Appending(Protocol):
    """A reporter that can tell which of a result's rows it wrote before its process died."""

    def sizes(self) -> Mapping[str, int]:
        """The bytes of each file that it appends to, by path."""
        ...

    def write_missing(self, result: Result, sizes: Mapping[str, int]) -> None:
        """Write what does not stand behind `sizes`, which were those before the result was first written."""
        ...


@runtime_checkable
class Finishing(Protocol):
    """A reporter that has something left to do when the last result is there."""

    def finish(self) -> None:
        """Do it."""
        ...
