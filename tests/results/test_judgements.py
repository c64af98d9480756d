from __future__ import annotations

from typing import Any

import pytest

from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.history import Past
from pytest_madengine.results.judgements import Basis, compare, number, side_by_side, with_past, with_reference
from pytest_madengine.results.metric import Direction, Metric
from pytest_madengine.results.references import Expected, Reference

PASS, REGRESSION, IMPROVEMENT, NONE = Judgement.PASS, Judgement.REGRESSION, Judgement.IMPROVEMENT, Judgement.NONE
STEADY = (99.5, 100.0, 100.5, 99.8, 100.2) * 4


def metric(value: float | None, *samples: float, unit: str = "samples/s", name: str = "performance") -> Metric:
    return Metric("llama", name, value, unit, samples=samples or (() if value is None else (value,)))


def beside(one: Metric, **stated: Any) -> Comparison:
    return with_reference(one, Reference.model_validate(stated), "models.json:12 references.gfx942")


class TestBesideAStatedValue:
    @pytest.mark.parametrize(
        ("value", "judgement"),
        [(1000, PASS), (950, PASS), (949, REGRESSION), (1050, PASS), (1051, IMPROVEMENT), (1, REGRESSION)],
    )
    def test_by_5_percent(self, value: float, judgement: Judgement) -> None:
        assert beside(metric(value), value=1000).judgement is judgement

    @pytest.mark.parametrize(("value", "judgement"), [(10.4, PASS), (10.6, REGRESSION), (9.4, IMPROVEMENT)])
    def test_where_less_is_better(self, value: float, judgement: Judgement) -> None:
        assert beside(Metric("m", "latency", value, "ms", Direction.LOWER), value=10).judgement is judgement

    @pytest.mark.parametrize(("value", "judgement"), [(-104, PASS), (-106, REGRESSION), (-94, IMPROVEMENT)])
    def test_below_zero(self, value: float, judgement: Judgement) -> None:
        assert beside(metric(value), value=-100).judgement is judgement

    def test_the_reason_says_it_all(self) -> None:
        said = beside(metric(1150), value=1230, lower=-0.05, unit="samples/s")
        assert said.reason == (
            "performance 1150 samples/s is 6.5 % below 1230 (models.json:12 references.gfx942, allowed 5 %)"
        )
        assert said.reference == 1230
        assert said.change == pytest.approx(-0.0650, abs=1e-4)
        assert (said.lower, said.upper, said.gates) == (-0.05, None, True)

    @pytest.mark.parametrize(
        ("one", "stated", "words"),
        [
            (metric(None), {}, "it was not measured"),
            (metric(float("nan")), {}, "it is nan"),
            (metric(float("inf")), {}, "it is inf"),
            (metric(0.0), {}, "it is 0"),
            (metric(100), {"unit": "tokens/s"}, "other unit: samples/s here, tokens/s in models.json:12"),
            (metric(100, unit=""), {"unit": "tokens/s"}, "other unit: none here"),
        ],
    )
    def test_what_has_no_verdict(self, one: Metric, stated: dict[str, Any], words: str) -> None:
        said = beside(one, value=100, **stated)
        assert said.judgement is NONE
        assert said.reason.startswith("no verdict on performance: ")
        assert words in said.reason

    def test_repeats_that_spread_too_far_have_no_verdict(self) -> None:
        said = beside(metric(98, 80, 120, 98, 110, 85), value=100)
        assert said.judgement is NONE
        assert "too noisy: the median of 5 repeats may be off by" in said.reason

    def test_a_drop_beyond_all_noise_is_a_regression_however_noisy(self) -> None:
        assert beside(metric(30, 25, 35, 30, 38, 22), value=100).judgement is REGRESSION

    def test_repeats_that_agree_have_one(self) -> None:
        assert beside(metric(98, 97.5, 98.1, 98, 98.2, 97.9), value=100).judgement is PASS


class TestBesideEarlierRuns:
    def past(self, *values: float, **more: Any) -> Past:
        return Past("the last 20 runs in perf.csv", values, "samples/s", **more)

    @pytest.mark.parametrize(("value", "judgement"), [(100, PASS), (98.5, PASS), (95, REGRESSION), (105, IMPROVEMENT)])
    def test_by_their_noise(self, value: float, judgement: Judgement) -> None:
        said = with_past(metric(value), self.past(*STEADY))
        assert said.judgement is judgement
        assert said.reference == 100

    def test_the_reason_names_the_runs_and_what_counts(self) -> None:
        said = with_past(metric(94), self.past(*STEADY))
        assert said.reason == (
            "performance 94 samples/s is 6 % below 100 (the last 20 runs in perf.csv, changes beyond 2 % count)"
        )
        assert said.lower == -0.02

    def test_a_bound_that_is_stated_counts_as_long_as_noise_does_not_hide_it(self) -> None:
        assert with_past(metric(95), self.past(*STEADY), Reference(lower=-0.08)).judgement is PASS
        assert with_past(metric(91), self.past(*STEADY), Reference(lower=-0.08)).judgement is REGRESSION
        hidden = with_past(metric(100), self.past(*STEADY), Reference(lower=-0.001))
        assert hidden.judgement is NONE
        assert "too noisy" in hidden.reason

    def test_noise_that_hides_5_percent_allows_no_pass(self) -> None:
        said = with_past(metric(99), self.past(*(90.0, 110.0, 100.0, 95.0, 105.0) * 4))
        assert said.judgement is NONE
        assert said.reason.startswith("no verdict on performance: too noisy: earlier runs tell changes beyond 2")

    def test_noise_that_more_runs_would_tell_is_too_few_samples(self) -> None:
        said = with_past(metric(100), self.past(*(98.2, 101.8, 100.0, 98.4, 101.6) * 2))
        assert said.judgement is NONE
        assert "too few samples: earlier runs tell changes beyond" in said.reason

    def test_less_than_ten_are_too_few(self) -> None:
        said = with_past(metric(100), self.past(*STEADY[:9]))
        assert said.reason == (
            "no verdict on performance: too few samples: the last 20 runs in perf.csv has 9 comparable values, "
            "10 are wanted"
        )

    def test_one_that_was_chosen_stands_for_a_stated_value(self) -> None:
        said = with_past(metric(94), self.past(100, single=True))
        assert said.judgement is REGRESSION
        assert "allowed 5 %" in said.reason

    def test_none_at_all(self) -> None:
        said = with_past(metric(94), Past("here", problem="no value of llama in here"))
        assert (said.judgement, said.gates) == (NONE, True)
        assert said.reason == "no verdict on performance: no value of llama in here"

    def test_another_unit(self) -> None:
        assert "other unit" in with_past(metric(94, unit="tokens/s"), self.past(*STEADY)).reason

    def test_earlier_runs_that_measured_nothing(self) -> None:
        assert "the reference is 0" in with_past(metric(94), self.past(*[0.0] * 20)).reason


class TestSideBySide:
    A = metric(100, 99.5, 100, 100.5, 99.8, 100.2)

    @pytest.mark.parametrize(
        ("samples", "judgement"),
        [
            ((99.4, 100.1, 100.4, 99.9, 100.3), PASS),
            ((95, 95.2, 94.8, 95.1, 94.9), REGRESSION),
            ((105, 105.2, 104.8, 105.1, 104.9), IMPROVEMENT),
            ((60, 140, 100, 75, 130), NONE),
        ],
    )
    def test_by_their_samples(self, samples: tuple[float, ...], judgement: Judgement) -> None:
        said = side_by_side(metric(sorted(samples)[2], *samples), self.A, "in image:a")
        assert said.judgement is judgement
        assert said.source == "in image:a"

    def test_too_few_of_a_side(self) -> None:
        said = side_by_side(metric(95, 95, 95), self.A, "in image:a")
        assert said.reason == "no verdict on performance: too few samples: 2 of each side, 5 are wanted"
        assert said.change == pytest.approx(-0.05)

    def test_a_small_difference_is_none_however_sure_it_is(self) -> None:
        exact = metric(100, 100, 100, 100, 100, 100)
        assert side_by_side(metric(99, 99, 99, 99, 99, 99), exact, "in a").judgement is PASS


class TestCompare:
    def expected(self, **values: float) -> dict[str, Expected]:
        return {name.replace("__", "/"): Expected(Reference(value=value), "here") for name, value in values.items()}

    def test_each_metric_finds_its_reference(self) -> None:
        metrics = [Metric("llama_b1", "performance", 1.0), Metric("llama_b2", "performance", 2.0)]
        said = compare(metrics, "llama", Basis(self.expected(b1__performance=1, b2__performance=4)))
        assert [each.judgement for each in said] == [PASS, REGRESSION]

    def test_a_reference_of_what_was_not_measured_has_no_verdict(self) -> None:
        (said,) = compare([metric(100)], "llama", Basis(self.expected(performnce=100)))
        assert said.judgement is NONE
        assert said.reason == "no verdict on performnce: it was not measured; did you mean 'performance'?"

    def test_a_gating_one_too(self) -> None:
        basis = Basis({"latency": Expected(Reference(value=1, gate=True), "here")})
        (said,) = compare([metric(100)], "llama", basis)
        assert (said.judgement, said.gates) == (NONE, True)

    def test_references_of_other_architectures_only_are_told_of(self) -> None:
        (said,) = compare([metric(100)], "llama", Basis({}, missing="no reference for gfx90a"))
        assert (said.judgement, said.gates) == (NONE, False)
        (said,) = compare([metric(100)], "llama", Basis({}, missing="the architecture is not known", certain=False))
        assert (said.judgement, said.gates) == (NONE, True)

    def test_nothing_expected_is_nothing_said(self) -> None:
        assert compare([metric(100)], "llama", Basis({})) == ()

    def test_stated_value_and_earlier_runs_both_count(self) -> None:
        past = Past("the past", STEADY, "samples/s")
        said = compare([metric(100)], "llama", Basis(self.expected(performance=200), lambda _: past))
        assert [each.judgement for each in said] == [REGRESSION, PASS]


@pytest.mark.parametrize(
    ("value", "text"), [(1230, "1230"), (12.5, "12.5"), (1234567.8, "1234568"), (0.00012345678, "0.000123457")]
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert number(value) == text
