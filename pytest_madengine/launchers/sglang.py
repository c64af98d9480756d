"""SGLang, with one server on each node or with prefill and decode on nodes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.launchers.base import RUNNER, Launcher, Topology


def _sglang(topology: Topology, _: Mapping[str, Any]) -> dict[str, str]:
    return {
        RUNNER: "",
        "SGLANG_TENSOR_PARALLEL_SIZE": str(topology.processes_per_node),
        "SGLANG_PIPELINE_PARALLEL_SIZE": "1",
    }


def _disaggregated(topology: Topology, options: Mapping[str, Any]) -> dict[str, str]:
    """One proxy; of the other nodes two fifths, at least one, prefill and the rest decode unless stated."""
    prefill, decode = _split(topology.nodes, options.get("sglang_disagg") or {})
    return {
        RUNNER: "",
        "SGLANG_DISAGG_MODE": "enabled",
        "SGLANG_DISAGG_PREFILL_NODES": str(prefill),
        "SGLANG_DISAGG_DECODE_NODES": str(decode),
        "SGLANG_DISAGG_TOTAL_NODES": str(topology.nodes),
        "SGLANG_TP_SIZE": str(topology.processes_per_node),
        "SGLANG_NODE_RANK": topology.node_rank,
    }


def _split(nodes: int, stated: Mapping[str, Any]) -> tuple[int, int]:
    """How many nodes prefill and how many decode.

    Raises:
        FaultsError: with the proxy they are not all nodes, or one of them is none.
    """
    prefill = stated.get("prefill_nodes", max(1, (nodes - 1) * 2 // 5))
    decode = stated.get("decode_nodes", nodes - 1 - prefill if isinstance(prefill, int) else None)
    if not (isinstance(prefill, int) and isinstance(decode, int) and prefill > 0 < decode):
        found = f"found {prefill!r} prefill and {decode!r} decode nodes of {nodes}"
        raise FaultsError([Fault("distributed.sglang_disagg", found, "at least one of each")])
    if prefill + decode + 1 != nodes:
        found = f"{prefill} prefill, {decode} decode nodes and the proxy are not the {nodes} nodes of the job"
        raise FaultsError([Fault("distributed.sglang_disagg", found, f"{nodes - 1} in sum")])
    return prefill, decode


LAUNCHERS = (
    Launcher("sglang", _sglang),
    Launcher("sglang_disagg", _disaggregated, aliases=("sglang-disagg",), least_nodes=3),
)
