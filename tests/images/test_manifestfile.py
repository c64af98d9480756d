from __future__ import annotations

import json
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.context.context import validated
from pytest_madengine.errors import FaultsError, UserError
from pytest_madengine.images import manifestfile
from pytest_madengine.images.image import Image
from pytest_madengine.images.manifest import Entry
from pytest_madengine.images.manifestcontent import content
from pytest_madengine.images.manifestfile import Places
from pytest_madengine.models.model import Model
from pytest_madengine.secrets import NO_SECRETS
from pytest_madengine.validation import Path as KeyPath

TEXT = """{
  "built_images": {"a": {"docker_image": "ci-a"}, "b": {"docker_image": "ci-b"}},
  "built_models": {
    "a": {"name": "a"},
    "b": {
      "name": "b",
      "n_gpus": "2"
    }
  },
  "summary": {
    "failed_builds": [
      {"model": "c", "error": "x"},
      {"model": "c", "error": "y"}
    ]
  },
  "context": {
    "docker_gpus": "x"
  },
  "deployment_config": {
    "target": "moon",
    "slurm": {},
    "env_vars": {"A": [1]}
  }
}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "build_manifest.json"
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(folder: Path, text: str) -> list[str]:
    path = written(folder, text)
    with pytest.raises(FaultsError) as caught:
        manifestfile.read(path)
    return [line.removeprefix(str(path)) for line in str(caught.value).splitlines()]


def test_entries_come_with_their_lines(tmp_path: Path) -> None:
    found, lines = manifestfile.read(written(tmp_path, TEXT))
    assert [each.key for each in found.entries] == ["a", "b", "c", "c#2"]
    assert lines == {"a": 4, "b": 5, "c": 12, "c#2": 13}


def test_a_file_tells_what_its_manifest_tells(tmp_path: Path) -> None:
    read = manifestfile.read(written(tmp_path, TEXT))
    assert (read.entries, read.context) == (read.manifest.entries, read.manifest.context)
    assert (read.secrets_required, read.credentials_required) == ((), ())


def test_faults_name_the_lines_of_their_keys(tmp_path: Path) -> None:
    text = TEXT.replace('"2"', '"two"').replace('"error": "y"', '"error": 3').replace('{"name": "a"}', '{"nam": "a"}')
    assert faults_of(tmp_path, text) == [
        ":4: built_models.a: 'name' is missing; valid: it must be given",
        ":7: built_models.b.n_gpus: found 'two'; valid: a whole number",
        ":13: summary.failed_builds[1].error: found 3; valid: a string",
    ]


def test_faults_of_the_context_name_the_lines_of_its_keys(tmp_path: Path) -> None:
    path = written(tmp_path, TEXT)
    with pytest.raises(FaultsError) as caught:
        validated(manifestfile.read(path).context, manifestfile.context_places(path), set)
    assert [str(fault).removeprefix(str(path)).partition(": found")[0] for fault in caught.value.faults] == [
        ":17: context.docker_gpus",
        ":20: deployment_config.target",
        ":22: deployment_config.env_vars.A",
    ]


def test_a_context_key_that_stands_nowhere_is_named_where_it_would_stand(tmp_path: Path) -> None:
    where = manifestfile.context_places(written(tmp_path, TEXT))
    assert where(("timeout",)).endswith(":19: deployment_config.timeout")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", ":1:1: not JSON: Expecting value"),
        ('{\n "built_images": }', ":2:18: not JSON: Expecting value"),
        ("{}\n{}", ":2:1: not JSON: Extra data"),
        ('{"a": {"b": 1,\n"b": 2}}', ": the key 'b' stands twice in one object; valid: each key once"),
        ("[" * 100_000, ": not JSON that can be read: "),
        ("[" + "9" * 5000 + "]", ": not JSON that can be read: Exceeds the limit"),
        ("\n[]", ":2: found []; valid: an object"),
    ],
)
def test_a_file_that_is_no_manifest_says_where_and_why(tmp_path: Path, text: str, fault: str) -> None:
    assert faults_of(tmp_path, text)[0].startswith(fault)


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"a": "gr\xf6\xdfe"}')
    for path in (tmp_path / "missing.json", tmp_path, tmp_path / "latin.json"):
        with pytest.raises(FaultsError, match=r"cannot be read: "):
            manifestfile.read(path)


scalars = st.none() | st.booleans() | st.integers() | st.text('a\n"\\{}[]:, ', max_size=4)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a\n"{}', max_size=3), inner, max_size=3),
    max_leaves=8,
)


def laid_out(value: Any, key: KeyPath, lines: dict[KeyPath, int], at: int = 1) -> str:
    """The value as JSON with each key on a line of its own; where each stands goes into `lines`."""
    members: list[tuple[Any, str, Any]] = []
    if isinstance(value, dict):
        members = [(name, f"{json.dumps(name)} :\t", inner) for name, inner in value.items()]
    elif isinstance(value, list):
        members = [(index, "", inner) for index, inner in enumerate(value)]
    else:
        return json.dumps(value)
    text = ""
    for name, prefix, inner in members:
        line = at + text.count("\n") + 1
        lines[(*key, name)] = line
        text += f"{',' if text else ''}\n{prefix}{laid_out(inner, (*key, name), lines, line)}"
    return f"{{{text} }}" if isinstance(value, dict) else f"[{text} ]"


@settings(deadline=None, max_examples=60)
@given(documents)
def test_every_key_is_found_on_its_line(document: Any) -> None:
    lines: dict[KeyPath, int] = {}
    text = laid_out(document, (), lines)
    places = Places(Path("x.json"), text)
    assert json.loads(text) == document
    assert {key: places.line(key) for key in lines} == lines
    assert all(places.holds(key) and not places.holds((*key, "no such key")) for key in [(), *lines])


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ((), "x.json:2"),
        (("a",), "x.json:2: a"),
        (("a", 1, "b"), "x.json:4: a[1].b"),
        (("a", 7), "x.json:2: a[7]"),
        (("a", "deep", "er"), "x.json:2: a.deep.er"),
        (("missing",), "x.json:2: missing"),
    ],
)
def test_a_place_is_the_deepest_part_that_exists(key: KeyPath, place: str) -> None:
    assert Places(Path("x.json"), '\n{"a": [1,\n {\n "b": 2}]}')(key) == place


@settings(deadline=None, max_examples=60)
@given(st.text('[]{},:" \n\\ab1-.eutrfalsn'))
def test_any_text_is_a_manifest_or_faults(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), text)
        with pytest.raises(FaultsError):
            manifestfile.read(path)
        assert isinstance(manifestfile.previous(path), dict)


def document(*names: str) -> dict[str, Any]:
    entries = [Entry(name, Model(name=name), Image(f"ci-{name}")) for name in names]
    return content(entries, context={}, masker=NO_SECRETS)


def test_a_manifest_is_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "build_manifest.json"
    assert manifestfile.write(path, document("a", "grüße"))
    assert [each.card.name for each in manifestfile.read(path).entries] == ["a", "grüße"]
    assert path.read_text(encoding="utf-8").startswith('{\n  "built_images": {\n')
    assert manifestfile.previous(path) == document("a", "grüße")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_holds_the_same_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "build_manifest.json"
    manifestfile.write(path, document("a"))
    before = path.stat()
    assert not manifestfile.write(path, document("a"))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert manifestfile.write(path, document("b"))


def test_what_stood_in_a_file_before_is_nothing_where_it_is_no_object(tmp_path: Path) -> None:
    assert manifestfile.previous(tmp_path / "missing.json") == {}
    assert manifestfile.previous(written(tmp_path, "[1]")) == {}


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o000, 0o644)], indirect=["umask"])
def test_others_may_read_it_as_far_as_the_umask_allows(tmp_path: Path, umask: None, mode: int) -> None:
    path = tmp_path / "build_manifest.json"
    manifestfile.write(path, {})
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_summary_is_written_alone(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    assert manifestfile.summary(path, document("a"))
    assert json.loads(path.read_text(encoding="utf-8"))["success"] == 1
    assert not manifestfile.summary(path, document("a"))


def test_a_link_still_leads_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    link = tmp_path / "build_manifest.json"
    link.symlink_to("shared/real.json")
    manifestfile.write(link, {"a": 1})
    assert link.is_symlink()
    assert json.loads((tmp_path / "shared" / "real.json").read_text(encoding="utf-8")) == {"a": 1}


def test_a_place_that_cannot_be_written_is_told_and_left_clean(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "m.json", tmp_path / "file" / "m.json", tmp_path / "folder"):
        with pytest.raises(UserError, match=r"cannot be written: .+; valid: a file in a folder of yours"):
            manifestfile.write(path, {})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "link.json").symlink_to("shared/real.json")
    (tmp_path / "old.json").write_text("of yesterday", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    for name in ("link.json", "old.json", "new.json", "shared/new.json"):
        manifestfile.check("--x", tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old.json").read_text(encoding="utf-8") == "of yesterday"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "a folder"),
        ("", "a folder"),
        ("missing/m.json", "no such folder"),
        ("file/m.json", "no such folder"),
        ("lost.json", "no such folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "lost.json").symlink_to("missing/real.json")
    with pytest.raises(UserError) as caught:
        manifestfile.check("--x", tmp_path / name)
    assert (
        str(caught.value) == f"--x: {tmp_path / name} cannot be written: {reason}; valid: a file in a folder of yours"
    )


def test_a_folder_that_is_somebody_elses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path / "theirs")  # root may write everywhere
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link.json").symlink_to("theirs/real.json")
    manifestfile.check("--x", tmp_path / "mine.json")
    for name in ("theirs/m.json", "link.json"):
        with pytest.raises(UserError, match=rf"--x: .*{name} cannot be written: this user may not; valid: "):
            manifestfile.check("--x", tmp_path / name)


def test_a_reader_never_sees_half_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "build_manifest.json"
    one, many = document("a"), document(*map(str, range(200)))
    manifestfile.write(path, one)
    seen: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(len(json.loads(path.read_text(encoding="utf-8"))["built_images"]))

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(40):
        manifestfile.write(path, one if number % 2 else many)
    done.set()
    reader.join()
    assert set(seen) <= {1, 200}
    assert seen
