"""vLLM: the model's script starts the server and reads how to split from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pytest_madengine.launchers.base import ONE_OF_THE_VENDOR, RUNNER, Launcher, Topology, read
from pytest_madengine.validation import EnvValue


class Vllm(BaseModel):
    """The `vllm` section: each key becomes the variable VLLM_<KEY>."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensor_parallel_size: int | None = Field(None, ge=1)
    pipeline_parallel_size: int | None = Field(None, ge=1)
    distributed_backend: EnvValue | None = None
    model: EnvValue | None = None


def _vllm(topology: Topology, options: Mapping[str, Any]) -> dict[str, str]:
    """Tensors across a node's GPUs; each node is a server of its own unless the section names a backend for all."""
    section = read(Vllm, options.get("vllm"), "vllm").model_dump(exclude_none=True)
    sizes = {
        RUNNER: "",
        "VLLM_TENSOR_PARALLEL_SIZE": str(topology.processes_per_node),
        "VLLM_PIPELINE_PARALLEL_SIZE": "1",
        "VLLM_DISTRIBUTED_BACKEND": "auto" if topology.nodes == 1 else "none",
    }
    return sizes | {f"VLLM_{key.upper()}": str(value) for key, value in section.items()}


LAUNCHERS = (Launcher("vllm", _vllm, visible_devices=ONE_OF_THE_VENDOR),)
