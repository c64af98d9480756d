"""One result of several jobs of an item: warm-ups, repeats, and the two sides of a comparison in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from pytest_madengine.results.judgements import number, part
from pytest_madengine.results.metric import PERFORMANCE, Metric
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.results.result import FailureClass, Result, Row
from pytest_madengine.results.statistics import deviation

REPEAT, WARMUP = "repeat", "warm-up"


@dataclass(frozen=True)
class Leg:
    """One job of an item that has several.

    Attributes:
        kind: `repeat` or `warm-up`, which does not count.
        number: from 1, among those of its kind and side.
        count: how many there are of these.
        side: the image that it runs in, where two are compared; else ''.
    """

    kind: str
    number: int
    count: int
    side: str = ""

    def __str__(self) -> str:
        where = f" in {self.side}" if self.side else ""
        return f"{self.kind} {self.number} of {self.count}{where}"


def legs(repeats: int, warmups: int, sides: Sequence[str] = ()) -> tuple[Leg, ...]:
    """The jobs of an item in their order: warm-ups first, and the sides in turn.

    Args:
        repeats: how many count, of each side.
        warmups: how many go before them, of each side.
        sides: images; none where there is but one side.
    """
    kinds = ((WARMUP, warmups), (REPEAT, repeats))
    return tuple(
        Leg(kind, turn, count, side) for kind, count in kinds for turn in range(1, count + 1) for side in sides or ("",)
    )


def joined(done: Sequence[tuple[Leg, Result]]) -> Result:
    """One result of jobs that ran one after another; the last one may have failed, or measured something else.

    Returns:
        the rows of each side's last repeat, with the medians of all. A failure names the job.
    """
    leg, last = done[-1]
    if len(done) == 1 and leg.count == 1 and not leg.side:
        return last
    measured = [(each, result) for each, result in done if each.kind == REPEAT and result.succeeded]
    sides = {side: _merged([result for each, result in measured if each.side == side]) for side in _sides(measured)}
    trouble = last.reason if last.failed else _unlike(measured)
    whole = _broken(leg, last, sides, trouble) if trouble else _side_by_side([*sides.values()] or [last])
    ran = [result for _, result in done]
    return replace(
        whole,
        duration=sum(result.duration for result in ran),
        notes=(*_notes(ran), *_spreads(sides)),
        artifacts=tuple(dict.fromkeys(path for result in ran for path in result.artifacts)),
        started=ran[0].started,
    )


def _broken(leg: Leg, last: Result, sides: Mapping[str, Result], trouble: str) -> Result:
    """The result of a job with which the others ended, beside the rows of the other side and what was measured."""
    others = tuple(row for side, result in sides.items() if side != leg.side for row in result.rows)
    metrics = _side_by_side([*sides.values()]).metrics if sides else last.metrics
    failure = last.failure if last.failed else FailureClass.MODEL
    rows, reason = (*others, *_failed(last.rows)), f"{leg}: {trouble}"
    return replace(last, status=FAILURE, failure=failure, rows=rows, metrics=metrics, reason=reason)


def by_side(whole: Result, sides: int) -> tuple[tuple[Metric, ...], ...]:
    """The metrics of a joined result of as many sides; of one that lacks a side, none."""
    size, rest = divmod(len(whole.metrics), sides)
    return () if rest or whole.failed else tuple(whole.metrics[at * size : (at + 1) * size] for at in range(sides))


def _sides(measured: Iterable[tuple[Leg, Result]]) -> list[str]:
    return list(dict.fromkeys(leg.side for leg, _ in measured))


def _shape(result: Result) -> list[tuple[str, str]]:
    return [(row.columns["model"], row.columns["metric"]) for row in result.rows]


def _unlike(measured: Sequence[tuple[Leg, Result]]) -> str:
    """What the last repeat has of other rows than the first; '' where it has the same."""
    if not measured or _shape(measured[-1][1]) == _shape(measured[0][1]):
        return ""
    first, last = (
        ", ".join(f"{name} in {unit or 'no unit'}" for name, unit in _shape(each))
        for _, each in (measured[0], measured[-1])
    )
    return f"it measured {last}, {measured[0][0]} measured {first}"


def _merged(results: Sequence[Result]) -> Result:
    """One result of the repeats of one side that have the rows of the last one."""
    last = results[-1]
    alike = [result for result in results if _shape(result) == _shape(last)]
    rows = tuple(_row([result.rows[at] for result in alike]) for at in range(len(last.rows)))
    return replace(last, rows=rows, metrics=tuple(_metrics(alike)))


def _row(repeats: Sequence[Row]) -> Row:
    last = repeats[-1]
    medians = {name: _median([row.columns[name] for row in repeats]) for name in (PERFORMANCE, "test_duration")}
    further = {
        name: _median([(row.multi_results or {}).get(name, "") for row in repeats]) for name in last.multi_results or ()
    }
    return replace(
        last,
        columns={**last.columns, **_known(medians)},
        multi_results=_known({**(last.multi_results or {}), **_known(further)}) or None,
    )


def _known(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}


def _median(texts: Sequence[str]) -> str:
    """The median, as it was printed where it is one of the values; '' where one is no number."""
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return ""
    middle = median(values)
    return next((text for text, value in zip(texts, values, strict=True) if value == middle), f"{middle:.12g}")


def _metrics(results: Sequence[Result]) -> Iterator[Metric]:
    """The last result's metrics, each with the samples of all."""
    for at, metric in enumerate(results[-1].metrics):
        named = (metric.row, metric.name)
        values = [
            each.value for result in results for each in result.metrics[at : at + 1] if (each.row, each.name) == named
        ]
        samples = tuple(value for value in values if value is not None)
        yield replace(metric, value=median(samples) if samples else None, samples=samples)


def _side_by_side(sides: Sequence[Result]) -> Result:
    """The last side's result, with the rows and metrics of all."""
    rows = tuple(row for side in sides for row in side.rows)
    return replace(sides[-1], rows=rows, metrics=tuple(metric for side in sides for metric in side.metrics))


def _failed(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(replace(row, columns={**row.columns, "status": FAILURE}) for row in rows)


def _notes(results: Iterable[Result]) -> Iterable[str]:
    return dict.fromkeys(note for result in results for note in result.notes)


def _spreads(sides: Mapping[str, Result]) -> Iterator[str]:
    """How far the repeats of each row are apart."""
    for side, result in sides.items():
        for metric in result.metrics:
            if metric.name == PERFORMANCE and len(metric.samples) > 1:
                yield (f"{metric.row}: " if len(result.rows) > 1 else "") + _spread(metric, side)


def _spread(metric: Metric, side: str) -> str:
    where = f" in {side}" if side else ""
    low, high, unit = number(min(metric.samples)), number(max(metric.samples)), metric.unit and f" {metric.unit}"
    middle = median(metric.samples)
    spread = f", deviation {part(deviation(metric.samples) / abs(middle))}" if middle else ""
    return f"{len(metric.samples)} repeats{where} gave {low} to {high}{unit}{spread}"
