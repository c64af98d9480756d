"""vLLM: the model's script starts the server and reads how to split from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_madengine.launchers.base import RUNNER, Launcher, Topology


def _vllm(topology: Topology, _: Mapping[str, Any]) -> dict[str, str]:
    """Tensors across a node's GPUs; each node is a server of its own."""
    return {
        RUNNER: "",
        "VLLM_TENSOR_PARALLEL_SIZE": str(topology.processes_per_node),
        "VLLM_PIPELINE_PARALLEL_SIZE": "1",
        "VLLM_DISTRIBUTED_BACKEND": "auto" if topology.nodes == 1 else "none",
    }


LAUNCHERS = (Launcher("vllm", _vllm),)
