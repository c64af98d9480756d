"""What JUnit's properties say of a model and of the whole run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pytest_madengine.results.comparison import Comparison
from pytest_madengine.results.metric import Metric
from pytest_madengine.results.result import Result

Property = tuple[str, str]
PERFORMANCE = "performance"


def properties(given: Result, earlier: Sequence[Result] = ()) -> list[Property]:
    """The properties of a model's test case; those that would be empty are left out.

    What is said of a row has the row's name behind it where there are several: `performance:llama_small`.

    Args:
        given: what the item came to.
        earlier: tries that infrastructure failed; each is told of as `attempt:1` and so on.
    """
    found = (
        *_tries(earlier),
        *_rows(given),
        *_metrics(given),
        *_verdicts(given),
        *_circumstances(given),
        *(("note", text) for text in given.notes),
    )
    return [(name, value) for name, value in found if value]


def describe(plugins: Iterable[object], run: Iterable[Property]) -> None:
    """Give the test suite of whoever writes JUnit among pytest's plugins these properties."""
    pairs = list(run)
    for add in filter(None, (getattr(plugin, "add_global_property", None) for plugin in plugins)):
        for name, value in pairs:
            add(name, value)


def _tries(earlier: Sequence[Result]) -> Iterator[Property]:
    for number, failed in enumerate(earlier, 1):
        yield f"attempt:{number}", failed.reason
    if earlier:
        yield "attempts", str(len(earlier) + 1)


def _rows(given: Result) -> Iterator[Property]:
    for row in given.rows:
        of = _of_row(given, row.columns.get("model", ""))
        yield f"{PERFORMANCE}{of}", row.columns.get(PERFORMANCE, "")
        yield f"metric{of}", row.columns.get("metric", "")


def _metrics(given: Result) -> Iterator[Property]:
    """What was measured beside `performance`, which the rows tell."""
    for metric in given.metrics:
        if metric.name != PERFORMANCE and metric.value is not None:
            of = _of_metric(given, metric)
            yield f"value{of}", str(metric.value)
            yield f"unit{of}", metric.unit


def _verdicts(given: Result) -> Iterator[Property]:
    for each in given.comparisons:
        yield from _verdict(each, _of_metric(given, each.metric))


def _verdict(comparison: Comparison, of: str) -> Iterator[Property]:
    yield f"verdict{of}", comparison.judgement.value
    yield f"verdict_reason{of}", comparison.reason
    yield f"reference{of}", "" if comparison.reference is None else str(comparison.reference)
    yield f"change{of}", "" if comparison.change is None else f"{comparison.change:.6f}"


def _circumstances(given: Result) -> Iterator[Property]:
    yield "failure", given.failure.value
    yield "image", given.image
    yield "image_digest", given.digest
    yield "hosts", ",".join(given.hosts)
    yield "log", given.log


def _of_row(given: Result, row: str) -> str:
    return f":{row}" if len(given.rows) > 1 else ""


def _of_metric(given: Result, metric: Metric) -> str:
    name = "" if metric.name == PERFORMANCE else f":{metric.name}"
    return name + _of_row(given, metric.row)
