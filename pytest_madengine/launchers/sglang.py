"""SGLang, with one server on each node or with prefill and decode on nodes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_madengine.launchers.base import Launcher, Topology


def _sglang(topology: Topology, _: Mapping[str, Any]) -> dict[str, str]:
    return {
        "SGLANG_TENSOR_PARALLEL_SIZE": str(topology.processes_per_node),
        "SGLANG_PIPELINE_PARALLEL_SIZE": "1",
    }


def _disaggregated(topology: Topology, options: Mapping[str, Any]) -> dict[str, str]:
    """One proxy; of the other nodes two fifths, at least one, prefill and the rest decode unless stated."""
    stated = options.get("sglang_disagg") or {}
    prefill = int(stated.get("prefill_nodes", max(1, (topology.nodes - 1) * 2 // 5)))
    return {
        "SGLANG_DISAGG_MODE": "enabled",
        "SGLANG_DISAGG_PREFILL_NODES": str(prefill),
        "SGLANG_DISAGG_DECODE_NODES": str(stated.get("decode_nodes", topology.nodes - 1 - prefill)),
        "SGLANG_DISAGG_TOTAL_NODES": str(topology.nodes),
        "SGLANG_TP_SIZE": str(topology.processes_per_node),
        "SGLANG_NODE_RANK": topology.node_rank,
    }


LAUNCHERS = (
    Launcher("sglang", _sglang),
    Launcher("sglang_disagg", _disaggregated, aliases=("sglang-disagg",), least_nodes=3),
)
