"""What a launcher is, and the words that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

RUNNER = "MAD_MULTI_NODE_RUNNER"
"""Model scripts run `$MAD_MULTI_NODE_RUNNER train.py …`; the contract of the replaced tool."""
PORT = 29500


@dataclass(frozen=True)
class Topology:
    """Processes on nodes. The rank and the address may be shell expressions of the job's script.

    Attributes:
        nodes: number of nodes.
        processes_per_node: one for each GPU as a rule; at least 1.
        node_rank: this node's rank, 0 to nodes - 1.
        master_address: rendezvous host.
        master_port: rendezvous port.
    """

    nodes: int = 1
    processes_per_node: int = 1
    node_rank: str = "0"
    master_address: str = "127.0.0.1"
    master_port: int = PORT

    @property
    def world_size(self) -> int:
        """All processes of the job."""
        return self.nodes * self.processes_per_node


Environment = Callable[[Topology, Mapping[str, Any]], dict[str, str]]
"""Gives the variables for one node, from its topology and the merged `distributed` section."""


@dataclass(frozen=True)
class Launcher:
    """One way to start a model's processes.

    Attributes:
        name: as cards and contexts write it.
        environment: the variables that the model's script needs, `MAD_MULTI_NODE_RUNNER` among them where a
            command starts the processes.
        aliases: other spellings.
        self_managed: whether the script starts its own containers, so that it runs on the host itself.
        least_nodes: fewer are refused.
    """

    name: str
    environment: Environment
    aliases: tuple[str, ...] = ()
    self_managed: bool = False
    least_nodes: int = 1


def torchrun_command(topology: Topology) -> str:
    """The torchrun prefix for one node."""
    processes = f"--nproc_per_node={topology.processes_per_node}"
    if topology.nodes == 1:
        return f"torchrun --standalone {processes}"
    return (
        f"torchrun --nnodes={topology.nodes} {processes} --node_rank={topology.node_rank} "
        f"--master_addr={topology.master_address} --master_port={topology.master_port}"
    )
