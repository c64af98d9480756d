"""Reads what open connections to a cluster bring."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

PIECE = 1 << 16
"""Bytes that are read at once."""
OF_END = 3
"""The channel on which the server says how a command ended."""


def lines(answer: Any) -> Iterator[bytes]:
    """The lines of an answer as they come."""
    rest = b""
    for piece in pieces(answer):
        *whole, rest = (rest + piece).split(b"\n")
        yield from filter(None, whole)


def pieces(answer: Any) -> Iterator[bytes]:
    """An answer as it comes; the connection goes with it."""
    try:
        yield from answer.stream(amt=PIECE)
    finally:
        answer.close()
        answer.release_conn()


def carried(running: Any, answer: Callable[[bytes], bytes], patience: float) -> int | None:
    """Talk with a command until its end; what was read is not kept, however much it is.

    Args:
        running: the client's connection to it.
        answer: is given each piece of its output, and gives what it is to read next, or nothing.
        patience: seconds for which it may be silent.

    Returns:
        Its exit code; None where the connection broke, or it was silent for too long.
    """
    import websocket

    verdict = b""
    heard = time.monotonic()
    while running.is_open() and time.monotonic() - heard < patience:
        with suppress(websocket.WebSocketConnectionClosedException):  # without a farewell, as servers may
            running.update(timeout=1)
            verdict += running.read_channel(OF_END)
        if output := running.read_all():
            heard = time.monotonic()
            if words := answer(output):
                running.write_stdin(words)
    return exit_code(verdict)


def exit_code(verdict: bytes) -> int | None:
    """The exit code in what the server says at the end of a command; None where it says nothing that is known."""
    try:
        found = json.loads(verdict)
        return 0 if found["status"] == "Success" else int(found["details"]["causes"][0]["message"])
    except (ValueError, LookupError, TypeError):
        return None
