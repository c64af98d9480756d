"""Writes small projects for tests: cards, scripts and Dockerfiles in a few words."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import docker  # noqa: F401
import hypothesis  # noqa: F401  # pytester forgets what an inner run imports: what stands here is imported once
import pytest

import pytest_madengine.attempt
import pytest_madengine.backends.docker
import pytest_madengine.backends.host
import pytest_madengine.items
import pytest_madengine.reporting.perfcsv
import pytest_madengine.reporting.reports
import pytest_madengine.waking  # noqa: F401

PASSES = "echo 'performance: 12.50 tokens_per_second'\n"


def card(name: str, **more: Any) -> dict[str, Any]:
    """A card that runs `scripts/<name>.sh`."""
    return {"name": name, "scripts": f"scripts/{name}.sh", "n_gpus": "0", "args": "", "tags": [], **more}


def project(folder: Path, *cards: dict[str, Any], script: str = PASSES, **scripts: str) -> Path:
    """A project in `folder`; each card gets `script` unless one is given under its name."""
    (folder / "scripts").mkdir(parents=True, exist_ok=True)
    (folder / "models.json").write_text(json.dumps(list(cards), indent=1), encoding="utf-8")
    for each in cards:
        path = folder / each["scripts"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_text(scripts.get(each["name"], script), encoding="utf-8")
    return folder


BARE = ("-p", "pytest_madengine.plugin", "-p", "xdist.plugin")
"""Only this plugin and xdist, beside `UNLOADED`: quick to start, and a way of loading that must work."""
UNLOADED = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run_bare(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """pytest in a process of its own."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in UNLOADED.items():
            environment.setenv(name, value)
        return pytester.runpytest_subprocess(*BARE, *args)


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def statuses(path: Path) -> dict[str, str]:
    """Status by model name."""
    return {row["model"]: row["status"] for row in rows(path)}
