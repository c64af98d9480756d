"""What a reporter is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from pytest_madengine.results.result import Result


class Reporter(Protocol):
    """Writes results somewhere; lives only where no results come from: the controller of a session.

    Whatever it raises is told at the end of the session and costs no other reporter anything. One that has an attribute
    `remote`, and it is true, talks to other machines: it is called in a thread of its own, in order, so that it holds
    up nobody. What it has not done some time after the last result (--madengine-reporting-timeout) is not waited for.
    What it raises is a warning, unless it says by a MadengineError that something is the user's to mend.
    """

    name: str

    def write(self, result: Result) -> None:
        """One result, as soon as it is known; unless the reporter is remote, it is on disk when this returns."""
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


@runtime_checkable
class Concluding(Protocol):
    """A reporter that tells of the whole run, also of what an earlier session of it has recorded."""

    def conclude(self, results: Sequence[Result], exit_status: int, /) -> None:
        """The session ends with this exit status, after every `finish`; these are all results of the run."""
        ...


class AtTheEnd:
    """What reporters have in common that tell of the whole run alone, see `Concluding`."""

    def write(self, _: Result, /) -> None:
        """Nothing is written before the end."""


@runtime_checkable
class Keeping(Protocol):
    """A remote reporter that has on disk what it has not sent, so that nothing is lost with this process."""

    def keep(self, result: Result) -> None:
        """Put it there; called in the main thread, before `write` is called elsewhere."""
        ...

    def waiting(self) -> str:
        """What was not sent, why, and how it will be; '' where there is nothing. Other threads may still be sending."""
        ...
