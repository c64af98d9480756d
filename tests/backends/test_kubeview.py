from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_madengine.backends import kubeapi
from pytest_madengine.backends.kubeapi import Object
from pytest_madengine.backends.kubeview import Mirror
from pytest_madengine.errors import InfrastructureError
from tests.backends.kubeserver import Answer, Request, Server, listing, pod, serving
from tests.backends.support import until

EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}


class Scene:
    """A cluster that says what a test wants, and what a mirror of it told."""

    def __init__(self) -> None:
        self.lists: Iterator[Answer] = iter([])
        self.watches: Iterator[Answer] = iter([])
        self.over = threading.Event()
        self.told: list[str] = []
        self._quiet = Answer(200, until=self.over)

    def answer(self, request: Request) -> Answer:
        if request.verb == "watch":
            return next(self.watches, self._quiet)
        return next(self.lists)

    def changed(self, found: Object) -> None:
        self.told.append(found["metadata"]["name"])


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.over.set()


@pytest.fixture
def server(scene: Scene, tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, scene.answer) as server:
        yield server
        scene.over.set()


@pytest.fixture
def mirror(server: Server, scene: Scene) -> Iterator[Mirror]:
    mirror = Mirror(server.api(), "Pod", "ns", "a=b", scene.changed)
    yield mirror
    mirror.close()


def names(mirror: Mirror) -> Callable[[], list[str]]:
    return lambda: sorted(each["metadata"]["name"] for each in mirror.all())


def test_what_is_there_and_what_changes(mirror: Mirror, scene: Scene) -> None:
    added, removed = {"type": "ADDED", "object": pod("b", 2)}, {"type": "DELETED", "object": pod("a", 3)}
    scene.lists = iter([listing("a")])
    scene.watches = iter([Answer(200, [added, removed], until=scene.over)])
    mirror.require()
    until(lambda: scene.told == ["a", "b", "a"])
    assert names(mirror)() == ["b"]
    assert [each["metadata"]["name"] for each in mirror.gone()] == ["a"]


@pytest.mark.parametrize(
    "broken", [Answer(200, cut=True), Answer(200, [EXPIRED]), Answer(410), Answer(500), Answer(200, ["junk"])]
)
def test_a_watch_that_breaks_loses_nothing_and_is_no_trouble(mirror: Mirror, scene: Scene, broken: Answer) -> None:
    scene.lists = iter([listing("a", "b"), listing("b", "c", version=9)])
    scene.watches = iter([broken])
    mirror.require()

    def is_known() -> bool:
        mirror.require()
        return names(mirror)() == ["b", "c"]

    until(is_known)
    until(lambda: set(scene.told) == {"a", "b", "c"})
    assert [each["metadata"]["name"] for each in mirror.gone()] == ["a"]


def test_a_cluster_that_was_away_for_a_while(
    mirror: Mirror, scene: Scene, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeapi, "TRIES", 0.0)
    scene.lists = iter([listing("a"), Answer(500), Answer(503), listing("b")])
    scene.watches = iter([Answer(200, cut=True)])
    mirror.require()
    until(lambda: server.count("list") > 1)
    mirror.require(patience=30)
    until(lambda: names(mirror)() == ["b"])


def test_a_cluster_that_is_away(mirror: Mirror, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeapi, "TRIES", 0.0)
    scene.lists = iter([Answer(500)])
    with pytest.raises(InfrastructureError, match="cannot list Pod"):
        mirror.require(patience=30)


def test_what_was_just_made_is_known_before_the_cluster_says_so(mirror: Mirror, scene: Scene) -> None:
    scene.lists = iter([listing()])
    mirror.require()
    mirror.add(pod("a"))
    assert mirror.get("a") == pod("a")
    assert mirror.get("b") is None


def test_its_thread_ends_with_it(mirror: Mirror, scene: Scene) -> None:
    scene.lists = iter([listing()])
    before = set(threading.enumerate())
    mirror.require()
    (thread,) = [each for each in set(threading.enumerate()) - before if each.name == "madengine-pods"]
    mirror.close()
    scene.over.set()
    thread.join(10)
    assert not thread.is_alive()
