from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine.backends.base import Outcome, Phase, State
from pytest_madengine.engine import logscan
from pytest_madengine.engine.logscan import Scan
from pytest_madengine.results.errorscan import OFF, Rules
from pytest_madengine.results.performance import Performance
from pytest_madengine.secrets import Masker

MB = 1 << 20
RESULT = Performance("5", "x")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "run.log"


def of_model(log: Path, start: int = 0, end: int = -1) -> Outcome:
    return Outcome(State.EXITED, 0, log, phases=(Phase("model", 0, 1, 0, start, end),))


def scan(log: Path, *parts: bytes, rules: Rules | None = None) -> Scan:
    """Scans a log of which the model wrote the second of three parts, or all of one."""
    before, model, behind = parts if len(parts) > 1 else (b"", *parts, b"")
    log.write_bytes(before + model + behind)
    return logscan.scan(of_model(log, len(before), len(before + model)), rules or Rules())


def test_the_models_own_performance_is_found(log: Path) -> None:
    found = scan(log, b"epoch 1\nperformance: 5 x\ndone\n")
    assert (found.finder.found, found.error) == (RESULT, "")


@pytest.mark.parametrize("said", [b"performance: 7 y\n", b"RuntimeError: x\n", b"performance: nan\n"])
def test_what_other_steps_printed_counts_neither_for_nor_against_the_model(log: Path, said: bytes) -> None:
    found = scan(log, said, b"performance: 5 x\n", said)
    assert (found.finder.found, found.finder.unreadable, found.error) == (RESULT, "", "")
    assert scan(log, said, b"nothing\n", said).finder.found is None


def test_a_step_that_never_ended_reaches_to_the_logs_end(log: Path) -> None:
    log.write_bytes(b"performance: 1 y\nperformance: 5 x")
    assert logscan.scan(of_model(log, 17), Rules()).finder.found == RESULT


def test_a_run_without_a_model_step_says_nothing(log: Path) -> None:
    log.write_bytes(b"performance: 5 x\nRuntimeError: x\n")
    found = logscan.scan(Outcome(State.EXITED, 0, log, phases=(Phase("prepare", 0, 1, 1, 0, -1),)), Rules())
    assert (found.finder.found, found.error) == (None, "")


def test_the_first_error_is_told_with_its_pattern(log: Path) -> None:
    found = scan(log, b"fine\n  ValueError: bad\nRuntimeError: worse\n")
    assert found.error == "'ValueError: bad' (pattern 'ValueError:')"
    assert scan(log, b"RuntimeError: x\n", rules=OFF).error == ""


def test_an_error_in_a_long_line_is_shown_cut(log: Path) -> None:
    assert len(scan(log, b"RuntimeError: " + b"x" * 5000).error) < logscan.SHOWN + 50


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n", b"\n\n"])
def test_lines_end_as_terminals_end_them(log: Path, end: bytes) -> None:
    found = scan(log, end.join([b"50%", b"100%", b"performance: 5 x", b"RuntimeError: y"]))
    assert found.finder.found == RESULT
    assert found.error.startswith("'RuntimeError: y'")


def test_bytes_that_are_no_utf8_hide_nothing(log: Path) -> None:
    assert scan(log, b"\xff\xfe performance: 5 x \xc3\n").finder.found == RESULT


lines = st.lists(st.sampled_from([b"performance: 5 x", b"FAILED", b"x", b"", b"\xff" * 20, b"0 FAILED"]))
ends = st.sampled_from([b"\n", b"\r", b"\r\n"])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(lines, ends, st.integers(24, 60))
def test_where_blocks_end_does_not_matter(
    log: Path, monkeypatch: pytest.MonkeyPatch, parts: list[bytes], end: bytes, block: int
) -> None:
    text = end.join(parts)
    monkeypatch.setattr(logscan, "BLOCK", 1 << 22)
    whole = scan(log, text)
    monkeypatch.setattr(logscan, "BLOCK", block)
    pieces = scan(log, text)
    assert (pieces.finder.found, pieces.error) == (whole.finder.found, whole.error)
    assert (pieces.finder.found is not None) == (b"performance: 5 x" in parts)
    assert bool(pieces.error) == (b"FAILED" in parts)


def test_a_last_line_without_end_is_never_cut(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in range(20, 40):
        monkeypatch.setattr(logscan, "BLOCK", block)
        assert scan(log, b"x" * 18 + b"\nperformance: 5 x").finder.found == RESULT


def peak(log: Path) -> int:
    tracemalloc.start()
    try:
        assert logscan.scan(of_model(log), Rules()).finder.found == RESULT
        logscan.mask(log, Masker(["hunter2-secret"]))
        assert logscan.tail(log)[-1] == "performance: 5 x"
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_huge_log_without_line_ends_takes_little_memory(log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(96 * MB)
        file.seek(0, os.SEEK_END)
        file.write(b"\nperformance: 5 x\n")
    assert peak(log) < 48 * MB


def test_a_huge_progress_bar_takes_little_memory(log: Path) -> None:
    chunk = b"".join(b"\r%6d/999999 [=====>      ] 12.5 it/s" % number for number in range(25_000))
    with log.open("wb") as file:
        for _ in range(70):
            file.write(chunk)
        file.write(b"\rperformance: 5 x")
    assert log.stat().st_size > 60 * MB
    assert peak(log) < 48 * MB


def test_a_log_whose_every_block_looks_suspicious_is_read_in_reasonable_time(log: Path) -> None:
    with log.open("wb") as file:
        for _ in range(5):
            file.write(b"step 123 loss 0.123 lr 1e-4 tokens/s 12345\n" * 20_000)
            file.write(b"tests FAILED: 0\n")
        file.write(b"performance: 5 x\n")
    began = time.perf_counter()
    found = logscan.scan(of_model(log), Rules())
    assert (found.finder.found, found.error) == (RESULT, "")
    assert time.perf_counter() - began < 5


def test_a_secret_is_masked_wherever_it_stands_and_no_position_moves(log: Path) -> None:
    before, model = b"login hunter2-secret\n", b"performance: 5 x\nkey=hunter2-secret\n"
    log.write_bytes(before + model + b"performance: 7 y\n")
    outcome = of_model(log, len(before), len(before + model))
    logscan.mask(log, Masker(["hunter2-secret"]))
    text = log.read_bytes()
    assert text == b"login **************\nperformance: 5 x\nkey=**************\nperformance: 7 y\n"
    assert logscan.scan(outcome, Rules()).finder.found == RESULT
    assert [path.name for path in log.parent.iterdir()] == [log.name]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.sampled_from([b"hunter2-secret", b"a", b"hunter2", b""])), st.integers(16, 40))
def test_a_secret_at_a_blocks_end_is_masked_too(
    log: Path, monkeypatch: pytest.MonkeyPatch, parts: list[bytes], block: int
) -> None:
    monkeypatch.setattr(logscan, "BLOCK", block)
    log.write_bytes(b"\n".join(parts))
    logscan.mask(log, Masker(["hunter2-secret"]))
    assert log.read_bytes() == b"\n".join(parts).replace(b"hunter2-secret", b"*" * 14)


@pytest.mark.parametrize("secrets", [[], ["hunter2-secret"]])
def test_a_log_without_secrets_is_left_alone(log: Path, secrets: list[str]) -> None:
    log.write_bytes(b"nothing\n")
    before = log.stat()
    logscan.mask(log, Masker(secrets))
    assert log.stat() == before


def test_the_tail_is_the_last_lines_that_say_something(log: Path) -> None:
    log.write_bytes(b"".join(b"line %d\n\n  \r" % number for number in range(100)))
    assert logscan.tail(log) == tuple(f"line {number}" for number in range(80, 100))


def test_the_tail_of_a_large_log_reads_only_its_end(log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(MB << 12)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast \xff line")
    assert logscan.tail(log)[-1] == "last \ufffd line"


def test_a_long_line_of_the_tail_keeps_its_end(log: Path) -> None:
    log.write_bytes(b"x" * 5000 + b"END\n")
    (line,) = logscan.tail(log)
    assert line.endswith("xEND")
    assert len(line) == logscan.SHOWN


def test_no_log_has_no_tail(log: Path) -> None:
    assert logscan.tail(log) == ()
    log.touch()
    assert logscan.tail(log) == ()
