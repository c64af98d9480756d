"""The id of a session, shared by its processes; light, since xdist asks for it in every run."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

KEY = pytest.StashKey[str]()
WORKER_KEY = "madengine_run"
"""Where xdist workers find their controller's id."""


def of(config: pytest.Config) -> str:
    """This session's id, sortable by time and unique: `20260314-150926123-a1b2c3`, UTC with milliseconds."""
    if KEY not in config.stash:
        given: dict[str, str] = getattr(config, "workerinput", {})
        config.stash[KEY] = given.get(WORKER_KEY) or _named(config, config.option.madengine_resume) or _new()
    return config.stash[KEY]


def existing(config: pytest.Config, name: str) -> Path:
    """The directory of an earlier run.

    Raises:
        pytest.UsageError: there is none of that name.
    """
    folder = _runs(config) / name
    if not folder.is_dir():
        known = sorted(path.name for path in folder.parent.glob("2*"))[-3:]
        valid = f"; valid: {', '.join(known)}, written as in --madengine-resume={known[-1]}" if known else ""
        raise pytest.UsageError(f"no run {name!r} in {folder.parent}{valid}")
    return folder.resolve()


def folder(config: pytest.Config) -> Path:
    """This session's run directory, be it made yet or not."""
    return _runs(config) / of(config)


def _runs(config: pytest.Config) -> Path:
    return config.invocation_params.dir / ".madengine" / "runs"


def _named(config: pytest.Config, name: str | None) -> str:
    return existing(config, name).name if name else ""


def _new() -> str:
    moment = f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S%f}"
    return f"{moment[:-3]}-{os.urandom(3).hex()}"
