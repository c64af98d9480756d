"""Which Dockerfiles a card means, and what they say of themselves."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dockerfile_parse import DockerfileParser

from pytest_madengine.errors import Fault, FaultsError

HEADER = "# CONTEXT "
HEADER_LINES = 5
STAGE = re.compile(r"\s+as\s+(\S+)\s*$", re.IGNORECASE)


def candidates(prefix: Path) -> list[Path]:
    """The Dockerfiles that a card's path prefix stands for: that very file, or `<prefix>.*`, by name."""
    if prefix.is_file():
        return [prefix]
    found = sorted(prefix.parent.glob(f"{glob_escape(prefix.name)}.*"))
    return [path for path in found if path.is_file() and ("dockerfile" in path.name.lower() or _header_line(path))]


def matching(prefix: Path, context: Mapping[str, Any]) -> list[Path]:
    """The candidates whose `# CONTEXT` agrees with `context`; a key that the context lacks agrees.

    Raises:
        FaultsError: no file, a broken header, or none that agrees.
    """
    found = candidates(prefix)
    if not found:
        raise FaultsError([Fault(f"dockerfile {prefix}", f"no file {prefix.name}.*", "a prefix of Dockerfiles")])
    agreeing = [path for path in found if _agrees(header(path), context)]
    if not agreeing:
        raise FaultsError(
            Fault(str(path), f"its # CONTEXT {header(path)} does not fit", f"{_asked(header(path), context)}")
            for path in found
        )
    return agreeing


@cache
def header(path: Path) -> dict[str, Any]:
    """The object behind `# CONTEXT ` in the first five lines; empty without such a line, which fits all.

    Raises:
        FaultsError: it is not a Python literal of an object.
    """
    line = _header_line(path)
    if not line:
        return {}
    number, text = line
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if not isinstance(value, dict):
        valid = "an object such as {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}"
        raise FaultsError([Fault(f"{path}:{number}", f"# CONTEXT {text!r} cannot be read", valid)])
    return value


def vendors(prefix: Path) -> set[str]:
    """The GPU vendors, in lower case, that a card's Dockerfiles are for; empty where they do not say."""
    return {vendor for path in candidates(prefix) if (vendor := _vendor(path))}


def header_keys(project: Path) -> set[str]:
    """Every key that a `# CONTEXT` line of this project compares."""
    paths = [*project.glob("**/*Dockerfile*")]
    return {key for path in paths if path.is_file() for key in header(path)}


def external_images(path: Path, build_args: Mapping[str, str]) -> list[str]:
    """The images that a Dockerfile starts or copies from, arguments filled in, without its own stages."""
    parser = _parser(path, build_args)
    stages = {match.group(1).lower() for step in parser.structure if (match := _stage(step))}
    copied = [match.group(1) for step in parser.structure if (match := re.search(r"--from=(\S+)", _copy(step)))]
    names = [*parser.parent_images, *copied]
    external = [name for name in names if name.lower() not in {*stages, "scratch", "tools"} and not name.isdigit()]
    return list(dict.fromkeys(external))


def base_image(path: Path, build_args: Mapping[str, str]) -> str:
    """The image of the last stage, which the replaced tool records as base_docker."""
    return build_args.get("BASE_DOCKER") or str(_parser(path, build_args).baseimage or "")


def declared_args(path: Path) -> set[str]:
    """The names of all ARG instructions."""
    steps = _parser(path, {}).structure
    return {step["value"].partition("=")[0].strip() for step in steps if step["instruction"] == "ARG"}


def glob_escape(text: str) -> str:
    """`text` with glob's special characters made literal."""
    return re.sub(r"([*?[])", r"[\1]", text)


def _parser(path: Path, build_args: Mapping[str, str]) -> Any:
    text = path.read_bytes()
    return DockerfileParser(fileobj=io.BytesIO(text), build_args=dict(build_args), env_replace=True)


def _stage(step: Mapping[str, Any]) -> re.Match[str] | None:
    return STAGE.search(step["value"]) if step["instruction"] == "FROM" else None


def _copy(step: Mapping[str, Any]) -> str:
    return str(step["value"]) if step["instruction"] in ("COPY", "RUN") else ""


@cache
def _header_line(path: Path) -> tuple[int, str] | None:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in zip(range(1, HEADER_LINES + 1), file, strict=False):
            if HEADER in line:
                return number, line.split(HEADER, 1)[1].strip()
    return None


def _agrees(wanted: Mapping[str, Any], context: Mapping[str, Any]) -> bool:
    return all(context[key] == value for key, value in wanted.items() if key in context)


def _asked(wanted: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={context[key]!r} is what the context says" for key in wanted if key in context)


def _vendor(path: Path) -> str:
    named = str(header(path).get("gpu_vendor", "")).lower()
    return named or next((vendor for vendor in ("amd", "nvidia") if f".{vendor}." in path.name.lower()), "")
