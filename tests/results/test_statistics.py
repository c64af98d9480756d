"""On simulated data with fixed seeds: how often a change is called one that is none, and how often one is missed."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from statistics import median, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.results.comparison import Judgement
from pytest_madengine.results.history import Past
from pytest_madengine.results.judgements import side_by_side, with_past
from pytest_madengine.results.metric import Metric
from pytest_madengine.results.statistics import between, deviation, from_history, robust_deviation, standard_error

TIMES = 1000
Draw = Callable[[float, int], tuple[float, ...]]
SAMPLES = st.lists(st.floats(1, 1000), min_size=10, max_size=30)


def normal(seed: int, spread: float) -> Draw:
    """Draws samples around a middle, with a spread that is a part of 100."""
    dice = random.Random(seed)  # noqa: S311  # a simulation
    return lambda middle, count: tuple(dice.gauss(middle, 100 * spread) for _ in range(count))


def heavy(seed: int, spread: float) -> Draw:
    """As `normal`, but now and then one is far off."""
    dice = random.Random(seed)  # noqa: S311  # a simulation
    return lambda middle, count: tuple(
        dice.gauss(middle, 100 * spread * (8 if dice.random() < 0.05 else 1)) for _ in range(count)
    )


def shares(judge: Callable[[], Judgement]) -> dict[Judgement, float]:
    counted = Counter(judge() for _ in range(TIMES))
    return {each: counted[each] / TIMES for each in Judgement}


def one_more_run(draw: Draw, drop: float, before: Draw | None = None) -> Judgement:
    value = draw(100 * (1 - drop), 1)
    past = Past("the past", (before or draw)(100, 20), "x")
    return with_past(Metric("m", "performance", value[0], "x", samples=value), past).judgement


def in_turn(draw: Draw, drop: float, repeats: int) -> Judgement:
    first, second = draw(100, repeats), draw(100 * (1 - drop), repeats)
    one, other = (Metric("m", "performance", median(side), "x", samples=side) for side in (first, second))
    return side_by_side(other, one, "the other").judgement


class TestAgainstHistory:
    @pytest.mark.parametrize("spread", [0.01, 0.03])
    @pytest.mark.parametrize("past", [normal, heavy])
    def test_of_equal_runs_at_most_one_in_a_hundred_is_a_regression(
        self, past: Callable[[int, float], Draw], spread: float
    ) -> None:
        before, noise = past(1, spread), normal(7, spread)
        assert shares(lambda: one_more_run(noise, 0, before))[Judgement.REGRESSION] <= 0.01

    def test_of_drops_by_5_percent_at_1_percent_spread_95_in_a_hundred_are_found(self) -> None:
        noise = normal(2, 0.01)
        assert shares(lambda: one_more_run(noise, 0.05))[Judgement.REGRESSION] >= 0.95

    def test_equal_runs_at_1_percent_spread_pass(self) -> None:
        noise = normal(3, 0.01)
        assert shares(lambda: one_more_run(noise, 0))[Judgement.PASS] >= 0.98

    def test_noise_that_hides_a_regression_is_no_pass(self) -> None:
        noise = normal(4, 0.03)
        assert shares(lambda: one_more_run(noise, 0.05))[Judgement.PASS] <= 0.02


class TestInTurn:
    @pytest.mark.parametrize("spread", [0.01, 0.03])
    @pytest.mark.parametrize("repeats", [5, 10])
    def test_of_equal_images_at_most_one_in_a_hundred_is_a_regression(self, repeats: int, spread: float) -> None:
        noise = normal(5, spread)
        assert shares(lambda: in_turn(noise, 0, repeats))[Judgement.REGRESSION] <= 0.01

    @pytest.mark.parametrize("repeats", [5, 10])
    def test_of_drops_by_5_percent_at_1_percent_spread_95_in_a_hundred_are_found(self, repeats: int) -> None:
        noise = normal(6, 0.01)
        assert shares(lambda: in_turn(noise, 0.05, repeats))[Judgement.REGRESSION] >= 0.95


class TestAYearOfRuns:
    """One value a day of forty models with noise of their own; the last twenty count each day."""

    DAYS, WINDOW = 365, 20

    def year(self, seed: int, spread: float) -> list[float]:
        return list(normal(seed, spread)(100, self.DAYS))

    def judged(self, values: list[float], day: int) -> Judgement:
        past = Past("the past", tuple(values[day - self.WINDOW : day]), "x")
        return with_past(Metric("m", "performance", values[day], "x"), past).judgement

    def test_one_regression_by_6_percent_is_found_on_its_day(self) -> None:
        years = [self.year(seed, 0.004 + seed % 5 * 0.0015) for seed in range(40)]
        day = 300
        years[17][day:] = [value * 0.94 for value in years[17][day:]]
        found = [model for model, values in enumerate(years) if self.judged(values, day) is Judgement.REGRESSION]
        assert found == [17]

    def test_a_noisy_model_has_no_verdict_on_most_days(self) -> None:
        values = self.year(1, 0.06)
        said = Counter(self.judged(values, day) for day in range(self.WINDOW, self.DAYS))
        assert said[Judgement.NONE] > 0.97 * said.total()
        assert said[Judgement.PASS] == 0

    def test_days_that_were_far_off_do_not_hide_a_regression(self) -> None:
        values = self.year(2, 0.008)
        values[285], values[292] = 60.0, 55.0
        values[300] *= 0.94
        assert self.judged(values, 300) is Judgement.REGRESSION


@given(SAMPLES, st.floats(0.1, 10))
def test_a_unit_changes_nothing(past: list[float], factor: float) -> None:
    plain, scaled = from_history(50, past), from_history(50 * factor, [value * factor for value in past])
    assert math.isclose(plain.change, scaled.change, rel_tol=1e-6, abs_tol=1e-9)
    assert math.isclose(plain.told, scaled.told, rel_tol=1e-6, abs_tol=1e-9)


@given(SAMPLES)
def test_the_order_of_samples_changes_nothing(samples: list[float]) -> None:
    backwards = samples[::-1]
    assert math.isclose(deviation(samples), deviation(backwards), rel_tol=1e-9, abs_tol=1e-9)
    assert between(samples, backwards).change == 0


def test_equal_values_have_no_noise_and_any_change_is_one() -> None:
    assert from_history(99, [100.0] * 10).told == 0
    assert from_history(99, [100.0] * 10).significant
    assert not from_history(100, [100.0] * 10).significant


def test_outliers_do_not_count_and_two_levels_are_no_outliers() -> None:
    usual = [100.0 + step / 10 for step in range(18)]
    assert deviation([*usual, 10.0, 300.0]) == pytest.approx(stdev(usual))
    levels = [100.0, 100.1] * 6 + [120.0, 120.1] * 4
    assert deviation(levels) == pytest.approx(stdev(levels))


def test_a_few_samples_have_no_outliers() -> None:
    assert deviation([100.0, 100.0, 100.0, 110.0]) == pytest.approx(5)
    assert deviation([100.0]) == 0


def test_robust_measures_of_known_samples() -> None:
    assert robust_deviation([1, 2, 3, 4, 100]) == pytest.approx(1.4826, abs=1e-4)
    assert standard_error([1, 2, 3, 4, 100]) == pytest.approx(1.2533 * 1.4826 / math.sqrt(5), abs=1e-3)
