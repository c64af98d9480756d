from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Board, Phase
from pytest_madengine.engine.journal import Record
from pytest_madengine.reporting.status import (
    LAST_BYTES,
    Changes,
    active,
    change,
    counts,
    elapsed,
    last_line,
    plain,
    report,
    title,
)
from pytest_madengine.results.perf import FAILURE, SKIPPED, SUCCESS

NOON = 1767268800.0
"""2026-01-01 12:00:00 UTC."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "run.log"


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def opened(*names: str, **further: Any) -> Record:
    return {"kind": journal.RUN, "time": NOON, "items": [f"models.json::{name}" for name in names], **further}


def phase(name: str, phase: str, detail: str = "", at: float = NOON) -> Record:
    record = {"kind": journal.PHASE, "time": at, "item": f"models.json::{name}", "job": name, "phase": phase}
    return record | ({"detail": detail} if detail else {})


def submitting(name: str, directory: Path | str) -> Record:
    known = {"item": f"models.json::{name}", "job": name, "number": 1, "backend": "host", "directory": str(directory)}
    return {"kind": journal.SUBMITTING, "time": NOON, **known}


def result(name: str, status: str, reason: str = "") -> Record:
    known = {"item": f"models.json::{name}", "job": name, "number": 1, "directory": ""}
    return {"kind": journal.RESULT, "time": NOON, "status": status, "reason": reason, **known}


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("models.json::llama3", "llama3"),
        ("a/b/models.json::llama3[fp8]", "llama3[fp8]"),
        ("test_x.py::Test::test_it", "test_it"),
        ("alone", "alone"),
    ],
)
def test_an_item_is_called_by_the_end_of_its_node_id(item: str, said: str) -> None:
    assert title(item) == said


def test_an_empty_board_has_no_models() -> None:
    assert counts(Board()) == "0 models"


def test_phases_are_counted_in_their_order_without_those_that_nobody_is_in() -> None:
    board = Board.of([opened(*"abcdefg"), result("a", FAILURE), result("b", SUCCESS), phase("c", "running")])
    assert counts(board) == "4 queued, 1 running, 2 done (1 failed)"
    assert counts(Board.of([result("a", SUCCESS), result("b", SKIPPED)])) == "2 done"


def test_a_model_that_is_tried_again_has_not_failed() -> None:
    board = Board.of([result("a", FAILURE), phase("a", "pending")])
    assert counts(board) == "1 pending"
    assert not any("failed" in line for line in report(board, NOON))


def test_models_that_wait_for_the_scheduler_come_behind_those_that_make_progress() -> None:
    phases = [phase("a", "pending"), phase("b", "running"), phase("c", "pending"), phase("d", "building")]
    board = Board.of([opened(*"abcdef"), *phases, result("e", SUCCESS)])
    assert [title(entry.item) for entry in active(board)] == ["b", "d", "a", "c"]


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (phase("llama3", "pending", "Resources"), "llama3: pending (Resources)"),
        (phase("llama3", "running"), "llama3: running"),
        (phase("llama3", "building", "docker/x.Dockerfile"), "llama3: building docker/x.Dockerfile"),
        (phase("llama3", "pulling", "ghcr.io/x:1"), "llama3: pulling ghcr.io/x:1"),
        (phase("llama3", "pending", "two\nlines\x1b[1m"), "llama3: pending (two lines)"),
    ],
)
def test_a_change_of_phase_is_one_line(record: Record, line: str) -> None:
    assert change(record) == line


@pytest.mark.parametrize(
    "record",
    [opened("a"), submitting("a", "/x"), result("a", FAILURE, "why"), phase("a", "done"), {"kind": "later"}, {}],
)
def test_what_changes_no_phase_or_pytest_shows_itself_is_no_line(record: Record) -> None:
    assert change(record) is None
    assert Changes().line(record) is None


def test_every_phase_but_the_last_is_told() -> None:
    assert [each for each in Phase if not change(phase("a", each.value))] == [Phase.DONE]


def test_no_line_is_told_twice_in_a_row_for_an_item() -> None:
    changes = Changes()
    records = [phase("a", "pending"), phase("b", "pending"), phase("a", "pending"), phase("a", "running")]
    told = [changes.line(record) for record in (*records, phase("a", "pending"), result("a", SUCCESS))]
    assert told == ["a: pending", "b: pending", None, "a: running", "a: pending", None]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"one\ntwo\n", "two"),
        (b"one\r\ntwo\r\n\r\n \t\n", "two"),
        (b"still being writ", "still being writ"),
        (b" 10%|#   |\r 50%|##  |\r100%|####|", "100%|####|"),
        (b"epoch 1\n 10%\r 50%\r", "50%"),
        (b"\x1b[1;31mred\x1b[0m and \x1b]8;;http://x\x1b\\link\x1b]8;;\x07\n\x1b[0m\x1b[K\n", "red and link"),
        (b"a\tb\x00\x07\x08\x7fc\n", "a bc"),
        ("fünf ▏▎▍\u202e\u00a0x\n".encode(), "fünf ▏▎▍ x"),
        (b"caf\xe9\n", "caf\ufffd"),
        (b"said\n\x00\x01\x02\n", "said"),
        (b"\n\n", ""),
        (b"", ""),
    ],
)
def test_the_last_line_is_the_last_that_says_something(log: Path, content: bytes, line: str) -> None:
    log.write_bytes(content)
    assert last_line(str(log.parent)) == line


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from([b"\x1b", b"[", b"]", b"\r", b"\n", b"a", b"\xc3"])).map(b"".join)
)
def test_any_bytes_give_one_printable_line(log: Path, content: bytes) -> None:
    log.write_bytes(content)
    line = last_line(str(log.parent))
    assert line.isprintable()
    assert line == line.strip()


@settings(deadline=None)
@given(st.text(st.characters(codec=None)))
def test_any_text_becomes_one_line_that_any_terminal_takes(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(text).encode().decode() == plain(text)


def test_only_the_end_of_a_log_is_read(log: Path) -> None:
    log.write_bytes(b"early\n" + b"\n" * LAST_BYTES)
    assert last_line(str(log.parent)) == ""
    log.write_bytes(b"early\n" + b"\n" * (LAST_BYTES - 6))
    assert last_line(str(log.parent)) == "early"


def test_a_line_that_is_longer_than_what_is_read_is_cut(log: Path) -> None:
    log.write_bytes(b"x" * 10 * LAST_BYTES)
    assert set(last_line(str(log.parent))) == {"x"}
    assert len(last_line(str(log.parent))) < LAST_BYTES


def test_without_a_log_there_is_no_last_line(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert last_line(str(log.parent)) == ""
    assert last_line(str(log.parent / "missing")) == ""
    log.mkdir()
    assert last_line(str(log.parent)) == ""
    log.rmdir()
    log.write_text("of somebody else\n", encoding="utf-8")
    monkeypatch.chdir(log.parent)
    assert last_line("") == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (0.9, "0 s"),
        (12.7, "12 s"),
        (59.99, "59 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (2 * 3600 + 7 * 60 + 59, "2 h 07 min"),
        (100 * 3600, "100 h 00 min"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert elapsed(seconds) == said


@pytest.mark.usefixtures("utc")
def test_a_report_tells_of_the_run_of_what_is_being_done_and_of_what_failed(log: Path) -> None:
    log.write_text("epoch 1\nepoch 2\n", encoding="utf-8")
    records = [
        opened("llama3", "bert", "t5", "vit", "gpt2", id="r7", target="slurm", host="login1", pid=42),
        phase("llama3", "pending", "Resources"),
        submitting("bert", log.parent),
        phase("bert", "running", at=NOON + 60),
        phase("t5", "building", "docker/t5.Dockerfile", at=NOON + 120),
        result("vit", FAILURE, "no performance\nin its log"),
    ]
    assert report(Board.of(records), NOON + 125) == [
        "run r7, target slurm, started 2026-01-01 12:00:00, host login1, pid 42, running for 2 min 05 s",
        "1 queued, 1 building, 1 pending, 1 running, 1 done (1 failed)",
        "",
        "model   phase        elapsed  detail",
        "bert    running   1 min 05 s  epoch 2",
        "t5      building         5 s  docker/t5.Dockerfile",
        "llama3  pending   2 min 05 s  Resources",
        "",
        "failed:",
        "  vit: no performance in its log",
    ]


@pytest.mark.usefixtures("utc")
def test_a_run_that_has_ended_says_so() -> None:
    board = Board.of([opened("a", id="r7", ended=True), result("a", SUCCESS)])
    assert report(board, NOON + 9) == ["run r7, started 2026-01-01 12:00:00, ended", "1 done"]


def test_a_report_of_a_board_without_a_run_says_the_little_it_knows() -> None:
    assert report(Board(), NOON) == ["running", "0 models"]


def test_a_schedulers_words_go_before_the_log_which_speaks_only_while_the_job_runs(log: Path) -> None:
    log.write_text("of the first try\n", encoding="utf-8")
    known = submitting("a", log.parent)

    def detail(*records: Record) -> str:
        return report(Board.of([known, *records]), NOON)[-1].partition("0 s")[2].strip()

    assert detail(phase("a", "running")) == "of the first try"
    assert detail(phase("a", "collecting")) == "of the first try"
    assert detail(phase("a", "running", "Suspended")) == "Suspended"
    assert detail(phase("a", "pending")) == ""
    assert detail(phase("a", "building")) == ""


def test_a_report_is_of_printable_lines_whatever_names_and_reasons_hold() -> None:
    nasty = "x\x1b[2Jy\nz\udc80"
    board = Board.of([opened("b", id=nasty), phase(nasty, "pending", nasty), result("b", FAILURE, nasty)])
    assert all(line.isprintable() for line in report(board, NOON))
    assert report(board, NOON)[-1] == "  b: xy z"
