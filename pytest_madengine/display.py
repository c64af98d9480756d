"""Shows what is done for models while pytest waits for them: live on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_madengine.backends.facts import LOG
from pytest_madengine.engine.board import Board, Phase
from pytest_madengine.engine.journal import Record
from pytest_madengine.reporting.follow import Follower
from pytest_madengine.reporting.status import LOGGED, Changes, title
from pytest_madengine.secrets import NO_SECRETS, Masker

if TYPE_CHECKING:
    from pytest_madengine.reporting.live import LiveDisplay

EVERY = 0.2
"""Seconds between looks at logs that are shown as they grow."""


class Display:
    """The view of one process of a session; one without a terminal reporter shows nothing.

    Attributes:
        every_change: whether plain lines tell of each change, or only of what pytest itself does not show.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.every_change = False
        self._config = config
        self._board = Board()
        self._changes = Changes()
        self._masker = NO_SECRETS
        self._lock = threading.RLock()
        self._lines: deque[str] = deque()
        self._open = False
        self._over = threading.Event()
        self._follower = Follower() if config.option.madengine_live_output else None
        terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
        self._terminal = terminal
        loud = bool(self._terminal) and config.get_verbosity() >= 0
        self._on_terminal = loud and bool(self._terminal.isatty) and not self._follower
        self._plain = loud and not self._on_terminal

    @cached_property
    def _live(self) -> LiveDisplay:
        """Made while nothing is captured, for it looks at what standard output is."""
        from pytest_madengine.reporting.live import LiveDisplay

        return LiveDisplay(self.board, mask=lambda: self._masker)

    def hide(self, values: Iterable[str]) -> None:
        """Show none of these values."""
        if new := set(values).difference(self._masker.values):
            self._masker = Masker(new.union(self._masker.values))

    def board(self) -> Board:
        """A copy of what a view needs of the board, which nobody changes."""
        with self._lock:
            return Board(dict(self._board.run), {item: copy.copy(entry) for item, entry in self._board.items.items()})

    def take(self, record: Record) -> None:
        """Show a record now, or when next something is shown."""
        with self._lock:
            if self._on_terminal or self._follower:
                self._board.apply(record)
            if self._follower:
                self._follow(record)
            if self._plain and self._tells(record) and (line := self._changes.line(record)):
                self._lines.append(f"madengine: {line}")
                self._print()

    def _tells(self, record: Record) -> bool:
        """Whether a record is worth a line: of a job that merely waits or ends pytest shows enough."""
        detailed = bool(record.get("detail")) or record.get("phase") in (Phase.BUILDING.value, Phase.PULLING.value)
        return detailed or (self.every_change and record.get("phase") == Phase.RUNNING.value)

    def _follow(self, record: Record) -> None:
        """Let what a record tells of be followed: a build's log, or that of a model until its job is over."""
        entry = self._board.items.get(record.get("item", ""))
        course = self._board.jobs.get(record.get("job", ""))
        if not self._follower:
            return
        if course and (course.over or course.judged):
            self._follower.finish(Path(course.directory, LOG))
        elif entry and entry.log:
            self._follower.follow(title(entry.item), Path(entry.log))
        elif entry and entry.phase in LOGGED:
            self._follower.follow(title(entry.item), Path(entry.directory, LOG))

    def _tail(self) -> None:
        """Show what the followed files gain, until it is no longer wanted."""
        while not self._over.wait(EVERY):
            self._gain()

    def _gain(self) -> None:
        with self._lock:
            self._lines.extend(self._follower.lines(self._masker) if self._follower else ())
            self._print()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let changes be seen while the main thread does nothing but wait."""
        with self._uncaptured():
            self._begin()
            try:
                yield
            finally:
                self._end()

    def _begin(self) -> None:
        with self._lock:
            self._open = True
            self._print()
        if self._follower and self._plain:
            self._over.clear()
            self._tailing = threading.Thread(target=self._tail, daemon=True)
            self._tailing.start()
        if self._on_terminal:
            self._live.start(self._config.get_terminal_writer().width_of_current_line)

    def _end(self) -> None:
        if self._on_terminal:
            self._live.stop()
        if self._follower and self._plain:
            self._over.set()
            self._tailing.join()
        self._gain()
        with self._lock:
            self._open = False

    def _print(self) -> None:
        while self._open and self._lines:
            self._terminal.write_line(self._lines.popleft())

    def _uncaptured(self) -> Any:
        if not (self._on_terminal or self._plain):
            return nullcontext()
        capture: Any = self._config.pluginmanager.get_plugin("capturemanager")
        return capture.global_and_fixture_disabled() if capture else nullcontext()
