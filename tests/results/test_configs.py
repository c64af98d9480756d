from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.results.configs import argument, candidates, for_row, parse

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
configs = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=5
)


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ("--config a.csv", "a.csv"),
        ("--x 1 --config   configs/a.json --y", "configs/a.json"),
        ('--config "my configs/a.csv" --y', "my configs/a.csv"),
        ("--config 'a.csv'", "a.csv"),
        ("--config a.csv --config b.csv", "a.csv"),
        ("--config=a.csv", ""),
        ("--config_dir x", ""),
        ("--my--config x", ""),
        ("--config", ""),
        ("", ""),
    ],
)
def test_the_path_behind_config(args: str, path: str) -> None:
    assert argument(args) == path


@pytest.mark.parametrize(
    ("folder", "places"),
    [
        ("scripts/llama", ["scripts/llama/c.csv", "scripts/c.csv"]),
        ("scripts/a/b/c", ["scripts/a/b/c/c.csv", "scripts/c.csv", "scripts/a/b/c.csv", "scripts/a/c.csv"]),
        ("scripts/MAD/a/b", ["scripts/MAD/a/b/c.csv", "scripts/MAD/c.csv", "scripts/MAD/a/c.csv"]),
        ("scripts/MAD", ["scripts/MAD/c.csv"]),
        ("elsewhere", ["elsewhere/c.csv", "scripts/c.csv"]),
        ("", ["c.csv", "scripts/c.csv"]),
    ],
)
def test_a_relative_path_is_looked_for_from_the_script_up_to_its_repository(folder: str, places: list[str]) -> None:
    assert candidates("c.csv", folder) == places


@pytest.mark.parametrize(
    ("text", "suffix", "content"),
    [
        ("model,batch\na,1\n,\nb,\n", ".csv", [{"model": "a", "batch": "1"}, {"model": "b", "batch": None}]),
        ("\ufeffmodel\na\n", ".csv", [{"model": "a"}]),
        ("", ".csv", []),
        ('{"a": [1]}', ".json", {"a": [1]}),
        ("\ufeff[1]", ".json", [1]),
        ('{"a": NaN, "b": [-Infinity]}', ".json", {"a": None, "b": [None]}),
        ("a: [1, x]\nb: 2026-01-02\n", ".yaml", {"a": [1, "x"], "b": "2026-01-02"}),
        ("a: .nan", ".yml", {"a": None}),
        ("1: x", ".yaml", {"1": "x"}),
        ("anything", ".txt", None),
        ("anything", "", None),
    ],
)
def test_a_file_is_read_by_its_kind(text: str, suffix: str, content: Any) -> None:
    assert parse(text, suffix) == content


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("{", ".json"),
        ("a: [", ".yaml"),
        ("&a [*a]", ".yaml"),
        ("2026-01-02: x", ".yaml"),
        ("? [a]\n: x", ".yaml"),
        (f"a\n{'x' * 200_000}", ".csv"),
        ("[" * 100_000, ".json"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_a_value_error(text: str, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text, suffix)


@settings(deadline=None, max_examples=30)
@given(st.text(), st.sampled_from([".csv", ".json", ".yaml"]))
def test_any_text_gives_strict_json_or_a_value_error(text: str, suffix: str) -> None:
    try:
        content = parse(text, suffix)
    except ValueError:
        content = None
    assert json.loads(json.dumps(content, allow_nan=False)) == content


@settings(deadline=None, max_examples=30)
@given(configs)
def test_whatever_json_holds_is_kept_but_for_nan(config: Any) -> None:
    text = json.dumps(config, default=str)
    assert parse(text, ".json") == json.loads(text, parse_constant=lambda _: None)


LIST = [
    {"model": "llama-2-7", "benchmark": "train", "n": 1},
    {"model": "llama-2-70", "benchmark": "train", "n": 2},
    {"model": "llama-2-70", "benchmark": "serve", "n": 3},
    {"model": "Meta/Llama-3", "n": 4},
    {"n": 5},
    "no object",
]


@pytest.mark.parametrize(
    ("row", "number"),
    [
        ({"model": "llama-2-7"}, 1),
        ({"model": "llama-2-70"}, 2),
        ({"model": "llama-2-70", "benchmark": "serve"}, 3),
        ({"model": "llama_2_70_fp16"}, 2),
        ({"model": "META_llama-3"}, 4),
        ({"model": "llama-2"}, 1),
        ({"model": "bert"}, None),
        ({"model": "llama-2-7-x", "benchmark": "serve"}, None),
        ({"model": ""}, None),
        ({}, None),
    ],
)
def test_a_row_gets_the_entry_whose_name_is_most_like_its_own(row: dict[str, str], number: int | None) -> None:
    found = for_row(LIST, row)
    assert (found["n"] if found else None) == number


@pytest.mark.parametrize("config", [None, {"a": 1}, "text", 3])
def test_a_configuration_without_list_belongs_to_every_row(config: Any) -> None:
    assert for_row(config, {"model": "x"}) == config


def test_the_only_entry_belongs_to_every_row() -> None:
    assert for_row([{"n": 1}], {"model": "x"}) == {"n": 1}
    assert for_row([], {"model": "x"}) is None
