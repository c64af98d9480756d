from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.context import credentials
from pytest_madengine.errors import FaultsError, UserError
from pytest_madengine.models.model import Model
from pytest_madengine.secrets import Secret

HUNTER = "hunter2-password"
LOGIN = {"username": "me", "password": HUNTER}
NAS = {"NAME": "n", "HOST": "h", "PORT": 22, "USERNAME": "u", "PASSWORD": HUNTER}
STORE = {"USERNAME": "u", "PASSWORD": HUNTER}
HUB = {"MAD_DOCKERHUB_USER": "me", "MAD_DOCKERHUB_PASSWORD": HUNTER}


def written(folder: Path, text: str) -> Path:
    (folder / credentials.NAME).write_text(text, encoding="utf-8")
    return folder


def load(folder: Path, entries: Any, environ: dict[str, str] | None = None) -> dict[str, Any]:
    return credentials.load(written(folder, json.dumps(entries, indent=1)), environ or {})


def faults(folder: Path, environ: dict[str, str] | None = None) -> list[str]:
    """Each fault without the folder; none of them shows the password."""
    with pytest.raises(FaultsError) as caught:
        credentials.load(folder, environ or {})
    assert HUNTER not in str(caught.value)
    assert HUNTER not in repr(caught.value.faults)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def texts(value: Any) -> list[str]:
    """All strings in an entry."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for each in inner for text in texts(each)]


def test_no_file_and_no_variables_are_no_credentials(tmp_path: Path) -> None:
    assert credentials.load(tmp_path, {"MAD_DOCKERHUB_USER": "", "NAS_NODES": ""}) == {}


ALL = {
    "dockerhub": {**LOGIN, "repository": "org/ci"},
    "registry.example.com:5000": LOGIN,
    "docker.io/myorg": {"repository": "ci"},
    "git": LOGIN,
    "key": {"username": "u", "ssh_key_file": "/keys/id"},
    "hf": {"token": HUNTER, "other": "x", "USERNAME": "loud", "passwd": "as wanted", "password2": "too"},
    "empty": {},
    "NAS_NODES": [NAS, NAS],
    "MAD_AWS_S3": STORE,
    "MAD_MINIO": {**STORE, "MINIO_ENDPOINT": "http://m:9000", "AWS_ENDPOINT_URL_S3": "http://m:9000"},
    "PUBLIC_GITHUB_ROCM_KEY": {"username": "u", "token": HUNTER},
}


def test_the_file_holds_entries_by_name(tmp_path: Path) -> None:
    assert load(tmp_path, ALL) == ALL


def test_every_text_at_any_depth_hides_itself(tmp_path: Path) -> None:
    environ = {**HUB, "MAD_MINIO": json.dumps(STORE)}
    found = texts(load(tmp_path, ALL, environ))
    assert len(found) > 20
    assert {type(text) for text in found} == {Secret}


def test_variables_replace_entries_of_the_file(tmp_path: Path) -> None:
    entries = {"dockerhub": {**LOGIN, "repository": "org/ci"}, "MAD_AWS_S3": STORE, "git": LOGIN}
    environ = {**HUB, "MAD_AWS_S3": '{"USERNAME": "variable", "PASSWORD": "p"}', "NAS_NODES": json.dumps([NAS])}
    assert load(tmp_path, entries, environ) == {
        "dockerhub": LOGIN,
        "MAD_AWS_S3": {"USERNAME": "variable", "PASSWORD": "p"},
        "NAS_NODES": [NAS],
        "git": LOGIN,
    }


def test_a_dockerhub_repository_may_be_given_too(tmp_path: Path) -> None:
    environ = {**HUB, "MAD_DOCKERHUB_REPO": "org/ci"}
    assert credentials.load(tmp_path, environ)["dockerhub"]["repository"] == "org/ci"


@pytest.mark.parametrize("missing", HUB)
def test_half_a_login_in_variables_is_a_fault(tmp_path: Path, missing: str) -> None:
    environ = {name: value for name, value in HUB.items() if name != missing}
    (there,) = environ
    assert faults(tmp_path, environ) == [
        f"environment variable {missing}: is not set, but {there} is; valid: both of them, or none"
    ]


def test_keys_with_an_underscore_before_them_are_comments(tmp_path: Path) -> None:
    entries = {"_why": 1, "git": {**LOGIN, "_until": 2027}, "NAS_NODES": [{**NAS, "_": None}]}
    assert load(tmp_path, entries) == {"git": LOGIN, "NAS_NODES": [NAS]}


@pytest.mark.parametrize("port", [2222, "2222", " 2222"])
def test_a_port_is_a_number_however_it_is_written(tmp_path: Path, port: object) -> None:
    assert load(tmp_path, {"NAS_NODES": [{**NAS, "PORT": port}]})["NAS_NODES"][0]["PORT"] == 2222


@pytest.mark.parametrize("name", ["MAD_AWS_S3", "MAD_MINIO"])
def test_a_store_without_login_is_open(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, {name: {"USERNAME": None, "PASSWORD": None}}) == {name: {}}
    assert load(tmp_path, {name: {}}) == {name: {}}


def test_other_spellings_of_a_stores_keys_are_read_as_the_first(tmp_path: Path) -> None:
    entries = {
        "MAD_AWS_S3": {"AWS_ACCESS_KEY_ID": "u", "AWS_SECRET_ACCESS_KEY": HUNTER, "AWS_REGION": "r", "USERNAME": None},
        "MAD_MINIO": {"AWS_ACCESS_KEY_ID": "u", "PASSWORD": HUNTER, "ENDPOINT_URL": "http://m:9000"},
        "git": {"ENDPOINT_URL": "stays"},
    }
    assert load(tmp_path, entries) == {
        "MAD_AWS_S3": {**STORE, "AWS_REGION": "r"},
        "MAD_MINIO": {**STORE, "MINIO_ENDPOINT": "http://m:9000"},
        "git": {"ENDPOINT_URL": "stays"},
    }


WRONG: dict[str, tuple[str, object, list[str]]] = {
    "no object": ("git", HUNTER, ["2: git: found a string; valid: an object"]),
    "null": ("git", None, ["2: git: found null; valid: an object"]),
    "a list": ("NAS_NODE", [], ["2: NAS_NODE: found a list; valid: an object"]),
    "a number": ("git", {"password": 123456}, ["3: git.password: found a number; valid: a string"]),
    "a flag": ("git", {"x": True}, ["3: git.x: found true or false; valid: a string"]),
    "a nested object": ("git", {"x": {HUNTER: 1}}, ["3: git.x: found an object; valid: a string"]),
    "an empty text": ("git", {"x": ""}, ["3: git.x: found an empty string; valid: a string that is not empty"]),
    "a NUL": (
        "git",
        {"password": f"{HUNTER}\0"},
        ["3: git.password: found a string; valid: a string without the character NUL, which no environment can hold"],
    ),
    "a slip": (
        "git",
        {"username": "u", "pasword": HUNTER},
        [
            "4: git.pasword: unknown key 'pasword'; valid: password, repository, ssh_key_file, token, username; "
            "did you mean 'password'?"
        ],
    ),
    "a slip in a login": (
        "dockerhub",
        {"username": "u", "pasword": HUNTER},
        [
            "4: dockerhub.pasword: unknown key 'pasword'; valid: password, repository, ssh_key_file, token, username; "
            "did you mean 'password'?"
        ],
    ),
    "capitals in a login": (
        "ghcr.io",
        {"Username": "u", "password": HUNTER},
        [
            "3: ghcr.io.Username: unknown key 'Username'; valid: password, repository, ssh_key_file, token, username; "
            "did you mean 'username'?"
        ],
    ),
    "no password": (
        "dockerhub",
        {"username": HUNTER},
        ["2: dockerhub: 'username' without 'password'; valid: username and password"],
    ),
    "no user": (
        "localhost:5000",
        {"password": HUNTER},
        ["2: localhost:5000: 'password' without 'username'; valid: username and password"],
    ),
    "no user on localhost": (
        "localhost/x",
        {"password": HUNTER},
        ["2: localhost/x: 'password' without 'username'; valid: username and password"],
    ),
    "nothing of use": (
        "docker.io",
        {"user": "u", "pass": HUNTER},
        [
            "2: docker.io: neither 'username' nor 'repository'; valid: username and password, repository, or all three",
        ],
    ),
    "one server": ("NAS_NODES", NAS, ["2: NAS_NODES: found an object; valid: a list"]),
    "servers": (
        "NAS_NODES",
        [HUNTER, {"HOST": "h", "PORT": True, "USERNAME": "u", "PASSWORD": 5}],
        [
            "3: NAS_NODES[0]: found a string; valid: an object",
            "6: NAS_NODES[1].PORT: found true or false; valid: a whole number",
            "8: NAS_NODES[1].PASSWORD: found a number; valid: a string",
        ],
    ),
    "a port": (
        "NAS_NODES",
        [{**NAS, "PORT": 65536}],
        ["6: NAS_NODES[0].PORT: found a number; valid: less than or equal to 65535"],
    ),
    "a port in words": (
        "NAS_NODES",
        [{**NAS, "PORT": HUNTER}],
        ["6: NAS_NODES[0].PORT: found a string; valid: a whole number"],
    ),
    "a misspelt server": (
        "NAS_NODES",
        [{**NAS, "PROT": 5}],
        ["9: NAS_NODES[0].PROT: unknown key 'PROT'; valid: HOST, NAME, PASSWORD, PORT, USERNAME; did you mean 'PORT'?"],
    ),
    "a server without host": (
        "NAS_NODES",
        [{"USERNAME": "u", "PASSWORD": HUNTER}],
        ["3: NAS_NODES[0]: 'HOST' is missing; valid: it must be given"],
    ),
    "a store without password": (
        "MAD_AWS_S3",
        {"AWS_ACCESS_KEY_ID": HUNTER, "PASSWORD": None},
        ["2: MAD_AWS_S3: 'USERNAME' without 'PASSWORD'; valid: USERNAME and PASSWORD"],
    ),
    "a store's key twice": (
        "MAD_AWS_S3",
        {**STORE, "AWS_ACCESS_KEY_ID": HUNTER},
        ["2: MAD_AWS_S3: both 'USERNAME' and 'AWS_ACCESS_KEY_ID'; valid: USERNAME or AWS_ACCESS_KEY_ID"],
    ),
    "a misspelt store": (
        "MAD_MINIO",
        {**STORE, "MINIO_ENDPONT": HUNTER},
        [
            "5: MAD_MINIO.MINIO_ENDPONT: unknown key 'MINIO_ENDPONT'; valid: AWS_ACCESS_KEY_ID, AWS_DEFAULT_REGION, "
            "AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, "
            "ENDPOINT_URL, MINIO_ENDPOINT, PASSWORD, USERNAME; did you mean 'MINIO_ENDPOINT'?"
        ],
    ),
    "no proof": (
        "PUBLIC_GITHUB_ROCM_KEY",
        {"username": HUNTER},
        [
            "2: PUBLIC_GITHUB_ROCM_KEY: neither 'token' nor 'password'; valid: username with token or password",
        ],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_entry_says_where_what_kind_and_what_would_be_valid(tmp_path: Path, case: str) -> None:
    name, entry, expected = WRONG[case]
    written(tmp_path, json.dumps({name: entry}, indent=1))
    assert faults(tmp_path) == [f"credential.json:{text}" for text in expected]


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    written(tmp_path, json.dumps({"git": HUNTER, "dockerhub": {"username": "u"}, "x": {"usrname": 1}}, indent=1))
    environ = {"MAD_DOCKERHUB_USER": "me", "MAD_MINIO": HUNTER, "NAS_NODES": "[{}]", "MAD_AWS_S3": "null"}
    assert [text.partition(";")[0] for text in faults(tmp_path, environ)] == [
        "credential.json:2: git: found a string",
        "credential.json:3: dockerhub: 'username' without 'password'",
        "credential.json:7: x.usrname: unknown key 'usrname'",
        "credential.json:6: x.username: found a number",
        "environment variable NAS_NODES: [0]: 'HOST' is missing",
        "environment variable NAS_NODES: [0]: 'USERNAME' is missing",
        "environment variable NAS_NODES: [0]: 'PASSWORD' is missing",
        "environment variable MAD_AWS_S3: found null",
        "environment variable MAD_MINIO: not JSON: Expecting value",
        "environment variable MAD_DOCKERHUB_PASSWORD: is not set, but MAD_DOCKERHUB_USER is",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f'{{"git": "{HUNTER}"', "credential.json:1:27: not JSON: Expecting ',' delimiter"),
        (f'["{HUNTER}"]', "credential.json: found a list; valid: an object, name: entry"),
        ("null", "credential.json: found null; valid: an object, name: entry"),
        ("", "credential.json:1:1: not JSON: Expecting value"),
        ("[" * 100_000, "credential.json: not JSON that can be read; valid: an object of strings"),
        ('{"PORT": ' + "9" * 5000, "credential.json: not JSON that can be read; valid: an object of strings"),
    ],
    ids=["cut", "list", "null", "empty", "deep", "long"],
)
def test_a_file_that_is_no_json_object_is_a_users_error(tmp_path: Path, text: str, fault: str) -> None:
    assert faults(written(tmp_path, text)) == [fault]


def test_a_file_that_is_no_text_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / credentials.NAME).write_bytes(b"\xff\xfe" + HUNTER.encode())
    assert faults(tmp_path) == ["credential.json: cannot be read: UnicodeDecodeError"]


PLANTED = "planted-7c1e"
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.just("") | st.just(PLANTED)
KEYS = st.sampled_from([*credentials.Account.model_fields, *credentials.Minio.model_fields, "HOST", "PORT", "usrname"])
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))
NAMES = st.sampled_from([*credentials.FORMS, "dockerhub", "ghcr.io", "git", "_note"])


@settings(deadline=None, max_examples=150)
@given(file=st.dictionaries(NAMES, VALUES), variables=st.dictionaries(st.sampled_from([*credentials.FORMS]), VALUES))
def test_whatever_is_wrong_no_value_is_shown(
    tmp_path_factory: pytest.TempPathFactory, file: dict[str, Any], variables: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("c")
    environ = {name: json.dumps(value) for name, value in variables.items()}
    try:
        shown = repr(load(folder, file, environ))
    except FaultsError as error:
        shown = f"{error} {error.faults}"
    assert PLANTED not in shown


def test_a_card_gets_the_entry_that_it_names_as_variables() -> None:
    known = {"GIT": {"username": "me", "password": Secret("hunter2-password")}}
    variables = credentials.variables(Model(name="m", cred="GIT"), known)
    assert variables == {"GIT_USERNAME": "me", "GIT_PASSWORD": "hunter2-password"}
    assert "hunter2" not in repr(variables)
    assert credentials.variables(Model(name="m"), known) == {}


def test_a_card_that_names_no_entry_of_the_file() -> None:
    with pytest.raises(UserError, match=r"m: cred 'GIT' has no entry in credential.json"):
        credentials.variables(Model(name="m", cred="GIT"), {})
