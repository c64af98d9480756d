from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.errors import FaultsError
from pytest_madengine.launchers.base import Topology
from pytest_madengine.launchers.sglang import LAUNCHERS

SGLANG, DISAGGREGATED = LAUNCHERS


def split(nodes: int, **stated: Any) -> tuple[int, int]:
    variables = DISAGGREGATED.environment(Topology.of_cluster(nodes, 8), {"sglang_disagg": stated})
    return int(variables["SGLANG_DISAGG_PREFILL_NODES"]), int(variables["SGLANG_DISAGG_DECODE_NODES"])


@pytest.mark.parametrize(("nodes", "shares"), [(3, (1, 1)), (4, (1, 2)), (6, (2, 3)), (11, (4, 6)), (16, (6, 9))])
def test_two_fifths_of_the_servers_prefill(nodes: int, shares: tuple[int, int]) -> None:
    assert split(nodes) == shares


@given(st.integers(3, 1000))
def test_proxy_prefill_and_decode_are_all_nodes(nodes: int) -> None:
    prefill, decode = split(nodes)
    assert prefill + decode + 1 == nodes
    assert prefill >= 1
    assert decode >= 1


@given(st.integers(1, 100), st.integers(1, 100))
def test_stated_shares_count_and_one_tells_the_other(prefill: int, decode: int) -> None:
    nodes = prefill + decode + 1
    assert split(nodes, prefill_nodes=prefill, decode_nodes=decode) == (prefill, decode)
    assert split(nodes, prefill_nodes=prefill) == split(nodes, decode_nodes=decode) == (prefill, decode)


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ({"prefill_nodes": 2, "decode_nodes": 2}, "2 prefill nodes, 2 decode nodes and the proxy are not the 6 nodes"),
        ({"prefill_nodes": 5}, "5 prefill nodes, 0 decode nodes"),
        ({"prefill_nodes": 9}, "9 prefill nodes, 0 decode nodes"),
        ({"decode_nodes": 5}, "0 prefill nodes, 5 decode nodes"),
        ({"decode_nodes": 9}, "0 prefill nodes, 9 decode nodes"),
    ],
)
def test_shares_that_do_not_make_up_the_job_are_a_users_error(stated: dict[str, Any], found: str) -> None:
    with pytest.raises(FaultsError, match=rf"^distributed.sglang_disagg: {found}.* at least one of each, 5 in sum"):
        split(6, **stated)


@pytest.mark.parametrize("value", [0, -1, "two", 1.5])
def test_a_share_is_a_whole_number_of_nodes(value: object) -> None:
    with pytest.raises(FaultsError, match=r"^distributed.sglang_disagg.prefill_nodes: found "):
        split(6, prefill_nodes=value)


@pytest.mark.parametrize("nodes", [1, 2])
def test_too_few_nodes_are_a_users_error(nodes: int) -> None:
    with pytest.raises(FaultsError, match=rf"^distributed.nnodes: sglang_disagg on {nodes}; valid: at least 3"):
        split(nodes)


def test_servers_of_several_nodes_know_where_to_meet() -> None:
    assert SGLANG.environment(Topology.of_cluster(2, 8, 29501), {})["NCCL_INIT_ADDR"] == "${MASTER_ADDR}:29501"
    assert "NCCL_INIT_ADDR" not in SGLANG.environment(Topology.of_cluster(1, 8), {})
