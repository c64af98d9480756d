from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.results.performance import NEEDLES, SHOWN, Finder, Performance, finite

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**18), 10**18)
metrics = st.text(st.characters(categories=["L", "N"], include_characters="_/%"), min_size=1, max_size=9).filter(
    lambda text: not text.startswith("/")
)


def fed(*lines: str) -> Finder:
    finder = Finder()
    for line in lines:
        finder.feed(line)
    return finder


@pytest.mark.parametrize(
    ("line", "value", "metric"),
    [
        ("performance: 1234 samples_per_second", "1234", "samples_per_second"),
        ("performance: 1.2e3/s, tok", "1.2e3", "tok"),
        ("performance: 12.5 tokens/s", "12.5", "tokens/s"),
        ("performance: 12.5/s tokens", "12.5", "tokens"),
        ("performance: 12.5 /s, tokens", "12.5", "tokens"),
        ("performance: 12.5, tokens", "12.5", "tokens"),
        ("performance: -3 loss", "-3", "loss"),
        ("performance: +.5E-7 s", "+.5E-7", "s"),
        ("performance: 5. s,", "5.", "s"),
        ("performance:\t12\ttokens", "12", "tokens"),
        ("performance: 12", "12", ""),
        ("performance: 12   ", "12", ""),
        ("performance: 1234.50 x", "1234.50", "x"),
        ("performance: 007 x", "007", "x"),
        ("[rank0]: performance: 5 x", "5", "x"),
        ('{"text": "performance: 5 x"}', "5", 'x"}'),
        ("\x1b[1;32mperformance:\x1b[0m 5 x", "5", "x"),
        ("\x1b[?25hperformance: 5 x\x1b[0m", "5", "x"),
        ("performance: bad performance: 6 x", "6", "x"),
        ("performance: 5 x performance: 6 y", "5", "x"),
    ],
)
def test_a_stated_performance_is_read_as_it_was_printed(line: str, value: str, metric: str) -> None:
    assert fed(line).found == Performance(value, metric)


@pytest.mark.parametrize(
    "line",
    [
        "my_performance: 5 x",
        "throughput-performance: 5 x",
        "a.performance: 5 x",
        "Performance: 5 x",
        "performance 5 x",
        "performance of the model: 5 x",
        "",
    ],
)
def test_what_only_resembles_a_statement_is_none(line: str) -> None:
    finder = fed(line)
    assert (finder.found, finder.unreadable) == (None, "")


@pytest.mark.parametrize(
    "line",
    [
        "performance: 1,234 x",
        "performance: nan x",
        "performance: inf x",
        "performance: 1e999 x",
        "performance: n/a",
        "performance: 12tok",
        "performance: 1_000 x",
        "performance: 0x10 x",
        "performance:",
        "performance:5 x",
        "performance: 5 ,",
    ],
)
def test_a_value_that_is_no_number_is_told_and_not_taken(line: str) -> None:
    finder = fed("before", line)
    assert (finder.found, finder.unreadable) == (None, line)


def test_the_first_statement_counts_even_behind_one_that_cannot_be_read() -> None:
    finder = fed("performance: nan x", "performance: bad", "performance: 1 x", "performance: 2 y")
    assert finder.found == Performance("1", "x")
    assert finder.unreadable == "performance: nan x"


def test_a_metric_does_not_come_from_the_next_line() -> None:
    assert fed("performance: 12", "tokens").found == Performance("12", "")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("train_samples_per_second = 12.5", "12.5"),
        ("{'train_samples_per_second': 3.1e2, 'loss': 1}", "3.1e2"),
        ('"train_samples_per_second": 7}', "7"),
        ("  train_samples_per_second   =     7.5", "7.5"),
    ],
)
def test_what_the_trainer_prints_counts_where_the_model_states_nothing(line: str, value: str) -> None:
    assert fed(line).found == Performance(value, "samples_per_second")
    assert fed(line, "performance: 1 x").found == Performance("1", "x")
    assert fed("performance: 1 x", line).found == Performance("1", "x")


@pytest.mark.parametrize(
    "line", ["train_samples_per_second: 1.2.3", "train_samples_per_second: nan", "train_samples_per_second: 1e999"]
)
def test_a_trainers_value_that_is_no_number_is_not_taken(line: str) -> None:
    assert fed(line).found is None
    assert fed(line, "train_samples_per_second: 3").found == Performance("3", "samples_per_second")


@settings(deadline=None, max_examples=50)
@given(numbers, metrics, st.sampled_from([" ", "\t", "   ", ", "]))
def test_any_number_with_any_metric_is_read(number: float, metric: str, between: str) -> None:
    found = fed(f"epoch 3 performance: {number}{between}{metric}").found
    assert found == Performance(str(number), metric)
    assert finite(found.value)


@settings(deadline=None, max_examples=60)
@given(st.text())
def test_no_text_breaks_the_finder(text: str) -> None:
    finder = fed(text, f"performance: {text}", f"train_samples_per_second={text}")
    assert finder.found is None or finite(finder.found.value)


@pytest.mark.parametrize("text", ["1" * 100_000, "1." + "1" * 100_000, " " * 100_000, "\x1b[" * 50_000])
def test_a_hopeless_line_takes_no_time_and_little_room(text: str) -> None:
    began = time.perf_counter()
    finder = fed(f"performance: {text}x")
    assert time.perf_counter() - began < 1
    assert finder.found is None
    assert len(finder.unreadable) <= SHOWN


@pytest.mark.parametrize("text", ["1", "-1", "+1", "1.", ".5", "1e5", "1E-5", "007"])
def test_numbers_that_every_reader_knows_are_finite(text: str) -> None:
    assert finite(text)


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "nan", "inf", "-Infinity", "1e999", "1_000", "\uff11", "1,5", "0x1", "1e", "x"]
)
def test_other_spellings_and_values_beyond_all_bounds_are_not(text: str) -> None:
    assert not finite(text)


@pytest.mark.parametrize("line", ["performance: 5 x", "train_samples_per_second: 5"])
def test_every_line_that_says_something_holds_a_needle(line: str) -> None:
    assert fed(line).found
    assert any(needle in line.encode() for needle in NEEDLES)
