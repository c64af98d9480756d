"""What holds for every launcher."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.launchers import deepspeed, primus, sglang, slurm_multi, torchrun, vllm
from pytest_madengine.launchers.base import EXPRESSIONS, NODE_RANK, RUNNER, Launcher, Topology
from tests.golden import compare
from tests.launchers.support import HOSTILE, evaluated

GOLDEN = Path(__file__).parent / "golden.txt"
MODULES = (torchrun, deepspeed, vllm, sglang, primus, slurm_multi)
LAUNCHERS: dict[str, Launcher] = {launcher.name: launcher for module in MODULES for launcher in module.LAUNCHERS}
TOPOLOGIES = {
    "1 node, 8 processes": Topology(processes_per_node=8),
    "4 nodes, 8 processes each": Topology.of_cluster(4, 8, 29501),
}
OPTIONS: dict[str, Any] = {
    "model": "primus_pretrain/megatron_llama3_8B",
    "primus": {"config_path": "examples/exp.yaml", "cli_extra": "--a 'b c'"},
    "vllm": {"pipeline_parallel_size": 2},
    "sglang_disagg": {"prefill_nodes": 2},
}


def environment(name: str, topology: Topology, **options: Any) -> dict[str, str]:
    return LAUNCHERS[name].environment(topology, options)


def block(launcher: Launcher, topology: Topology) -> list[str]:
    if topology.nodes < launcher.least_nodes:
        return [f"  needs {launcher.least_nodes} nodes"]
    variables = launcher.environment(topology, OPTIONS)
    prepared = launcher.prepare(topology, OPTIONS).splitlines()
    return [f"  {name}={value}" for name, value in variables.items()] + [f"  before: {line}" for line in prepared]


def test_what_every_launcher_sets_on_one_node_and_on_four() -> None:
    lines = []
    for launcher in LAUNCHERS.values():
        lines.append(" = ".join([launcher.name, *launcher.aliases]))
        shown = {vendor: " ".join(launcher.visible_devices_of(vendor)) for vendor in ("AMD", "NVIDIA")}
        lines += [f" {vendor}: {names or 'no visible devices'}" for vendor, names in shown.items()]
        for title, topology in TOPOLOGIES.items():
            lines += [f" {title}", *(block(launcher, topology) or ["  nothing"])]
    compare("\n".join([*lines, ""]), GOLDEN)


def test_all_nine_launchers_of_the_wiki_are_there_by_every_spelling() -> None:
    names = {name for launcher in LAUNCHERS.values() for name in (launcher.name, *launcher.aliases)}
    assert names >= {
        "torchrun",
        "megatron",
        "megatron-lm",
        "torchtitan",
        "deepspeed",
        "vllm",
        "sglang",
        "sglang_disagg",
        "sglang-disagg",
        "primus",
        "slurm_multi",
        "slurm-multi",
    }


def test_no_name_means_two_launchers() -> None:
    names = [name for launcher in LAUNCHERS.values() for name in (launcher.name, *launcher.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", LAUNCHERS)
@given(st.integers(3, 64), st.integers(1, 16), st.integers(1, 65535))
def test_only_the_known_expressions_are_left_to_the_node(name: str, nodes: int, processes: int, port: int) -> None:
    variables = environment(name, Topology.of_cluster(nodes, processes, port))
    assert all(isinstance(value, str) for value in variables.values())
    left = {found for value in variables.values() for found in re.findall(r"\$\{\w+\}|\$", value)}
    assert left <= set(EXPRESSIONS)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_node_evaluates_the_expressions_and_nothing_else(name: str) -> None:
    options = {"primus": {"cli_extra": "$HOME `id` \"'\\"}, "vllm": {"model": "$(id)"}}
    variables = environment(name, Topology.of_cluster(4, 8), **options)
    expected = {key: re.sub(r"\$\{(\w+)\}", lambda at: HOSTILE[at[1]], value) for key, value in variables.items()}
    assert evaluated(variables, HOSTILE) == expected


@pytest.mark.parametrize("name", [name for name, launcher in LAUNCHERS.items() if launcher.least_nodes == 1])
@given(st.integers(1, 16))
def test_one_node_needs_nothing_of_a_cluster(name: str, processes: int) -> None:
    for topology in (Topology(1, processes), Topology.of_cluster(1, processes)):
        assert "$" not in "".join(environment(name, topology).values())
        assert LAUNCHERS[name].prepare(topology, {}) == ""


@pytest.mark.parametrize("name", ["torchrun", "megatron", "torchtitan", "deepspeed"])
def test_a_command_for_several_nodes_names_rank_and_rendezvous(name: str) -> None:
    command = environment(name, Topology.of_cluster(4, 8, 29501))[RUNNER]
    for piece in ("--node_rank=${NODE_RANK}", "--master_addr=${MASTER_ADDR}", "--master_port=29501"):
        assert command.split().count(piece) == 1
    ranked = {evaluated({RUNNER: command}, HOSTILE | {"NODE_RANK": str(rank)})[RUNNER] for rank in range(4)}
    assert len(ranked) == 4


def test_every_launcher_but_slurm_multi_says_how_processes_start() -> None:
    for name, launcher in LAUNCHERS.items():
        variables = launcher.environment(Topology.of_cluster(3, 8), {})
        assert (RUNNER in variables) != (name == "slurm_multi")


@pytest.mark.parametrize("name", ["megatron", "torchtitan"])
@given(st.integers(1, 64), st.integers(1, 16))
def test_tensors_and_pipeline_share_all_processes(name: str, nodes: int, processes: int) -> None:
    topology = Topology.of_cluster(nodes, processes)
    sizes = [int(v) for key, v in environment(name, topology).items() if re.search("(TENSOR|PIPELINE).*_SIZE", key)]
    assert sizes[0] * sizes[1] == topology.world_size


def test_only_slurm_multi_starts_its_own_containers() -> None:
    assert [name for name, launcher in LAUNCHERS.items() if launcher.self_managed] == ["slurm_multi"]


def test_only_sglang_disagg_needs_several_nodes() -> None:
    least = {name: launcher.least_nodes for name, launcher in LAUNCHERS.items() if launcher.least_nodes > 1}
    assert least == {"sglang_disagg": 3}


def test_only_sglang_disagg_tells_every_node_all_addresses() -> None:
    telling = [name for name in LAUNCHERS if "${NODE_IPS}" in environment(name, Topology.of_cluster(3, 8)).values()]
    assert telling == ["sglang_disagg"]
    assert environment("sglang_disagg", Topology.of_cluster(3, 8))["SGLANG_NODE_RANK"] == NODE_RANK
