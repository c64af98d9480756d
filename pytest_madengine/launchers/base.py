"""What a launcher is, and the words that all of them share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pytest_madengine.errors import FaultsError
from pytest_madengine.validation import dotted, faults

RUNNER = "MAD_MULTI_NODE_RUNNER"
"""Model scripts run `$MAD_MULTI_NODE_RUNNER train.py …`; the contract of the replaced tool."""
PORT = 29500

NODE_RANK = "${NODE_RANK}"
"""This node's rank in the job, 0 to nodes - 1."""
MASTER_ADDR = "${MASTER_ADDR}"
"""The host of rank 0, by the name or address under which the other nodes reach it."""
MASTER_PORT = "${MASTER_PORT}"
"""The rendezvous port on that host."""
NODE_LIST = "${NODE_LIST}"
"""The host names of all nodes, separated by commas, rank 0 first."""
NODE_IPS = "${NODE_IPS}"
"""The addresses of all nodes in the same order, separated by commas."""
JOB_ID = "${MADENGINE_JOB_ID}"
"""The job's id: unique, and of letters, digits, dots, underscores and hyphens only."""
EXPRESSIONS = (NODE_RANK, MASTER_ADDR, MASTER_PORT, NODE_LIST, NODE_IPS, JOB_ID)
"""What only a node knows. A job of a cluster has them as variables, on each node and inside the model's environment."""

HIP, ROCR, CUDA = "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"
ONE_OF_THE_VENDOR = (HIP, CUDA)
"""For launchers whose models may start Ray, which quarrels with the variables that are not its vendor's."""
_VENDORS = {"AMD": HIP, "NVIDIA": CUDA}
_LIVE = re.compile("|".join(map(re.escape, EXPRESSIONS)))
_SPECIAL = re.compile(r'[\\"$`]')


@dataclass(frozen=True)
class Topology:
    """Processes on nodes. The rank and the address may be expressions, which the job's script evaluates on each node.

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

    @classmethod
    def of_cluster(cls, nodes: int, processes_per_node: int, port: int = PORT) -> Topology:
        """The same text for every node: rank and address are expressions."""
        return cls(nodes, processes_per_node, NODE_RANK, MASTER_ADDR, port)

    @property
    def world_size(self) -> int:
        """All processes of the job."""
        return self.nodes * self.processes_per_node


Environment = Callable[[Topology, Mapping[str, Any]], dict[str, str]]
"""Gives the variables for one node, from its topology and the launcher's options.

The options are the merged `distributed` section and, beside its keys, `model` (the model's name), `primus` and `vllm`
(the sections of these names). The values for a topology of a cluster may hold EXPRESSIONS; `quoted` writes them for
a script.
"""
Preparation = Callable[[Topology, Mapping[str, Any]], str]
"""Gives bash text, empty where there is nothing to do; topology and options are those of Environment."""


def _nothing_to_prepare(_: Topology, __: Mapping[str, Any]) -> str:
    return ""


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
        prepare: what runs inside the model's environment on every node before the model; where it fails, the run does.
        client: whether in pods the ranks above 0 serve the model, and its script runs on rank 0 alone, as their client.
        visible_devices: the variables by which a job of a cluster may show the GPUs; see `visible_devices_of`.
    """

    name: str
    environment: Environment
    aliases: tuple[str, ...] = ()
    self_managed: bool = False
    least_nodes: int = 1
    prepare: Preparation = _nothing_to_prepare
    client: bool = False
    visible_devices: tuple[str, ...] = (HIP, ROCR, CUDA)

    def visible_devices_of(self, vendor: str) -> tuple[str, ...]:
        """The variables to set on nodes with GPUs of `vendor` ("AMD" or "NVIDIA"); the others must stay unset."""
        if self.visible_devices != ONE_OF_THE_VENDOR:
            return self.visible_devices
        return tuple(name for name in ONE_OF_THE_VENDOR if name == _VENDORS.get(vendor))


class Disaggregation(BaseModel):
    """`distributed.sglang_disagg`: how many nodes prefill and how many decode; None where nobody says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefill_nodes: int | None = Field(None, ge=1)
    decode_nodes: int | None = Field(None, ge=1)


Section = TypeVar("Section", bound=BaseModel)


def read(section: type[Section], value: object, place: str) -> Section:
    """One section of the options, checked; None is an empty one.

    Args:
        section: its keys and their types.
        value: what cards and contexts say.
        place: its key path, for errors.

    Raises:
        FaultsError: keys or values that the section does not have.
    """
    try:
        return section.model_validate({} if value is None else value)
    except ValidationError as error:
        raise FaultsError(faults(error, section, lambda path: dotted((place, *path)))) from None


def read_disaggregation(options: Mapping[str, Any]) -> Disaggregation:
    """The split of prefill and decode nodes that the options state.

    Raises:
        FaultsError: keys or values that the section does not have.
    """
    return read(Disaggregation, options.get("sglang_disagg"), "distributed.sglang_disagg")


def quoted(value: str) -> str:
    """`value` as one word of a bash script, in double quotes, in which nothing but EXPRESSIONS is evaluated."""
    pieces, end = [], 0
    for live in _LIVE.finditer(value):
        pieces += [_SPECIAL.sub(r"\\\g<0>", value[end : live.start()]), live.group()]
        end = live.end()
    return '"' + "".join(pieces) + _SPECIAL.sub(r"\\\g<0>", value[end:]) + '"'


def torchrun_command(topology: Topology) -> str:
    """The torchrun prefix for one node."""
    processes = f"--nproc_per_node={topology.processes_per_node}"
    if topology.nodes == 1:
        return f"torchrun --standalone {processes}"
    return (
        f"torchrun --nnodes={topology.nodes} {processes} --node_rank={topology.node_rank} "
        f"--master_addr={topology.master_address} --master_port={topology.master_port}"
    )
