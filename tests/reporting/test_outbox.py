from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pytest_madengine.reporting.outbox import Errand, Outbox

LONG = 60.0
"""Seconds that no test waits unless something is broken."""


class Failures:
    """What an outbox told of."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, errand: Errand, error: Exception) -> None:
        self.words.append(f"{errand.what}: {error}")


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
def outbox(failures: Failures, request: pytest.FixtureRequest) -> Iterator[Outbox]:
    outbox = Outbox(request.node.name, failures)
    yield outbox
    outbox.close()


def threads(outbox: Outbox) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"madengine {outbox.name}"]


@pytest.fixture
def stuck() -> Iterator[Callable[[], None]]:
    """Something that does not end before the test does."""
    over = threading.Event()
    yield lambda: (over.wait(LONG), None)[1]
    over.set()


def later() -> float:
    return time.monotonic() + LONG


def test_errands_are_run_in_their_order_and_in_one_other_thread(outbox: Outbox) -> None:
    done: list[tuple[int, str]] = []
    for number in range(100):
        outbox.put(Errand(lambda number=number: done.append((number, threading.current_thread().name)), ""))  # type: ignore[misc]
    assert outbox.wait(later()) == 0
    assert done == [(number, f"madengine {outbox.name}") for number in range(100)]


def test_one_that_fails_is_told_of_and_stops_no_other(outbox: Outbox, failures: Failures) -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError("full")

    outbox.put(Errand(fail, "a row"))
    outbox.put(Errand(lambda: done.append("second"), "another"))
    outbox.wait(later())
    assert failures.words == ["a row: full"]
    assert done == ["second"]


def test_one_that_hangs_is_given_up_for_good(outbox: Outbox, stuck: Callable[[], None]) -> None:
    done: list[str] = []
    outbox.put(Errand(stuck, ""))
    outbox.put(Errand(lambda: done.append("never"), ""))
    assert outbox.wait(time.monotonic() + 0.05) == 2
    outbox.put(Errand(lambda: done.append("never"), ""))
    assert outbox.wait(later()) == 0
    assert done == []


def test_there_is_nothing_to_wait_for_where_nothing_was_put(outbox: Outbox) -> None:
    assert outbox.wait(later()) == 0
    assert threads(outbox) == []


def test_its_thread_keeps_no_process_alive(outbox: Outbox, stuck: Callable[[], None]) -> None:
    outbox.put(Errand(stuck, ""))
    assert [thread.daemon for thread in threads(outbox)] == [True]


def test_its_thread_ends_with_the_last_errand_once_nothing_more_comes(outbox: Outbox) -> None:
    done: list[str] = []
    outbox.put(Errand(lambda: done.append("last"), ""))
    (thread,) = threads(outbox)
    outbox.close()
    thread.join(LONG)
    assert (done, thread.is_alive()) == (["last"], False)
