"""What happens to a run, as append-only lines of JSON that survive any end of the process.

Every process of a session writes a file of its own; readers take all of them in the order of time. A line is on disk
before what follows from it begins.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Listener = Callable[[Record], None]

RUN = "run"
PHASE = "phase"
SUBMITTING = "submitting"
SUBMITTED = "submitted"
ENDED = "ended"
FAILED = "failed"
RESULT = "result"
RECORDING = "recording"
RECORDED = "recorded"
END = "end"
"""The kinds of records; docs/architecture.md says what each holds."""


class Journal:
    """One process's file.

    A file that can no longer be written (a full disk) does not stop the run: `trouble` says what happened.

    Attributes:
        trouble: why records were lost; '' as long as none was.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self._path = folder / (f"journal-{name}.jsonl" if name else "journal.jsonl")
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._file: int | None = None
        self.trouble = ""

    def listen(self, listener: Listener) -> None:
        """Let `listener` see each record, in the thread that writes it."""
        self._listeners.append(listener)

    def write(self, *records: Record, sync: bool = True) -> None:
        """Append records with the present time.

        Args:
            records: what happened.
            sync: have them on disk when this returns; else they only outlive this process until a later one is synced.
        """
        if not records:
            return
        now = time.time()
        stamped = [{"time": now, **record} for record in records]
        with self._lock:
            self._append("".join(f"{json.dumps(record)}\n" for record in stamped).encode(), sync=sync)
        for record in stamped:
            for listener in self._listeners:
                listener(record)

    def _append(self, data: bytes, *, sync: bool) -> None:
        try:
            if self._file is None:
                self._file = _opened(self._path)
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            if sync:
                os.fsync(self._file)
        except OSError as error:
            self.trouble = f"{self._path}: {error.strerror}: a resumed run would not know all of this one"
            self._close()

    def close(self) -> None:
        """Let go of the file; a later record opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _opened(path: Path) -> int:
    """The file, at its end, which is mended where a crash or a full disk cut its last line."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    size = os.lseek(file, 0, os.SEEK_END)
    if size and os.pread(file, 1, size - 1) != b"\n":
        os.write(file, b"\n")
    return file


def read(folder: Path) -> Iterator[Record]:
    """All records of a run's processes by time; a line that a crash cut is left out."""
    found = [record for path in sorted(folder.glob("journal*.jsonl")) for record in _lines(path)]
    yield from sorted(found, key=lambda record: float(record["time"]))


def _lines(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "time" in record:
                yield record
