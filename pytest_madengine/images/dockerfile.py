"""Which Dockerfiles a card means, and what they say of themselves."""

from __future__ import annotations

import ast
import io
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dockerfile_parse import DockerfileParser

from pytest_madengine.errors import Fault, FaultsError

HEADER = "# CONTEXT "
HEADER_LINES = 5
NO_IMAGES = ("", "scratch", "tools")
"""Names that `FROM` and `COPY --from` give no image: nothing, and the build context of shared helpers."""
FLAGS = re.compile(r"(?:--\S+\s+)*")
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?([-+])([^}]*))?\})")
VENDORS = {"AMD": re.compile(r"rocm|amd(?!64)"), "NVIDIA": re.compile(r"nvidia|cuda")}
"""What the name of a base image tells of the GPUs that it is for; `amd64` tells nothing."""
HEREDOC = re.compile(r"(?<!\S)\d*<<-?([\"']?)([A-Za-z_]\w*)\1(?!\S)")


class Declaration(NamedTuple):
    """A variable of an ARG or ENV instruction.

    Attributes:
        line: where the instruction begins, from 1.
        instruction: ARG or ENV.
        name: the variable's.
        value: with its variables filled in; one that is not known stays as written, `$NAME`. None for an ARG that
            has neither a default nor a given value.
    """

    line: int
    instruction: str
    name: str
    value: str | None


def candidates(prefix: Path) -> list[Path]:
    """The Dockerfiles that a card's path prefix stands for: that very file, or `<prefix>.*`, by name."""
    if prefix.is_file():
        return [prefix]
    found = sorted(prefix.parent.glob(f"{glob_escape(prefix.name)}.*"))
    return [path for path in found if path.is_file() and _is_dockerfile(path)]


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
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # all that literal_eval raises
        value = None
    if not isinstance(value, dict):
        valid = "an object such as {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}"
        raise FaultsError([Fault(f"{path}:{number}", f"# CONTEXT {text!r} cannot be read", valid)])
    return value


def vendors(prefix: Path) -> set[str]:
    """The GPU vendors, in lower case, that a card's Dockerfiles are for; empty where they do not say."""
    return {vendor for path in candidates(prefix) if (vendor := _vendor(path))}


def vendor(path: Path, base: str) -> str:
    """AMD or NVIDIA, whose GPUs a Dockerfile is for: its header says so, else its name, else its base image.

    The header comes first because it is what Dockerfiles are chosen by.

    Args:
        path: the Dockerfile.
        base: the name of its base image, as `base_image` gives it.

    Returns:
        the vendor in upper case; '' where none of them tells.

    Raises:
        FaultsError: the header cannot be read.
    """
    told = (name for name, words in VENDORS.items() if words.search(base.lower()))
    return _vendor(path).upper() or next(told, "")


def header_keys(project: Path) -> set[str]:
    """Every key that a `# CONTEXT` line of this project compares."""
    paths = [*project.glob("**/*Dockerfile*")]
    return {key for path in paths if path.is_file() for key in header(path)}


def external_images(path: Path, build_args: Mapping[str, str]) -> list[str]:
    """The images that a Dockerfile starts, copies or mounts from, arguments filled in, without its own stages.

    An image whose name hangs on an unknown variable is left to the build.
    """
    steps = _steps(path)
    stages = _stages(steps, build_args)
    own = {stage.name for stage in stages}
    names = [stage.image for at, stage in enumerate(stages) if not _names_one_of(stage.image, stages[:at])]
    names += [name for step in steps for name in _sources(step) if name.lower() not in own and not name.isdecimal()]
    return list(dict.fromkeys(name for name in names if name not in NO_IMAGES and "$" not in name))


def base_image(path: Path, build_args: Mapping[str, str]) -> str:
    """The image that the last stage comes from, which the replaced tool records as base_docker."""
    stages = _stages(_steps(path), build_args)
    image = stages[-1].image if stages else ""
    for stage in reversed(stages):
        if stage.name and stage.name == image.lower():
            image = stage.image
    return build_args.get("BASE_DOCKER") or image


def declared_args(path: Path) -> set[str]:
    """The names of all ARG instructions."""
    return {name for step in _steps(path) if step["instruction"] == "ARG" for name, _ in _declarations(step["value"])}


def declarations(path: Path, build_args: Mapping[str, str]) -> list[Declaration]:
    """Every variable that ARG and ENV instructions declare, in order, with the value that it has behind them.

    As in BuildKit, a build argument wins over the default of an ARG, an ARG without default takes that of one before
    the first FROM, and what stands later in a stage wins. A stage made from another finds that one's ENV over its ARG.

    Args:
        path: the Dockerfile.
        build_args: build arguments by name.
    """
    found: list[Declaration] = []
    stages: dict[str, _Scope] = {}
    before = scope = _Scope(build_args)
    for step in _steps(path):
        if step["instruction"] == "FROM":
            stage = _stage(_expanded(step["value"], before.values))
            parent = stages.get(stage.image.lower())
            scope = parent.child() if parent else _Scope(build_args, before.values)
            stages |= {stage.name: scope} if stage.name else {}
        found += scope.read(step)
    return found


def glob_escape(text: str) -> str:
    """`text` with glob's special characters made literal."""
    return re.sub(r"([*?[])", r"[\1]", text)


def _is_dockerfile(path: Path) -> bool:
    name = path.name.lower()
    return not name.endswith(".dockerignore") and ("dockerfile" in name or _header_line(path) is not None)


@dataclass(frozen=True)
class Stage:
    """A FROM instruction: its image, and its own name in lower case."""

    image: str
    name: str = ""


def _names_one_of(image: str, stages: Sequence[Stage]) -> bool:
    return any(stage.name and stage.name == image.lower() for stage in stages)


def _stages(steps: Sequence[Mapping[str, Any]], build_args: Mapping[str, str]) -> list[Stage]:
    """The stages, with the arguments filled in that stand before the first of them."""
    before = _Scope(build_args)
    stages: list[Stage] = []
    for step in steps:
        if step["instruction"] == "FROM":
            stages.append(_stage(_expanded(step["value"], before.values)))
        elif not stages:
            before.read(step)
    return stages


def _stage(value: str) -> Stage:
    image, *named = value[FLAGS.match(value).end() :].split() or [""]  # type: ignore[union-attr]  # it may be empty
    return Stage(image.strip("\"'"), named[1].lower() if len(named) > 1 else "")


class _Scope:
    """The variables that the instructions of a stage see, or FROM, of what stands before the first stage.

    Args:
        given: build arguments.
        outer: for a stage, the values of what stands before the first one.
    """

    def __init__(self, given: Mapping[str, str], outer: Mapping[str, str] | None = None) -> None:
        self.values: dict[str, str] = {}
        self._environment: dict[str, str] = {}
        self._given = given
        self._outer = outer

    def child(self) -> _Scope:
        """What a stage that is made from this one finds."""
        scope = _Scope(self._given, self._outer)
        scope.values = {**self.values, **self._environment}
        scope._environment = dict(self._environment)
        return scope

    def read(self, step: Mapping[str, Any]) -> list[Declaration]:
        """What an instruction declares, noted for the following ones.

        Words of one ARG see each other before the first stage, but not inside of one: so does BuildKit.
        """
        line, instruction = step["startline"] + 1, step["instruction"]
        known = self.values if self._outer is None else dict(self.values)
        if instruction == "ARG":
            words = _declarations(step["value"])
            return [Declaration(line, instruction, name, self._argument(name, text, known)) for name, text in words]
        if instruction == "ENV":
            pairs = {name: _expanded(text, known) for name, text in _environment(step["value"])}
            self.values |= pairs
            self._environment |= pairs
            return [Declaration(line, instruction, name, value) for name, value in pairs.items()]
        return []

    def _argument(self, name: str, default: str | None, known: Mapping[str, str]) -> str | None:
        outer = self._outer or {}
        value = outer.get(name) if default is None else _expanded(default, known)
        value = self._given.get(name, value)
        self.values |= {} if value is None else {name: value}
        return value


def _environment(value: str) -> list[tuple[str, str]]:
    """The variables of ENV in both forms, `A=1 B=2` and `A all the rest`."""
    name, *rest = value.split(maxsplit=1) or [""]
    if "=" not in name:
        return [(name, "".join(rest).strip())] if name else []
    return [(name, text or "") for name, text in _declarations(value)]


def _declarations(value: str) -> list[tuple[str, str | None]]:
    """`A B="x y"` as names with their defaults."""
    try:
        words = shlex.split(value)
    except ValueError:
        words = value.split()
    return [(name, default if equals else None) for name, equals, default in (word.partition("=") for word in words)]


def _expanded(text: str, values: Mapping[str, str]) -> str:
    """`text` with its variables; one without value stays as it is written."""

    def value(match: re.Match[str]) -> str:
        known = values.get(match[1] or match[2])
        if match[3]:
            return (known or match[4]) if match[3] == "-" else (match[4] if known else "")
        return match[0] if known is None else known

    return VARIABLE.sub(value, text)


def _sources(step: Mapping[str, Any]) -> list[str]:
    """The images or stages that `COPY --from=` and `RUN --mount=from=` name."""
    flags = FLAGS.match(step["value"]).group()  # type: ignore[union-attr]  # it may be empty
    pattern = {"COPY": r"--from=(\S+)", "RUN": r"[=,]from=([^,\s]+)"}.get(step["instruction"])
    return re.findall(pattern, flags) if pattern else []


def _steps(path: Path) -> list[dict[str, Any]]:
    text = _without_heredocs(path.read_text(encoding="utf-8", errors="replace"))
    steps: list[dict[str, Any]] = DockerfileParser(fileobj=io.BytesIO(text.encode())).structure
    return steps


def _without_heredocs(text: str) -> str:
    """The Dockerfile with comments for what stands in here-documents, scripts and no instructions: lines stay true."""
    lines = text.splitlines(keepends=True)
    kept, end = [], -1
    for at, line in enumerate(lines):
        kept.append(line if at > end else "#\n")
        if at > end:
            for match in HEREDOC.finditer(line):
                end = next((i for i in range(max(at, end) + 1, len(lines)) if lines[i].strip() == match[2]), end)
    return "".join(kept)


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
