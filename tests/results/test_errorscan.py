from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.results.errorscan import BENIGN, OFF, PATTERNS, Rules, rules

DEFAULT = Rules()
texts = st.text(min_size=1)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_default_pattern_makes_a_line_an_error(pattern: str) -> None:
    assert DEFAULT.error_in(f"rank 0: {pattern} something") == pattern


@pytest.mark.parametrize("marker", BENIGN)
def test_each_benign_marker_excuses_its_line(marker: str) -> None:
    assert DEFAULT.error_in(f"RuntimeError: {marker} again") == ""


@pytest.mark.parametrize(
    "line",
    [
        "E20260101 12:00 generateRocpd.cpp:614] RuntimeError: x",
        "W20260101 12:00 simple_timer.cpp:55] FAILED",
        "W20260101 12:00 generateRocpd.cpp:1] FAILED",
        "E20260101 12:00 tool.cpp:9] Exception: x",
        "x [rocprofv3] FAILED",
    ],
)
def test_what_the_profiler_prints_is_benign(line: str) -> None:
    assert DEFAULT.error_in(line) == ""
    assert DEFAULT.error_in(line.replace("20260101", "").replace("[rocprofv3]", "")) != ""


@pytest.mark.parametrize(
    "line",
    [
        "tests FAILED: 0",
        "FAILED=0 PASSED=12",
        "FAILED: 0, PASSED: 12",
        "FAILED: 0,PASSED: 12",
        "12 passed, 0 FAILED",
        "FAILED : 0.",
        "(0 FAILED)",
        "failed",
        "runtimeerror:",
        "",
    ],
)
def test_a_count_of_no_failures_is_no_error(line: str) -> None:
    assert DEFAULT.error_in(line) == ""


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("tests FAILED: 10", "FAILED"),
        ("tests FAILED: 03", "FAILED"),
        ("check FAILED: 0.7 > 0.5", "FAILED"),
        ("check FAILED: 0,7 > 0,5", "FAILED"),
        ("FAILED: 0x1f", "FAILED"),
        ("test_v1.0 FAILED", "FAILED"),
        ("run-0 FAILED", "FAILED"),
        ("10 FAILED", "FAILED"),
        ("1,000 FAILED", "FAILED"),
        ("FAILED: 0 but then RuntimeError: x", "RuntimeError:"),
        ("FAILED: 0, FAILED: 1", "FAILED"),
    ],
)
def test_a_zero_excuses_nothing_but_itself(line: str, pattern: str) -> None:
    assert DEFAULT.error_in(line) == pattern


def test_switched_off_there_are_no_errors() -> None:
    off = rules(enabled=False, patterns=["x"], benign=[])
    assert off is OFF
    assert off.needles() == ()
    assert off.error_in("RuntimeError: Traceback (most recent call last)") == ""


@pytest.mark.parametrize("enabled", [True, None])
def test_switched_on_the_defaults_hold(enabled: bool | None) -> None:  # noqa: FBT001
    assert rules(enabled, None, []) == DEFAULT


def test_own_patterns_replace_the_list_and_own_benign_texts_add_to_it() -> None:
    own = rules(None, ["NCCL WARN"], ["harmless"])
    assert own.error_in("RuntimeError: x") == ""
    assert own.error_in("NCCL WARN x") == "NCCL WARN"
    assert own.error_in("NCCL WARN harmless") == ""
    assert own.error_in(f"NCCL WARN {BENIGN[0]}") == ""


def test_an_empty_list_of_patterns_finds_nothing() -> None:
    assert rules(None, [], []).error_in("RuntimeError: x") == ""


def test_patterns_are_literal() -> None:
    assert rules(None, ["a.c"], []).error_in("abc") == ""
    assert rules(None, ["failed (exitcode:"], []).error_in("failed (exitcode: 1)") == "failed (exitcode:"


@settings(deadline=None, max_examples=40)
@given(st.lists(texts), st.lists(texts), st.text())
def test_a_line_without_a_needle_is_no_error(patterns: list[str], benign: list[str], line: str) -> None:
    own = rules(None, patterns, benign)
    if not any(needle in line.encode() for needle in own.needles()):
        assert own.error_in(line) == ""


@settings(deadline=None, max_examples=40)
@given(st.lists(texts, min_size=1), st.text())
def test_the_error_of_a_line_is_a_pattern_that_stands_in_it(patterns: list[str], line: str) -> None:
    found = rules(None, patterns, []).error_in(line)
    assert found == "" or (found in patterns and found in line)
