"""Models whose script starts its own containers on every node; it reads the scheduler's variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_madengine.launchers.base import Launcher, Topology, read_disaggregation


def _slurm_multi(_: Topology, options: Mapping[str, Any]) -> dict[str, str]:
    """`xP` prefill and `yD` decode nodes, one where only the other is stated; nothing else is meant for the script."""
    stated = read_disaggregation(options)
    if stated.prefill_nodes is None and stated.decode_nodes is None:
        return {}
    return {"xP": str(stated.prefill_nodes or 1), "yD": str(stated.decode_nodes or 1)}


LAUNCHERS = (Launcher("slurm_multi", _slurm_multi, aliases=("slurm-multi",), self_managed=True, visible_devices=()),)
