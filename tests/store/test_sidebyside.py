from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.store.entry import Entry
from pytest_madengine.store.sidebyside import Pair, pairs

NOTHING: dict[str, object] = dict.fromkeys(Entry._fields, "")


def entry(model: str, value: float | None = 1.0, unit: str = "tok/s", **more: object) -> Entry:
    status = "FAILURE" if value is None else "SUCCESS"
    own = {"model": model, "value": value, "unit": unit, "status": status, "name": "performance", "direction": "higher"}
    return Entry(**{**NOTHING, **own, **more})  # type: ignore[arg-type]  # texts and numbers as they come


BOTH: list[tuple[str, Any]] = list(entry("m")._asdict().items())


def one(first: Entry, second: Entry) -> Pair:
    (pair,) = pairs([first], [second])
    return pair


def test_a_change_is_a_part_of_the_first_value() -> None:
    pair = one(entry("m", 100.0), entry("m", 94.0))
    assert (pair.first, pair.second, pair.change, pair.worse, pair.state) == (100.0, 94.0, -0.06, True, "")


def test_more_is_worse_where_less_is_better() -> None:
    assert one(entry("m", 2.0, direction="lower"), entry("m", 3.0, direction="lower")).worse is True
    assert one(entry("m", 2.0, direction="lower"), entry("m", 1.0, direction="lower")).worse is False


def test_where_nothing_changed_nothing_is_worse() -> None:
    pair = one(entry("m"), entry("m"))
    assert (pair.change, pair.worse) == (0.0, None)


def test_without_two_values_of_one_unit_there_is_no_change() -> None:
    for first, second in ((None, 1.0), (1.0, None), (0.0, 1.0)):
        assert one(entry("m", first), entry("m", second)).change is None
    other = one(entry("m", unit="ms"), entry("m", unit="s"))
    assert (other.change, other.unit) == (None, "ms / s")


def test_models_of_one_side_alone_are_told_as_new_or_vanished() -> None:
    found = pairs([entry("old"), entry("both")], [entry("new"), entry("both")])
    assert [(pair.model, pair.state) for pair in found] == [("old", "vanished"), ("both", ""), ("new", "new")]


def test_what_fails_on_one_side_alone_is_broken_or_mended() -> None:
    assert one(entry("m"), entry("m", None)).state == "broken"
    assert one(entry("m", None), entry("m")).state == "mended"
    assert one(entry("m", None, status="SKIPPED"), entry("m")).state == ""


def test_only_rows_of_one_machine_and_launcher_are_compared() -> None:
    for name in ("gpu_architecture", "n_gpus", "launcher", "name"):
        one_side, other_side = (Entry._make(text if field == name else value for field, value in BOTH) for text in "xy")
        found = pairs([one_side], [other_side])
        assert [pair.state for pair in found] == ["vanished", "new"]


def test_variants_of_a_model_are_found_by_their_arguments() -> None:
    first = [entry("m", 1.0, args="--a"), entry("m", 2.0, args="--b")]
    found = pairs(first, [entry("m", 4.0, args="--b"), entry("m", 2.0, args="--a")])
    assert [(pair.first, pair.second) for pair in found] == [(1.0, 2.0), (2.0, 4.0)]


def test_a_model_whose_arguments_changed_is_compared_all_the_same() -> None:
    assert one(entry("m", 1.0, args="--a"), entry("m", 2.0, args="--c")).change == 1.0


def test_of_a_history_the_last_value_counts() -> None:
    found = pairs([entry("m", 1.0), entry("m", 2.0)], [entry("m", 3.0)], newest=(True, False))
    assert [(pair.first, pair.second) for pair in found] == [(2.0, 3.0)]


entries = st.builds(
    entry,
    st.sampled_from("abc"),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "ms"]),
    args=st.sampled_from(["", "--x"]),
)


@given(st.lists(entries, max_size=6), st.lists(entries, max_size=6))
def test_nothing_gets_lost(first: list[Entry], second: list[Entry]) -> None:
    found = pairs(first, second)
    assert len([pair for pair in found if pair.state != "new"]) == len(first)
    assert len([pair for pair in found if pair.state != "vanished"]) == len(second)
    assert all(pair.change is None or not math.isnan(pair.change) for pair in found)
