"""Objects of a run as a cluster has them, kept up to date by watching."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pytest_madengine.backends.kubeapi import Api, Object
from pytest_madengine.errors import InfrastructureError, MadengineError

PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to reach a cluster again, the last one from then on."""
BRIEF = 1.0
"""Seconds within which no watch should end by itself."""
REMEMBERED = 5000
"""Objects that were removed of which the last state is known."""


class Mirror:
    """The objects of one kind that a selector of labels finds in a namespace.

    Args:
        api: the cluster.
        changed: is called, from a thread of its own, with each object that appeared, changed or went.
    """

    def __init__(self, api: Api, kind: str, namespace: str, selector: str, changed: Callable[[Object], None]) -> None:
        self._api = api
        self._where = (kind, namespace)
        self._selector = selector
        self._changed = changed
        self._lock = threading.Lock()
        self._objects: dict[str, Object] = {}
        self._added: dict[str, float] = {}
        self._gone: dict[str, Object] = {}
        self._version = ""
        self._well = threading.Event()
        self._trouble = InfrastructureError("nobody has asked the cluster yet")
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def require(self, patience: float = 0.0) -> None:
        """Know the objects by now.

        Args:
            patience: seconds that a cluster may take which was in reach before, and is not now.

        Raises:
            InfrastructureError: the cluster is out of reach, or refuses to tell.
        """
        with self._lock:
            begun = self._thread is not None
        if not begun:
            self._list()
            self._begin()
        if not self._well.wait(patience):
            raise self._trouble

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                name = f"madengine-{self._where[0].lower()}s"
                self._thread = threading.Thread(target=self._keep, name=name, daemon=True)
                self._thread.start()

    def add(self, found: Object) -> None:
        """Know an object that was just made."""
        name = found["metadata"]["name"]
        with self._lock:
            self._objects.setdefault(name, found)
            self._added[name] = time.monotonic()

    def get(self, name: str) -> Object | None:
        """An object as it was last seen; None where there is none."""
        with self._lock:
            return self._objects.get(name)

    def all(self) -> list[Object]:
        """Those that are there."""
        with self._lock:
            return list(self._objects.values())

    def gone(self) -> list[Object]:
        """Those that were there, as they were last."""
        with self._lock:
            return list(self._gone.values())

    def close(self) -> None:
        """Watch no more; the thread ends as soon as the cluster says anything, or the watch is begun anew."""
        self._closed.set()

    def _list(self) -> None:
        begun = time.monotonic()
        answer = self._api.listed(*self._where, label_selector=self._selector)
        found = {each["metadata"]["name"]: each for each in answer["items"]}
        with self._lock:
            before = self._objects
            young = {name for name, moment in self._added.items() if moment > begun and name in before}
            self._objects = {**{name: before[name] for name in young}, **found}
            removed = [each for name, each in before.items() if name not in self._objects]
            self._remember(removed)
            self._version = answer["metadata"]["resourceVersion"]
        self._well.set()
        for each in (*found.values(), *removed):
            self._changed(each)

    def _remember(self, removed: list[Object]) -> None:
        for each in removed:
            self._gone[each["metadata"]["uid"]] = each
        while len(self._gone) > REMEMBERED:
            self._gone.pop(next(iter(self._gone)))

    def _keep(self) -> None:
        tries = 0
        while not self._closed.is_set():
            tries = 0 if self._listed() and self._watched() else tries + 1
            if tries:
                self._closed.wait(PAUSES[min(tries, len(PAUSES)) - 1])

    def _listed(self) -> bool:
        """Whether the objects are known, from which on they can be watched."""
        try:
            if not self._version:
                self._list()
        except Exception as error:  # noqa: BLE001  # if this thread died, nobody would hear of any job's end
            ours = isinstance(error, MadengineError)
            self._trouble = InfrastructureError(str(error) if ours else f"{type(error).__name__}: {error}")
            self._well.clear()
            return False
        return True

    def _watched(self) -> bool:
        """Whether a watch came to its end as it should; else a new list tells what it missed."""
        begun = time.monotonic()
        try:
            self._watch()
        except Exception:  # noqa: BLE001  # see _listed
            self._version = ""
            return False
        return time.monotonic() - begun > BRIEF

    def _watch(self) -> None:
        for event in self._api.watched(*self._where, self._version, label_selector=self._selector):
            if self._closed.is_set():
                return
            found = event["object"]
            self._version = found["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._apply(found, removed=event["type"] == "DELETED")

    def _apply(self, found: Object, *, removed: bool) -> None:
        name = found["metadata"]["name"]
        with self._lock:
            if removed:
                self._objects.pop(name, None)
                self._remember([found])
            else:
                self._objects[name] = found
        self._changed(found)
