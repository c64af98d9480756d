"""Every way of installing gives a package that finds its data, from any folder; no network is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAME = "pytest-madengine"
EDITABLE = "import sys, hatchling.build; hatchling.build.build_editable(sys.argv[1])"
LOOK = """
import json
from importlib.metadata import distribution
import pytest_madengine
from pathlib import Path
from pytest_madengine import assets
from pytest_madengine.context.context import Context
from pytest_madengine.context.presets import for_model
from pytest_madengine.models.model import Model

installed = distribution("pytest-madengine")
package = Path(pytest_madengine.__file__).parent
print(json.dumps({
    "package": str(package),
    "presets": str(assets.folder("presets")),
    "templates": str(assets.folder("templates")),
    "preset": assets.preset("docker/nvidia"),
    "slurm": [for_model(Model(name="m", slurm={"nodes": nodes}), Context()).slurm.time for nodes in (1, 2)],
    "typed": (package / "py.typed").is_file(),
    "versions": [installed.version, pytest_madengine.__version__],
    "entry_points": {point.name: point.value for point in installed.entry_points},
}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, both made from the checkout."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "hatchling", "build", "-d", str(folder), cwd=ROOT)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that has nothing to do with the checkout."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", ["wheel", "wheel_of_sdist", "editable"])
def test_an_installation_finds_its_data(kind: str, built: Path, tmp_path: Path, elsewhere: Path) -> None:
    found = look(installed(wheel(kind, built, tmp_path), tmp_path), elsewhere)
    package = Path(found["package"])
    assert package.is_relative_to(ROOT) == (kind == "editable")
    for data in ("presets", "templates"):
        assert files(Path(found[data])) == files(ROOT / data)
        assert Path(found[data]).is_relative_to(package) == (kind != "editable")
    assert found["preset"]["options"]
    assert found["slurm"] == ["12:00:00", "24:00:00"]
    assert found["typed"]
    assert found["entry_points"] == {
        "madengine": "pytest_madengine.plugin",
        "pytest-madengine": "pytest_madengine.cli:main",
    }
    assert len(set(found["versions"])) == 1


def test_pytest_loads_an_installed_wheel(built: Path, tmp_path: Path, elsewhere: Path) -> None:
    python = installed(wheel("wheel", built, tmp_path), tmp_path)
    assert "--madengine-tags" in run(python, "-m", "pytest", "--help", cwd=elsewhere)


def wheel(kind: str, built: Path, tmp_path: Path) -> Path:
    """The wheel of this kind; an editable installation is a wheel too, which points at the checkout."""
    if kind == "wheel":
        return next(built.glob("*.whl"))
    folder = tmp_path / kind
    folder.mkdir()
    if kind == "editable":
        run(sys.executable, "-c", EDITABLE, str(folder), cwd=ROOT)
    else:
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=unpacked(built, tmp_path))
    return next(folder.glob("*.whl"))


def unpacked(built: Path, tmp_path: Path) -> Path:
    """The sdist's content."""
    run("tar", "-xzf", str(next(built.glob("*.tar.gz"))), cwd=tmp_path)
    return next(tmp_path.glob("pytest_madengine-*"))


def installed(wheel: Path, tmp_path: Path) -> str:
    """The interpreter of a virtual environment with this wheel; what it depends on comes from where the tests run."""
    folder = tmp_path / "venv"
    venv.create(folder, symlinks=True)
    python, site = folder / "bin" / "python", Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    with zipfile.ZipFile(wheel) as archive:  # all that pip does with a wheel without scripts
        archive.extractall(site)
    return str(python)


def look(python: str, elsewhere: Path) -> dict[str, Any]:
    """What this interpreter sees of the package."""
    found: dict[str, Any] = json.loads(run(python, "-c", LOOK, cwd=elsewhere))
    return found


def files(folder: Path) -> set[str]:
    """The files in a folder, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def run(*command: str, cwd: Path) -> str:
    """The output of a command that succeeds, in an environment that shows no other copy of the package."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout
