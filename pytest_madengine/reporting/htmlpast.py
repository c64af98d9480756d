"""What earlier runs tell a page: trends, and what is different since."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from pytest_madengine.reporting.htmlstory import NO_PAST, Past, Point, Thing
from pytest_madengine.results import tries
from pytest_madengine.results.history import Key
from pytest_madengine.results.perf import SUCCESS
from pytest_madengine.results.result import Result
from pytest_madengine.store.store import Filter, Store

MOST_RUNS, MOST_BASELINES = 400, 20
"""The latest runs that are looked at: for values more than a year of nights, for a success of each item fewer."""


def reader(run: Path) -> Callable[[Sequence[Result]], Past]:
    """What is known beside the run of this directory when its results are there; links of it lie in `.madengine`."""

    def read(results: Sequence[Result]) -> Past:
        with Store.open(run.parents[1]) as store:
            return past(store, run.name, results)

    return read


def past(store: Store, run: str, results: Sequence[Result]) -> Past:
    """What runs before `run` tell of these models.

    Args:
        store: all results of a place.
        run: the run's id; where the store does not know it, all runs are earlier.
        results: of the run.
    """
    known = [each.run for each in store.runs()]
    earlier = known[: known.index(run)] if run in known else known
    if not earlier:
        return NO_PAST
    wanted = {Key.of(row.columns) for result in results for row in result.rows}
    return Past(_points(store, earlier[-MOST_RUNS:], wanted), _baseline(store, earlier[-MOST_BASELINES:], results))


def _points(store: Store, runs: Sequence[str], wanted: Collection[Key]) -> dict[Thing, list[Point]]:
    """Values in the order in which they were recorded."""
    points: dict[Thing, list[Point]] = {}
    for each in store.entries(Filter(runs, status=SUCCESS)):
        key = Key.of(each._asdict())
        if key in wanted and each.value is not None:
            points.setdefault((key, each.name), []).append(Point(each.recorded, each.run, each.value))
    return points


def _baseline(store: Store, runs: Sequence[str], results: Iterable[Result]) -> dict[str, Result]:
    """The last success of each item."""
    found: dict[str, Result] = {}
    wanted = {result.nodeid for result in results}
    for run in reversed(runs):
        if wanted <= found.keys():
            break
        last = [each.result for each in tries.by_item(store.results([run]))]
        found = {each.nodeid: each for each in last if each.succeeded} | found
    return found
