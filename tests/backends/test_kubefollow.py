from __future__ import annotations

import fcntl
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.backends.kubefollow import LOCK, READY, WORKERS, Followed, Followers, Lines
from tests.backends import kubeserver
from tests.backends.kubeserver import Answer, Server, serving
from tests.backends.support import read, until

LINES = st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=8)


def stamp(number: int) -> str:
    return f"2026-01-02T03:04:{number:02}.123456789Z"


def told(lines: list[bytes], first: int = 0) -> bytes:
    """What a cluster says of a log."""
    return b"".join(b"%s %s\n" % (stamp(first + number).encode(), line) for number, line in enumerate(lines))


@given(LINES, st.integers(1, 50))
def test_a_log_in_pieces_of_any_size(lines: list[bytes], size: int) -> None:
    reader, data = Lines(), told(lines)
    text = b"".join(reader.feed(data[at : at + size]) for at in range(0, len(data), size)) + reader.end()
    assert text == b"".join(line + b"\n" for line in lines)
    assert reader.last == (stamp(len(lines) - 1) if lines else "")


@given(LINES, LINES)
def test_a_log_goes_on_behind_what_is_known(before: list[bytes], behind: list[bytes]) -> None:
    known = Lines()
    known.feed(told(before))
    again = Lines(known.last)
    text = again.feed(told([*before, *behind]))
    assert text == b"".join(line + b"\n" for line in behind)


def test_a_last_line_without_end() -> None:
    reader = Lines()
    assert reader.feed(told([b"one"]) + f"{stamp(1)} two".encode()) == b"one\n"
    assert reader.end() == b"two"


def test_a_line_that_never_ends_is_not_kept_in_memory() -> None:
    reader = Lines()
    assert len(reader.feed(f"{stamp(0)} ".encode() + b"x" * (3 << 20))) == 3 << 20


def test_the_words_by_which_results_are_ready() -> None:
    assert READY.search(b"no line endmadengine: results of 10240 bytes wait in the pod\n")
    assert not READY.search(b"madengine: results of 10240 bytes wait in the pod, says the model\n")


def followed(server: Server, home: Path, name: str = "pod", *, over: bool = False) -> Followed:
    pod = Followed(server.api(), "ns", name, home / name, home, packed=False)
    if over:
        pod.end()
    return pod


def followers() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "madengine-pod-logs"]


def test_a_log_is_copied_to_its_end(tmp_path: Path) -> None:
    woken = threading.Event()
    with serving(tmp_path, lambda _: Answer(200, text=told([b"one", b"two"]))) as server:
        pod = followed(server, tmp_path, over=True)
        Followers(woken.set).add(pod)
        assert woken.wait(10)
    assert pod.done.is_set()
    assert read(pod.folder / "run.log") == "one\ntwo\n"
    until(lambda: not followers())


def test_of_a_pod_that_is_not_there_nothing_more_comes(tmp_path: Path) -> None:
    with serving(tmp_path, lambda _: Answer(404)) as server:
        pod = followed(server, tmp_path)
        Followers(threading.Event().set).add(pod)
        assert pod.done.wait(10)
        assert server.count("log") == 1


def test_a_pod_that_its_node_does_not_know_yet_is_asked_again(tmp_path: Path) -> None:
    logs = iter([Answer(404), Answer(200, text=told([b"one"]))])
    with serving(
        tmp_path, lambda asked: next(logs) if asked.verb == "log" else Answer(200, [kubeserver.pod("pod")])
    ) as server:
        pod = followed(server, tmp_path)
        Followers(threading.Event().set).add(pod)
        until(lambda: read(pod.folder / "run.log") == "one\n")
        pod.end()
        assert pod.done.wait(20)


def test_many_pods_share_a_few_threads_which_end_with_them(tmp_path: Path) -> None:
    end = threading.Event()
    with serving(tmp_path, lambda _: Answer(200, text=told([b"one"]), until=end)) as server:
        pods = [followed(server, tmp_path, f"pod-{number}") for number in range(3 * WORKERS)]
        group = Followers(threading.Event().set)
        for pod in pods:
            group.add(pod)
        until(lambda: len(followers()) == WORKERS)
        for pod in pods:
            pod.end()
        end.set()
        assert all(pod.done.wait(20) for pod in pods)
    assert {read(pod.folder / "run.log") for pod in pods} == {"one\n"}
    until(lambda: not followers())


def test_one_process_listens_and_another_goes_on_when_it_dies(tmp_path: Path) -> None:
    with serving(tmp_path, lambda _: Answer(200, text=told([b"one"]))) as server:
        pod = followed(server, tmp_path)
        pod.folder.mkdir()
        with (pod.folder / LOCK).open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            Followers(threading.Event().set).add(pod)
            assert not pod.done.wait(0.7)
            assert server.count("log") == 0
        pod.end()
        assert pod.done.wait(10)
    assert read(pod.folder / "run.log") == "one\n"
