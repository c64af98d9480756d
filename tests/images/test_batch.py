from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pytest_madengine.errors import FaultsError
from pytest_madengine.images import batch
from pytest_madengine.images.batch import BatchEntry
from pytest_madengine.models.selection import Named
from tests import golden

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "build-manifest" / "batch.json"
SCHEMA = ROOT / "docs" / "batch_manifest.schema.json"
KEYS = "build_new, model_name, registry, registry_image"
MODELS = [Named("llama", ("text", "quick")), Named("team/resnet", ("vision",))]


def written(folder: Path, text: str) -> Path:
    path = folder / "batch.json"
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(folder: Path, text: str) -> list[str]:
    path = written(folder, text)
    with pytest.raises(FaultsError) as caught:
        batch.read(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_entries_come_in_order_with_their_lines(tmp_path: Path) -> None:
    text = """[
  {"model_name": "a"}, {"model_name": "b", "build_new": true},

  {
    "model_name": "c", "_comment": "for CI",
    "registry": "localhost:5000",
    "registry_image": "localhost:5000/c:1"
  }
]"""
    assert batch.read(written(tmp_path, text)) == (
        BatchEntry(0, 2, "a", build_new=False, registry="", registry_image=""),
        BatchEntry(1, 2, "b", build_new=True, registry="", registry_image=""),
        BatchEntry(2, 4, "c", build_new=False, registry="localhost:5000", registry_image="localhost:5000/c:1"),
    )


def test_null_says_nothing_of_a_registry(tmp_path: Path) -> None:
    (found,) = batch.read(written(tmp_path, '[{"model_name": "a", "registry": null}]'))
    assert found.registry == ""


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["1:1: not JSON: Expecting value"]),
        ('[\n{"model_name": }]', ["2:16: not JSON: Expecting value"]),
        ("[]", ['1: found an empty list; valid: a list of objects such as {"model_name": "llama"}']),
        ('\n{"model_name": "a"}', ['2: found a dict; valid: a list of objects such as {"model_name": "llama"}']),
        ('[1,\n "a"]', ["1: [0]: found 1; valid: an object", "2: [1]: found 'a'; valid: an object"]),
        ('[{"build_new": true}]', ["1: [0]: 'model_name' is missing; valid: it must be given"]),
        (
            '[{"model_name": "",\n "build_new": "yes",\n "registry": 5000}]',
            [
                "1: [0].model_name: found ''; valid: a string that is not empty",
                "2: [0].build_new: found 'yes'; valid: true or false",
                "3: [0].registry: found 5000; valid: a string",
            ],
        ),
        (
            '[{"model_name": "a"},\n {"model_name": "b",\n  "build-new": true, "tags": []}]',
            [
                f"3: [1].build-new: unknown key 'build-new'; valid: {KEYS}; did you mean 'build_new'?",
                f"3: [1].tags: unknown key 'tags'; valid: {KEYS}",
            ],
        ),
        (
            '[{"model_name": "a"},\n {"model_name": "b"},\n {\n  "model_name": "a"}]',
            ["4: [2].model_name: 'a' already stands on line 1; valid: each model once"],
        ),
        (
            '[{"model_name": "a"},\n {"model_name": "a"},\n {"model": "c"}]',
            [
                "3: [2]: 'model_name' is missing; valid: it must be given",
                f"3: [2].model: unknown key 'model'; valid: {KEYS}; did you mean 'model_name'?",
                "2: [1].model_name: 'a' already stands on line 1; valid: each model once",
            ],
        ),
    ],
)
def test_what_is_wrong_is_told_with_line_and_what_is_valid(tmp_path: Path, text: str, faults: list[str]) -> None:
    assert faults_of(tmp_path, text) == faults


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(FaultsError, match=r"batch.json: cannot be read: "):
        batch.read(tmp_path / "batch.json")


def test_names_and_tags_select_models(tmp_path: Path) -> None:
    path = written(tmp_path, '[{"model_name": "llama"}, {"model_name": "vision"}, {"model_name": "team/resnet"}]')
    assert batch.unmatched(path, batch.read(path), MODELS) is None


def test_names_that_select_no_model_are_told_with_the_nearest_spelling(tmp_path: Path) -> None:
    path = written(tmp_path, '[{"model_name": "llama"},\n {"model_name": "lama"},\n {"model_name": "zzz"}]')
    lost = batch.unmatched(path, batch.read(path), MODELS)
    assert str(lost).splitlines() == [
        f"{path}:2: [1].model_name: 'lama' selects no model; valid: one of 5 names and tags; did you mean 'llama'?",
        f"{path}:3: [2].model_name: 'zzz' selects no model; valid: one of 5 names and tags",
    ]


def test_where_there_are_no_models_no_name_is_guessed_at(tmp_path: Path) -> None:
    path = written(tmp_path, '[{"model_name": "llama"}]')
    lost = batch.unmatched(path, batch.read(path), [])
    assert str(lost) == f"{path}:1: [0].model_name: 'llama' selects no model; valid: no model was found at all"


items = st.fixed_dictionaries(
    {"model_name": st.text(max_size=3)},
    optional={"build_new": st.booleans(), "registry": st.text(max_size=3), "registry_image": st.text(max_size=3)},
)
odd = st.dictionaries(
    st.sampled_from(["model_name", "build_new", "x", "_x"]), st.none() | st.booleans() | st.text("ab")
)


@settings(deadline=None, max_examples=60)
@given(st.lists(items | odd, max_size=3, unique_by=lambda item: item.get("model_name")))
def test_the_schema_accepts_what_the_reader_accepts(data: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            found: tuple[BatchEntry, ...] = batch.read(written(Path(folder), json.dumps(data)))
        except FaultsError:
            found = ()
    assert bool(found) == Draft202012Validator(batch.schema()).is_valid(data)
    assert [entry.model_name for entry in found] == [item["model_name"] for item in data if found]


def test_the_example_shows_every_kind_of_entry() -> None:
    found = batch.read(EXAMPLE)
    assert [(each.build_new, bool(each.registry), bool(each.registry_image)) for each in found] == [
        (True, True, True),
        (True, True, False),
        (False, True, True),
        (False, False, False),
    ]
    Draft202012Validator(batch.schema()).validate(json.loads(EXAMPLE.read_text(encoding="utf-8")))


def test_the_schema_is_published() -> None:
    schema = batch.schema()
    Draft202012Validator.check_schema(schema)
    golden.compare(f"{json.dumps(schema, indent=2)}\n", SCHEMA)
