from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.backends.kuberesults import PIECE, Reader, give_back, kept, make_room, store, wanted
from pytest_madengine.errors import InfrastructureError


def archive(members: dict[str, bytes], links: dict[str, str] | None = None) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as packed:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            packed.addfile(info)
    return file


def test_only_what_is_kept_is_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    hostile = {"../evil": b"x", "/etc/evil": b"x", "artifacts/../../evil": b"x", "other": b"x", "run.sh": b"x"}
    store(
        archive(
            {**hostile, "run.log": b"log", "artifacts/deep/a.csv": b"1", "status": b"0\n"}, {"host": "/etc/passwd"}
        ),
        folder,
    )
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"job/run.log", "job/artifacts/deep/a.csv", "job/status"}


def test_results_replace_what_was_shown_before(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/stale.csv").write_text("x")
    (tmp_path / "run.log").write_text("a part of it")
    store(archive({"run.log": b"all of it", "status": b"3\n"}), tmp_path)
    assert (tmp_path / "run.log").read_text() == "all of it"
    assert list((tmp_path / "artifacts").iterdir()) == []


@pytest.mark.parametrize("path", ["", "..", "run.log/../../x", "perf.csv", "/run.log"])
def test_paths_that_no_pod_keeps(path: str) -> None:
    assert not wanted(Path(path).parts)


def test_an_earlier_try_makes_room(tmp_path: Path) -> None:
    def follow(name: str) -> None:
        make_room(tmp_path / "ranks/1", name, tmp_path)

    (tmp_path / "ranks/1").mkdir(parents=True)
    follow("first")
    store(archive({"run.log": b"first", "status": b"1\n"}), tmp_path / "ranks/1")
    assert kept(tmp_path / "ranks/1", "first")
    follow("first")
    assert (tmp_path / "ranks/1/run.log").read_text() == "first"
    follow("second")
    assert not kept(tmp_path / "ranks/1", "second")
    assert (tmp_path / "ranks/1/run.log").read_text() == ""
    assert (tmp_path / "earlier/first/run.log").read_text() == "first"
    assert kept(tmp_path / "earlier/first", "first")


def test_the_log_of_a_pod_that_was_taken_away_stands_again_and_the_other_one_is_put_aside(tmp_path: Path) -> None:
    make_room(tmp_path, "first", tmp_path)
    (tmp_path / "run.log").write_text("first")
    make_room(tmp_path, "second", tmp_path)
    (tmp_path / "run.log").write_text("second")
    give_back(tmp_path, "first", tmp_path)
    give_back(tmp_path, "never seen", tmp_path)
    assert (tmp_path / "run.log").read_text() == "first"
    assert (tmp_path / "earlier/second/run.log").read_text() == "second"


@given(st.integers(1, 3 * PIECE), st.integers(PIECE // 50, 2 * PIECE))
def test_an_archive_is_asked_for_piece_by_piece(size: int, most: int) -> None:
    file, stored = io.BytesIO(), list[int]()
    reader = Reader(file, lambda: stored.append(file.tell()))
    said = reader(b"%d\n" % size)
    while said != b"kept\n":
        start, count = (int(word) for word in said.split())
        left = min(count, size - start + 1)
        while left:
            left -= (piece := min(most, left))
            said = reader(b"x" * piece)
            assert not said or not left
    assert stored == [size]
    assert reader.stored


def test_an_archive_that_is_too_large_is_not_fetched() -> None:
    with pytest.raises(InfrastructureError, match="more than"):
        Reader(io.BytesIO(), lambda: None)(b"999999999999\n")
