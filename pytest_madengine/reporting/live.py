"""The board of a running session at the foot of a terminal; the only module that knows rich."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from pytest_madengine.engine.board import Board
from pytest_madengine.reporting import status
from pytest_madengine.secrets import NO_SECRETS, Masker

PER_SECOND = 4
SPARE = 4
"""Lines of the terminal that models leave free, two of them for the counts and for how many more there are."""


class LiveDisplay:
    """Shows what is being done for which model, until it is stopped; then nothing of it is left.

    `start` and `stop` belong to one thread, which then holds no lock that `board` takes: both wait for what is being
    drawn. Nothing else may write to the terminal in between.

    Args:
        board: gives the present board. It is called from a thread of this display, and what it gives is read there
            without a lock: a consistent copy that nobody changes any more.
        console: the terminal itself, not what pytest captures; whatever is no terminal is left alone.
        mask: gives what hides the secrets in the last lines of logs, which are not masked as long as they grow.
    """

    def __init__(
        self,
        board: Callable[[], Board],
        console: Console | None = None,
        mask: Callable[[], Masker] = lambda: NO_SECRETS,
    ) -> None:
        self._view = _View(board, mask)
        self._console = console or Console()
        self._live: Live | None = None
        self._column = 0

    def start(self, column: int = 0) -> None:
        """Draw it, and again four times a second, below the line in whose `column` the cursor stands."""
        if self._live or not self._console.is_interactive:
            return
        self._column = column
        self._console.file.write("\n" if column else "")
        self._live = Live(
            self._view,
            console=self._console,
            refresh_per_second=PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def stop(self) -> None:
        """Take it off the screen, and the cursor back to where it was."""
        live, self._live = self._live, None
        if live:
            live.update(Text())
            live.stop()
            self._console.file.write(f"\x1b[1A\x1b[{self._column}C" if self._column else "")
            self._console.file.flush()


class _View:
    """Asks for the board whenever it is drawn."""

    def __init__(self, board: Callable[[], Board], mask: Callable[[], Masker]) -> None:
        self._board = board
        self._mask = mask

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for line in _lines(self._board(), self._mask(), options.max_width, options.size.height - SPARE):
            text = line.encode("ascii", "replace").decode() if options.ascii_only else line
            yield Segment(set_cell_size(text, options.max_width).rstrip())
            yield Segment.line()


def _lines(board: Board, mask: Masker, width: int, room: int) -> Iterator[str]:
    """The counts, a line for each of the first models, and how many more there are."""
    entries, now = status.active(board), time.time()
    shown = entries[: max(0, room)]
    yield status.counts(board)
    yield from _aligned([status.cells(entry, now, mask) for entry in shown], width // 2)
    if len(entries) > len(shown):
        yield f"… and {len(entries) - len(shown)} more"


def _aligned(rows: list[tuple[str, ...]], widest: int) -> Iterator[str]:
    """Rows in columns of terminal cells, none wider than `widest`; the last column takes what is left of the line."""
    widths = [min(widest, max(map(cell_len, column))) for column in zip(*rows, strict=True)]
    for *cells, last in rows:
        fitted = (set_cell_size(cell, width) for cell, width in zip(cells, widths[:-1], strict=True))
        yield "  ".join((*fitted, last))
