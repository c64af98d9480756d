"""Reads credential.json and the environment variables that override it; its messages name keys and no values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic import model_validator as validator
from pydantic_core import PydanticCustomError

from pytest_madengine.errors import Fault, FaultsError, UserError
from pytest_madengine.models.cardfile import line_in
from pytest_madengine.models.model import Model
from pytest_madengine.secrets import Secret
from pytest_madengine.validation import Path as KeyPath
from pytest_madengine.validation import dotted, faults, unknown_key

NAME = "credential.json"
DOCKERHUB = {
    "username": "MAD_DOCKERHUB_USER",
    "password": "MAD_DOCKERHUB_PASSWORD",
    "repository": "MAD_DOCKERHUB_REPO",
}
PUBLIC = frozenset(
    [
        *("username", "repository", "ssh_key_file", "NAME", "HOST", "MINIO_ENDPOINT"),
        *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    ]
)
"""Keys of entries that hold no secret."""
SPELLINGS = {
    "AWS_ACCESS_KEY_ID": "USERNAME",
    "AWS_SECRET_ACCESS_KEY": "PASSWORD",
    "ENDPOINT_URL": "MINIO_ENDPOINT",
}
"""Other spellings of an object store's keys: the wiki's, and one that the replaced tool reads on Kubernetes."""
ALIKE = 0.87
"""How like a known key another one is that counts as misspelt."""


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("a string without the character NUL, which no environment can hold")
    return value


def _no_flag(value: object) -> object:
    """True is no 1 here."""
    if isinstance(value, bool):
        raise ValueError("a whole number")  # noqa: TRY004  # pydantic collects ValueErrors
    return value


Filled = Annotated[str, Field(min_length=1), AfterValidator(_no_nul)]
Port = Annotated[int, BeforeValidator(_no_flag), Field(ge=1, le=65535)]
Where = Callable[[KeyPath], str]


class Form(BaseModel):
    """What an entry may hold; null is the same as nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def entry(self) -> dict[str, Any]:
        """What was given, as plain data."""
        return self.model_dump(exclude_unset=True, exclude_none=True)


class Account(Form):
    """What a card's `cred` names; any other text may stand in it too."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Filled]

    username: Filled = ""
    password: Filled = ""
    repository: Filled = ""
    ssh_key_file: Filled = ""
    token: Filled = ""


class Registry(Account):
    """A login of Docker Hub or another registry, a place for images there, or both."""

    @validator(mode="after")
    def _login(self) -> Registry:
        _together(self.entry(), "username", "password")
        if self.entry() and not (self.username or self.repository):
            found = {"found": "neither 'username' nor 'repository'"}
            raise PydanticCustomError("useless", "username and password, repository, or all three", found)
        return self


class Nas(Form):
    """One file server."""

    NAME: Filled | None = None
    HOST: Filled
    PORT: Port | None = None
    USERNAME: Filled
    PASSWORD: Filled


class Store(Form):
    """An object store of Amazon's; without a login it is open to all."""

    USERNAME: Filled | None = None
    PASSWORD: Filled | None = None
    AWS_ACCESS_KEY_ID: Filled | None = None
    AWS_SECRET_ACCESS_KEY: Filled | None = None
    AWS_SESSION_TOKEN: Filled | None = None
    AWS_REGION: Filled | None = None
    AWS_DEFAULT_REGION: Filled | None = None
    AWS_ENDPOINT_URL: Filled | None = None

    @validator(mode="after")
    def _login(self) -> Store:
        given = super().entry()
        twice = [(other, name) for other, name in SPELLINGS.items() if other in given and name in given]
        for other, name in twice:
            raise PydanticCustomError("twice", f"{name} or {other}", {"found": f"both {name!r} and {other!r}"})
        _together(self.entry(), "USERNAME", "PASSWORD")
        return self

    def entry(self) -> dict[str, Any]:
        """What was given, under the first spelling of each key."""
        return {SPELLINGS.get(key, key): value for key, value in super().entry().items()}


class Minio(Store):
    """A MinIO server."""

    MINIO_ENDPOINT: Filled | None = None
    ENDPOINT_URL: Filled | None = None
    AWS_ENDPOINT_URL_S3: Filled | None = None


class GitHub(Form):
    """A login of GitHub."""

    username: Filled
    token: Filled | None = None
    password: Filled | None = None

    @validator(mode="after")
    def _proof(self) -> GitHub:
        if not (self.token or self.password):
            found = {"found": "neither 'token' nor 'password'"}
            raise PydanticCustomError("no_proof", "username with token or password", found)
        return self


FORMS: dict[str, type[Form]] = {
    "NAS_NODES": Nas,
    "MAD_AWS_S3": Store,
    "MAD_MINIO": Minio,
    "PUBLIC_GITHUB_ROCM_KEY": GitHub,
}
"""Entries with a form of their own. A variable of the same name, which holds JSON, replaces the entry."""
LISTS = ("NAS_NODES",)
"""Entries that are lists of their form."""


def load(project: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """All credentials by name; their texts hide themselves.

    Keys that begin with `_` are comments, and what is null is left out. A PORT is a number, and keys of object stores
    have their first spelling: USERNAME, PASSWORD, MINIO_ENDPOINT.

    Args:
        project: the folder of credential.json.
        environ: the environment; what it states replaces the entry of the file.

    Raises:
        FaultsError: everything that is wrong in the file and in the variables.
    """
    entries: dict[str, Any] = {}
    found: list[Fault] = []
    with _noting(found):
        entries |= _file(project / NAME)
    for name in (name for name in FORMS if environ.get(name)):
        with _noting(found):
            entries[name] = _variable(name, Secret(environ[name]))
    with _noting(found):
        entries |= _dockerhub(environ)
    if found:
        raise FaultsError(found)
    return entries


@contextmanager
def _noting(found: list[Fault]) -> Iterator[None]:
    """Puts the faults of an error aside, so that the others are found too."""
    try:
        yield
    except FaultsError as error:
        found += error.faults


def _file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        text = Secret(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FaultsError([Fault(str(path), f"cannot be read: {type(error).__name__}")]) from None
    stated = _json(text, lambda error: f"{path}:{error.lineno}:{error.colno}" if error else str(path))
    if not isinstance(stated, dict):
        raise FaultsError([Fault(str(path), f"found {_kind(stated)}", "an object, name: entry")])
    return _entries(stated, lambda key: f"{path}:{line_in(text, key) + 1}: {dotted(key)}")


def _entries(stated: Mapping[str, Any], where: Where) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    found: list[Fault] = []
    for name, value in stated.items():
        with _noting(found):
            entries[name] = _typed(name, value, lambda key, name=name: where((name, *key)))  # type: ignore[misc]
    if found:
        raise FaultsError(found)
    return entries


def _variable(name: str, text: Secret) -> Any:
    place = f"environment variable {name}"
    value = _json(text, lambda _: place)
    return _typed(name, value, lambda key: f"{place}: {dotted(key)}" if key else place)


def _dockerhub(environ: Mapping[str, str]) -> dict[str, Any]:
    given = {key: Secret(environ[name]) for key, name in DOCKERHUB.items() if environ.get(name)}
    login = {"username", "password"}
    if len(login & given.keys()) == 1:
        there, missing = (DOCKERHUB[key] for key in sorted(login, key=lambda key: key not in given))
        fault = Fault(f"environment variable {missing}", f"is not set, but {there} is", "both of them, or none")
        raise FaultsError([fault])
    return {"dockerhub": given} if login <= given.keys() else {}


def _json(text: Secret, place: Callable[[json.JSONDecodeError | None], str]) -> Any:
    """What `text` holds, without comments; `place` tells where it breaks."""
    try:
        return json.loads(text, object_hook=_stated)
    except json.JSONDecodeError as error:
        raise FaultsError([Fault(place(error), f"not JSON: {error.msg}")]) from None
    except (ValueError, RecursionError):  # numbers of thousands of digits, lists a thousand deep
        raise FaultsError([Fault(place(None), "not JSON that can be read", "an object of strings")]) from None


def _stated(value: dict[str, Any]) -> dict[str, Any]:
    return {key: _hidden(each) for key, each in value.items() if not key.startswith("_")}


def _hidden(value: Any) -> Any:
    """`value` with texts that hide themselves."""
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, list):
        return [_hidden(each) for each in value]
    return {key: _hidden(each) for key, each in value.items()} if isinstance(value, dict) else value


def _typed(name: str, value: Any, where: Where) -> Any:
    form = FORMS.get(name) or (Registry if _is_registry(name) else Account)
    meant = _misspelt(value, form) if issubclass(form, Account) and isinstance(value, dict) else {}
    found = [unknown_key((key,), Account.model_fields, where) for key in meant]
    if meant:
        value = {meant.get(key, key): each for key, each in value.items()}
    try:
        entry = _entry(value, form, several=name in LISTS)
    except ValidationError as error:
        raise FaultsError([*found, *_faults(error, form, where)]) from None
    if found:
        raise FaultsError(found)
    return _hidden(entry)


def _entry(value: Any, form: type[Form], *, several: bool) -> Any:
    if several:
        adapter: TypeAdapter[list[Form]] = TypeAdapter(list[form])  # type: ignore[valid-type]  # known when it runs
        return [each.entry() for each in adapter.validate_python(value)]
    return form.model_validate(value).entry()


def _is_registry(name: str) -> bool:
    """Docker's rule for what is a host, and not a name on Docker Hub."""
    host = name.partition("/")[0]
    return host in {"dockerhub", "localhost"} or "." in host or ":" in host


def _misspelt(entry: Mapping[str, Any], form: type[Form]) -> dict[str, str]:
    """Keys of an account that must be slips, with what they are meant to be; others are what their author wants."""
    absent = Account.model_fields.keys() - entry.keys()
    strange = entry.keys() - Account.model_fields.keys()
    return {key: name for key in sorted(strange) for name in sorted(absent) if _is_slip(key, name, form)}


def _is_slip(key: str, name: str, form: type[Form]) -> bool:
    """A card's variables are in capitals anyway, but registries are read for these very keys."""
    if name in key.lower():
        return key.lower() == name and form is Registry
    return SequenceMatcher(None, key.lower(), name).ratio() >= ALIKE


def _together(entry: Mapping[str, Any], *names: str) -> None:
    given = [name for name in names if name in entry]
    if len(given) == 1:
        (missing,) = set(names) - set(given)
        found = {"found": f"{given[0]!r} without {missing!r}"}
        raise PydanticCustomError("half", " and ".join(names), found)


def _faults(error: ValidationError, form: type[Form], where: Where) -> Iterator[Fault]:
    """As elsewhere, with the kind of what was found for what it is."""
    for finding, fault in zip(error.errors(include_url=False), faults(error, form, where), strict=True):
        told = finding.get("ctx", {}).get("found") or f"found {_kind(finding['input'])}"
        yield fault if finding["type"] in NAMING_KEYS else fault._replace(found=told)


def _kind(value: object) -> str:
    return "an empty string" if value == "" else KINDS[type(value)]


NAMING_KEYS = ("missing", "extra_forbidden")
"""pydantic's findings about keys, which show no value."""
KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    Secret: "a string",
    list: "a list",
    dict: "an object",
}
"""JSON's types in words."""


def hidden_texts(credentials: Mapping[str, Any]) -> Iterator[str]:
    """What of all entries is secret; who somebody is and where a server stands is not."""
    for entry in credentials.values():
        for each in entry if isinstance(entry, list) else [entry]:
            yield from (value for key, value in each.items() if key not in PUBLIC and isinstance(value, str))


def of(model: Model, credentials: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry that a card names; empty where it names none.

    Raises:
        UserError: there is no such entry.
    """
    if not model.cred:
        return {}
    entry = credentials.get(model.cred)
    if not isinstance(entry, Mapping):
        raise UserError(f"{model.name}: cred {model.cred!r} has no entry in {NAME}")
    return entry


def variables(model: Model, credentials: Mapping[str, Any]) -> dict[str, Secret]:
    """The entry that a card names as `<CRED>_<KEY>` variables, for builds and runs.

    Raises:
        UserError: there is no such entry.
    """
    return {f"{model.cred}_{key.upper()}": Secret(value) for key, value in of(model, credentials).items()}
