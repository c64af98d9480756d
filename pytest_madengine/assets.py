"""Finds presets/ and templates/, and renders templates; the only module that knows Jinja2.

A wheel carries both folders inside the package; a checkout and an editable install have them beside it.
"""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

PACKAGE = Path(__file__).resolve().parent


def folder(kind: str) -> Path:
    """The folder `presets` or `templates`.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for place in (PACKAGE / kind, PACKAGE.parent / kind):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"{kind}/ stands neither in nor beside {PACKAGE}: reinstall pytest-madengine")


@cache
def preset(name: str) -> dict[str, Any]:
    """The preset `presets/<name>.yaml` as plain data."""
    text = (folder("presets") / f"{name}.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    return data


def text(name: str) -> str:
    """The file `templates/<name>` as it is."""
    return (folder("templates") / name).read_text(encoding="utf-8")


def render(name: str, /, **values: object) -> str:
    """The template `templates/<name>` with `values`, which `*.html.j2` escapes; one that it misses is an error."""
    return _environment().get_template(name).render(values)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder("templates")),
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=_is_html,  # noqa: S701  # in shell scripts every value passes the `sh` filter instead
    )
    environment.filters["sh"] = shlex.quote
    return environment


def _is_html(name: str | None) -> bool:
    return bool(name) and str(name).endswith(".html.j2")
