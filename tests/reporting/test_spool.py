from __future__ import annotations

from pathlib import Path

import pytest

from pytest_madengine.reporting.spool import Spool
from pytest_madengine.results.documents import Document

PLACE = ("benchmarks", "runs")


def document(name: str) -> Document:
    return Document({"_id": name}, {"model": name, "performance": 1.5}, f"row {name}")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def test_what_is_put_comes_out_in_its_order(spool: Spool) -> None:
    for name in "cab":
        spool.put(name, PLACE, [document(name)])
    assert [(each.place, each.documents) for each in spool.parcels()] == [(PLACE, (document(name),)) for name in "cab"]
    assert spool.count() == 3


def test_the_same_put_twice_waits_once(spool: Spool) -> None:
    for name in ("old", "new"):
        spool.put("result", PLACE, [document(name)])
    assert [each.documents for each in spool.parcels()] == [(document("new"),)]


def test_what_is_sent_is_forgotten_whoever_sends_it(spool: Spool, tmp_path: Path) -> None:
    spool.put("a", PLACE, [document("a")])
    (parcel,), (same,) = spool.parcels(), Spool(tmp_path).parcels()
    spool.sent(parcel)
    Spool(tmp_path).sent(same)
    assert spool.count() == 0


def test_what_is_refused_is_kept_and_waits_no_more(spool: Spool) -> None:
    spool.put("a", PLACE, [document("a")])
    (parcel,) = spool.parcels()
    spool.refused(parcel)
    assert (spool.count(), list(spool.parcels())) == (0, [])
    (again,) = spool.parcels(refused=True)
    assert again.documents == (document("a"),)
    spool.sent(again)
    assert list(spool.parcels(refused=True)) == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"place": ["a", "b"]}', '{"place": 1, "documents": []}'])
def test_what_nobody_can_read_is_left_where_it_is(spool: Spool, text: str) -> None:
    spool.put("a", PLACE, [document("a")])
    (spool.folder / "damaged.json").write_text(text)
    assert [each.documents for each in spool.parcels()] == [(document("a"),)]
    assert spool.count() == 2


def test_no_half_written_file_is_ever_seen(spool: Spool) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        spool.put("a", PLACE, [Document({}, {"bad": object()}, "")])
    assert list(spool.folder.iterdir()) == []


def test_where_nothing_was_ever_put_nothing_waits(spool: Spool) -> None:
    assert (spool.count(), list(spool.parcels())) == (0, [])
