"""How far two sides of a measurement are apart, and how much of that may be noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median, stdev
from typing import Literal

CONFIDENCE = 0.99
"""Two-sided: of two hundred comparisons of equal things, one is called worse and one better."""
FEWEST_RUNS, FEWEST_REPEATS = 10, 5
"""Values of earlier runs, and of each of two sides in turn, below which their noise is not known."""
FAR = 5.0
"""Robust deviations from the median, beyond which a sample is an outlier."""
OUTLIERS = 0.2
"""The part of all samples that may be outliers; more are no outliers, but what the thing is like."""
EXACT = 25
"""Samples of a side, up to which all their orders are counted, not estimated."""
NORMAL = NormalDist()
QUARTILE = NORMAL.inv_cdf(0.75)
"""The median absolute deviation of a normal distribution whose standard deviation is 1."""


@dataclass(frozen=True)
class Difference:
    """How far a value is from its reference; all but the reference are parts of it, 0.05 for 5 %.

    Attributes:
        reference: the median of the reference's samples, in their unit.
        change: of the value's median.
        told: what a change must exceed to be no noise.
        endless: what `told` would be with samples without end.
        significant: whether the change is no noise.
    """

    reference: float
    change: float
    told: float
    endless: float
    significant: bool


def robust_deviation(samples: Sequence[float]) -> float:
    """The median absolute deviation, scaled to be the standard deviation of normally distributed samples."""
    middle = median(samples)
    return median(abs(value - middle) for value in samples) / QUARTILE


def deviation(samples: Sequence[float]) -> float:
    """The standard deviation without outliers, in the unit of the samples; 0 of less than two."""
    if len(samples) < 2:  # noqa: PLR2004  # one sample tells nothing of its noise
        return 0.0
    middle, width = median(samples), FAR * robust_deviation(samples)
    near = [value for value in samples if abs(value - middle) <= width]
    usual = len(samples) >= FEWEST_RUNS and len(near) >= (1 - OUTLIERS) * len(samples)
    return stdev(near if usual else samples)


def standard_error(samples: Sequence[float]) -> float:
    """How far the median of normally distributed samples may be off, one standard deviation, in their unit."""
    return math.sqrt(math.pi / 2) * robust_deviation(samples) / math.sqrt(len(samples))


def from_history(value: float, past: Sequence[float]) -> Difference:
    """One more value beside those of earlier runs: does it lie where the next one is to be expected?

    Args:
        value: of a run, the median of its repeats.
        past: one value of each earlier run, at least `FEWEST_RUNS`; their median is not 0.

    Returns:
        the difference, by Student's prediction interval for one more sample.
    """
    middle, count = median(past), len(past)
    noise = deviation(past) / abs(middle)
    told = _student(count - 1) * noise * math.sqrt(1 + 1 / count)
    change = (value - middle) / abs(middle)
    return Difference(middle, change, told, NORMAL.inv_cdf((1 + CONFIDENCE) / 2) * noise, abs(change) > told)


def between(first: Sequence[float], second: Sequence[float]) -> Difference:
    """What a second side has over a first one.

    Args:
        first: the reference's samples, at least `FEWEST_REPEATS`; their median is not 0.
        second: as many, or about.

    Returns:
        the difference of their medians; the Mann-Whitney U test says whether it is one, which supposes nothing of how
        samples are distributed, and Student's interval for two means how small a difference would have been found.
    """
    from scipy.stats import mannwhitneyu

    middle = median(first)
    method: Literal["exact", "asymptotic"] = "exact" if max(len(first), len(second)) <= EXACT else "asymptotic"
    p = float(mannwhitneyu(second, first, alternative="two-sided", method=method).pvalue)
    error = math.hypot(*(deviation(side) / math.sqrt(len(side)) for side in (first, second))) / abs(middle)
    told = _student(len(first) + len(second) - 2) * error
    return Difference(middle, (median(second) - middle) / abs(middle), told, 0.0, p <= 1 - CONFIDENCE)


def _student(freedom: int) -> float:
    """How many deviations hold `CONFIDENCE` of Student's distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
