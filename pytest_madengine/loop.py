"""Runs models ahead of their items: many jobs in flight, and each item's ordinary protocol when its job is over.

Items are set up one at a time. What may be called of other people's code (hooks, cards that complete themselves) is
called in this thread; images are made and jobs carried in others.
"""

from __future__ import annotations

import itertools
import queue
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_madengine import fixtures, options
from pytest_madengine.attempt import Attempt
from pytest_madengine.engine.lane import Flight
from pytest_madengine.images.image import Image
from pytest_madengine.items import ModelItem
from pytest_madengine.makers import RAISED, Makers
from pytest_madengine.session import Session

OURS = ("model", "image", "job", "result", "backend", "madengine_context")
STAY_OUT = ("collectonly", "setuponly", "setupplan", "usepdb", "trace")
LOOK = 0.5
"""Seconds between looks for backends that do not answer."""
MOST_AHEAD = 64
"""Jobs that are made ready beyond those in flight, so that a free slot is filled at once."""


def wanted(session: pytest.Session, ours: Session) -> bool:
    """Whether models are to run ahead: several at a time, or not to be waited for, in a session of one process."""
    off = any(options.given(session.config, name) for name in STAY_OUT)
    return alone(session, ours) and not off and (ours.at_once > 1 or ours.settings.detach or ours.settings.build_only)


def alone(session: pytest.Session, ours: Session) -> bool:
    """Whether this is the only process of its session."""
    return not (ours.is_worker or session.config.pluginmanager.has_plugin("dsession"))


@dataclass(eq=False)
class Turn:
    """One item on its way to its protocol."""

    item: ModelItem
    attempt: Attempt | None = None
    flight: Flight | None = None


@dataclass
class Loop:
    """The items of one session."""

    session: pytest.Session
    ours: Session
    _waiting: deque[ModelItem] = field(default_factory=deque)
    _begun: dict[ModelItem, Turn] = field(default_factory=dict)
    _ready: dict[ModelItem, None] = field(default_factory=dict)
    _order: deque[ModelItem] = field(default_factory=deque)
    _events: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue)
    _by_flight: dict[Flight, Turn] = field(default_factory=dict)
    _last: tuple[pytest.Item, pytest.Item | None] | None = None

    def __post_init__(self) -> None:
        self._makers = Makers(self.ours)

    def run(self) -> None:
        """Run every item."""
        self.ours.display.every_change = True
        models = [item for item in self.session.items if isinstance(item, ModelItem)]
        first = ahead(self.session)
        behind = [item for item in models if not _may_run_ahead(item)]
        others = [item for item in self.session.items if not isinstance(item, ModelItem)]
        self._in_line(others, [*first, *behind])
        self._ahead(first, behind)
        if not self.ours.detached:
            self._in_line(behind, [])

    def _in_line(self, items: Sequence[pytest.Item], following: Sequence[pytest.Item]) -> None:
        coming = deque([*items, *following])
        for item in items:
            coming.popleft()
            self._protocol(item, coming[0] if coming else None)

    def _ahead(self, items: Sequence[ModelItem], behind: Sequence[ModelItem]) -> None:
        self._waiting.extend(items)
        self._order.extend(items)
        self.ours.fleet.landed = lambda flight: self._events.put(lambda: self._landed(flight))
        try:
            if not self.ours.settings.build_only:
                self._makers.begin(items)
            if self.ours.settings.detach:
                self._detach()
            while self._waiting or self._begun or self._ready:
                item = self._next()
                self._protocol(item, self._guess(item, behind))
        except BaseException as error:
            self._break_off(detach=self.ours.detaches(error))
            raise
        finally:
            self._makers.close()

    def _next(self) -> ModelItem:
        """The next item whose job is over; waits for it."""
        while True:
            self._fill()
            while not self._events.empty():
                self._events.get()()
            if item := self._pick():
                return item
            with self.ours.display.shown():
                self._await_event()

    def _pick(self) -> ModelItem | None:
        ordered = self.ours.settings.ordered
        first = self._order[0] if ordered else next(iter(self._ready), None)
        if first not in self._ready:
            return None
        del self._ready[first]
        if ordered:
            self._order.popleft()
        return first

    def _await_event(self) -> None:
        """Until something happened; events that came meanwhile wait for their turn."""
        try:
            happened = self._events.get(timeout=LOOK)
        except queue.Empty:
            self.ours.fleet.check()
            return
        happened()

    def _fill(self) -> None:
        at_once = self.ours.at_once
        most = len(self._order) if self.ours.settings.build_only else at_once + min(at_once, MOST_AHEAD)
        ready = 0 if self.ours.settings.ordered else len(self._ready)  # those may wait for one that is slow
        while self._waiting and len(self._begun) + ready < most:
            self._begin(self._waiting.popleft())

    def _begin(self, item: ModelItem) -> None:
        turn = self._begun[item] = Turn(item)
        try:
            turn.attempt = attempt = fixtures.attempt_of(item, ahead=True)
            self._prepare(turn, attempt)
        except RAISED as error:
            self._trouble(turn, error)

    def _prepare(self, turn: Turn, attempt: Attempt) -> None:
        attempt.complete()
        if attempt.prepared or fixtures.unwanted(attempt.want, self.ours):
            self._done(turn)
            return
        target = self.ours.backends[self.ours.target]
        if flight := attempt.adopted(attempt.backend(target)):
            self._follow(turn, flight)
        elif attempt.needs_image(target):
            made = self._makers.make(attempt)
            made.add_done_callback(lambda made: self._events.put(lambda: self._image_made(turn, made)))
        else:
            self._launch(turn, attempt)

    def _image_made(self, turn: Turn, made: Future[Image]) -> None:
        attempt = turn.attempt
        assert attempt  # noqa: S101  # it asked for the image
        try:
            attempt.image = made.result()
            self._launch(turn, attempt)
        except RAISED as error:
            self._trouble(turn, error)

    def _launch(self, turn: Turn, attempt: Attempt) -> None:
        if self.ours.settings.build_only:
            self._done(turn)
            return
        job = fixtures.composed(turn.item, attempt)
        backend = attempt.backend(self.ours.backends[self.ours.target])
        if shared := attempt.share(job, backend):
            attempt.discard()
            attempt.result = shared
            self._done(turn)
            return
        self._follow(turn, attempt.launch(job, backend))

    def _follow(self, turn: Turn, flight: Flight) -> None:
        turn.flight = flight
        self._by_flight[flight] = turn

    def _landed(self, flight: Flight) -> None:
        turn = self._by_flight.pop(flight, None)
        attempt = turn.attempt if turn else None
        if turn is None or attempt is None:
            return  # a flight of an item that runs in line, such as a rerun
        following = attempt.after(flight)
        if following:
            self._follow(turn, following)
        else:
            self._done(turn)

    def _trouble(self, turn: Turn, error: BaseException) -> None:
        """Let the item's own fixtures raise it, where its protocol says so."""
        if turn.attempt:
            turn.attempt.trouble = error
        self._done(turn)

    def _done(self, turn: Turn) -> None:
        if turn.attempt:
            turn.attempt.prepared = True
            turn.item.stash[fixtures.AHEAD] = turn.attempt
        del self._begun[turn.item]
        self._ready[turn.item] = None

    def _guess(self, item: ModelItem, behind: Sequence[ModelItem]) -> pytest.Item | None:
        """What may come after this item: it decides which fixtures survive, so a sibling where there is one."""
        if self._ready:
            return next(iter(self._ready))
        following = itertools.chain(self._begun, self._waiting, behind)
        first = next(following, None)
        if first is None or first.parent is item.parent:
            return first
        return next((each for each in following if each.parent is item.parent), first)

    def _protocol(self, item: pytest.Item, following: pytest.Item | None) -> None:
        self._switch(item)
        self.session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        self._last = (item, following)
        item.stash[fixtures.ATTEMPT] = None  # jobs of thousands of items are not to be kept
        if self.session.shouldfail:
            raise self.session.Failed(self.session.shouldfail)
        if self.session.shouldstop:
            raise self.session.Interrupted(self.session.shouldstop)

    def _switch(self, item: pytest.Item) -> None:
        """Take down fixtures that survived for an item which is not the next one after all."""
        last, promised = self._last or (None, None)
        if last is None or promised is None:
            return
        surviving = set(last.listchain()) & set(promised.listchain())
        if surviving <= set(item.listchain()):
            return
        runner: Any = self.session.config.pluginmanager.get_plugin("runner")
        call = pytest.CallInfo.from_call(lambda: runner.pytest_runtest_teardown(last, item), "teardown")
        if call.excinfo:
            report = last.ihook.pytest_runtest_makereport(item=last, call=call)
            last.ihook.pytest_runtest_logreport(report=report)

    def _detach(self) -> None:
        """Submit as many as may be in flight, and leave them."""
        while self._waiting and len(self._begun) < self.ours.at_once:
            self._begin(self._waiting.popleft())
        while any(not (turn.flight and turn.flight.handle) for turn in self._begun.values()):
            self._await_event()
        self._leave()

    def _leave(self) -> None:
        self.ours.fleet.leave()
        for turn in self._begun.values():
            if turn.attempt and turn.flight and turn.flight.handle:
                self.ours.detached.append(turn.item.nodeid)
            if turn.attempt:
                turn.attempt.discard()
        self._waiting.clear()
        self._begun.clear()

    def _break_off(self, *, detach: bool) -> None:
        """End all that is in flight, or leave it; what had been handed over gets its Result."""
        self._makers.end()
        if detach:
            self._leave()
            return
        flying = {turn.flight: turn.attempt for turn in self._begun.values() if turn.flight}
        self.ours.fleet.end([flight for flight in flying if flight])
        for turn in self._begun.values():
            if turn.attempt and turn.flight and turn.flight.handle:
                self.ours.cancelled.append(turn.item.nodeid)
                turn.attempt.conclude(turn.flight)
            elif turn.attempt:
                turn.attempt.discard()


def _may_run_ahead(item: ModelItem) -> bool:
    """Whether the item's job can be known before its fixtures are set up.

    It cannot where a conftest overrides one of our fixtures, or a mark decides at setup whether the item runs at all.
    """
    known = item.fixture_info().name2fixturedefs
    overridden = any(len(known.get(name, ())) > 1 for name in OURS)
    undecided = any(item.get_closest_marker(name) for name in ("skip", "skipif", "xfail"))
    return not (overridden or undecided)


def ahead(session: pytest.Session) -> list[ModelItem]:
    """The models whose jobs, or at least images, can be made before their items' protocols begin."""
    return [item for item in session.items if isinstance(item, ModelItem) and _may_run_ahead(item)]


def model_ids(session: pytest.Session) -> list[str]:
    """Node ids of the session's models."""
    return [item.nodeid for item in session.items if isinstance(item, ModelItem)]
