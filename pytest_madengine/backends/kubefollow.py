"""Follows the logs of pods, and has their results fetched when they are ready."""

from __future__ import annotations

import fcntl
import heapq
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import IO, NamedTuple

from pytest_madengine.backends import facts
from pytest_madengine.backends.kubeapi import Api
from pytest_madengine.backends.kubepod import CONTAINER
from pytest_madengine.backends.kuberefusal import StatusError
from pytest_madengine.backends.kuberesults import deliver, kept, make_room
from pytest_madengine.errors import InfrastructureError

WORKERS = 16
"""Pods whose logs are followed at the same time; of more, each is asked in turn."""
TURN = 0.02
"""Seconds for which each pod in flight makes the others wait for their turn."""
SHORTEST, LAGGING, AGAIN, LOCKED = 0.5, 1.0, 2.0, 0.5
"""Seconds until a pod is asked again: for more of its log, where it prints faster than is told, after an error, and
where another process listens."""
SHOWN, LATEST = 4 << 20, 2000
"""Bytes of a log that are copied before what lies between is left out, and the lines with which it goes on: a model
that prints faster than a cluster tells is shown in parts until its results bring the whole log."""
OVERLAP = 3
"""Seconds of a log that are read once more, since clocks differ."""
PATIENCE = 10.0
"""Seconds that the log of a pod which is over may take to come."""
LONGEST_LINE = 1 << 20
STAMP = re.compile(rb"^\d{4}-\d\d-\d\dT[\d:.]{8,}(?:Z|[+-]\d\d:\d\d) ", re.MULTILINE)
LONGEST_STAMP = 40
READY = re.compile(rb"madengine: results of \d+ bytes wait in the pod\n")
"""What the pods' script prints when all is packed, be it behind a line of the model's that has no end."""
LOCK = "pod.lock"
"""In the folder of a rank: held by the process that listens."""


class Lines:
    """The log of a container without the times before its lines.

    Attributes:
        last: the time of the last line that was given; '' before the first.
    """

    def __init__(self, last: str = "") -> None:
        self.last = last
        self._rest = b""
        self._known = last.encode()

    def feed(self, data: bytes) -> bytes:
        """The text of those lines that are whole by now."""
        self._rest += data
        end = self._rest.rfind(b"\n") + 1
        if not end and len(self._rest) > LONGEST_LINE:
            end = len(self._rest)
        whole, self._rest = self._rest[:end], self._rest[end:]
        return self._new(whole)

    def end(self) -> bytes:
        """The text of the last line, if nothing ended it."""
        whole, self._rest = self._rest, b""
        return self._new(whole) if len(whole) > LONGEST_STAMP or STAMP.match(whole) else b""

    def _new(self, whole: bytes) -> bytes:
        stamps = list(STAMP.finditer(whole))
        if not stamps:
            return b"" if self._known else whole
        self.last = stamps[-1].group().decode().strip()
        if self._known:
            later = next((match.start() for match in stamps if match.group().strip() > self._known), None)
            if later is None:
                return b""
            self._known, whole = b"", whole[later:]
        return STAMP.sub(b"", whole)


@dataclass(eq=False)
class Followed:
    """A pod whose log and results are wanted.

    Attributes:
        folder: of its rank.
        home: the folder of its job.
        packed: whether it hands over an archive; else its results go to a claim.
        over: whether nothing more will come from it.
        done: set when all that there is was brought here.
        last: the time of the last line that was read.
        heard: when that was, by this machine's monotonic clock.
        lags: whether it prints more than can be shown at once.
    """

    api: Api
    namespace: str
    name: str
    folder: Path
    home: Path
    packed: bool = True
    over: bool = False
    over_since: float = 0.0
    last: str | None = None
    heard: float = 0.0
    lags: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    lock: int = -1

    def end(self) -> None:
        """Nothing more will come from it."""
        if not self.over:
            self.over, self.over_since = True, time.monotonic()


class _Turn(NamedTuple):
    due: float
    number: int
    pod: Followed


class Followers:
    """A few threads, as long as there are pods to follow.

    Args:
        wake: is called when all of a pod is here.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._changed = threading.Condition()
        self._turns: list[_Turn] = []
        self._threads = 0
        self._active = 0
        self._number = 0

    def add(self, pod: Followed) -> None:
        """Follow one more."""
        with self._changed:
            self._active += 1
            self._queue(pod, 0.0)
            if self._threads < min(WORKERS, self._active):
                self._threads += 1
                threading.Thread(target=self._work, name="madengine-pod-logs", daemon=True).start()

    def _queue(self, pod: Followed, pause: float) -> None:
        with self._changed:
            self._number += 1
            heapq.heappush(self._turns, _Turn(time.monotonic() + pause, self._number, pod))
            self._changed.notify()

    def _work(self) -> None:
        while pod := self._next():
            again = self._attend(pod)
            if again is None:
                self._finish(pod)
            else:
                self._queue(pod, again)

    def _next(self) -> Followed | None:
        """The pod whose turn it is; None where there are fewer pods than threads."""
        with self._changed:
            while self._threads <= self._active:
                pause = self._turns[0].due - time.monotonic() if self._turns else None
                if pause is not None and pause <= 0:
                    return heapq.heappop(self._turns).pod
                self._changed.wait(pause)
            self._threads -= 1
            return None

    def _finish(self, pod: Followed) -> None:
        if pod.lock >= 0:
            os.close(pod.lock)
        with self._changed:
            self._active -= 1
            self._changed.notify_all()
        pod.done.set()
        self._wake()

    def _attend(self, pod: Followed) -> float | None:
        """Read what there is of a pod; seconds until its next turn, None when there will be none."""
        try:
            if not _is_ours(pod):
                return None if _too_late(pod) or (pod.over and kept(pod.folder, pod.name)) else LOCKED
            return self._listen(pod)
        except InfrastructureError as error:
            return None if _too_late(pod) or _is_absent(pod, error) else _without_log(pod)
        except OSError:  # somebody removed its folder, or there is no room
            return None

    def _listen(self, pod: Followed) -> float | None:
        if kept(pod.folder, pod.name):
            return None if pod.over or _delivered(pod) else AGAIN
        over = pod.over
        lines = Lines(pod.last or "")
        follow = self._active <= WORKERS and not over
        with (pod.folder / facts.LOG).open("wb" if pod.last is None else "ab") as log:
            if self._copied(pod, lines, log, follow=follow) and _delivered(pod):
                return None
        if pod.lags:
            return LAGGING
        return None if over else max(SHORTEST, self._active * TURN)

    def _copied(self, pod: Followed, lines: Lines, log: IO[bytes], *, follow: bool) -> bool:
        """Copy what comes of a log; whether it says that the results are ready."""
        since = int(time.monotonic() - pod.heard) + OVERLAP if pod.last else None
        latest = LATEST if pod.lags else None
        source = pod.api.log(pod.namespace, pod.name, CONTAINER, since=since, latest=latest, follow=follow)
        tail, size, pod.lags = b"", 0, False
        try:
            for piece in source:
                text = lines.feed(piece)
                tail = (tail + text)[-200:]
                _write(log, text)
                pod.last, pod.heard = lines.last or pod.last, time.monotonic()
                size += len(text)
                if READY.search(tail):
                    return True
                if size > SHOWN:
                    pod.lags = True
                if pod.lags or (follow and self._active > WORKERS):
                    return False
        finally:
            _close(source)
        _write(log, lines.end())
        return False


def _close(source: Iterator[bytes]) -> None:
    close = getattr(source, "close", None)
    if close:
        close()


def _write(log: IO[bytes], text: bytes) -> None:
    if text:
        log.write(READY.sub(b"", text))
        log.flush()


def _is_ours(pod: Followed) -> bool:
    """Whether no other process listens already."""
    if pod.lock >= 0:
        return True
    pod.folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(pod.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError:  # a file system without locks lets all
        pass
    pod.lock = descriptor
    make_room(pod.folder, pod.name, pod.home)
    return True


def _delivered(pod: Followed) -> bool:
    return pod.packed and deliver(pod.api, pod.namespace, pod.name, pod.folder)


def _without_log(pod: Followed) -> float | None:
    """The log cannot be read: the results may be there all the same."""
    with suppress(InfrastructureError):
        if not pod.over and _delivered(pod):
            return None
    return AGAIN


def _is_absent(pod: Followed, error: InfrastructureError) -> bool:
    """Whether there is no such pod any more; a node that restarted says the like of pods that it has yet to find."""
    if not isinstance(error, StatusError) or error.status != HTTPStatus.NOT_FOUND:
        return False
    with suppress(InfrastructureError):
        return pod.api.get("Pod", pod.namespace, pod.name) is None
    return False


def _too_late(pod: Followed) -> bool:
    return pod.over and time.monotonic() - pod.over_since > PATIENCE
