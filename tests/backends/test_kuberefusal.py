from __future__ import annotations

import json

import pytest

from pytest_madengine.backends.kuberefusal import (
    AwayError,
    BusyError,
    DeniedError,
    StatusError,
    brief,
    refusal,
)
from pytest_madengine.errors import RefusedError

DENIED = (
    'secrets is forbidden: User "system:serviceaccount:ml:weak" cannot create resource "secrets" in API group "" in '
    'the namespace "ml"'
)
HANDSHAKE = "Handshake status 403 Forbidden -+-+- {'content-type': 'text'} -+-+- "


def body(message: str) -> bytes:
    return json.dumps({"kind": "Status", "message": message}).encode()


def test_a_missing_right_is_named() -> None:
    error = refusal("create Secret x", 403, body(DENIED))
    assert isinstance(error, DeniedError)
    assert str(error) == (
        "Kubernetes: the account lacks the right to create secrets in the namespace ml (docs/kubernetes-role.yaml)"
    )


def test_the_same_of_a_command_in_a_pod() -> None:
    denied = DENIED.replace('"secrets" in API', '"pods/exec" in API')
    error = refusal("run a command in x", 0, None, f"{HANDSHAKE}{body(denied).decode()}")
    assert "the right to create pods/exec in the namespace ml" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((0, AwayError), (401, StatusError), (409, StatusError), (429, BusyError), (500, BusyError), (503, BusyError)),
        *((400, DeniedError), (403, DeniedError), (404, DeniedError), (422, DeniedError)),
    ],
)
def test_kinds_of_refusals(status: int, kind: type[Exception]) -> None:
    error = refusal("list Pod", status, body("no"), "reason")
    assert type(error) is kind
    assert str(error).startswith("Kubernetes: cannot list Pod: ")


def test_what_will_never_be_is_not_asked_for_again() -> None:
    assert isinstance(refusal("create Job x", 403, body(DENIED)), RefusedError)
    assert not isinstance(refusal("create Job x", 503, body("no time")), RefusedError)


def test_a_quota_is_no_missing_right_and_may_have_room_again() -> None:
    error = refusal("create Pod x", 403, body('pods "x" is forbidden: exceeded quota: q'))
    assert not isinstance(error, RefusedError)
    assert str(error) == 'Kubernetes: cannot create Pod x: pods "x" is forbidden: exceeded quota: q'


def test_long_words_are_cut_and_fit_in_a_line() -> None:
    assert brief("a\n  b") == "a b"
    assert brief("x" * 20, 10) == f"{'x' * 10}..."
