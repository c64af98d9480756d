"""What GitHub Actions shows of a run: annotations at the cards' lines, and the summary of the step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pytest_madengine.reporting.base import AtTheEnd
from pytest_madengine.reporting.markdown import Markdown
from pytest_madengine.results import tries
from pytest_madengine.results.result import Result
from pytest_madengine.results.tries import Tried
from pytest_madengine.secrets import NO_SECRETS, Masker

WORKSPACE = "GITHUB_WORKSPACE"
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
MOST = 10
"""GitHub shows ten errors and ten warnings of a step."""
LAST_LINES = 10
LONGEST = 4_000
"""Characters of a message."""


def here(environ: Mapping[str, str]) -> bool:
    """Whether this is a step of GitHub Actions."""
    return environ.get("GITHUB_ACTIONS") == "true"


class Annotations(AtTheEnd):
    """Workflow commands on the terminal, once the run has ended."""

    name = "GitHub annotations"

    def __init__(self, say: Callable[[str], None], workspace: str, mask: Masker = NO_SECRETS) -> None:
        self._say = say
        self._workspace = workspace
        self._mask = mask

    def conclude(self, results: Sequence[Result], _: int, /) -> None:
        """See `Concluding`."""
        for line in commands(results, self._workspace):
            self._say(self._mask(line))


class StepSummary(Markdown):
    """The page of the step, which is appended to."""

    name = STEP_SUMMARY

    def _put(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{text}\n")


def commands(results: Sequence[Result], workspace: str = "") -> Iterator[str]:
    """An error for each model that failed, and a warning for each other one that has regressed or got no verdict.

    Args:
        results: all of the run.
        workspace: the folder that GitHub's paths start from; '' where it is not known.
    """
    items = tries.by_item(results)
    failed = [each for each in items if each.result.failed]
    odd = [each for each in items if each.bad and not each.result.failed]
    yield from _limited("error", [_annotation("error", each, _failure(each), workspace) for each in failed])
    yield from _limited("warning", [_annotation("warning", each, _oddities(each), workspace) for each in odd])


def command(kind: str, message: str, **properties: str) -> str:
    """A workflow command, in which whatever a text holds stays text."""
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value)
    return f"::{kind}{f' {given}' if given else ''}::{_data(message[:LONGEST])}"


def _limited(kind: str, lines: Sequence[str]) -> Iterator[str]:
    kept = lines if len(lines) <= MOST else lines[: MOST - 1]
    yield from kept
    if left := len(lines) - len(kept):
        yield command(kind, f"{left} more models: see the log of this step")


def _annotation(kind: str, item: Tried, message: str, workspace: str) -> str:
    file, _, line = item.result.source.rpartition(":")
    return command(kind, message, file=_relative(file, workspace), line=line, title=item.result.title)


def _failure(item: Tried) -> str:
    result = item.result
    return "\n".join([result.reason, *result.tail[-LAST_LINES:]])


def _oddities(item: Tried) -> str:
    return "\n".join(
        " ".join(filter(None, [each.metric.name, each.judgement.value, tries.change(each.change), each.reason]))
        for each in item.bad
    )


def _relative(file: str, workspace: str) -> str:
    inside = file and workspace and Path(file).is_relative_to(workspace)
    return os.path.relpath(file, workspace) if inside else file


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
