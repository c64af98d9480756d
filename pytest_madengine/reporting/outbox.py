"""Calls one reporter in a thread of its own, so that the network holds up nobody."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple


class Errand(NamedTuple):
    """Something to be done for a reporter.

    Attributes:
        act: does it.
        what: what it is to write, in words.
    """

    act: Callable[[], None]
    what: str


class Outbox:
    """What is to be done, in order; the thread ends with the process, whatever it is waiting for.

    Args:
        name: the reporter's.
        failed: called in that thread with each errand that raised an error, which it may keep.
    """

    def __init__(self, name: str, failed: Callable[[Errand, Exception], None]) -> None:
        self.name = name
        self._failed = failed
        self._errands: queue.SimpleQueue[Errand | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._left = 0
        self._given_up = False
        self._thread: threading.Thread | None = None

    def put(self, errand: Errand) -> None:
        """Have it done some time; nothing more is begun for a reporter that was given up."""
        if self._given_up:
            return
        with self._changed:
            self._left += 1
        self._errands.put(errand)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"madengine {self.name}", daemon=True)
            self._thread.start()

    def wait(self, until: float) -> int:
        """Wait for all that was put.

        Args:
            until: when to give the reporter up, in seconds of `time.monotonic`.

        Returns:
            how much was still left to do, at the moment when it was given up; then and for ever after nothing is done.
        """
        with self._changed:
            if not self._given_up:
                self._changed.wait_for(lambda: not self._left, max(0.0, until - time.monotonic()))
                self._given_up = bool(self._left)
                return self._left
        return 0

    def close(self) -> None:
        """There is nothing more to come: let the thread end with its last errand."""
        self._errands.put(None)

    def _work(self) -> None:
        while errand := self._errands.get():
            if not self._given_up:
                self._run(errand)
            with self._changed:
                self._left -= 1
                self._changed.notify_all()

    def _run(self, errand: Errand) -> None:
        try:
            errand.act()
        except Exception as error:  # noqa: BLE001  # a site's reporter must not cost anybody else anything
            self._failed(errand, error)
