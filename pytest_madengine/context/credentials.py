"""Reads credential.json and the environment variables that override it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.secrets import Secret

NAME = "credential.json"
OVERRIDES = ("NAS_NODES", "MAD_AWS_S3", "MAD_MINIO", "PUBLIC_GITHUB_ROCM_KEY")
"""Variables whose JSON replaces the entry of the same name."""
DOCKERHUB = {
    "username": "MAD_DOCKERHUB_USER",
    "password": "MAD_DOCKERHUB_PASSWORD",
    "repository": "MAD_DOCKERHUB_REPO",
}


def load(project: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """All credentials by name; their texts hide themselves. The messages of this module name keys, no values.

    Raises:
        FaultsError: the file or a variable is not what it should be.
    """
    return {**_file(project / NAME), **_environment(environ)}


def _file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"), object_hook=_hidden)
    except (OSError, UnicodeDecodeError) as error:
        raise FaultsError([Fault(str(path), f"cannot be read: {type(error).__name__}")]) from None
    except json.JSONDecodeError as error:
        raise FaultsError([Fault(f"{path}:{error.lineno}:{error.colno}", f"not JSON: {error.msg}")]) from None
    if not isinstance(entries, dict):
        raise FaultsError([Fault(str(path), f"found a {type(entries).__name__}", "an object, name: entry")])
    wrong = [name for name, entry in entries.items() if not isinstance(entry, dict | list)]
    if wrong:
        raise FaultsError(Fault(f"{path}: {name}", "is no object", "an object of strings") for name in wrong)
    return entries


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    entries = {name: _json(name, environ[name]) for name in OVERRIDES if environ.get(name)}
    if environ.get(DOCKERHUB["username"]) and environ.get(DOCKERHUB["password"]):
        given = {key: environ[name] for key, name in DOCKERHUB.items() if environ.get(name)}
        entries["dockerhub"] = _hidden(given)
    return entries


def _hidden(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: Secret(value) if isinstance(value, str) else value for key, value in entry.items()}


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text, object_hook=_hidden)
    except json.JSONDecodeError as error:
        raise FaultsError([Fault(f"environment variable {name}", f"not JSON: {error.msg}")]) from None
