"""DeepSpeed's own launcher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_madengine.launchers.base import RUNNER, Launcher, Topology

HOSTFILE = "/tmp/hostfile"  # noqa: S108  # the documented place, inside the model's container


def _deepspeed(topology: Topology, _: Mapping[str, Any]) -> dict[str, str]:
    if topology.nodes == 1:
        return {RUNNER: f"deepspeed --num_gpus={topology.processes_per_node}"}
    rendezvous = f"--master_addr={topology.master_address} --master_port={topology.master_port}"
    return {RUNNER: f"deepspeed --hostfile={HOSTFILE} {rendezvous}"}


LAUNCHERS = (Launcher("deepspeed", _deepspeed),)
