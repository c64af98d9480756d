"""What an HTML report is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pytest_madengine.results.history import Key
from pytest_madengine.results.result import Result

Thing = tuple[Key, str]
"""What is measured again and again: a row's key and the name of a metric; values of one thing are comparable."""


class Point(NamedTuple):
    """One value of an earlier run.

    Attributes:
        when: ISO 8601; '' where it is not known.
        run: the run's id.
        value: as measured.
    """

    when: str
    run: str
    value: float


@dataclass(frozen=True)
class Samples:
    """What a sampler saw over time.

    Attributes:
        seconds: since the first sample.
        series: values by name, such as `GPU 0`, as many as seconds.
    """

    seconds: tuple[float, ...]
    series: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Past:
    """What is known of other runs.

    Attributes:
        history: values of earlier runs, the oldest first.
        baseline: an earlier run's result by node id, for what is different since.
    """

    history: Mapping[Thing, Sequence[Point]] = field(default_factory=dict)
    baseline: Mapping[str, Result] = field(default_factory=dict)


NO_PAST = Past()


@dataclass(frozen=True)
class Story:
    """All that a page is made from.

    Attributes:
        results: of one run, in the order in which they came.
        run: what is known of the run, shown in this order; `run` is its id.
        past: other runs.
        samples: by the file that `Usage` names.
        link: makes a URL, relative to the page, of a path.
    """

    results: Sequence[Result]
    run: Mapping[str, str] = field(default_factory=dict)
    past: Past = NO_PAST
    samples: Mapping[str, Samples] = field(default_factory=dict)
    link: Callable[[str], str] = str
