"""The jobs of one item that run one after another, and what is known of those that are over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_madengine import files
from pytest_madengine.engine.rundir import result_in
from pytest_madengine.images.image import Image
from pytest_madengine.results.result import Result
from pytest_madengine.results.series import Leg, joined

PART = "part.json"
"""The Result of a job which others follow, in its folder; a later session goes on behind it."""


class Repeats:
    """One item's jobs.

    Args:
        legs: all of them, in their order.

    Attributes:
        images: those of sides, as far as they are there.
    """

    def __init__(self, legs: Sequence[Leg]) -> None:
        self._legs = legs
        self._done: list[Result] = []
        self.images: dict[str, Image] = {}

    @property
    def leg(self) -> Leg:
        """The job that is in flight, or comes next."""
        return self._legs[min(len(self._done), len(self._legs) - 1)]

    @property
    def last(self) -> bool:
        """Whether no other job follows this one."""
        return len(self._done) >= len(self._legs) - 1

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return len(self._legs) > 1

    def take_up(self, folders: Iterable[Path]) -> None:
        """Go on behind jobs of an earlier session that lie in these folders."""
        parts = [folder for folder in folders if is_part(folder)]
        self._done = [result_in(folder, PART) for folder in parts][: len(self._legs) - 1]

    def passed(self, result: Result, folder: Path) -> bool:
        """Whether a job went well and another is to follow it; its result is kept in its folder then."""
        if self.last or not result.succeeded:
            return False
        files.put(folder / PART, result.to_json())
        self._done.append(result)
        return True

    def whole(self, result: Result) -> Result:
        """The item's result, if no job follows the one that gave this."""
        return joined(list(zip(self._legs, [*self._done, result], strict=False)))


def is_part(folder: Path) -> bool:
    """Whether the job in a folder is over and went well, and others were to follow."""
    return (folder / PART).exists()
