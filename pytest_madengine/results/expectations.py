"""All that a session's models are compared with, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pytest_madengine.results.gates import Gate, judged
from pytest_madengine.results.history import History, Key, Past, metrics_of
from pytest_madengine.results.judgements import Basis, compare, named, side_by_side
from pytest_madengine.results.metric import Metric
from pytest_madengine.results.references import Expected, References, applying
from pytest_madengine.results.result import Result
from pytest_madengine.results.series import by_side


@dataclass(frozen=True)
class Stated:
    """The references of one model, and where they stand: `models.json:12 references`."""

    references: References
    place: str


@dataclass(frozen=True)
class Expectations:
    """What a session compares its results with.

    Attributes:
        stated: references of a file, by model; they win over those of cards.
        history: earlier runs; None where nobody asked for them.
        gate: what fails a model.
    """

    stated: Mapping[str, Stated] = field(default_factory=dict)
    history: History | None = None
    gate: Gate = Gate.FAIL

    def judge(self, result: Result, card: Stated) -> Result:
        """The result with its comparisons; it fails where one of them says so.

        Args:
            result: of a model that ran.
            card: the references that its card states.
        """
        comparisons = compare(metrics_of(result), result.model, self.basis(result, card))
        return judged(result, comparisons, self.gate)

    def judge_sides(self, whole: Result, card: Stated, sides: Sequence[str]) -> Result:
        """The result of one model in two images, with the second one's metrics beside the first one's.

        Args:
            whole: with the rows and metrics of both, the first one's first.
            card: the references that its card states: how metrics are judged counts, the values do not.
            sides: the images.
        """
        pairs = by_side(whole, len(sides))
        if not pairs:
            return whole
        expected = self.basis(whole, card).expected
        source = f"in {sides[0]}"
        compared = [
            side_by_side(second, first, source, named(second, whole.model, expected)[1])
            for first, second in zip(*pairs, strict=True)
        ]
        told = judged(whole, compared, self.gate)
        count = len(whole.rows) // len(sides)
        return replace(told, rows=(*whole.rows[:count], *told.rows[count:]))

    def basis(self, result: Result, card: Stated) -> Basis:
        """What the metrics of one result are compared with."""
        several = [card, *filter(None, [self.stated.get(result.model)])]
        architecture = result.rows[0].columns.get("gpu_architecture", "")
        expected: dict[str, Expected] = {}
        for each in several:
            expected |= applying(each.references, architecture, each.place)
        others = list(dict.fromkeys(key for each in several for key in each.references))
        missing = _missing(architecture, others) if others and not expected else ""
        return Basis(expected, self._past_of(result) if self.history else None, missing, bool(architecture))

    def _past_of(self, result: Result) -> _PastOf:
        assert self.history  # noqa: S101  # asked before
        return _PastOf(self.history, {row.columns["model"]: Key.of(row.columns) for row in result.rows})


@dataclass(frozen=True)
class _PastOf:
    """What earlier runs say of the metrics of one result."""

    history: History
    keys: Mapping[str, Key]

    def __call__(self, metric: Metric) -> Past:
        return self.history.past(self.keys[metric.row], metric.name)


def _missing(architecture: str, others: list[str]) -> str:
    there = f"there are some for {', '.join(others)}"
    known = f"no reference for {architecture}" if architecture else "the GPU architecture is not known"
    return f"{known}; {there}"
