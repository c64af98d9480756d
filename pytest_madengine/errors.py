"""Every error of this project.

MadengineError
├── UserError              a wrong option, card, context or file: one message, no traceback
├── BuildError             an image could not be built or pulled by name
├── InfrastructureError    the engine, node or filesystem failed, not the model: worth another try
│   ├── RefusedError       it will never give what was asked for: another try would change nothing
│   └── PushError          an image did not get to its registry
└── ModelFailedError       the model ran and failed: exit code, error pattern, no metric, time limit
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class MadengineError(Exception):
    """Base of every error raised on purpose; its text is complete and needs no traceback."""


class UserError(MadengineError):
    """Something the user wrote is wrong; the text says where, what was found and what would be valid."""


class BuildError(MadengineError):
    """An image could not be made.

    Attributes:
        reason: one line: which build, its exit code and the failing step.
        tail: the last lines of the build log.
        log: its path.
        dockerfile: relative to the project.
    """

    def __init__(self, reason: str, tail: Iterable[str] = (), log: str = "", dockerfile: str = "") -> None:
        self.reason = reason
        self.tail = tuple(tail)
        self.log = log
        self.dockerfile = dockerfile
        super().__init__("\n".join([reason, *self.tail, *([f"log: {log}"] if log else [])]))

    def to_json(self) -> dict[str, Any]:
        """Plain data that `BuildError(**data)` takes back."""
        return {"reason": self.reason, "tail": self.tail, "log": self.log, "dockerfile": self.dockerfile}


class InfrastructureError(MadengineError):
    """A machine, engine or filesystem failed under the model."""


class RefusedError(InfrastructureError):
    """A scheduler or engine will never give what was asked for: to ask again would change nothing."""


class PushError(InfrastructureError):
    """An image was made and did not get to its registry.

    Attributes:
        registry_image: its name there.
    """

    def __init__(self, text: str, registry_image: str) -> None:
        self.registry_image = registry_image
        super().__init__(text)


class ModelFailedError(MadengineError):
    """A model ran and did not succeed."""


class Fault(NamedTuple):
    """One mistake in one place of the user's input."""

    where: str
    found: str
    valid: str = ""
    nearest: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.found}"
        if self.valid:
            text += f"; valid: {self.valid}"
        if self.nearest:
            text += f"; did you mean {self.nearest!r}?"
        return text


class FaultsError(UserError):
    """All mistakes of one input, reported at once."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice spelled most like `word`, or an empty string when none is close."""
    import difflib

    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else ""
