from __future__ import annotations

import pytest

from pytest_madengine.errors import (
    BuildError,
    Fault,
    FaultsError,
    InfrastructureError,
    MadengineError,
    ModelFailedError,
    UserError,
    nearest,
)


@pytest.mark.parametrize("kind", [UserError, BuildError, InfrastructureError, ModelFailedError, FaultsError])
def test_every_error_is_of_one_tree(kind: type[Exception]) -> None:
    assert issubclass(kind, MadengineError)


def test_many_faults_are_one_user_error_with_a_line_each() -> None:
    error = FaultsError(Fault(f"place {number}", "found") for number in (1, 2))
    assert isinstance(error, UserError)
    assert str(error) == "place 1: found\nplace 2: found"
    assert len(error.faults) == 2


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("a", "b"), "a: b"),
        (Fault("a", "b", "c"), "a: b; valid: c"),
        (Fault("a", "b", "c", "d"), "a: b; valid: c; did you mean 'd'?"),
        (Fault("a", "b", nearest="d"), "a: b; did you mean 'd'?"),
    ],
)
def test_a_fault_says_where_what_and_what_would_be_right(fault: Fault, text: str) -> None:
    assert str(fault) == text


@pytest.mark.parametrize(
    ("word", "choice"),
    [("dumy", "dummy"), ("DUMMY", "dummy"), ("LLAMA", "Llama"), ("xyz", ""), ("", "")],
)
def test_the_nearest_choice_is_close_or_none(word: str, choice: str) -> None:
    assert nearest(word, ["dummy", "Llama", "bert"]) == choice
    assert nearest(word, []) == ""


def test_a_build_error_tells_its_reason_its_logs_end_and_the_log() -> None:
    error = BuildError("building x failed", ["one", "two"], "/runs/build.log", "docker/x.Dockerfile")
    assert str(error) == "building x failed\none\ntwo\nlog: /runs/build.log"
    assert BuildError(**error.to_json()).to_json() == error.to_json()
    assert str(BuildError("no buildx")) == "no buildx"
