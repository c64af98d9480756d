"""Makes the images of models side by side, each once."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import pytest

from pytest_madengine import command
from pytest_madengine.attempt import Attempt, want_of
from pytest_madengine.engine.board import Phase, Progress
from pytest_madengine.fixtures import unwanted
from pytest_madengine.images.image import Image
from pytest_madengine.images.supply import Want
from pytest_madengine.session import Session

if TYPE_CHECKING:
    from pytest_madengine.items import ModelItem

POLL, GRACE = 0.05, 15.0
"""Seconds between asking builds to end, and until they are left to themselves."""
ON_NODES = 100
"""How many builds are in flight where a cluster does them: this machine only waits."""
RAISED = (Exception, pytest.skip.Exception, pytest.fail.Exception)
"""What cards, hooks and builds may raise: the item's own fixtures raise it again, where pytest expects it."""


class Makers:
    """The threads of one session that make images."""

    def __init__(self, ours: Session) -> None:
        self._ours = ours
        here = max(1, (os.cpu_count() or 1) // 2)
        jobs = ours.settings.build_jobs or (ON_NODES if ours.settings.build_on_compute else here)
        self._pool = ThreadPoolExecutor(jobs, "madengine-image")
        self._made: dict[Hashable, Future[Image]] = {}

    def make(self, attempt: Attempt) -> Future[Image]:
        """The image of an attempt, from now on the one of all that want the same.

        One that has begun is the same for all already; what remains to each is to try again.
        """
        key = self._ours.supply.key(attempt.want)
        if key in self._ours.images_begun:
            key = key, attempt.nodeid
        if key not in self._made:
            self._made[key] = self._pool.submit(attempt.make_image)
        return self._made[key]

    def begin(self, items: Iterable[ModelItem]) -> None:
        """Begin with the images of all these items, so that each finds its own when its turn comes."""
        if not self._ours.containers:
            return
        wants: dict[Hashable, tuple[str, Want]] = {}
        for item in items:
            if want := self._wanted(item):
                wants.setdefault(self._ours.supply.key(want), (item.nodeid, want))
        for key, named in wants.items():
            self._ours.images_begun[key] = self._pool.submit(self._have, *named)

    def _wanted(self, item: ModelItem) -> Want | None:
        """The image that an item will ask for; what is wrong with its card is the item's own matter."""
        ours = self._ours
        before = ours.past.items.get(item.nodeid)
        if before and before.jobs:
            return None
        try:
            want = want_of(item.variant, item.variant.model(), ours)
            return None if want.self_managed or unwanted(want, ours) else want
        except RAISED:
            return None

    def _have(self, nodeid: str, want: Want) -> Image:
        try:
            return self._ours.supply.image(want, lambda progress: self._ours.note(nodeid, progress))
        finally:
            self._ours.note(nodeid, Progress(Phase.QUEUED))

    def make_all(self, items: Iterable[ModelItem]) -> None:
        """Make the images of all these items and wait for them; each item meets what went wrong by itself.

        Raises:
            KeyboardInterrupt: or whatever interrupted it; no build goes on.
        """
        try:
            self.begin(items)
            with self._ours.display.shown():
                wait(self._ours.images_begun.values())
        except BaseException:
            self.end()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Begin no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def end(self) -> None:
        """End what runs."""
        self._ours.stopping.set()
        self.close()
        deadline = time.monotonic() + GRACE
        running: list[Future[Any]] = [*self._made.values(), *self._ours.images_begun.values()]
        while not all(made.done() for made in running) and time.monotonic() < deadline:
            command.end_streams()
            time.sleep(POLL)
