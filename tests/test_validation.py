from __future__ import annotations

from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pytest_madengine.models.model import Model
from pytest_madengine.validation import CommaList, EnvVars, Patterns, Switch, Text, dotted, faults, shown, unknown_key


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = Field(0, alias="howMany", ge=0)
    note: Text = ""


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: Inner = Field(default_factory=Inner)
    maybe: Inner | None = None
    several: tuple[Annotated[Inner, "any"], ...] = ()
    variables: EnvVars = Field(default_factory=dict)
    names: CommaList = ()
    switch: Switch = None
    patterns: Patterns = ()
    anything: dict[str, Any] = Field(default_factory=dict)


def found(**values: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return [str(fault) for fault in faults(caught.value, Outer, dotted)]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("slurm", "nodes"), "slurm.nodes"),
        (("tools", 0, "name"), "tools[0].name"),
        ((3, "distributed", "nnodes"), "[3].distributed.nnodes"),
    ],
)
def test_a_key_path_is_written_as_people_write_it(path: tuple[str | int, ...], text: str) -> None:
    assert dotted(path) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"inner": {"cuont": 1}}, "inner.cuont: unknown key 'cuont'; valid: howMany, note"),
        ({"maybe": {"nota": 1}}, "maybe.nota: unknown key 'nota'; valid: howMany, note; did you mean 'note'?"),
        (
            {"several": [{}, {"nota": 1}]},
            "several[1].nota: unknown key 'nota'; valid: howMany, note; did you mean 'note'?",
        ),
        ({"inner": {"howMany": "x"}}, "inner.howMany: found 'x'; valid: a whole number"),
        ({"inner": {"howMany": -1}}, "inner.howMany: found -1; valid: greater than or equal to 0"),
        ({"inner": {"note": 3}}, "inner.note: found 3; valid: a string"),
        ({"names": 3}, "names: found 3; valid: a list"),
        ({"variables": {"1": "x"}}, "variables.1: found '1'; valid: not a name for an environment variable"),
        ({"variables": {"A": {}}}, "variables.A: found {}; valid: a string"),
        ({"anything": 1}, "anything: found 1; valid: an object"),
    ],
)
def test_findings_become_faults_in_a_users_words(values: dict[str, Any], text: str) -> None:
    (fault,) = found(**values)
    assert fault.startswith(text)


def test_all_findings_become_faults() -> None:
    assert len(found(inner={"howMany": "x", "nota": 1}, names=3, extra=1)) == 4


def test_a_missing_key_is_reported_at_its_owner() -> None:
    class Needy(BaseModel):
        name: str

    with pytest.raises(ValidationError) as caught:
        Needy.model_validate({})
    assert [str(fault) for fault in faults(caught.value, Needy, lambda path: f"<{dotted(path)}>")] == [
        "<>: 'name' is missing; valid: it must be given"
    ]


def test_an_unknown_key_below_free_keys_has_no_siblings() -> None:
    assert str(unknown_key(("a", "b"), (), dotted)) == "a.b: unknown key 'b'"


@settings(deadline=None, max_examples=30)
@given(st.recursive(st.text() | st.integers(), st.lists, max_leaves=4))
def test_a_value_is_shown_in_one_short_line(value: object) -> None:
    text = shown(value)
    assert len(text) <= 81
    assert "\n" not in text


@pytest.mark.parametrize(
    ("value", "names"), [("a, b", ("a", "b")), (" , ", ()), ("", ()), (["a, b"], ("a, b",)), (("x",), ("x",))]
)
def test_a_comma_list_is_a_list_or_its_text(value: object, names: tuple[str, ...]) -> None:
    assert Outer.model_validate({"names": value}).names == names


@pytest.mark.parametrize(("value", "read"), [("", False), ("off", False), ("yes", True), (0, False), (None, None)])
def test_a_switch_is_off_when_it_is_empty(value: object, read: object) -> None:
    assert Outer.model_validate({"switch": value}).switch is read


def test_environment_variables_hide_their_secrets() -> None:
    variables = Outer.model_validate({"variables": {"HF_TOKEN": "hidden", "N": 1.5}}).variables
    assert variables == {"HF_TOKEN": "hidden", "N": "1.5"}
    assert "hidden" not in repr(variables)


def test_an_empty_pattern_is_refused() -> None:
    assert found(patterns=["x", ""]) == ["patterns[1]: found ''; valid: a string that is not empty"]


def test_a_variable_with_nul_is_refused() -> None:
    with pytest.raises(ValidationError, match="without the character NUL"):
        Model.model_validate({"name": "m", "env_vars": {"A": "a\0b"}})
