from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_madengine.context import credentials
from pytest_madengine.errors import FaultsError

HUNTER = "hunter2-password"


def written(folder: Path, text: str) -> Path:
    (folder / credentials.NAME).write_text(text, encoding="utf-8")
    return folder


def test_no_file_and_no_variables_are_no_credentials(tmp_path: Path) -> None:
    assert credentials.load(tmp_path, {"MAD_DOCKERHUB_USER": "only half", "NAS_NODES": ""}) == {}


def test_the_file_holds_entries_by_name(tmp_path: Path) -> None:
    entries = {"git": {"username": "u", "password": HUNTER}, "NAS_NODES": [{"HOST": "h", "PORT": 22}]}
    assert credentials.load(written(tmp_path, json.dumps(entries)), {}) == entries


def test_variables_beat_the_file(tmp_path: Path) -> None:
    entries = {"dockerhub": {"username": "file"}, "MAD_AWS_S3": {"USERNAME": "file"}, "git": {"username": "file"}}
    environ = {
        "MAD_DOCKERHUB_USER": "me",
        "MAD_DOCKERHUB_PASSWORD": HUNTER,
        "MAD_AWS_S3": '{"USERNAME": "variable"}',
    }
    assert credentials.load(written(tmp_path, json.dumps(entries)), environ) == {
        "dockerhub": {"username": "me", "password": HUNTER},
        "MAD_AWS_S3": {"USERNAME": "variable"},
        "git": {"username": "file"},
    }


def test_a_dockerhub_repository_may_be_given_too(tmp_path: Path) -> None:
    environ = {"MAD_DOCKERHUB_USER": "me", "MAD_DOCKERHUB_PASSWORD": HUNTER, "MAD_DOCKERHUB_REPO": "org/ci"}
    assert credentials.load(tmp_path, environ)["dockerhub"]["repository"] == "org/ci"


def test_no_value_shows_in_what_a_traceback_prints(tmp_path: Path) -> None:
    entries = {"git": {"username": "u", "password": HUNTER}, "NAS_NODES": [{"PASSWORD": HUNTER}]}
    environ = {
        "MAD_MINIO": json.dumps({"PASSWORD": HUNTER}),
        "MAD_DOCKERHUB_USER": "me",
        "MAD_DOCKERHUB_PASSWORD": HUNTER,
    }
    assert HUNTER not in repr(credentials.load(written(tmp_path, json.dumps(entries)), environ))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f'{{"git": "{HUNTER}"', ":1:27: not JSON: "),
        (f'["{HUNTER}"]', ": found a list; valid: an object, name: entry"),
        (f'{{"git": "{HUNTER}"}}', ": git: is no object; valid: an object of strings"),
        ('{"git": null}', ": git: is no object"),
    ],
)
def test_a_wrong_file_is_a_users_error_that_shows_no_value(tmp_path: Path, text: str, fault: str) -> None:
    written(tmp_path, text)
    with pytest.raises(FaultsError) as caught:
        credentials.load(tmp_path, {})
    assert str(caught.value).startswith(f"{tmp_path / credentials.NAME}{fault}")
    assert HUNTER not in str(caught.value)


def test_a_file_that_is_no_text_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / credentials.NAME).write_bytes(b"\xff\xfe" + HUNTER.encode())
    with pytest.raises(FaultsError, match="cannot be read: UnicodeDecodeError"):
        credentials.load(tmp_path, {})


def test_a_variable_that_is_no_json_is_a_users_error_that_shows_no_value(tmp_path: Path) -> None:
    with pytest.raises(FaultsError) as caught:
        credentials.load(tmp_path, {"MAD_AWS_S3": HUNTER})
    assert str(caught.value) == "environment variable MAD_AWS_S3: not JSON: Expecting value"
