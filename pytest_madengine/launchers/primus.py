"""Primus, which reads a YAML of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from pytest_madengine.launchers.base import RUNNER, Launcher, Topology, read
from pytest_madengine.validation import EnvValue

PREFIX = "primus_pretrain/"
BACKENDS = {
    "maxtext": "MaxText",
    "torchtitan": "torchtitan",
    "megatron_bridge": "megatron_bridge",  # before megatron, which its names begin with too
    "megatron": "megatron",
    "moe_package": "moe_package",
}
"""The first words of `primus_pretrain/<word>_…`, and what Primus calls that backend."""


class Primus(BaseModel):
    """The `primus` section. What it leaves out is not set, so that the script's own arguments and defaults count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config_path: EnvValue | None = None
    cli_extra: EnvValue | None = None
    backend: EnvValue | None = None


def _primus(_: Topology, options: Mapping[str, Any]) -> dict[str, str]:
    section = read(Primus, options.get("primus"), "primus")
    stated = {
        "PRIMUS_CONFIG_PATH": section.config_path,
        "PRIMUS_CLI_EXTRA": section.cli_extra,
        "BACKEND": section.backend or _backend(options.get("model", "")),
    }
    return {RUNNER: ""} | {name: value for name, value in stated.items() if value}


def _backend(model: str) -> str:
    """The backend that a model's name tells, empty where it tells none."""
    if not model.startswith(PREFIX):
        return ""
    rest = f"{model.removeprefix(PREFIX).lower()}_"
    return next((backend for word, backend in BACKENDS.items() if rest.startswith(f"{word}_")), "")


LAUNCHERS = (Launcher("primus", _primus),)
