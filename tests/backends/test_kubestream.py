from __future__ import annotations

import pytest

from pytest_madengine.backends.kubestream import exit_code


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (b'{"status": "Success"}', 0),
        (b'{"status": "Failure", "details": {"causes": [{"message": "44"}]}}', 44),
        (b'{"status": "Failure", "message": "container not found"}', None),
        (b"", None),
        (b"junk", None),
        (b"[]", None),
    ],
)
def test_how_a_command_ended(verdict: bytes, code: int | None) -> None:
    assert exit_code(verdict) == code
