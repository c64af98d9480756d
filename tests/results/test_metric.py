from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.results.metric import Direction, Metric, direction_of, metrics_of, number
from pytest_madengine.results.result import Row


def row(model: str, performance: str = "", unit: str = "", **multi: str) -> Row:
    return Row({"model": model, "performance": performance, "metric": unit}, multi or None)


@pytest.mark.parametrize(
    "unit",
    [
        *("samples_per_second", "tokens/s", "tok/s", "images/sec", "TFLOPS", "GB/s", "tokens_per_sec_per_gpu", ""),
        *("req/min", "throughput", "fps", "accuracy", "samples/watt", "MB_per_second", "speedup"),
    ],
)
def test_more_is_better_of_rates_and_of_what_nobody_knows(unit: str) -> None:
    assert direction_of(unit) is Direction.HIGHER


@pytest.mark.parametrize(
    "unit", ["ms", "seconds", "s", "latency", "latency_ms", "loss", "perplexity", "GiB", "joules", "TTFT (ms)"]
)
def test_less_is_better_of_times_and_sizes(unit: str) -> None:
    assert direction_of(unit) is Direction.LOWER


def test_the_unit_tells_before_the_name() -> None:
    assert direction_of("tok/s", "latency") is Direction.HIGHER
    assert direction_of("", "p99_latency") is Direction.LOWER


def test_a_rows_performance_is_a_metric_whether_it_was_measured_or_not() -> None:
    assert metrics_of([row("a", "12.50", "ms"), row("b", "", "tok/s")]) == (
        Metric("a", "performance", 12.5, "ms", Direction.LOWER, (12.5,)),
        Metric("b", "performance", None, "tok/s"),
    )


def test_further_columns_are_metrics_where_they_are_numbers() -> None:
    rows = [row("a", "1", "x", latency_ms="3.5", note="fast"), row("b", "2", "x", loss="nan", mfu="0.4")]
    assert [(each.row, each.name, each.value) for each in metrics_of(rows)] == [
        ("a", "performance", 1.0),
        ("b", "performance", 2.0),
        ("a", "latency_ms", 3.5),
        ("b", "mfu", 0.4),
    ]
    assert metrics_of(rows)[2].direction is Direction.LOWER


@given(st.text())
def test_what_is_no_finite_number_is_none(text: str) -> None:
    found = number(text)
    assert found is None or float("-inf") < found < float("inf")


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "", "12 ms", "1e999"])
def test_numbers_that_say_nothing_are_none(text: str) -> None:
    assert number(text) is None
