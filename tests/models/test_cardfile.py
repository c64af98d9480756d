from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.errors import FaultsError
from pytest_madengine.models import cardfile
from pytest_madengine.models.cardfile import CardWarning, line_in

blanks = st.text(" \t\n", max_size=6)


def written(folder: Path, text: str) -> Path:
    path = folder / "models.json"
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(folder: Path, text: str) -> list[str]:
    path = written(folder, text)
    with pytest.raises(FaultsError) as caught:
        cardfile.read(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def fault_of(folder: Path, text: str) -> str:
    (fault,) = faults_of(folder, text)
    return fault


def test_cards_come_in_order_with_their_lines(tmp_path: Path) -> None:
    path = written(tmp_path, '[\n {"name": "a"}, {"name": "b"},\n\n {\n  "name": "c"\n }\n]\n')
    assert [(model.name, line) for model, line in cardfile.read(path)] == [("a", 2), ("b", 2), ("c", 4)]


def test_an_empty_list_holds_no_cards(tmp_path: Path) -> None:
    assert cardfile.read(written(tmp_path, " [ ] \n")) == []


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(blanks, blanks, st.sampled_from([None, 1, "\t"])), min_size=1))
def test_a_card_stands_on_the_line_of_its_brace(layout: list[tuple[str, str, Any]]) -> None:
    text, lines = "[", []
    for number, (before, behind, indent) in enumerate(layout):
        text += ("," if number else "") + before
        lines.append(text.count("\n") + 1)
        text += json.dumps({"name": f"m{number}", "args": "x\ny"}, indent=indent) + behind
    with tempfile.TemporaryDirectory() as folder:
        cards = cardfile.read(written(Path(folder), f"{text}]"))
    assert [line for _, line in cards] == lines


@settings(deadline=None, max_examples=40)
@given(st.text('[]{},:" \n\\ab1-.eutrfalsn'))
def test_any_text_gives_cards_or_faults(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", CardWarning)
        try:
            cards = cardfile.read(written(Path(folder), text))
        except FaultsError:
            cards = []
    assert all(model.name and 1 <= line <= text.count("\n") + 1 for model, line in cards)


def test_every_fault_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    text = """[
  {"name": "a", "n_gpus": "many",
   "timeout": -7},
  {"name": "b"},
  {"scripts": "x"},
  {
    "name": "c",
    "distributed": {
      "launchr": "torchrun",
      "nnodes": 0
    }
  }
]"""
    assert faults_of(tmp_path, text) == [
        "2: [0].n_gpus (a): found 'many'; valid: a whole number",
        "3: [0].timeout (a): found -7; valid: greater than or equal to -1",
        "5: [2]: 'name' is missing; valid: it must be given",
        "10: [3].distributed.nnodes (c): found 0; valid: greater than or equal to 1",
        "9: [3].distributed.launchr (c): unknown key 'launchr'; valid: backend, enabled, launcher, master_port, nnodes,"
        " nproc_per_node, port, primus, sglang_disagg, vllm_disagg; did you mean 'launcher'?",
    ]


@pytest.mark.parametrize("indent", ["  ", "\t"])
def test_a_fault_names_the_keys_line_however_the_file_is_indented(tmp_path: Path, indent: str) -> None:
    text = f'[\n{indent}{{\n{indent * 2}"name": "a",\n{indent * 2}"n_gpus":\n{indent * 3}"x"\n{indent}}}\n]'
    assert fault_of(tmp_path, text) == "4: [0].n_gpus (a): found 'x'; valid: a whole number"


def test_a_name_that_stands_twice_is_a_fault(tmp_path: Path) -> None:
    text = '[{"name": "a"},\n {"name": "b"},\n {"args": "x",\n  "name": "a"}]'
    assert fault_of(tmp_path, text) == (
        "4: [2].name (a): the name 'a' already stands on line 1; valid: a name of its own for each card"
    )


def test_a_key_that_stands_twice_is_a_fault(tmp_path: Path) -> None:
    assert fault_of(tmp_path, '[\n{"name": "a", "args": "1",\n"args": "2"}]') == (
        "2:1: the key 'args' stands twice in one card; valid: each key once"
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1: found an empty file; valid: a JSON list of model cards"),
        (" \n", "1: found an empty file; valid: a JSON list of model cards"),
        ('{"name": "a"}', '1: found \'{"name": "a"}\'; valid: a JSON list of model cards'),
        ("[1]", "1: [0]: found 1; valid: an object"),
        ('[{"name": "a"},\n]', "1:15: found ','; valid: ',' and another card, or ']'"),
        ('[{"name": "a"}\n {"name": "b"}]', "2:2: found '{'; valid: ',' and another card, or ']'"),
        ('[{"name": "a"}', "1:15: found ''; valid: ',' and another card, or ']'"),
        ("[", "1:2: not JSON: Expecting value"),
        ('[{"name": }]', "1:11: not JSON: Expecting value"),
        ('[{"name": "a"}]\nextra', "1:16: found 'extra' behind the list; valid: nothing"),
        ("[" * 100_000, "1:2: not JSON that can be read: "),
        ('[{"name": "a", "timeout": ' + "9" * 5000 + "}]", "1:2: not JSON that can be read: Exceeds the limit"),
    ],
)
def test_a_file_that_is_no_list_of_cards_says_where_and_why(tmp_path: Path, text: str, fault: str) -> None:
    assert fault_of(tmp_path, text).startswith(fault)


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'[{"name": "gr\xf6\xdfe"}]')
    for path in (tmp_path / "missing.json", tmp_path, tmp_path / "latin.json"):
        with pytest.raises(FaultsError, match=r"cannot be read: "):
            cardfile.read(path)


def test_an_unknown_key_warns_with_its_line_and_the_nearest_spelling(tmp_path: Path) -> None:
    path = written(tmp_path, '[{"name": "a",\n "arg": "x"}]')
    with pytest.warns(CardWarning, match=r"models.json:2: \[0\].arg \(a\): unknown key kept; did you mean 'args'\?"):
        ((model, _),) = cardfile.read(path)
    assert model.model_extra == {"arg": "x"}


@pytest.mark.parametrize("how", ["--collect-only", "--madengine-dry-run", "-v"])
def test_the_warning_shows_no_more_of_the_card(pytester: pytest.Pytester, how: str) -> None:
    card = '[{"name": "a", "scripts": "a.sh", "imagx": 1, "env_vars": {"API_KEY": "plantedsecret9"}}]'
    written(pytester.path, card)
    (pytester.path / "a.sh").write_text("true\n")
    result = pytester.runpytest("--madengine-tags=all", "--target=host", how)
    result.stdout.fnmatch_lines(["*models.json:1: *imagx (a): unknown key kept*"])
    result.stdout.no_fnmatch_line("*plantedsecret9*")


def test_an_unknown_key_like_no_other_is_not_guessed_at(tmp_path: Path) -> None:
    with pytest.warns(CardWarning, match=r"unknown key kept$"):
        cardfile.read(written(tmp_path, '[{"name": "a", "zzz": 1}]'))


def test_a_key_that_begins_with_an_underscore_is_a_comment(tmp_path: Path) -> None:
    ((model, _),) = cardfile.read(written(tmp_path, '[{"name": "a", "_comment": "for CI"}]'))
    assert model.name == "a"


def test_a_secret_value_of_the_wrong_type_is_not_shown(tmp_path: Path) -> None:
    fault = fault_of(tmp_path, '[{"name": "a", "env_vars": {"HF_TOKEN": ["hf_abcdef"]}}]')
    assert fault == "1: [0].env_vars.HF_TOKEN (a): found ***; valid: a string"


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    assert len(fault_of(tmp_path, json.dumps([{"name": "a", "n_gpus": "x" * 5000}]))) < 200


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ('{"a": 1,\n "b": {"c":\n 2,\n "d": [1,\n 2]}}', ("b", "d", 1), 4),
        ('{"a": 1,\n "b": 2}', ("b", "deeper"), 1),
        ('{"a": 1}', ("missing",), 0),
        ("a: 1\nb:\n  - x\n  - y: 3\n    z: 4\n", ("b", 1, "z"), 4),
        ("a:\n - 1\n", ("a", 7), 0),
        ("", ("a",), 0),
        ("{broken", ("a",), 0),
    ],
)
def test_the_line_of_a_key_is_found_in_json_and_yaml(text: str, key: tuple[str | int, ...], line: int) -> None:
    assert line_in(text, key) == line
