"""SGLang, with one server on each node or with prefill and decode on nodes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.launchers.base import (
    NODE_IPS,
    ONE_OF_THE_VENDOR,
    RUNNER,
    Launcher,
    Topology,
    read_disaggregation,
)

LEAST_NODES = 3


def _sglang(topology: Topology, _: Mapping[str, Any]) -> dict[str, str]:
    """Tensors across a node's GPUs; several nodes can meet at NCCL_INIT_ADDR."""
    sizes = {
        RUNNER: "",
        "SGLANG_TENSOR_PARALLEL_SIZE": str(topology.processes_per_node),
        "SGLANG_PIPELINE_PARALLEL_SIZE": "1",
    }
    if topology.nodes == 1:
        return sizes
    return sizes | {"NCCL_INIT_ADDR": f"{topology.master_address}:{topology.master_port}"}


def _disaggregated(topology: Topology, options: Mapping[str, Any]) -> dict[str, str]:
    prefill, decode = _split(topology.nodes, options)
    return {
        RUNNER: "",
        "SGLANG_DISAGG_MODE": "enabled",
        "SGLANG_DISAGG_PREFILL_NODES": str(prefill),
        "SGLANG_DISAGG_DECODE_NODES": str(decode),
        "SGLANG_DISAGG_TOTAL_NODES": str(topology.nodes),
        "SGLANG_TP_SIZE": str(topology.processes_per_node),
        "SGLANG_NODE_IPS": NODE_IPS,
        "SGLANG_NODE_RANK": topology.node_rank,
    }


def _split(nodes: int, options: Mapping[str, Any]) -> tuple[int, int]:
    """How many nodes prefill and how many decode.

    One node is the proxy. Of the others two fifths, at least one, prefill and the rest decode unless stated.

    Raises:
        FaultsError: the nodes are too few, or those stated are not all that the job has.
    """
    stated = read_disaggregation(options)
    if nodes < LEAST_NODES:
        valid = f"at least {LEAST_NODES}: a proxy, a prefill node and a decode node"
        raise FaultsError([Fault("distributed.nnodes", f"sglang_disagg on {nodes}", valid)])
    servers = nodes - 1
    prefill = stated.prefill_nodes or _prefill(servers, stated.decode_nodes)
    decode = stated.decode_nodes or max(0, servers - prefill)
    if prefill + decode != servers or not prefill or not decode:
        found = f"{prefill} prefill nodes, {decode} decode nodes and the proxy are not the {nodes} nodes of the job"
        raise FaultsError([Fault("distributed.sglang_disagg", found, f"at least one of each, {servers} in sum")])
    return prefill, decode


def _prefill(servers: int, decode: int | None) -> int:
    return max(1, servers * 2 // 5) if decode is None else max(0, servers - decode)


LAUNCHERS = (
    Launcher("sglang", _sglang, visible_devices=ONE_OF_THE_VENDOR),
    Launcher(
        "sglang_disagg",
        _disaggregated,
        aliases=("sglang-disagg",),
        least_nodes=LEAST_NODES,
        client=True,
        visible_devices=ONE_OF_THE_VENDOR,
    ),
)
