"""Finds error messages in a model's output."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PATTERNS = (
    "OutOfMemoryError",
    "HIP out of memory",
    "CUDA out of memory",
    "RuntimeError:",
    "AssertionError:",
    "ValueError:",
    "SystemExit",
    "failed (exitcode:",
    "Traceback (most recent call last)",
    "FAILED",
    "Exception:",
    "ImportError:",
    "ModuleNotFoundError:",
)
"""Literal and case-sensitive; a card or context replaces the list by `log_error_patterns`."""

BENIGN = (
    "Found error pattern",
    "Failed to establish connection to the metrics exporter agent",
    "RpcError: Running out of retries to initialize the metrics agent",
    "Metrics will not be exported",
    "FutureWarning",
    "Opened result file:",
    "SQLite3 generation ::",
    "rocpd_op:",
    "rpd_tracer:",
)
"""A line that holds one of these is no error; `log_error_benign_patterns` adds to the list."""

BENIGN_REGEXES = tuple(
    map(
        re.compile,
        (
            r"^E[0-9]{8}.*generateRocpd\.cpp",
            r"^W[0-9]{8}.*simple_timer\.cpp",
            r"^W[0-9]{8}.*generateRocpd\.cpp",
            r"^E[0-9]{8}.*tool\.cpp",
            r"\[rocprofv3\]",
        ),
    )
)
"""ROCm profiler messages."""

NO_FAILURES = re.compile(r"\bFAILED\s*[:=]\s*0(?!\w|[.,]?\d)|(?<![\w.-])(?<!\d,)0 FAILED\b")
"""Counts of failures that say zero; the rest of such a line is looked at nevertheless."""


@dataclass(frozen=True)
class Rules:
    """Which lines are errors."""

    patterns: tuple[str, ...] = PATTERNS
    benign: tuple[str, ...] = BENIGN

    def needles(self) -> tuple[bytes, ...]:
        """A log without one of these holds no error."""
        return tuple(pattern.encode() for pattern in self.patterns)

    def error_in(self, line: str) -> str:
        """The pattern that makes this line an error, or ''."""
        if "FAILED" in line:
            line = NO_FAILURES.sub("", line)
        hit = next((pattern for pattern in self.patterns if pattern in line), "")
        benign = hit and (any(text in line for text in self.benign) or any(r.search(line) for r in BENIGN_REGEXES))
        return "" if benign else hit


OFF = Rules(patterns=())


def rules(enabled: bool | None, patterns: Iterable[str] | None, benign: Iterable[str]) -> Rules:  # noqa: FBT001
    """The rules that a card and context ask for; None keeps the default."""
    if enabled is False:
        return OFF
    return Rules(PATTERNS if patterns is None else tuple(patterns), (*BENIGN, *benign))
