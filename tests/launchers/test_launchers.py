from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.errors import UserError
from pytest_madengine.launchers import deepspeed, primus, sglang, slurm_multi, torchrun, vllm
from pytest_madengine.launchers.base import RUNNER, Launcher, Topology
from tests.golden import compare

GOLDEN = Path(__file__).parent / "golden.txt"
MODULES = (torchrun, deepspeed, vllm, sglang, primus, slurm_multi)
LAUNCHERS: dict[str, Launcher] = {launcher.name: launcher for module in MODULES for launcher in module.LAUNCHERS}
TOPOLOGIES = {
    "1 node, 8 processes": Topology(processes_per_node=8),
    "4 nodes, 8 processes each": Topology(4, 8, "$NODE_RANK", "$MASTER_ADDR", 29501),
}
PRIMUS = {"config_path": "examples/exp.yaml", "cli_extra": "--a 'b c'", "backend": "megatron", "other": 1}


def environment(name: str, topology: Topology, **options: Any) -> dict[str, str]:
    return LAUNCHERS[name].environment(topology, options)


def block(launcher: Launcher, topology: Topology) -> list[str]:
    if topology.nodes < launcher.least_nodes:
        return [f"  needs {launcher.least_nodes} nodes"]
    variables = launcher.environment(topology, {"primus": PRIMUS})
    return [f"  {name}={value}" for name, value in variables.items()] or ["  nothing"]


def test_what_every_launcher_sets_on_one_node_and_on_four() -> None:
    lines = []
    for launcher in LAUNCHERS.values():
        lines.append(" = ".join([launcher.name, *launcher.aliases]))
        for title, topology in TOPOLOGIES.items():
            lines += [f" {title}", *block(launcher, topology)]
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


@pytest.mark.parametrize("topology", TOPOLOGIES.values())
@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_value_is_text(name: str, topology: Topology) -> None:
    if topology.nodes >= LAUNCHERS[name].least_nodes:
        variables = environment(name, topology)
        assert all(isinstance(value, str) for value in variables.values())


def test_only_slurm_multi_starts_its_own_containers() -> None:
    assert [name for name, launcher in LAUNCHERS.items() if launcher.self_managed] == ["slurm_multi"]


def test_the_world_is_all_processes_of_all_nodes() -> None:
    assert Topology(4, 8).world_size == 32
    assert Topology().world_size == 1


def test_primus_without_a_section_sets_no_configuration() -> None:
    assert environment("primus", Topology(), primus=None) == environment("primus", Topology()) == {RUNNER: ""}


def test_rank_and_address_may_be_shell_expressions() -> None:
    command = environment("torchrun", TOPOLOGIES["4 nodes, 8 processes each"])[RUNNER]
    assert "--node_rank=$NODE_RANK --master_addr=$MASTER_ADDR" in command


def split(nodes: int, **stated: Any) -> tuple[str, str]:
    variables = environment("sglang_disagg", Topology(nodes), sglang_disagg=stated)
    return variables["SGLANG_DISAGG_PREFILL_NODES"], variables["SGLANG_DISAGG_DECODE_NODES"]


@pytest.mark.parametrize(
    ("nodes", "shares"), [(3, ("1", "1")), (4, ("1", "2")), (6, ("2", "3")), (11, ("4", "6")), (16, ("6", "9"))]
)
def test_two_fifths_of_the_servers_prefill(nodes: int, shares: tuple[str, str]) -> None:
    assert split(nodes) == shares


def test_stated_shares_of_prefill_and_decode_count() -> None:
    assert split(6, prefill_nodes=4, decode_nodes=1) == ("4", "1")
    assert split(6, prefill_nodes=1) == ("1", "4")


@pytest.mark.parametrize(
    "stated",
    [
        {"prefill_nodes": 2, "decode_nodes": 2},
        {"prefill_nodes": 5},
        {"prefill_nodes": 0},
        {"prefill_nodes": "two"},
        {"prefill_nodes": None},
        {"prefill_nodes": 2, "decode_nodes": "three"},
        {"decode_nodes": 5},
    ],
)
def test_shares_that_do_not_make_up_the_job_are_a_users_error(stated: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^distributed.sglang_disagg: .* nodes"):
        split(6, **stated)
