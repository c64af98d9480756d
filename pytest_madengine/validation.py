"""Turns pydantic's findings into faults with place, finding, valid values and nearest spelling."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from pytest_madengine.errors import Fault, nearest
from pytest_madengine.secrets import MASK, Secret, is_secret

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
Path = tuple[str | int, ...]
SHOWN = 80


def _env_text(value: object) -> object:
    """Booleans and numbers as a shell would write them; anything else is left to the type check."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("a string without the character NUL, which no environment can hold")
    return value


def _env_name(name: str) -> str:
    if not ENV_NAME.fullmatch(name):
        raise ValueError("not a name for an environment variable (letters, digits and _, no digit first)")
    return name


def _comma_list(value: object) -> object:
    """A comma-separated string as the list it stands for; blanks and empty pieces are dropped."""
    return [piece.strip() for piece in value.split(",") if piece.strip()] if isinstance(value, str) else value


def _no_null(value: object) -> object:
    return "" if value is None else value


def _switch(value: object) -> object:
    """An empty string is off, as the replaced tool reads it."""
    return False if value == "" else value


def _hidden(variables: dict[str, str]) -> dict[str, str]:
    """Variables that tracebacks and `--showlocals` may show: secrets hide themselves."""
    return {name: Secret(value) if is_secret(name) else value for name, value in variables.items()}


Text = Annotated[str, BeforeValidator(_no_null)]
EnvValue = Annotated[str, BeforeValidator(_env_text), AfterValidator(_no_nul)]
EnvName = Annotated[str, AfterValidator(_env_name)]
EnvVars = Annotated[dict[EnvName, EnvValue], AfterValidator(_hidden)]
CommaList = Annotated[tuple[str, ...], BeforeValidator(_comma_list)]
Switch = Annotated[bool | None, BeforeValidator(_switch)]
Patterns = tuple[Annotated[str, Field(min_length=1)], ...]
"""Texts that lines are searched for; an empty one would be found in every line."""


def faults(error: ValidationError, model: type[BaseModel], where: Callable[[Path], str]) -> Iterable[Fault]:
    """Each finding of `error` as a Fault; `where` renders a key path as the reader finds it in the input."""
    for finding in error.errors(include_url=False):
        path = tuple(part for part in finding["loc"] if part != "[key]")
        if finding["type"] == "extra_forbidden":
            yield unknown_key(path, _siblings(model, path), where)
        elif finding["type"] == "missing":
            yield Fault(where(path[:-1]), f"{path[-1]!r} is missing", "it must be given")
        else:
            hidden = any(is_secret(str(part)) for part in path)
            found = MASK if hidden else shown(finding["input"])
            yield Fault(where(path), f"found {found}", _expectation(finding))


def unknown_key(path: Path, known: Iterable[str], where: Callable[[Path], str]) -> Fault:
    """A key that no field has."""
    known = sorted(known)
    return Fault(where(path), f"unknown key {path[-1]!r}", ", ".join(known), nearest(str(path[-1]), known))


def shown(value: object) -> str:
    """The value as a reader would recognise it, cut to one short line."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def dotted(path: Iterable[str | int]) -> str:
    """A key path as people write it: `slurm.nodes`, `tools[0].name`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "string_too_short": "a string that is not empty",
    "dict_type": "an object",
    "model_type": "an object",
    "tuple_type": "a list",
    "list_type": "a list",
}
"""pydantic's error types in the words of a card's author; other findings keep pydantic's text."""


def _expectation(finding: Any) -> str:  # pydantic's ErrorDetails
    message: str = finding["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return EXPECTED.get(finding["type"], message)


def _siblings(model: type[BaseModel], path: Path) -> Iterable[str]:
    """The field names of the object that holds the last key of `path`."""
    current: Any = model
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part) or next(
            (f for f in current.model_fields.values() if f.alias == part), None
        )
        if field is None:
            continue  # a key of a mapping, whose values the model is of
        current = _nested(field.annotation)
        if current is None:
            return ()
    return [field.alias or name for name, field in current.model_fields.items()]


def _nested(annotation: Any) -> Any:
    """The model inside an annotation such as `Slurm | None` or a list of them."""
    if inspect.isclass(annotation) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_nested, get_args(annotation))), None)
