"""Models whose script starts its own containers on every node; it reads the scheduler's variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_madengine.launchers.base import Launcher, Topology


def _nothing(_: Topology, __: Mapping[str, Any]) -> dict[str, str]:
    return {}


LAUNCHERS = (Launcher("slurm_multi", _nothing, aliases=("slurm-multi",), self_managed=True),)
