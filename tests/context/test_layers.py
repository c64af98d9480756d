from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.context.layers import merged

leaves = st.integers() | st.none() | st.lists(st.integers(), max_size=2)
names = st.sampled_from("abc")
layers = st.recursive(
    st.dictionaries(names, leaves),
    lambda inner: st.dictionaries(names, leaves | inner),
    max_leaves=5,
)


def test_objects_merge_key_by_key_and_all_else_is_replaced() -> None:
    below = {"slurm": {"nodes": 1, "time": "1:00"}, "tools": [1, 2], "a": 1, "b": {"x": 1}}
    above = {"slurm": {"nodes": 4}, "tools": [3], "a": {"y": 2}, "b": None, "c": 5}
    assert merged(below, above) == {
        "slurm": {"nodes": 4, "time": "1:00"},
        "tools": [3],
        "a": {"y": 2},
        "b": None,
        "c": 5,
    }


def test_no_layers_are_an_empty_object() -> None:
    assert merged() == {}


@settings(deadline=None, max_examples=25)
@given(layers, layers, layers)
def test_how_layers_are_grouped_does_not_matter(
    one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]
) -> None:
    together = merged(one, two, three)
    assert merged(merged(one, two), three) == together
    assert merged(one, {}, two, three) == together
    assert merged(together, three) == together


@settings(deadline=None, max_examples=25)
@given(layers, layers)
def test_merging_changes_no_layer(below: dict[str, Any], above: dict[str, Any]) -> None:
    before = copy.deepcopy((below, above))
    merged(below, above)["new"] = 1
    assert (below, above) == before


@settings(deadline=None, max_examples=25)
@given(layers, layers)
def test_the_later_layer_wins_and_nothing_is_lost(below: dict[str, Any], above: dict[str, Any]) -> None:
    result = merged(below, above)
    assert result.keys() == below.keys() | above.keys()
    for key, value in above.items():
        assert result[key] == (merged(below[key], value) if _both_objects(below.get(key), value) else value)


def _both_objects(one: object, other: object) -> bool:
    return isinstance(one, dict) and isinstance(other, dict)
