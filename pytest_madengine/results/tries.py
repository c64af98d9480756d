"""The results of a run, sorted by item: what each came to, and the tries before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.perf import FAILURE, SKIPPED, SUCCESS
from pytest_madengine.results.result import FailureClass, Result


@dataclass(frozen=True)
class Tried:
    """One item.

    Attributes:
        result: of its last try, which is what counts.
        earlier: of those before, in their order.
    """

    result: Result
    earlier: tuple[Result, ...] = ()

    @property
    def bad(self) -> tuple[Comparison, ...]:
        """The comparisons that are to be looked at: regressions, and what gates and has no verdict."""
        return tuple(each for each in self.result.comparisons if _is_bad(each))


@dataclass(frozen=True)
class Counts:
    """How many items ended how.

    Attributes:
        statuses: items by SUCCESS, FAILURE and SKIPPED.
        failures: failed items by whose fault it is: `build`, `infrastructure`, `model`.
        verdicts: comparisons by what they say.
    """

    statuses: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    verdicts: Mapping[str, int] = field(default_factory=dict)


def by_item(results: Iterable[Result]) -> list[Tried]:
    """Each item once, in the order in which items were first heard of."""
    tries: dict[str, list[Result]] = {}
    for result in results:
        tries.setdefault(result.nodeid, []).append(result)
    return [Tried(last, tuple(earlier)) for *earlier, last in tries.values()]


def counts(items: Iterable[Tried]) -> Counts:
    """Every status, class and verdict is there, with 0 where nothing has it."""
    last = [each.result for each in items]
    statuses = Counter(result.status for result in last)
    classes = Counter(result.failure for result in last)
    verdicts = Counter(each.judgement for result in last for each in result.comparisons)
    return Counts(
        {status: statuses[status] for status in (SUCCESS, FAILURE, SKIPPED)},
        {each.value: classes[each] for each in FailureClass if each is not FailureClass.NONE},
        {each.value: verdicts[each] for each in Judgement},
    )


def said(items: Iterable[Tried]) -> str:
    """The counts in words: `3 passed, 1 failed (1 build), 1 regression`."""
    found = counts(items)
    classes = ", ".join(f"{number} {name}" for name, number in found.failures.items() if number)
    named = {
        f"failed{f' ({classes})' if classes else ''}": found.statuses[FAILURE],
        "passed": found.statuses[SUCCESS],
        "skipped": found.statuses[SKIPPED],
        _plural("regression", found.verdicts[Judgement.REGRESSION.value]): found.verdicts[Judgement.REGRESSION.value],
        _plural("improvement", found.verdicts[Judgement.IMPROVEMENT.value]): found.verdicts[
            Judgement.IMPROVEMENT.value
        ],
        "without verdict": found.verdicts[Judgement.NONE.value],
    }
    return ", ".join(f"{number} {name}" for name, number in named.items() if number) or "no models"


def change(relative: float | None) -> str:
    """A relative change for people: `+5.0 %`; '' where it cannot be told."""
    return "" if relative is None else f"{relative:+.1%}".replace("%", " %")


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"


def _is_bad(comparison: Comparison) -> bool:
    if comparison.judgement is Judgement.REGRESSION:
        return True
    return comparison.gates and comparison.judgement is Judgement.NONE
