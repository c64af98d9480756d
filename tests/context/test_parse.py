from __future__ import annotations

import json
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.context import parse
from pytest_madengine.errors import FaultsError

OPTION = "--madengine-context"
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4)
objects = st.dictionaries(st.text(), values)


@settings(deadline=None, max_examples=20)
@given(objects)
def test_any_object_survives_as_json_and_as_python_literal(value: dict[str, Any]) -> None:
    assert parse.inline(json.dumps(value), OPTION) == value
    assert parse.inline(json.dumps(value, ensure_ascii=False), OPTION) == value
    assert parse.inline(repr(value), OPTION) == value


@settings(deadline=None, max_examples=60)
@given(st.text())
def test_any_text_is_an_object_or_a_users_error(text: str) -> None:
    try:
        value = parse.inline(text, OPTION)
    except FaultsError:
        value = {}
    assert isinstance(value, dict)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': True, 'b': None}", {"a": True, "b": None}),
        ("{'a': true, 'b': false, 'c': null}", {"a": True, "b": False, "c": None}),
        ("{'a': [1, {'b': (2, 3)}]}", {"a": [1, {"b": (2, 3)}]}),
        (" {'a': -1.5} ", {"a": -1.5}),
        ("{}", {}),
    ],
)
def test_a_python_literal_may_hold_jsons_constants(text: str, value: object) -> None:
    assert parse.inline(text, OPTION) == value


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "column 1: not JSON (Expecting value) and not a Python literal"),
        ("{'a': open('x')}", "column 2: not JSON"),
        ("{'a': name}", "column 2: not JSON"),
        ("{[]: 1}", "column 2: not JSON"),
        ("{'a': 1", "column 2: not JSON"),
        ("{'a':" * 500 + "1" + "}" * 500, "column"),
        ("[1]", "found [1]"),
        ("'text'", "found 'text'"),
        ("null", "found None"),
        ("{1: 2}", "found the key 1; valid: strings as keys"),
        ("{None: 2}", "found the key None; valid: strings as keys"),
    ],
)
def test_a_text_that_holds_no_object_is_a_users_error(text: str, fault: str) -> None:
    with pytest.raises(FaultsError) as caught:
        parse.inline(text, OPTION)
    assert str(caught.value).startswith(f"{OPTION}: {fault}")


@settings(deadline=None, max_examples=12)
@given(objects)
def test_any_object_survives_in_a_file(value: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("c.json", json.dumps(value)), ("c.yaml", yaml.safe_dump(value))):
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8")
            assert parse.file(path) == (value, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"gpu_vendor": "AMD", "slurm": {"nodes": 2}}'),
        ("c.yaml", "gpu_vendor: AMD\nslurm:\n  nodes: 2\n"),
        ("c.yml", "gpu_vendor: AMD\nslurm: {nodes: 2}\n"),
        ("c", "gpu_vendor: AMD\nslurm: {nodes: 2}\n"),
    ],
)
def test_a_file_is_json_or_yaml_by_its_name(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert parse.file(path) == ({"gpu_vendor": "AMD", "slurm": {"nodes": 2}}, text)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("24:00:00", "24:00:00"),
        ("1:30", "1:30"),
        ("+1_0:59:59.5", "+1_0:59:59.5"),
        ("'12:00:00'", "12:00:00"),
        ("1-12:00:00", "1-12:00:00"),
        ("90", 90),
        ("-1.5", -1.5),
        ("0x1F", 31),
        ("2026-03-14 15:09:26", datetime(2026, 3, 14, 15, 9, 26)),
        ("yes", True),
    ],
)
def test_a_time_of_day_in_yaml_is_no_number(tmp_path: Path, written: str, value: object) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"a: {written}\nb: [{written}]\n", encoding="utf-8")
    assert parse.file(path)[0] == {"a": value, "b": [value]}


@given(st.from_regex(r"[-+]?[0-9]{1,3}(:[0-5]?[0-9]){1,3}(\.[0-9]{0,3})?", fullmatch=True))
def test_no_time_of_day_is_counted_in_sixties(text: str) -> None:
    assert yaml.load(text, parse.Loader) == text  # noqa: S506  # a SafeLoader


def test_loading_elsewhere_stays_as_it_is() -> None:
    assert yaml.safe_load("1:30") == 90


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("c.json", b"{\n 'a': 1}", ":2:2: not JSON: Expecting property name"),
        ("c.json", b"[]", ": found []; valid: an object"),
        ("c.yaml", b"a: [", ": not YAML: "),
        ("c.yaml", b"", ": found None; valid: an object"),
        ("c.yaml", b"- a", ": found ['a']; valid: an object"),
        ("c.yaml", b"on: 1", ": found the key True; valid: strings as keys"),
        ("c.yaml", b"a: gr\xf6\xdfe", ": cannot be read: "),
        ("c.yaml", b"!!python/object/apply:os.system [id]", ": not YAML: "),
    ],
)
def test_a_file_that_holds_no_object_is_a_users_error(tmp_path: Path, name: str, content: bytes, fault: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FaultsError) as caught:
        parse.file(path)
    assert str(caught.value).startswith(f"{path}{fault}")


def test_a_file_that_is_not_there_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(FaultsError, match="cannot be read: "):
        parse.file(tmp_path / "missing.json")
