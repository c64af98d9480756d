from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.errors import FaultsError, UserError
from pytest_madengine.models import discovery
from pytest_madengine.models.discovery import Shared
from pytest_madengine.models.model import Model

DYNAMIC = """
from pathlib import Path
from madengine.utils.discover_models import CustomModel

def note(name, text):
    with Path(name).open("a") as file:
        file.write(text)

note("runs", "x")

class Slow(CustomModel):
    def update_model(self):
        note("updates", self.name + " ")
        self.args += "--size 7B"

def list_models():
    return [Slow("one", scripts="run.sh", dockerfile="../../docker/x", tags=["t"]), Slow("two", timeout=5)]
"""


def write(path: Path, *cards: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(cards), indent=1), encoding="utf-8")
    return path


@pytest.fixture
def dynamic(tmp_path: Path) -> Path:
    path = tmp_path / "scripts" / "dyn" / "get_models_json.py"
    path.parent.mkdir(parents=True)
    path.write_text(DYNAMIC, encoding="utf-8")
    return path


def everything(_: Model) -> bool:
    return True


def test_the_projects_own_cards_come_first_then_folders_by_name(tmp_path: Path) -> None:
    found = [
        write(tmp_path / "models.json"),
        write(tmp_path / "scripts" / "MAD" / "models.json"),
        write(tmp_path / "scripts" / "a" / "get_models_json.py"),
        write(tmp_path / "scripts" / "b" / "models.json"),
    ]
    write(tmp_path / "scripts" / "b" / "deeper" / "models.json")
    write(tmp_path / "scripts" / "models.json")
    write(tmp_path / "other" / "models.json")
    assert discovery.files(tmp_path) == found


@pytest.mark.parametrize("where", ["models.json", "scripts/a/models.json"])
def test_neither_a_root_file_nor_a_scripts_folder_is_required(tmp_path: Path, where: str) -> None:
    path = write(tmp_path / where)
    assert discovery.files(tmp_path) == [path]


def test_a_project_without_cards_is_a_users_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "models.json").mkdir()
    with pytest.raises(UserError, match=r"no model cards under .*looked for models.json, scripts/\*/models.json"):
        discovery.files(tmp_path)


@pytest.mark.parametrize(
    ("name", "is_one"), [("models.json", True), ("get_models_json.py", True), ("my_models.json", False)]
)
def test_model_files_are_known_by_name(tmp_path: Path, name: str, is_one: bool) -> None:  # noqa: FBT001
    assert discovery.is_model_file(tmp_path / name) is is_one


@pytest.mark.parametrize(
    ("path", "root", "folder"),
    [("p/models.json", "p", ""), ("p/scripts/a/models.json", "p", "a"), ("p/scripts/models.json", "p/scripts", "")],
)
def test_the_project_of_a_model_file(path: str, root: str, folder: str) -> None:
    assert discovery.project_of(Path(path)) == (Path(root), folder)


def test_cards_of_a_scripts_folder_get_its_prefix_and_their_place(tmp_path: Path) -> None:
    path = write(tmp_path / "scripts" / "MAD" / "models.json", {"name": "a", "scripts": "a.sh"}, {"name": "b"})
    first, second = discovery.read(path)
    assert (first.model.name, first.model.scripts) == ("MAD/a", "scripts/MAD/a.sh")
    assert (second.source.file, second.source.line, second.source.root) == (path, 6, tmp_path)
    assert first.complete() == first.model
    assert second.complete().name == "MAD/b"


def test_both_kinds_of_file_in_one_folder_are_refused(dynamic: Path) -> None:
    static = write(dynamic.with_name("models.json"), {"name": "a"})
    for path in (static, dynamic):
        with pytest.raises(FaultsError, match=r"holds both models.json and get_models_json.py"):
            discovery.read(path)


def test_dynamic_models_are_placed_and_point_at_list_models(dynamic: Path, tmp_path: Path) -> None:
    one, two = discovery.read(dynamic)
    assert (one.model.name, one.model.scripts, one.model.dockerfile) == ("dyn/one", "scripts/dyn/run.sh", "docker/x")
    assert (one.model.tags, two.model.timeout) == (("t",), 5)
    assert DYNAMIC.splitlines()[one.source.line - 1] == "def list_models():"
    assert one.source.root == tmp_path


def test_a_dynamic_model_completes_itself_once_and_keeps_its_place(dynamic: Path, tmp_path: Path) -> None:
    one, _ = discovery.read(dynamic)
    completed = [one.complete() for _ in range(3)]
    assert {model.args for model in completed} == {"--size 7B"}
    assert {model.scripts for model in completed} == {"scripts/dyn/run.sh"}
    assert (tmp_path / "updates").read_text(encoding="utf-8") == "one "
    assert one.model.args == ""


def test_models_of_one_script_with_one_name_are_a_fault(dynamic: Path) -> None:
    text = "from madengine.utils.discover_models import CustomModel\ndef list_models(): return [CustomModel('a')] * 2"
    dynamic.write_text(text, encoding="utf-8")
    with pytest.raises(FaultsError, match=r"\[1\].name \(a\): the name 'a' already stands"):
        discovery.read(dynamic)


def test_a_script_without_models_gives_none(dynamic: Path) -> None:
    dynamic.write_text("list_models = list", encoding="utf-8")
    assert discovery.read(dynamic) == []


def test_processes_that_share_run_a_script_once(dynamic: Path, tmp_path: Path) -> None:
    shared = Shared(tmp_path / "discovery", lambda model: model.name == "dyn/one")
    for found in (discovery.read(dynamic, shared), discovery.read(dynamic, shared)):
        assert [each.model.args for each in found] == ["", ""]
        assert [each.complete().args for each in found] == ["--size 7B", ""]
        assert [each.model.name for each in found] == ["dyn/one", "dyn/two"]
    assert (tmp_path / "runs").read_text(encoding="utf-8") == "x"
    assert (tmp_path / "updates").read_text(encoding="utf-8") == "one "


READ = """
import sys
from pathlib import Path
from pytest_madengine.models import discovery
shared = discovery.Shared(Path(sys.argv[2]), lambda model: True)
print(*[each.complete().args for each in discovery.read(Path(sys.argv[1]), shared)], sep=",", end="")
"""


def test_processes_that_share_at_the_same_moment_agree(dynamic: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", READ, str(dynamic), str(tmp_path / "discovery")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0] for process in processes] == ["--size 7B,--size 7B"] * 3
    assert (tmp_path / "runs").read_text(encoding="utf-8") == "x"


def test_what_is_shared_is_whole_and_for_nobody_else_to_read(dynamic: Path, tmp_path: Path) -> None:
    discovery.read(dynamic, Shared(tmp_path / "discovery", everything))
    (kept,) = (tmp_path / "discovery").glob("*.json")
    assert kept.stat().st_mode & 0o077 == 0
    assert not list((tmp_path / "discovery").glob("*.new"))


def test_a_fault_is_shared_too(dynamic: Path, tmp_path: Path) -> None:
    dynamic.write_text(f"{DYNAMIC}\n1/0", encoding="utf-8")
    shared = Shared(tmp_path / "discovery", everything)
    for _ in range(2):
        with pytest.raises(UserError, match="ZeroDivisionError"):
            discovery.read(dynamic, shared)
    assert (tmp_path / "runs").read_text(encoding="utf-8") == "x"


def test_sharing_works_at_the_end_of_a_long_path(dynamic: Path, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 100] * 3, "scripts", "dyn", "get_models_json.py")
    deep.parent.mkdir(parents=True)
    dynamic.rename(deep)
    assert len(discovery.read(deep, Shared(tmp_path / "discovery", everything))) == 2


def test_static_files_need_no_sharing(tmp_path: Path) -> None:
    path = write(tmp_path / "models.json", {"name": "a"})
    shared = Shared(tmp_path / "discovery", everything)
    complete: list[Callable[[], Model]] = [each.complete for each in discovery.read(path, shared)]
    assert [model().name for model in complete] == ["a"]
    assert not shared.folder.exists()
