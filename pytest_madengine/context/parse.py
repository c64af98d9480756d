"""Reads a context from an option's text or from a file: JSON, a Python literal, or YAML."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import yaml

from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.validation import shown

JSON_NAMES = {"true": True, "false": False, "null": None}
TEXT = "tag:yaml.org,2002:str"
CLOCK = re.compile(r"[-+]?[0-9][0-9_]*(:[0-9]+)+(\.[0-9_]*)?$")
"""What YAML 1.1 takes for a number whose digits count sixties; YAML 1.2 has dropped that."""
VALID = 'an object as JSON or as a Python literal, such as \'{"docker_gpus": "0,1"}\''


class Loader(yaml.SafeLoader):
    """Plain data, in which 24:00:00 is the text that everybody means."""


Loader.yaml_implicit_resolvers = {
    first: [(TEXT, CLOCK), *known] for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def inline(text: str, option: str) -> dict[str, Any]:
    """The object that an option's text holds.

    Raises:
        FaultsError: it is neither JSON nor a Python literal, or not an object.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        value = _literal(text, option, error)
    return _object(value, option, VALID)


def file(path: Path) -> tuple[dict[str, Any], str]:
    """The object that a JSON or YAML file holds, and the file's text (to name lines by).

    Raises:
        FaultsError: it cannot be read or parsed, or holds no object.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader)  # noqa: S506  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise FaultsError([Fault(str(path), f"cannot be read: {error}")]) from None
    except json.JSONDecodeError as error:
        raise FaultsError([Fault(f"{path}:{error.lineno}:{error.colno}", f"not JSON: {error.msg}")]) from None
    except yaml.YAMLError as error:
        raise FaultsError([Fault(str(path), f"not YAML: {error}")]) from None
    return _object(value, str(path), "an object (key: value)"), text


def _object(value: Any, place: str, valid: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FaultsError([Fault(place, f"found {shown(value)}", valid)])
    strange = [key for key in value if not isinstance(key, str)]
    if strange:
        raise FaultsError(Fault(place, f"found the key {shown(key)}", "strings as keys") for key in strange)
    return value


def _literal(text: str, option: str, json_error: json.JSONDecodeError) -> Any:
    """A Python literal in which JSON's true, false and null count as well."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return ast.literal_eval(_JsonNames().visit(tree))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # all that literal_eval raises
        place = f"{option}: column {json_error.colno}"
        raise FaultsError([Fault(place, f"not JSON ({json_error.msg}) and not a Python literal", VALID)]) from None


class _JsonNames(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:  # ast's naming
        """Replace JSON's constants."""
        return ast.Constant(JSON_NAMES[node.id]) if node.id in JSON_NAMES else node
