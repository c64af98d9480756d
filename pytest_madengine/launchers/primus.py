"""Primus, which reads a YAML of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_madengine.launchers.base import RUNNER, Launcher, Topology

VARIABLES = {"config_path": "PRIMUS_CONFIG_PATH", "cli_extra": "PRIMUS_CLI_EXTRA", "backend": "BACKEND"}


def _primus(_: Topology, options: Mapping[str, Any]) -> dict[str, str]:
    section = options.get("primus") or {}
    return {RUNNER: ""} | {name: str(section[key]) for key, name in VARIABLES.items() if section.get(key)}


LAUNCHERS = (Launcher("primus", _primus),)
