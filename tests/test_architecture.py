"""Who may import whom. The rows are those of docs/architecture.md; each may import itself and what is below."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import pytest_madengine

PACKAGE = Path(pytest_madengine.__file__).parent
NAME = PACKAGE.name

ERRORS = {"errors"}
VALUES = {
    "secrets",
    "validation",
    "models.model",
    "models.selection",
    "context.layers",
    "context.context",
    "context.kubernetes",
    "context.slurm",
    "images.architecture",
    "images.image",
    "images.manifest",
    "images.manifestcontent",
    "jobs.job",
    "backends.base",
    "backends.health",
    "backends.kubefiles",
    "backends.kubemanifest",
    "backends.kubenames",
    "backends.kubeoptions",
    "backends.kubepod",
    "backends.kubeverdict",
    "reporting.base",
    "reporting.htmldata",
    "reporting.htmlstory",
    "reporting.htmlsummary",
    "reporting.junit",
    "launchers.*",
    "results.*",
}
"""Values and pure functions: no file, clock, process or network."""
PYTEST = {
    "plugin",
    "options",
    "settings",
    "summary",
    "hookspecs",
    "runid",
    "items",
    "itemresults",
    "fixtures",
    "session",
    "attempt",
    "built",
    "checks",
    "dryrun",
    "makers",
    "waking",
    "display",
    "reporting.recorder",
    "reporting.reports",
    "loop",
    "nodecheck",
    "outputs",
}
"""The only modules that know pytest. Every other one is an adapter: it may touch the world, but not pytest."""

ONLY_IN = {
    "pytest": PYTEST - {"attempt", "built", "itemresults"},
    "_pytest": set[str](),
    "subprocess": {"command"},
    "jinja2": {"assets"},
    "docker": {"images.engine", "images.identity", "backends.docker"},
    "pandas": {"store.frame"},
    "sqlite3": {"store.database"},
    "kubernetes": {"backends.kubeapi"},
    "pymongo": {"reporting.mongodb"},
    "bson": {"reporting.mongodb"},
    "rich": {"commands.output", "reporting.live"},
    "tenacity": {"backends.kubeapi", "images.registry"},
    "scipy": {"results.statistics"},
    "opentelemetry": {"reporting.telemetry"},
    "prometheus_client": {"reporting.prometheus"},
    "smtplib": {"reporting.smtp"},
}
SHARED = {
    "backends": {
        *("base", "containers", "facts", "health", "preflight", "processes", "runtimes"),
        *("kubefiles", "kubemanifest", "kubenames", "kubeoptions", "kubepod", "kubescript", "kubeverdict"),
        *("kubeapi", "kubeclaim", "kubeend", "kubefollow", "kubeleft", "kubenote", "kuberefusal", "kuberesults"),
        *("kubestate", "kubestream", "kubetrack", "kubeview"),
        *("slurmfacts", "slurmpack", "slurmqueue", "slurmscript"),
    },
    "launchers": {"base"},
    "reporting": {"appended", "base", "csvtables", "junit", "markdown", "recorder", "status"}
    | {"mongodb", "mongosettings", "outbox", "spool"}
    | {"htmldata", "htmlsamples", "htmlstory", "htmlsummary"},
}
"""What siblings of these folders may import of each other."""
WORLDLY = {
    *("os", "shutil", "tempfile", "glob", "fcntl", "filelock"),
    *("time", "datetime", "random", "platform", "sys", "logging"),
    *("subprocess", "threading", "multiprocessing", "signal", "asyncio", "psutil"),
    *("socket", "urllib", "urllib3", "http", "requests", "docker"),
}
TOUCHING = {
    *("open", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "mkdir", "unlink", "rename", "replace"),
    *("exists", "is_file", "is_dir", "is_symlink", "iterdir", "glob", "rglob", "stat", "resolve", "cwd", "home"),
    *("print", "input", "chmod", "symlink_to", "expanduser", "absolute"),
}
"""Path's methods and functions that touch the world; `replace` is one only with one plain argument."""
ASLEEP = {"plugin", "options", "runid", "fixtures", "errors", ""}
"""All that an ordinary pytest run loads of this package."""


@dataclass(frozen=True)
class Import:
    """An import that happens when the program runs; at once unless it stands in a function."""

    module: str
    at_once: bool


class Reader(ast.NodeVisitor):
    """Collects the imports of a module, without those that only type checkers see."""

    def __init__(self, known: set[str]) -> None:
        self.found: list[Import] = []
        self._known = known
        self._depth = 0

    def visit_If(self, node: ast.If) -> None:
        guarded = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in node.orelse if guarded else [*node.body, *node.orelse]:
            self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def visit_Import(self, node: ast.Import) -> None:
        self._add(*(alias.name for alias in node.names))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, f"a relative import of {node.module}"
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        self._add(*(name if name in self._known else str(node.module) for name in names))

    def _add(self, *names: str) -> None:
        self.found += [Import(name, not self._depth) for name in names]


@cache
def trees() -> dict[str, ast.Module]:
    """Every module of the package by its name within: `models.model`; '' is the package itself."""
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        ".".join(name.parts).removesuffix("__init__").removesuffix("."): ast.parse(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
    }


def read(tree: ast.Module) -> list[Import]:
    reader = Reader({f"{NAME}.{name}" for name in trees()})
    reader.visit(tree)
    return reader.found


@cache
def imports() -> dict[str, list[Import]]:
    return {name: read(tree) for name, tree in trees().items()}


def own(name: str, *, at_once: bool = False) -> list[str]:
    """What a module imports of the package."""
    found = [each.module for each in imports()[name] if each.at_once or not at_once]
    return [module.removeprefix(NAME).removeprefix(".") for module in found if module.partition(".")[0] == NAME]


def edges() -> Iterator[tuple[str, str]]:
    return ((name, imported) for name in trees() for imported in own(name))


def listed(name: str, names: set[str]) -> bool:
    return name in names or f"{name.rpartition('.')[0]}.*" in names


def row(name: str) -> int:
    return next((number for number, names in ((0, ERRORS), (1, VALUES), (3, PYTEST)) if listed(name, names)), 2)


def is_folder(name: str) -> bool:
    return (PACKAGE / name.replace(".", "/")).is_dir()


def test_every_module_that_the_rows_name_is_there() -> None:
    named = {name for names in (ERRORS, VALUES, PYTEST, *ONLY_IN.values()) for name in names}
    assert {name for name in named if name.removesuffix(".*") not in trees()} == set()


def test_no_module_imports_upward() -> None:
    upward = [
        f"{name} (row {row(name)}) imports {other} (row {row(other)})"
        for name, other in edges()
        if row(other) > row(name)
    ]
    assert upward == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_known_only_where_it_belongs(library: str) -> None:
    knowing = {name for name, found in imports().items() if any(each.module.split(".")[0] == library for each in found)}
    assert knowing - ONLY_IN[library] == set()


def test_pytest_is_known_by_the_topmost_row_alone() -> None:
    assert {name for name in trees() if row(name) == 3} == PYTEST
    knowing = {name for name, found in imports().items() if any(each.module == "pytest" for each in found)}
    assert knowing == ONLY_IN["pytest"]


@pytest.mark.parametrize("folder", SHARED)
def test_siblings_do_not_know_each_other(folder: str) -> None:
    between = [
        (name, other)
        for name, other in edges()
        if name.startswith(f"{folder}.")
        and other.startswith(f"{folder}.")
        and other.split(".")[1] not in SHARED[folder]
    ]
    assert between == []


def worldly(tree: ast.Module) -> list[str]:
    """The words by which a module touches the world."""
    found = [each.module for each in read(tree) if each.module.split(".")[0] in WORLDLY]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            text_replace = name == "replace" and (len(node.args) != 1 or node.keywords)
            found += [name] if name in TOUCHING and not text_replace else []
    return found


@pytest.mark.parametrize("name", [name for name in trees() if row(name) < 2 and not is_folder(name)])
def test_values_and_pure_functions_touch_nothing(name: str) -> None:
    assert worldly(trees()[name]) == []


@pytest.mark.parametrize("name", [name for name in trees() if name and is_folder(name)])
def test_a_folder_is_only_a_name(name: str) -> None:
    assert imports()[name] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {name: {other for other in own(name, at_once=True) if other != name} for name in trees()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


def test_asleep_the_plugin_loads_next_to_nothing() -> None:
    loaded, new = set[str](), {"plugin"}
    while new:
        loaded |= new
        new = {other for name in new for other in own(name, at_once=True)} - loaded
    assert loaded <= ASLEEP
    heavy = {each.module for name in loaded for each in imports()[name] if each.at_once}
    assert not {module.split(".")[0] for module in heavy} & {
        "pydantic",
        "yaml",
        "jinja2",
        "docker",
        "psutil",
        "filelock",
    }


SAMPLE = """
from typing import TYPE_CHECKING
from pathlib import Path
import os.path
from pytest_madengine.models import model, selection
from pytest_madengine.models.model import Model
if TYPE_CHECKING:
    import docker
else:
    import socket
def lazily() -> None:
    from pytest_madengine import session
    open("x"); Path("x").exists(); Path("x").replace("y"); "a".replace("b", "c"); replace(x, y=1)
"""


def test_these_rules_see_what_they_forbid() -> None:
    tree = ast.parse(SAMPLE)
    assert [each.module for each in read(tree) if each.at_once] == [
        "typing",
        "pathlib",
        "os.path",
        f"{NAME}.models.model",
        f"{NAME}.models.selection",
        f"{NAME}.models.model",
        "socket",
    ]
    assert [each.module for each in read(tree) if not each.at_once] == [f"{NAME}.session"]
    assert sorted(worldly(tree)) == ["exists", "open", "os.path", "replace", "socket"]


def test_a_modules_row_follows_from_its_name() -> None:
    assert [row(name) for name in ("errors", "results.judge", "models.discovery", "items")] == [0, 1, 2, 3]
