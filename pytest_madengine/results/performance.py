"""Reads `performance: <value> <metric>` from a model's output."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

NUMBER = r"[+\-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+\-]?[0-9]+)?"
LINE = re.compile(
    rf"(?<![\w.-])performance:[ \t]+({NUMBER})(?:,?[ \t]*/[a-zA-Z]+[ \t]*,?|,)?(?:[ \t]+([^\s,]+)|[ \t]*$)"
)
"""`performance: 1.2e3 tokens_per_second`; also `1.2e3/s, tokens` and a value without a metric."""
FALLBACK = re.compile(r"train_samples_per_second['\"\s:=]+([0-9][0-9.eE+-]*)")
"""What the Hugging Face trainer prints."""
FALLBACK_METRIC = "samples_per_second"
ATTEMPT = re.compile(r"(?<![\w.-])performance:\s*(.*)")
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
SHOWN = 200
NEEDLES = (b"performance:", b"train_samples_per_second")
"""A log without one of these holds no performance."""


@dataclass(frozen=True)
class Performance:
    """A measured value as it was printed, and its unit."""

    value: str
    metric: str


class Finder:
    """Fed a log line by line, keeps the first performance that it holds."""

    def __init__(self) -> None:
        self._stated: Performance | None = None
        self._fallback: Performance | None = None
        self.unreadable = ""
        """The first `performance:` line whose value is no finite number."""

    @property
    def found(self) -> Performance | None:
        """What the model stated, else what its trainer printed."""
        return self._stated or self._fallback

    def feed(self, line: str) -> None:
        """Look at one line."""
        line = ANSI.sub("", line)
        if "performance:" in line and not self._stated:
            self._stated = self._read(line)
        if not self._fallback and (match := FALLBACK.search(line)) and finite(match[1]):
            self._fallback = Performance(match[1], FALLBACK_METRIC)

    def _read(self, line: str) -> Performance | None:
        match = LINE.search(line)
        if match and finite(match[1]):
            return Performance(match[1], match[2] or "")
        attempt = ATTEMPT.search(line)
        if attempt and not self.unreadable:
            self.unreadable = attempt[0].strip()[:SHOWN]
        return None


def finite(text: str) -> bool:
    """Whether the text is a number as every reader of a CSV file spells it, and not beyond all bounds."""
    return re.fullmatch(NUMBER, text) is not None and math.isfinite(float(text))
