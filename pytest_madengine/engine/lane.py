"""Carries one backend's jobs from submission to outcome, in a thread of its own.

Whatever a backend does, every flight lands: with an Outcome, or with words for why there is none.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from pytest_madengine.backends.base import Backend, Handle, Outcome, State, Status
from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Phase
from pytest_madengine.engine.journal import Journal
from pytest_madengine.errors import MadengineError, RefusedError
from pytest_madengine.jobs.job import Job

PHASES = {State.PENDING: Phase.PENDING, State.RUNNING: Phase.RUNNING}
BATCH = 32
"""Jobs that are handed over between two looks at those in flight."""


@dataclass(frozen=True)
class Pace:
    """Seconds.

    Attributes:
        first: from a change to the next look; each quiet look makes it longer,
        longest: up to this.
        gap: the shortest time between two looks, however often the backend calls.
        patience: how long a backend may be unreachable, or silent about a job, before its jobs are given up.
        stall: how long one call of a backend may take.
    """

    first: float = 0.2
    longest: float = 15.0
    gap: float = 0.02
    patience: float = 60.0
    stall: float = 900.0


@dataclass(eq=False)
class Flight:
    """One job on its way.

    Attributes:
        item: node id of its model.
        number: which attempt at the item it is, from 1.
        not_before: monotonic time of the earliest submission.
        handle: known from the start where an earlier process handed the job over.
        began: monotonic time when it was first seen running.
        outcome: what it gave; None where the backend failed it, or it was never submitted.
        error: what the backend did to it.
        refused: whether to submit it again would change nothing.
        submitted: when it was handed over, epoch seconds; 0 before.
        over: set when it has landed.
    """

    item: str
    number: int
    job: Job
    backend: Backend
    not_before: float = 0.0
    handle: Handle | None = None
    began: float | None = None
    outcome: Outcome | None = None
    error: str = ""
    refused: bool = False
    submitted: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)
    seen: Status | None = None
    silent_since: float | None = None
    cancelled: bool = False

    @property
    def deadline(self) -> float | None:
        """Monotonic time at which its limit is up."""
        return self.began + self.job.limit if self.began is not None and self.job.limit is not None else None


class Lane:
    """The jobs of one backend."""

    def __init__(
        self, backend: Backend, records: Journal, slots: Slots, landed: Callable[[Flight], None], pace: Pace
    ) -> None:
        self._backend = backend
        self._journal = records
        self._slots = slots
        self._landed = landed
        self._pace = pace
        self._lock = threading.Lock()
        self._queue: deque[Flight] = deque()
        self._flying: list[Flight] = []
        self._pause = pace.first
        self._submitted_at = 0.0
        self._unreachable_since: float | None = None
        self._asked: float | None = None
        self._leaving = False
        self._abandoned = False
        self._why = ""
        self._awake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"madengine-{backend.name}", daemon=True)
        slots.freed.append(self.wake)
        backend.watch(self.wake)

    def wake(self) -> None:
        """Something may have changed."""
        self._awake.set()

    def add(self, flight: Flight) -> None:
        """Take a job on; one with a handle is in flight already."""
        with self._lock:
            if flight.handle:
                self._slots.take(anyway=True)
            (self._flying if flight.handle else self._queue).append(flight)
            if not self._thread.ident:
                self._thread.start()
        self.wake()
        if self._abandoned:
            self._strand()

    def cancel(self, flights: Iterable[Flight]) -> None:
        """End these; those that were not submitted land at once."""
        wanted = set(flights)
        with self._lock:
            dropped = [flight for flight in self._queue if flight in wanted]
            self._queue = deque(flight for flight in self._queue if flight not in wanted)
            for flight in self._flying:
                flight.cancelled |= flight in wanted
        for flight in dropped:
            flight.cancelled = True
            self._land(flight)
        self.wake()

    def kill(self) -> None:
        """End all that is in flight, hard, from the caller's thread."""
        handles = [flight.handle for flight in self._flying if flight.handle]
        if handles and not self._abandoned:
            self._backend.cancel(handles, hard=True)
        self.wake()

    def leave(self) -> None:
        """Submit and watch no more; what is in flight flies on."""
        self._leaving = True
        self.wake()
        if self._thread.ident and not self._abandoned:
            self._thread.join(self._pace.patience)

    def check(self) -> None:
        """Give up a backend whose call does not return."""
        asked = self._asked
        if asked is not None and time.monotonic() - asked > self._pace.stall and not self._abandoned:
            self._abandoned = True
            self._strand(f"the {self._backend.name} backend has not answered for {self._pace.stall:g} s")

    def _strand(self, words: str = "") -> None:
        """Land all flights of a lane that goes nowhere any more."""
        self._why = words or self._why
        with self._lock:
            stranded = [*self._flying, *self._queue]
            self._queue.clear()
        for flight in stranded:
            flight.error = self._why
            self._land(flight)

    def _run(self) -> None:
        try:
            self._carry()
        except BaseException as error:  # noqa: BLE001  # a lane that died silently would let its session wait for ever
            self._abandoned = True
            self._strand(f"the {self._backend.name} backend cannot be used any more: {_words(error)}")

    def _carry(self) -> None:
        while not (self._leaving or self._abandoned):
            self._awake.clear()
            self._submit()
            self._look()
            self._cancel()
            if not self._leaving:
                time.sleep(self._pace.gap)
                self._awake.wait(self._until_next_look())

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """The time of one call of the backend is watched."""
        self._asked = time.monotonic()
        try:
            yield
        finally:
            self._asked = None

    def _until_next_look(self) -> float | None:
        """Seconds to sleep unless woken; None for as long as it takes."""
        now = time.monotonic()
        with self._lock:
            answering = self._unreachable_since is None
            moments = [flight.deadline for flight in self._flying if flight.deadline is not None and answering]
            moments += [flight.not_before for flight in self._queue if flight.not_before > self._submitted_at]
            if self._flying:
                moments.append(now + self._pause)
        self._pause = min(self._pause * 1.5, self._pace.longest)
        return max(0.0, min(moments) - now) if moments else None

    def _submit(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        self._pause = self._pace.first
        self._journal.write(*map(_submitting, batch))
        for flight in batch:
            if flight.cancelled:
                self._land(flight)
            elif not (self._leaving or self._abandoned):
                self._hand_over(flight)
        flying = [flight for flight in batch if flight.handle and not flight.over.is_set()]
        self._journal.write(*map(_submitted, flying), *(_phase(flight, Phase.PENDING) for flight in flying))

    def _next_batch(self) -> list[Flight]:
        """Queued jobs whose time has come, as many as there are slots for."""
        self._submitted_at = time.monotonic()
        batch: list[Flight] = []
        with self._lock:
            ripe = [flight for flight in self._queue if flight.not_before <= self._submitted_at][:BATCH]
            for flight in ripe:
                if not self._slots.take():
                    break
                batch.append(flight)
            for flight in batch:
                self._queue.remove(flight)
            self._flying += batch
        if len(batch) == BATCH:
            self.wake()  # there may be more
        return batch

    def _hand_over(self, flight: Flight) -> None:
        flight.submitted = time.time()
        try:
            with self._asking():
                handle = self._backend.submit(self._backend.plan(flight.job))
        except BaseException as error:  # noqa: BLE001  # a backend is other people's code: whatever it raises ends one job
            flight.refused = isinstance(error, RefusedError)
            self._fail(flight, f"not submitted: {_words(error)}")
            return
        if isinstance(handle, Handle) and all(isinstance(part, str) for part in handle.to_json().values()):
            flight.handle = handle
        else:
            self._fail(flight, f"the {self._backend.name} backend gave no handle for it but {handle!r:.80}")

    def _look(self) -> None:
        """One question about all that is in flight."""
        flying = {flight.handle: flight for flight in self._in_flight() if flight.handle}
        statuses = self._statuses(list(flying)) if flying else None
        if statuses is None or self._abandoned:
            return
        told = {flight: statuses.get(handle) for handle, flight in flying.items() if not flight.over.is_set()}
        heard = {flight: status for flight, status in told.items() if _is_status(status)}
        self._journal.write(*(self._changed(*each) for each in heard.items() if each[1] != each[0].seen))
        self._end([flight for flight in told.keys() - heard.keys() if self._silent_too_long(flight)], State.LOST)
        self._end([flight for flight, status in heard.items() if _is_late(flight, status)], State.TIMED_OUT)
        self._collect([(flight, status.state) for flight, status in heard.items() if status.state.over])

    def _statuses(self, handles: Sequence[Handle]) -> Mapping[Handle, Any] | None:
        """What the backend says; None where it says nothing, for the moment or for good."""
        try:
            with self._asking():
                said: Any = self._backend.states(handles)
        except BaseException as error:  # noqa: BLE001  # see _hand_over
            self._no_answer(_words(error))
            return None
        if not isinstance(said, Mapping):
            self._no_answer(f"answered {said!r:.80}")
            return None
        self._unreachable_since = None
        return said

    def _no_answer(self, words: str) -> None:
        now = time.monotonic()
        self._unreachable_since = self._unreachable_since or now
        if now - self._unreachable_since >= self._pace.patience:
            for flight in self._in_flight():
                self._fail(flight, f"{self._backend.name} out of reach for {self._pace.patience:g} s: {words}")

    def _in_flight(self) -> list[Flight]:
        with self._lock:
            return [flight for flight in self._flying if flight.handle]

    def _silent_too_long(self, flight: Flight) -> bool:
        now = time.monotonic()
        flight.silent_since = flight.silent_since or now
        return now - flight.silent_since >= self._pace.patience

    def _changed(self, flight: Flight, status: Status) -> journal.Record:
        """The record of a change; a job that waits again has not begun."""
        self._pause = self._pace.first
        flight.seen, flight.silent_since = status, None
        if status.state is State.PENDING:
            flight.began = None
        elif flight.began is None:
            flight.began = time.monotonic()
        return _phase(flight, PHASES.get(status.state, Phase.COLLECTING), status.reason)

    def _cancel(self) -> None:
        self._end([flight for flight in self._in_flight() if flight.cancelled], State.CANCELLED)

    def _end(self, flights: list[Flight], state: State) -> None:
        """Make jobs end, then collect them."""
        if not flights:
            return
        try:
            with self._asking():
                self._backend.cancel([flight.handle for flight in flights if flight.handle])
        except BaseException as error:  # noqa: BLE001  # see _hand_over
            for flight in flights:
                self._fail(flight, f"{state.value}, and it may still run: {_words(error)}")
            return
        self._collect([(flight, state) for flight in flights])

    def _collect(self, ended: list[tuple[Flight, State]]) -> None:
        collected = [each for each in ended if self._collected(*each)]
        records = [{"kind": journal.ENDED, "job": flight.job.id, "state": state.value} for flight, state in collected]
        self._journal.write(*records)
        for flight, _ in collected:
            self._land(flight)

    def _collected(self, flight: Flight, state: State) -> bool:
        assert flight.handle  # noqa: S101  # it is in flight
        try:
            with self._asking():
                outcome: Any = self._backend.collect(flight.handle)
        except BaseException as error:  # noqa: BLE001  # see _hand_over
            self._fail(flight, f"{state.value}, and could not be collected: {_words(error)}")
            return False
        if not isinstance(outcome, Outcome):
            self._fail(flight, f"the {self._backend.name} backend gave no outcome for it but {outcome!r:.80}")
            return False
        flight.outcome = outcome if state is State.EXITED else replace(outcome, state=state)
        return True

    def _fail(self, flight: Flight, words: str) -> None:
        """The backend failed a job, which may run on for all we know."""
        flight.error = words
        self._journal.write({"kind": journal.FAILED, "job": flight.job.id, "reason": words})
        self._land(flight)

    def _land(self, flight: Flight) -> None:
        with self._lock:
            if flight.over.is_set():
                return
            flight.over.set()
            if flight in self._flying:
                self._flying.remove(flight)
                self._slots.give()
        self._landed(flight)


class Slots:
    """How many jobs may be in flight, over all lanes.

    Attributes:
        freed: called when there is room again.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        self.freed: list[Callable[[], None]] = []

    def take(self, *, anyway: bool = False) -> bool:
        """One more, if there is room; `anyway` for a job that is in flight already."""
        with self._lock:
            if self._free <= 0 and not anyway:
                return False
            self._free -= 1
            return True

    def give(self) -> None:
        """One less; whoever waits for room is told."""
        with self._lock:
            self._free += 1
        for tell in self.freed:
            tell()


def _is_status(said: object) -> TypeGuard[Status]:
    return isinstance(said, Status) and isinstance(said.state, State) and isinstance(said.reason, str)


def _is_late(flight: Flight, status: Status) -> bool:
    return not status.state.over and flight.deadline is not None and time.monotonic() >= flight.deadline


def _words(error: BaseException) -> str:
    """What an error says: ours say all, of others the kind is worth knowing."""
    return str(error) if isinstance(error, MadengineError) else f"{type(error).__name__}: {error}"


def _submitting(flight: Flight) -> journal.Record:
    return {
        "kind": journal.SUBMITTING,
        "item": flight.item,
        "job": flight.job.id,
        "number": flight.number,
        "backend": flight.backend.name,
        "directory": str(flight.job.directory),
    }


def _submitted(flight: Flight) -> journal.Record:
    assert flight.handle  # noqa: S101  # it was submitted
    return {"kind": journal.SUBMITTED, "job": flight.job.id, "handle": flight.handle.to_json()}


def _phase(flight: Flight, phase: Phase, reason: str = "") -> journal.Record:
    record = {"kind": journal.PHASE, "item": flight.item, "job": flight.job.id, "phase": phase.value}
    return record | ({"detail": reason} if reason else {})
