"""DeepSpeed's own launcher. The job runs the script on every node, so each node starts its own processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_madengine.launchers.base import JOB_ID, NODE_LIST, NODE_RANK, RUNNER, Launcher, Topology

HOSTFILE = f"/tmp/hostfile-{JOB_ID}-{NODE_RANK}"  # noqa: S108  # one for each job and node, as hosts may share /tmp


def _deepspeed(topology: Topology, _: Mapping[str, Any]) -> dict[str, str]:
    """`--no_ssh` (since DeepSpeed 0.14.5): without it each node would log in to all others and start theirs too."""
    if topology.nodes == 1:
        return {RUNNER: f"deepspeed --num_gpus={topology.processes_per_node}"}
    rendezvous = f"--master_addr={topology.master_address} --master_port={topology.master_port}"
    return {RUNNER: f"deepspeed --hostfile={HOSTFILE} --no_ssh --node_rank={topology.node_rank} {rendezvous}"}


def _hostfile(topology: Topology, _: Mapping[str, Any]) -> str:
    """Writes the hostfile. Where that fails the model must not run: without one DeepSpeed trains on each node alone."""
    if topology.nodes == 1:
        return ""
    line = f"%s slots={topology.processes_per_node}\\n"
    return f'IFS=, read -ra hosts <<<"{NODE_LIST}" && printf \'{line}\' "${{hosts[@]}}" >"{HOSTFILE}"\n'


LAUNCHERS = (Launcher("deepspeed", _deepspeed, prepare=_hostfile),)
