"""torchrun and the trainers that it starts; each says by its own variables how it splits the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_madengine.launchers.base import RUNNER, Launcher, Topology, torchrun_command


def _torchrun(topology: Topology, _: Mapping[str, Any]) -> dict[str, str]:
    return {RUNNER: torchrun_command(topology)}


def _megatron(topology: Topology, _: Mapping[str, Any]) -> dict[str, str]:
    """Tensors across a node's GPUs, the pipeline across nodes."""
    return {
        "TENSOR_MODEL_PARALLEL_SIZE": str(topology.processes_per_node),
        "PIPELINE_MODEL_PARALLEL_SIZE": str(topology.nodes),
        "CONTEXT_PARALLEL_SIZE": "1",
        RUNNER: torchrun_command(topology),
    }


def _torchtitan(topology: Topology, _: Mapping[str, Any]) -> dict[str, str]:
    """Tensors across a node's GPUs, the pipeline and FSDP across nodes."""
    return {
        "TORCHTITAN_TENSOR_PARALLEL_SIZE": str(topology.processes_per_node),
        "TORCHTITAN_PIPELINE_PARALLEL_SIZE": str(topology.nodes),
        "TORCHTITAN_FSDP_ENABLED": str(int(topology.nodes > 1)),
        "TORCHTITAN_CONTEXT_PARALLEL_SIZE": "1",
        RUNNER: torchrun_command(topology),
    }


LAUNCHERS = (
    Launcher("torchrun", _torchrun),
    Launcher("megatron", _megatron, aliases=("megatron-lm", "megatron_lm")),
    Launcher("torchtitan", _torchtitan),
)
