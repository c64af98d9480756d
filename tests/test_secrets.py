from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.secrets import MASK, SHORTEST_MASKED, Masker, Secret, is_secret, secrets_of_environment

values = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=SHORTEST_MASKED, max_size=9)


def test_a_secret_shows_its_value_only_as_text() -> None:
    secret = Secret("hunter2")
    assert secret == "hunter2"  # noqa: S105  # nobody's
    assert "hunter2" not in f"{secret!r} {[secret]} { ({'key': secret}) } {secret!a}"
    assert f"{secret}" == "hunter2"
    assert json.loads(json.dumps({"key": secret})) == {"key": "hunter2"}


def test_a_copied_secret_still_hides() -> None:
    secret = Secret("hunter2")
    for copied in (copy.deepcopy(secret), pickle.loads(pickle.dumps(secret))):  # noqa: S301  # our own bytes
        assert repr(copied) == f"'{MASK}'"


def test_only_variables_that_begin_with_the_prefix_are_secrets_of_the_shell() -> None:
    environ = {"MAD_SECRETS_HF": "a", "MAD_SECRETS": "b", "NOT_MAD_SECRETS_X": "c", "mad_secrets_x": "d", "PATH": "e"}
    assert secrets_of_environment(environ) == {"MAD_SECRETS_HF": "a", "MAD_SECRETS": "b"}
    assert "a" not in repr(secrets_of_environment(environ)).replace("MAD_SECRETS_HF", "")


@pytest.mark.parametrize(
    "name",
    [
        "MAD_SECRETS_X",
        "HF_TOKEN",
        "TOKEN",
        "hf_token",
        "GITHUB_TOKEN_RO",
        "S3_ACCESS_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "WANDB_API_KEY",
        "OPENAI_APIKEY",
        "PRIVATE_KEY",
        "DB_PASSWORD",
        "DB_PASSWD",
        "MY_SECRET",
        "SECRETS",
        "GCP_CREDENTIALS",
    ],
)
def test_names_that_tell_of_a_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "SECRETARY", "PATH", "KEY", "MONKEY", "NOT_MAD_SECRETSX", "PASSWORDS"],
)
def test_names_that_only_look_like_a_secret(name: str) -> None:
    assert not is_secret(name)


@settings(deadline=None, max_examples=50)
@given(values.filter(lambda text: "*" not in text), st.text(), st.text())
def test_a_secret_never_survives_in_text(value: str, before: str, behind: str) -> None:
    mask = Masker([value])
    data = f"{before}{value}{behind}".encode()
    assert value.strip() not in mask(f"{before}{value}{behind}")
    assert value.strip().encode() not in mask.mask_bytes(data)


@settings(deadline=None, max_examples=50)
@given(st.lists(values, max_size=2), st.text())
def test_masked_bytes_keep_every_position(secrets: list[str], text: str) -> None:
    mask = Masker(secrets)
    data = "".join([*secrets, text]).encode()
    assert len(mask.mask_bytes(data)) == len(data)
    assert mask.found_in(data) == bool(mask.values)


def test_text_without_secrets_stays_as_it_is() -> None:
    mask = Masker(["hunter2"])
    assert mask("hunter 2") == "hunter 2"
    assert mask.mask_bytes(b"\xffhunter") == b"\xffhunter"
    assert not mask.found_in(b"hunter")


def test_short_values_do_not_blot_out_ordinary_words() -> None:
    mask = Masker(["", "a", "12345", " 12 \n"])
    assert mask.values == []
    assert mask("a 12345") == "a 12345"


def test_the_longest_secret_is_masked_first() -> None:
    mask = Masker(["secret", "secret-and-more"])
    assert mask("secret-and-more secret") == f"{MASK} {MASK}"


def test_a_secret_of_several_lines_is_masked_line_by_line() -> None:
    mask = Masker(["-----BEGIN-----\nMIIabcdef\n-----END-----\n"])
    assert mask("see MIIabcdef here") == f"see {MASK} here"
    assert mask.mask_bytes(b"MIIabcdef\n") == b"*********\n"
    assert b"MII" not in mask.mask_bytes(b"-----BEGIN-----\nMIIabcdef\n-----END-----\n")


def test_the_blanks_around_a_secret_are_no_part_of_it() -> None:
    assert Masker([" hunter2\n"])("[hunter2]") == f"[{MASK}]"
