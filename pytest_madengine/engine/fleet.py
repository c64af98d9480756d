"""All jobs in flight of one process: a lane for each backend, and one limit over all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from pytest_madengine.engine.journal import Journal
from pytest_madengine.engine.lane import Flight, Lane, Pace, Slots

LOOK = 0.5
"""Seconds between looks for backends that do not answer."""


def _nobody(_: Flight) -> None:
    """Nobody wants to be told of flights that land."""


class Fleet:
    """Takes jobs on and carries each to its end.

    Attributes:
        landed: called, from any thread, with each flight that has landed.
    """

    def __init__(self, records: Journal, at_once: int, pace: Pace) -> None:
        self._journal = records
        self._slots = Slots(at_once)
        self._pace = pace
        self._lanes: dict[str, Lane] = {}
        self._lock = threading.Lock()
        self.landed: Callable[[Flight], None] = _nobody

    def add(self, flight: Flight) -> None:
        """Submit a job when there is room for it, or go on watching one that was submitted."""
        self._lane(flight).add(flight)

    def cancel(self, flights: Iterable[Flight]) -> None:
        """End these; each lands."""
        by_lane: dict[Lane, list[Flight]] = {}
        for flight in flights:
            by_lane.setdefault(self._lane(flight), []).append(flight)
        for lane, ours in by_lane.items():
            lane.cancel(ours)

    def wait(self, flights: Iterable[Flight]) -> None:
        """Until all of these have landed."""
        for flight in flights:
            while not flight.over.wait(LOOK):
                self.check()

    def end(self, flights: Sequence[Flight]) -> None:
        """Cancel these and wait for their end; a second interruption leaves them no grace."""
        self.cancel(flights)
        try:
            self.wait(flights)
        except KeyboardInterrupt:
            self.kill()
            self.wait(flights)

    def kill(self) -> None:
        """End everything that is in flight without grace.

        Raises:
            InfrastructureError: a backend refused.
        """
        for lane in self._lanes.values():
            lane.kill()

    def leave(self) -> None:
        """Submit and watch no more; what is in flight flies on."""
        for lane in self._lanes.values():
            lane.leave()

    def check(self) -> None:
        """Give up backends that do not answer; to be called now and then by whoever waits."""
        for lane in self._lanes.values():
            lane.check()

    def _lane(self, flight: Flight) -> Lane:
        backend = flight.backend
        with self._lock:
            if backend.name not in self._lanes:
                self._lanes[backend.name] = Lane(backend, self._journal, self._slots, self._land, self._pace)
            return self._lanes[backend.name]

    def _land(self, flight: Flight) -> None:
        self.landed(flight)
