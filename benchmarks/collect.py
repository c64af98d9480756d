"""Collecting 10,000 cards against collecting 10,000 empty test functions: seconds and their ratio."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CONFTEST = """
import time
from pathlib import Path
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session):
    started = time.perf_counter()
    result = yield
    Path("collection").write_text(str(time.perf_counter() - started))
    assert len(session.items) == int(Path("expected").read_text())
    return result
"""


@dataclass(frozen=True)
class Times:
    """Seconds of pytest's collection phase, and of the whole command."""

    collection: float
    command: float


def card(number: int) -> dict[str, object]:
    """A card as people write them."""
    return {
        "name": f"model_{number}",
        "url": "",
        "dockerfile": f"docker/image_{number % 20}",
        "scripts": f"scripts/model_{number}/run.sh",
        "n_gpus": "8",
        "owner": "somebody",
        "training_precision": "bf16",
        "tags": [f"group_{number % 50}", "training"],
        "args": "--batch-size 4 --seq-len 4096",
    }


def project(folder: Path, count: int) -> list[str]:
    """A project of models; the options that collect it."""
    (folder / "docker").mkdir(parents=True)
    for number in range(20):
        text = "# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}\nFROM scratch\n"
        (folder / "docker" / f"image_{number}.ubuntu.amd.Dockerfile").write_text(text, encoding="utf-8")
    (folder / "models.json").write_text(json.dumps([card(n) for n in range(count)], indent=2), encoding="utf-8")
    return ["--madengine-tags=all"]


def functions(folder: Path, count: int) -> list[str]:
    """A file of empty tests; the options that collect it."""
    folder.mkdir()
    text = "\n\n".join(f"def test_{number}():\n    pass" for number in range(count))
    (folder / "test_empty.py").write_text(text, encoding="utf-8")
    return []


def collect(folder: Path, options: list[str]) -> Times:
    """One run of `pytest --collect-only`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder.parent / "bytecode")
    command = [sys.executable, "-m", "pytest", "-qq", "--collect-only", *options]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    spent = time.perf_counter() - started
    return Times(float((folder / "collection").read_text(encoding="utf-8")), spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folders = {"cards": Path(name) / "cards", "functions": Path(name) / "functions"}
        options = {
            "cards": project(folders["cards"], arguments.count),
            "functions": functions(folders["functions"], arguments.count),
        }
        times: dict[str, list[Times]] = {kind: [] for kind in folders}
        for folder in folders.values():
            (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
            (folder / "expected").write_text(str(arguments.count), encoding="utf-8")
        for repeat in range(arguments.repeats + 1):
            for kind, folder in folders.items():
                spent = collect(folder, options[kind])
                if repeat:  # the first of each only fills the caches
                    times[kind].append(spent)
    print(f"{arguments.count} items, median of {arguments.repeats}")
    for measured in ("collection", "command"):
        cards, plain = (statistics.median(getattr(each, measured) for each in times[kind]) for kind in folders)
        print(f"  {measured:10}  cards {cards:6.3f} s  functions {plain:6.3f} s  ratio {cards / plain:.2f}")


if __name__ == "__main__":
    main()
