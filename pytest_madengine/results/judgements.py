"""Compares what was measured with what was to be expected; where that says nothing, so does the judgement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from pytest_madengine.errors import nearest
from pytest_madengine.results import statistics
from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.history import Past
from pytest_madengine.results.metric import Direction, Metric
from pytest_madengine.results.references import NOTHING, Expected, Policy, Reference, names_of, policy_of
from pytest_madengine.results.statistics import FEWEST_REPEATS, FEWEST_RUNS, Difference

SMALLEST = 0.02
"""The relative change that matters, where nobody states what is allowed: a smaller one is none, however sure it is."""
ROUNDING = 1e-9
"""What 950 of 1000 is more than 5 % less, by the way computers write fractions."""


@dataclass(frozen=True)
class Basis:
    """What the metrics of a model are compared with.

    Attributes:
        expected: by metric, or `row/metric`.
        past: what earlier runs say of a metric; None where nobody asked for them.
        missing: why references that the model has say nothing here; '' where they do, or there are none.
        certain: whether that is no wonder, as on another architecture.
    """

    expected: Mapping[str, Expected]
    past: Callable[[Metric], Past] | None = None
    missing: str = ""
    certain: bool = True


def compare(metrics: Sequence[Metric], model: str, basis: Basis) -> tuple[Comparison, ...]:
    """Each metric beside its reference and beside earlier runs, as far as there are any.

    Args:
        metrics: of one item.
        model: its name, which the names of its rows begin with.
        basis: what to compare with.

    Returns:
        a comparison for each reference; one without a verdict for a reference of a metric that was not measured.
    """
    found = [(metric, *named(metric, model, basis.expected)) for metric in metrics]
    used = {name for _, name, _ in found}
    comparisons = [each for one in found for each in _of_metric(*one, basis)]
    comparisons += [_unmeasured(name, basis.expected[name], metrics) for name in basis.expected if name not in used]
    if basis.missing and not any(each.reference is not None for each in comparisons):
        comparisons += [_unreferenced(metric, basis) for metric in metrics[:1]]
    return tuple(comparisons)


def named(metric: Metric, model: str, expected: Mapping[str, Expected]) -> tuple[str, Reference]:
    """What is expected of a metric, and the key that says so; '' where none does."""
    name = next((name for name in names_of(metric, model) if name in expected), "")
    return name, expected[name].reference if name else NOTHING


def _of_metric(metric: Metric, name: str, reference: Reference, basis: Basis) -> Iterator[Comparison]:
    if reference.value is not None:
        yield with_reference(metric, reference, basis.expected[name].place)
    if basis.past:
        yield with_past(metric, basis.past(metric), reference)


def with_reference(metric: Metric, reference: Reference, place: str) -> Comparison:
    """A metric beside a value that somebody states; nothing is known of that one's noise."""
    policy = policy_of(metric, reference)
    return _beside_value(_blank(metric, policy, place), policy, reference.value or 0.0, reference.unit)


def with_past(metric: Metric, past: Past, reference: Reference = NOTHING) -> Comparison:
    """A metric beside its values in earlier runs."""
    policy = policy_of(metric, reference)
    blank = _blank(metric, policy, past.source)
    if past.problem:
        return _none(blank, past.problem)
    middle = median(past.values)
    if past.single or not middle:
        return _beside_value(blank, policy, middle, past.unit)
    if doubt := _doubt(metric, past.unit, past.source):
        return _none(blank, doubt)
    if len(past.values) < FEWEST_RUNS:
        too_few = f"too few samples: {past.source} has {len(past.values)} comparable values, {FEWEST_RUNS} are wanted"
        return _none(replace(blank, reference=middle), too_few)
    return _by_noise(blank, policy, statistics.from_history(_value(metric), past.values), "earlier runs")


def side_by_side(second: Metric, first: Metric, source: str, reference: Reference = NOTHING) -> Comparison:
    """A metric of a second side beside that of a first one; both have samples that were taken in turn."""
    policy = policy_of(second, reference)
    blank = _blank(second, policy, source)
    if doubt := _doubt(first, second.unit, "the other side") or _doubt(second, first.unit, source):
        return _none(blank, doubt)
    few = min(len(first.samples), len(second.samples))
    if few < FEWEST_REPEATS:
        known = replace(blank, reference=first.value, change=_change(second, first.value or 1.0))
        return _none(known, f"too few samples: {few} of each side, {FEWEST_REPEATS} are wanted")
    return _by_noise(blank, policy, statistics.between(first.samples, second.samples), "repeats")


def _beside_value(blank: Comparison, policy: Policy, value: float, unit: str) -> Comparison:
    """By the bounds alone; no verdict where the median of repeats may be off by too much to tell."""
    metric = blank.metric
    if doubt := ("the reference is 0" if not value else _doubt(metric, unit, blank.source)):
        return _none(blank, doubt)
    known = replace(blank, reference=value, change=_change(metric, value))
    error = statistics.standard_error(metric.samples) / abs(value) if len(metric.samples) > 2 else 0.0  # noqa: PLR2004  # two have no spread
    if error > policy.allowed / 2 and abs(known.change or 0.0) < policy.allowed + 2 * error:
        return _none(known, f"too noisy: the median of {len(metric.samples)} repeats may be off by {part(2 * error)}")
    return _judged(known, policy, (policy.allowed, policy.better), f"allowed {part(policy.allowed)}")


def _by_noise(blank: Comparison, policy: Policy, difference: Difference, what: str) -> Comparison:
    """By the bounds and by what noise may hide: a pass says that nothing worse than allowed is hidden."""
    least, most = (policy.allowed, policy.better) if policy.stated else (SMALLEST, SMALLEST)
    counts = max(least, difference.told)
    higher = policy.direction is Direction.HIGHER
    lower, upper = (-counts, blank.upper) if higher else (blank.lower, counts)
    known = replace(blank, reference=difference.reference, change=difference.change, lower=lower, upper=upper)
    clear = difference.significant and policy.worse(difference.change) > least
    if difference.told > policy.allowed and not clear:
        few = difference.endless and difference.endless <= policy.allowed
        told, word = part(difference.told), "too few samples" if few else "too noisy"
        return _none(known, f"{word}: {what} tell changes beyond {told}, allowed are {part(policy.allowed)}")
    limits = (least, most) if difference.significant else (math.inf, math.inf)
    return _judged(known, policy, limits, f"changes beyond {part(counts)} count")


def _judged(known: Comparison, policy: Policy, limits: tuple[float, float], allowed: str) -> Comparison:
    """A comparison whose change is known, and by how much it must be worse or better to be called so."""
    worse = policy.worse(known.change or 0.0)
    judgement = Judgement.PASS
    if worse > limits[0] + ROUNDING:
        judgement = Judgement.REGRESSION
    elif -worse > limits[1] + ROUNDING:
        judgement = Judgement.IMPROVEMENT
    return replace(known, judgement=judgement, reason=f"{_words(known)} ({known.source}, {allowed})")


def _words(known: Comparison) -> str:
    """`performance 1150 samples/s is 6.5 % below 1230`."""
    change = known.change or 0.0
    way = "below" if change < 0 else "above"
    return f"{_measured(known.metric)} is {part(abs(change))} {way} {number(known.reference or 0.0)}"


def _measured(metric: Metric) -> str:
    return " ".join(filter(None, (metric.name, number(_value(metric)), metric.unit)))


def _doubt(metric: Metric, unit: str, other: str) -> str:
    """Why a metric cannot be compared with anything; '' where it can."""
    if metric.value is None:
        return "it was not measured"
    if not math.isfinite(metric.value):
        return f"it is {metric.value}"
    if metric.value == 0:
        return "it is 0"
    if unit and metric.unit != unit:
        return f"other unit: {metric.unit or 'none'} here, {unit} in {other}"
    return ""


def _blank(metric: Metric, policy: Policy, source: str) -> Comparison:
    return Comparison(
        replace(metric, direction=policy.direction),
        Judgement.NONE,
        policy.gates,
        lower=policy.lower,
        upper=policy.upper,
        source=source,
    )


def _none(known: Comparison, reason: str) -> Comparison:
    return replace(known, judgement=Judgement.NONE, reason=f"no verdict on {known.metric.name}: {reason}")


def _unmeasured(name: str, expected: Expected, metrics: Iterable[Metric]) -> Comparison:
    """A reference of something that was not measured."""
    row, _, metric = name.rpartition("/")
    blank = Metric(row, metric, None, expected.reference.unit, expected.reference.direction or Direction.HIGHER)
    known = _blank(blank, policy_of(blank, expected.reference), expected.place)
    measured = [each.name for each in metrics]
    close = nearest(metric, measured)
    hint = f"; did you mean {close!r}?" if close and close != metric else ""
    return replace(known, reference=expected.reference.value, reason=f"no verdict on {name}: it was not measured{hint}")


def _unreferenced(metric: Metric, basis: Basis) -> Comparison:
    """References of other architectures say nothing of this one."""
    policy = policy_of(metric, NOTHING)
    return replace(_none(_blank(metric, policy, ""), basis.missing), gates=policy.gates and not basis.certain)


def _change(metric: Metric, reference: float) -> float:
    return (_value(metric) - reference) / abs(reference)


def _value(metric: Metric) -> float:
    return 0.0 if metric.value is None else metric.value


def number(value: float) -> str:
    """A value with six digits at most, and no exponent where people write none."""
    return f"{value:.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:.6g}"  # noqa: PLR2004  # see above


def part(share: float) -> str:
    """A part as percent: `6.5 %`, `5 %`."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"
