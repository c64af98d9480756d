from __future__ import annotations

from typing import Any

import pytest

from pytest_madengine.errors import FaultsError
from pytest_madengine.launchers.base import RUNNER, Topology
from pytest_madengine.launchers.vllm import LAUNCHERS

(VLLM,) = LAUNCHERS


def environment(nodes: int, **section: Any) -> dict[str, str]:
    return VLLM.environment(Topology.of_cluster(nodes, 8), {"vllm": section})


@pytest.mark.parametrize(("nodes", "backend"), [(1, "auto"), (2, "none"), (8, "none")])
def test_each_node_is_a_server_of_its_own(nodes: int, backend: str) -> None:
    assert environment(nodes) == {
        RUNNER: "",
        "VLLM_TENSOR_PARALLEL_SIZE": "8",
        "VLLM_PIPELINE_PARALLEL_SIZE": "1",
        "VLLM_DISTRIBUTED_BACKEND": backend,
    }


def test_the_section_counts_more_than_the_topology() -> None:
    section = {"tensor_parallel_size": 4, "pipeline_parallel_size": "2", "distributed_backend": "ray", "model": "a/b"}
    assert environment(2, **section) == {
        RUNNER: "",
        "VLLM_TENSOR_PARALLEL_SIZE": "4",
        "VLLM_PIPELINE_PARALLEL_SIZE": "2",
        "VLLM_DISTRIBUTED_BACKEND": "ray",
        "VLLM_MODEL": "a/b",
    }


def test_all_faults_of_the_section_are_told_at_once() -> None:
    with pytest.raises(FaultsError) as caught:
        environment(2, tensor_paralel_size=4, pipeline_parallel_size=0)
    assert [(fault.where, fault.nearest) for fault in caught.value.faults] == [
        ("vllm.pipeline_parallel_size", ""),
        ("vllm.tensor_paralel_size", "tensor_parallel_size"),
    ]
