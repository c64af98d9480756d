from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.errors import FaultsError
from pytest_madengine.launchers.base import (
    CUDA,
    EXPRESSIONS,
    HIP,
    MASTER_ADDR,
    NODE_RANK,
    ONE_OF_THE_VENDOR,
    ROCR,
    Disaggregation,
    Launcher,
    Topology,
    read,
)
from tests.launchers.support import HOSTILE, evaluated

SIZES = st.integers(1, 1000)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def launcher(visible: tuple[str, ...] = (HIP, ROCR, CUDA)) -> Launcher:
    return Launcher("mine", lambda *_: {}, visible_devices=visible)


@given(SIZES, SIZES, st.integers(1, 65535))
def test_the_world_is_all_processes_of_all_nodes(nodes: int, processes: int, port: int) -> None:
    topology = Topology.of_cluster(nodes, processes, port)
    assert topology.world_size == nodes * processes
    assert (topology.nodes, topology.processes_per_node, topology.master_port) == (nodes, processes, port)


def test_a_cluster_says_rank_and_address_by_expressions() -> None:
    assert Topology.of_cluster(2, 8) == Topology(2, 8, NODE_RANK, MASTER_ADDR, 29500)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT | st.sampled_from([*EXPRESSIONS, "$", "`", '"', "\\", "${", "$(", "${HOME}", "!", "\n"])))
def test_a_quoted_value_arrives_as_it_is_but_for_the_expressions(pieces: list[str]) -> None:
    value = "".join(pieces)
    expected = reduce(lambda text, name: text.replace(f"${{{name}}}", f"<{name}>"), HOSTILE, value)
    assert evaluated({"VALUE": value}, {name: f"<{name}>" for name in HOSTILE}) == {"VALUE": expected}


def test_what_an_expression_stands_for_is_not_evaluated_again() -> None:
    values = {f"V{index}": f"a {expression} b" for index, expression in enumerate(EXPRESSIONS)}
    expected = {f"V{index}": f"a {value} b" for index, value in enumerate(HOSTILE.values())}
    assert evaluated(values, HOSTILE) == expected


def test_gpus_are_shown_by_all_variables_unless_the_launcher_says_otherwise() -> None:
    assert launcher().visible_devices_of("AMD") == launcher().visible_devices_of("NVIDIA") == (HIP, ROCR, CUDA)
    assert launcher(()).visible_devices_of("AMD") == ()


@pytest.mark.parametrize(("vendor", "names"), [("AMD", (HIP,)), ("NVIDIA", (CUDA,)), ("", ())])
def test_a_launcher_that_wants_one_variable_gets_the_vendors(vendor: str, names: tuple[str, ...]) -> None:
    assert launcher(ONE_OF_THE_VENDOR).visible_devices_of(vendor) == names


def test_a_launcher_prepares_nothing_unless_it_says_so() -> None:
    assert launcher().prepare(Topology(), {}) == ""


def test_a_section_that_is_not_there_is_empty() -> None:
    assert read(Disaggregation, None, "x") == read(Disaggregation, {}, "x") == Disaggregation()


def test_all_faults_of_a_section_are_told_at_once_with_their_places() -> None:
    with pytest.raises(FaultsError) as caught:
        read(Disaggregation, {"prefil_nodes": 1, "decode_nodes": "two"}, "distributed.sglang_disagg")
    assert sorted(map(str, caught.value.faults)) == [
        "distributed.sglang_disagg.decode_nodes: found 'two'; valid: a whole number",
        "distributed.sglang_disagg.prefil_nodes: unknown key 'prefil_nodes'; valid: decode_nodes, prefill_nodes; "
        "did you mean 'prefill_nodes'?",
    ]


@pytest.mark.parametrize("value", [[], "", 0, ["prefill_nodes"]])
def test_a_section_that_is_no_object_is_a_users_error(value: object) -> None:
    with pytest.raises(FaultsError, match=r"^place: found .*; valid: an object"):
        read(Disaggregation, value, "place")
