"""Loads get_models_json.py scripts, which define cards in Python.

Such scripts are part of the project and run with its rights, as a conftest.py does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pytest_madengine.errors import Fault, FaultsError

if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec

MODULE = "get_models_json"
CLASS_MODULES = ("madengine.utils.discover_models", "madengine.tools.discover_models")


@dataclass
class CustomModel:
    """A card written in Python. Subclasses may fill themselves in `update_model`, which runs when selected."""

    name: str
    dockerfile: str = ""
    dockercontext: str = ""
    scripts: str = ""
    url: str = ""
    cred: str = ""
    owner: str = ""
    data: str = ""
    n_gpus: str = "-1"
    timeout: int = 7200
    training_precision: str = ""
    tags: list[str] = field(default_factory=list)
    args: str = ""
    multiple_results: str = ""
    skip_gpu_arch: str = ""

    def update_model(self) -> None:
        """Complete the card; called once, only for a selected model. Name and tags must stay."""

    def to_dict(self) -> dict[str, Any]:
        """The card as it would stand in models.json."""
        return dataclasses.asdict(self)


def load(path: Path, root: Path) -> list[CustomModel]:
    """The models that the script's `list_models()` gives; runs it with `root` as working directory.

    Raises:
        FaultsError: the script fails, or does not follow the contract.
    """
    with _class_importable(), _chdir(root), _no_bytecode():
        listed = _listed(path)
    if listed is None:
        raise FaultsError([Fault(str(path), "defines no list_models()", "def list_models() -> list[CustomModel]")])
    for index, model in enumerate(listed):
        if not isinstance(model, CustomModel):
            found = f"list_models()[{index}] is a {type(model).__name__}"
            raise FaultsError([Fault(str(path), found, "instances of CustomModel")])
    return listed


def update(model: CustomModel, path: Path, root: Path) -> None:
    """Let a selected model complete itself.

    Raises:
        FaultsError: its `update_model` raised.
    """
    with _class_importable(), _chdir(root):
        try:
            model.update_model()
        except (Exception, SystemExit) as error:
            fault = f"update_model() of {model.name!r} raised {_brief(error)}"
            raise FaultsError([Fault(_place(path, error), fault)]) from error


def _listed(path: Path) -> list[CustomModel] | None:
    """What `list_models()` gives; None where the script defines none."""
    try:
        spec = importlib.util.spec_from_file_location(MODULE, path)
        module = importlib.util.module_from_spec(cast("ModuleSpec", spec))
        cast("Loader", module.__loader__).exec_module(module)
        return list(module.list_models()) if hasattr(module, "list_models") else None
    except (Exception, SystemExit) as error:
        raise FaultsError([Fault(_place(path, error), f"raised {_brief(error)}")]) from error


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _place(path: Path, error: BaseException) -> str:
    """The script with the last of its lines that the error passed through."""
    trace, line = error.__traceback__, 0
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{path}:{line}" if line else str(path)


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """Leave no `__pycache__` in the project: reading cards must not change what images are built from."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextlib.contextmanager
def _class_importable() -> Iterator[None]:
    """Let both historical import paths of CustomModel give ours, whether or not that tool is installed.

    Its other modules stay importable where it is installed.
    """
    installed = importlib.util.find_spec("madengine") if "madengine" not in sys.modules else None
    places = list(installed.submodule_search_locations or ()) if installed else []
    stubs = {name: types.ModuleType(name) for name in CLASS_MODULES}
    for name in ("madengine", "madengine.utils", "madengine.tools"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(place, *name.split(".")[1:])) for place in places]
        stubs[name] = package
    for name in CLASS_MODULES:
        stubs[name].CustomModel = CustomModel  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
