from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_madengine.errors import FaultsError
from pytest_madengine.models import dynamic
from pytest_madengine.models.dynamic import CustomModel

IMPORT = "from madengine.utils.discover_models import CustomModel\n"
Script = Callable[..., Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes a get_models_json.py below the project `tmp_path`."""

    def write(text: str) -> Path:
        path = tmp_path / "scripts" / "dyn" / "get_models_json.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("package", ["madengine.utils", "madengine.tools"])
def test_both_historical_import_paths_give_our_class(script: Script, tmp_path: Path, package: str) -> None:
    text = f"from {package}.discover_models import CustomModel\ndef list_models(): return [CustomModel('a', args='x')]"
    (model,) = dynamic.load(script(text), tmp_path)
    assert type(model) is CustomModel
    assert model.to_dict() == {**CustomModel("a").to_dict(), "args": "x"}
    assert not any(name.startswith("madengine") for name in sys.modules)


def test_a_script_runs_in_the_project_and_may_give_any_iterable(script: Script, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("one two", encoding="utf-8")
    before = Path.cwd()
    text = f"{IMPORT}import pathlib\nlist_models = lambda: map(CustomModel, pathlib.Path('names').read_text().split())"
    assert [model.name for model in dynamic.load(script(text), tmp_path)] == ["one", "two"]
    assert Path.cwd() == before


def test_reading_a_script_leaves_nothing_behind_in_the_project(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    path = script("def list_models(): return []")
    dynamic.load(path, tmp_path)
    assert list(path.parent.iterdir()) == [path]
    assert "get_models_json" not in sys.modules


def test_a_script_is_read_anew_each_time(script: Script, tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = script(f"{IMPORT}def list_models(): return [CustomModel({name!r})]")
        assert [model.name for model in dynamic.load(path, tmp_path)] == [name]


def test_a_selected_model_completes_itself_in_the_project(script: Script, tmp_path: Path) -> None:
    (tmp_path / "size").write_text("7B", encoding="utf-8")
    path = script(f"""{IMPORT}from pathlib import Path
class Sized(CustomModel):
    def update_model(self):
        from madengine.tools.discover_models import CustomModel as again
        assert isinstance(self, again)
        self.args = "--size " + Path("size").read_text()
def list_models(): return [Sized("a")]
""")
    (model,) = dynamic.load(path, tmp_path)
    assert model.args == ""
    dynamic.update(model, path, tmp_path)
    assert model.args == "--size 7B"


def test_other_modules_of_an_installed_madengine_stay_importable(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    utils = tmp_path / "site" / "madengine" / "utils"
    utils.mkdir(parents=True)
    for folder in (utils.parent, utils):
        (folder / "__init__.py").touch()
    (utils / "discover_models.py").write_text("raise RuntimeError('the replaced tool')", encoding="utf-8")
    (utils / "ops.py").write_text("HELP = 'helper'", encoding="utf-8")
    monkeypatch.syspath_prepend(utils.parent.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = script(f"{IMPORT}from madengine.utils.ops import HELP\ndef list_models(): return [CustomModel(HELP)]")
    assert [model.name for model in dynamic.load(path, tmp_path)] == ["helper"]
    del sys.modules["madengine.utils.ops"]
    assert importlib.import_module("madengine").__file__ == str(utils.parent / "__init__.py")
    del sys.modules["madengine"]


def test_an_imported_madengine_is_put_back(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(sys)("madengine")
    monkeypatch.setitem(sys.modules, "madengine", real)
    assert dynamic.load(script(f"{IMPORT}def list_models(): return []"), tmp_path) == []
    assert sys.modules["madengine"] is real
    assert "madengine.utils" not in sys.modules


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", ": defines no list_models()"),
        ("list_of_models = []", ": defines no list_models()"),
        ("def list_models(): return ['a']", ": list_models()[0] is a str"),
        ("def list_models(): return None", ": raised TypeError"),
        ("\n\nraise KeyError('x')", ":3: raised KeyError: 'x'"),
        ("def list_models():\n    import json\n    return json.loads('{')", ":3: raised JSONDecodeError"),
        ("def list_models(:", ": raised SyntaxError"),
        ("from nowhere import x", ":1: raised ModuleNotFoundError"),
    ],
)
def test_a_broken_script_is_a_users_error_with_its_line(script: Script, tmp_path: Path, text: str, fault: str) -> None:
    path, before, modules = script(text), Path.cwd(), set(sys.modules)
    with pytest.raises(FaultsError) as caught:
        dynamic.load(path, tmp_path)
    assert str(caught.value).startswith(f"{path}{fault}")
    assert Path.cwd() == before
    assert not any(name.startswith("madengine") for name in set(sys.modules) - modules)


def test_an_update_that_fails_is_a_users_error_with_its_line(script: Script, tmp_path: Path) -> None:
    path = script(f"""{IMPORT}
class Broken(CustomModel):
    def update_model(self):
        raise OSError("no such weights")
def list_models(): return [Broken("a")]
""")
    (model,) = dynamic.load(path, tmp_path)
    with pytest.raises(FaultsError, match=r"get_models_json.py:5: update_model\(\) of 'a' raised OSError: no such"):
        dynamic.update(model, path, tmp_path)


def test_a_plain_custom_model_needs_no_completion(script: Script, tmp_path: Path) -> None:
    model = CustomModel("a", tags=["t"])
    dynamic.update(model, script(""), tmp_path)
    assert model == CustomModel("a", tags=["t"])


def test_two_models_share_no_tags() -> None:
    one, other = CustomModel("a"), CustomModel("b")
    one.tags.append("t")
    assert other.tags == []
