from __future__ import annotations

import copy
import io
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from pytest_madengine.engine.board import Board, Entry, Phase
from pytest_madengine.reporting.live import LiveDisplay
from pytest_madengine.results.perf import SUCCESS

CONTROL = re.compile(r"\x1b\[(\??\d*)([A-Za-z])")
PATIENCE = 30


class Terminal:
    """What stands on a terminal after the bytes that rich writes: lines, and a cursor that moves up and erases."""

    def __init__(self, width: int = 60, height: int = 24, encoding: str = "utf-8") -> None:
        self._bytes = io.BytesIO()
        self._file = io.TextIOWrapper(self._bytes, encoding=encoding, write_through=True)
        self.console = Console(file=self._file, force_terminal=True, width=width, height=height)

    def write(self, text: str) -> None:
        self._file.write(text)

    @property
    def written(self) -> str:
        return self._bytes.getvalue().decode(str(self._file.encoding))

    @property
    def lines(self) -> list[str]:
        lines, row, column = [""], 0, 0
        for part in re.split(r"(\x1b\[\??\d*[A-Za-z]|\r|\n)", self.written):
            control = CONTROL.fullmatch(part)
            if part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row == len(lines))
            elif part == "\r":
                column = 0
            elif control and control[2] == "A":
                row -= int(control[1] or 1)
            elif control and control[2] == "K":
                lines[row] = ""
            elif not control:
                lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
                column += len(part)
        return lines

    @property
    def cursor_hidden(self) -> bool:
        return self.written.rfind("\x1b[?25l") > self.written.rfind("\x1b[?25h")


class Asked:
    """A board that counts how often it is asked for; an answer means that the one before it is on the screen."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.count = 0
        self._again = threading.Condition()

    def __call__(self) -> Board:
        with self._again:
            self.count += 1
            self._again.notify_all()
            return copy.deepcopy(self.board)

    def shown(self) -> None:
        """Return when what the board holds now is drawn."""
        with self._again:
            wanted = self.count + 2
            assert self._again.wait_for(lambda: self.count >= wanted, PATIENCE)


@pytest.fixture(autouse=True)
def able_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def entry(name: str, phase: Phase = Phase.RUNNING, detail: str = "", ago: float = 0, directory: object = "") -> Entry:
    return Entry(f"models.json::{name}", phase, detail, time.time() - ago, directory=str(directory))


def board(*entries: Entry) -> Board:
    return Board(items={each.item: each for each in entries})


def drawn(shown: Board, terminal: Terminal | None = None) -> list[str]:
    """What one picture of a board shows."""
    terminal = terminal or Terminal()
    display = LiveDisplay(lambda: shown, terminal.console)
    display.start()
    lines = terminal.lines
    display.stop()
    return lines


def test_a_line_for_each_model_that_something_is_done_for_stands_below_the_counts(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("epoch 1\n 10%\r 50%\r", encoding="utf-8")
    entries = [
        entry("llama3", Phase.BUILDING, "docker/x.Dockerfile", ago=5.5),
        entry("bert", ago=185.5, directory=tmp_path),
        entry("later", Phase.QUEUED),
        Entry("models.json::over", Phase.DONE, status=SUCCESS),
    ]
    assert drawn(board(*entries)) == [
        "1 queued, 1 building, 1 running, 1 done",
        "llama3  building  5 s         docker/x.Dockerfile",
        "bert    running   3 min 05 s  50%",
    ]


def test_a_board_without_work_is_its_counts() -> None:
    assert drawn(Board()) == ["0 models"]


def test_after_stop_nothing_of_it_is_left_and_the_terminal_goes_on_where_it_was() -> None:
    terminal = Terminal()
    display = LiveDisplay(lambda: board(entry("a"), entry("b")), terminal.console)
    terminal.write("before\n")
    for line in ("one", "two"):
        display.start()
        assert terminal.cursor_hidden
        assert len([text for text in terminal.lines if "running" in text]) == 3
        display.stop()
        assert not terminal.cursor_hidden
        terminal.write(f"{line}\n")
    assert [text for text in terminal.lines if text] == ["before", "one", "two"]
    assert terminal.lines[:3] == ["before", "one", "two"]


def test_start_and_stop_may_be_called_again_and_again() -> None:
    terminal = Terminal()
    display = LiveDisplay(lambda: board(entry("a")), terminal.console)
    display.stop()
    for _ in range(30):
        display.start()
        display.start()
        assert len(terminal.lines[1:]) == 1
        display.stop()
        display.stop()
    assert not any(terminal.lines)


def test_it_follows_the_board_by_itself() -> None:
    terminal, asked = Terminal(), Asked(board(entry("a", Phase.PENDING, "Resources")))
    display = LiveDisplay(asked, terminal.console)
    display.start()
    assert "Resources" in terminal.lines[1]
    asked.board = board(entry("a"), entry("b"))
    asked.shown()
    display.stop()
    assert "2 running" in terminal.written
    assert not any(terminal.lines)


def test_stopped_it_asks_nobody_and_its_thread_ends() -> None:
    others, asked = set(threading.enumerate()), Asked(board(entry("a")))
    display = LiveDisplay(asked, Terminal().console)
    display.start()
    asked.shown()
    own = set(threading.enumerate()) - others
    display.stop()
    count = asked.count
    for thread in own:
        thread.join(PATIENCE)
    assert [thread.is_alive() for thread in own] == [False]
    assert asked.count == count


def test_a_terminal_that_is_too_low_shows_as_many_as_fit_and_counts_the_others() -> None:
    lines = drawn(board(*(entry(f"m{number}") for number in range(50))), Terminal(height=14))
    assert lines[0] == "50 running"
    assert [line.split()[0] for line in lines[1:-1]] == [f"m{number}" for number in range(10)]
    assert lines[-1] == "… and 40 more"


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5])
def test_the_lowest_terminals_are_not_overfilled(height: int) -> None:
    terminal = Terminal(height=height)
    assert len(drawn(board(*(entry(f"m{number}") for number in range(9))), terminal)) <= height
    assert not any(terminal.lines)


def test_only_logs_of_shown_models_are_read() -> None:
    unreadable = [entry(f"m{number}", directory="\0") for number in range(9)]
    lines = drawn(board(entry("first"), *unreadable), Terminal(height=5))
    assert lines[-1] == "… and 9 more"
    with pytest.raises(ValueError, match="null"):
        drawn(board(*unreadable), Terminal(height=5))


@pytest.mark.parametrize("width", [1, 10, 20, 40, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    entries = [entry("n" * 50, Phase.PENDING, "why " * 50), entry("日本" * 20, detail="語" * 90)]
    terminal = Terminal(width=width)
    lines = drawn(board(*entries), terminal)
    assert max(cell_len(line) for line in lines) <= width
    assert len(lines) == 3


def test_a_long_name_leaves_room_for_what_is_done() -> None:
    lines = drawn(board(entry("n" * 200, detail="epoch 7")), Terminal(width=60))
    assert lines[1] == f"{'n' * 30}  running  0 s  epoch 7"


def test_wide_characters_keep_the_columns_in_line() -> None:
    lines = drawn(board(entry("日本", detail="x"), entry("four", detail="x")))
    assert lines[1:3] == ["日本  running  0 s  x", "four  running  0 s  x"]


def test_words_of_users_are_no_markup(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("[link=x]:smile:[/link] [/]\n", encoding="utf-8")
    lines = drawn(board(entry("[red]a[/red]", directory=tmp_path), entry("b[0]", Phase.PENDING, "[/nothing]")))
    assert lines[1].startswith("[red]a[/red]  running")
    assert lines[1].endswith("[link=x]:smile:[/link] [/]")
    assert lines[2].endswith("[/nothing]")


def test_words_of_users_do_not_steer_the_terminal() -> None:
    terminal = Terminal()
    assert drawn(board(entry("a\x1b[2J", detail="b\x1b]0;title\x07\rc\nd")), terminal)[1] == "a  running  0 s  b c d"
    assert "\x1b[2J" not in terminal.written


def test_a_terminal_without_unicode_gets_question_marks() -> None:
    entries = [entry(f"ü{number}") for number in range(9)]
    lines = drawn(board(*entries), Terminal(height=5, encoding="latin-1"))
    assert lines[1].startswith("?0  running")
    assert lines[2] == "? and 8 more"


@pytest.mark.parametrize("make", [lambda: Console(file=io.StringIO(), force_terminal=False), None])
def test_whatever_is_no_terminal_is_left_alone(
    make: Callable[[], Console] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    console = make() if make else None
    display = LiveDisplay(lambda: board(entry("a")), console)
    display.start()
    display.stop()
    assert capsys.readouterr().out == ""
    if console:
        assert isinstance(console.file, io.StringIO)
        assert console.file.getvalue() == ""


def test_a_dumb_terminal_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert drawn(board(entry("a"))) == [""]


def test_output_of_others_is_not_redirected(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    display = LiveDisplay(lambda: board(entry("a")), terminal.console)
    display.start()
    print("elsewhere")  # noqa: T201  # what a test's code may do
    display.stop()
    assert capsys.readouterr().out == "elsewhere\n"
    assert "elsewhere" not in terminal.written


def test_a_board_that_another_thread_changes_may_be_shown_meanwhile() -> None:
    lock, changing, asked = threading.Lock(), Board(), threading.Semaphore(0)

    def snapshot() -> Board:
        with lock:
            asked.release()
            return copy.deepcopy(changing)

    def change() -> None:
        for number in range(3000):
            with lock:
                changing.apply({"kind": "phase", "item": f"x::m{number % 40}", "phase": "running", "time": number})

    display, thread = LiveDisplay(snapshot, Terminal().console), threading.Thread(target=change)
    display.start()
    thread.start()
    while thread.is_alive():
        display.stop()
        display.start()
    assert asked.acquire(timeout=PATIENCE)
    display.stop()
    thread.join()
    assert drawn(changing, Terminal(height=50))[0] == "40 running"


def test_the_cursor_returns_to_the_line_that_it_came_from() -> None:
    written = io.StringIO()
    display = LiveDisplay(Board, Console(file=written, force_terminal=True, width=80, height=24))
    display.start(column=12)
    display.stop()
    assert written.getvalue().startswith("\n")
    assert written.getvalue().endswith("\x1b[1A\x1b[12C")
