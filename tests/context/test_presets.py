from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine import assets
from pytest_madengine.context.context import Context, validated
from pytest_madengine.context.presets import Merged, for_model, partitions
from pytest_madengine.context.slurm import Slurm
from pytest_madengine.errors import FaultsError
from pytest_madengine.models.model import Distributed, Model, Source
from pytest_madengine.validation import dotted

DEFAULTS = "presets/slurm/defaults.json"
SINGLE = "presets/slurm/profiles/single-node.json"
MULTI = "presets/slurm/profiles/multi-node.json"
CARD = "models.json:12 (card)"
SOURCE = Source(Path("/project/models.json"), 12, Path("/project"))
OF_DEFAULTS = {"OMP_NUM_THREADS": "8", "MIOPEN_FIND_MODE": "1", "MIOPEN_USER_DB_PATH": "/tmp/.miopen"}  # noqa: S108  # the wiki's
OF_SEVERAL_NODES = {
    "NCCL_DEBUG": "WARN",
    "NCCL_DEBUG_SUBSYS": "INIT",
    "NCCL_IB_DISABLE": "0",
    "NCCL_SOCKET_IFNAME": "ib0",
    "TORCH_NCCL_HIGH_PRIORITY": "1",
    "GPU_MAX_HW_QUEUES": "8",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    "NCCL_TIMEOUT": "1200",
    "HSA_ENABLE_SDMA": "0",
    "HSA_FORCE_FINE_GRAIN_PCIE": "1",
    "RCCL_ENABLE_HIPGRAPH": "0",
}


def context(**values: Any) -> Context:
    return validated(values, dotted, set)


def merge(card: dict[str, Any] | None = None, /, **values: Any) -> Merged:
    model = Model.model_validate({"name": "m", **(card or {})})
    return for_model(model, context(**values), SOURCE)


def test_where_nobody_says_anything_the_presets_for_one_node_hold() -> None:
    found = merge()
    assert found.slurm == Slurm(nodes=1, gpus_per_node=8, time="12:00:00", exclusive=True)
    assert found.distributed == Distributed(backend="nccl", port=29500, nnodes=1)
    assert found.env_vars == {**OF_DEFAULTS, "NCCL_DEBUG": "WARN"}
    assert found.origins == {
        "slurm.nodes": DEFAULTS,
        "slurm.gpus_per_node": SINGLE,
        "slurm.time": SINGLE,
        "slurm.exclusive": DEFAULTS,
        "slurm.modules": DEFAULTS,
        "distributed.backend": DEFAULTS,
        "distributed.port": DEFAULTS,
        "distributed.nnodes": DEFAULTS,
        "env_vars.OMP_NUM_THREADS": DEFAULTS,
        "env_vars.MIOPEN_FIND_MODE": DEFAULTS,
        "env_vars.MIOPEN_USER_DB_PATH": DEFAULTS,
        "env_vars.NCCL_DEBUG": SINGLE,
    }


def test_several_nodes_have_a_profile_of_their_own() -> None:
    found = merge({}, slurm={"nodes": 4})
    assert found.slurm == Slurm(nodes=4, gpus_per_node=8, time="24:00:00", exclusive=True)
    assert found.distributed == Distributed(backend="nccl", port=29500, nnodes=4)
    assert found.env_vars == {**OF_DEFAULTS, **OF_SEVERAL_NODES}
    assert {found.origins[f"env_vars.{name}"] for name in OF_SEVERAL_NODES} == {MULTI}


def test_no_preset_names_a_partition() -> None:
    for file in (assets.folder("presets") / "slurm").rglob("*.json"):
        assert '"partition"' not in file.read_text(encoding="utf-8")
    assert "partition" not in dict(merge().slurm.sbatch_options())


@pytest.mark.parametrize(
    ("card", "values", "key", "value", "origin"),
    [
        ({}, {}, "slurm.time", "12:00:00", SINGLE),
        ({"slurm": {"time": "01:00:00"}}, {}, "slurm.time", "01:00:00", CARD),
        ({"slurm": {"time": "01:00:00"}}, {"slurm": {"time": "02:00:00"}}, "slurm.time", "02:00:00", "context"),
        ({"slurm": {"exclusive": False}}, {"slurm": {"qos": "q"}}, "slurm.exclusive", False, CARD),
        ({"slurm": {"qos": "q"}}, {"slurm": {"qos": None}}, "slurm.qos", None, "context"),
        ({"slurm": {"modules": ["a"]}}, {"slurm": {"modules": ["b"]}}, "slurm.modules", ("b",), "context"),
        ({"slurm": {"mem": "1G"}}, {"slurm": {"options": {"nice": 1}}}, "slurm.options.mem", "1G", CARD),
        ({"slurm": {"mem": "1G"}}, {"slurm": {"options": {"nice": 1}}}, "slurm.options.nice", "1", "context"),
        ({"slurm": {"mem": "1G"}}, {"slurm": {"options": {"mem": False}}}, "slurm.options.mem", False, "context"),
        ({}, {}, "distributed.backend", "nccl", DEFAULTS),
        ({"distributed": {"nnodes": 2}}, {}, "distributed.backend", "nccl", MULTI),
        ({"distributed": {"backend": "gloo"}}, {"distributed": {"port": 1}}, "distributed.backend", "gloo", CARD),
        ({"distributed": {"backend": "gloo"}}, {"distributed": {"port": 1}}, "distributed.port", 1, "context"),
        (
            {"distributed": {"launcher": "vllm"}},
            {"distributed": {"launcher": "x"}},
            "distributed.launcher",
            "x",
            "context",
        ),
        (
            {"distributed": {"sglang_disagg": {"prefill_nodes": 1, "decode_nodes": 2}}},
            {"distributed": {"sglang_disagg": {"prefill_nodes": 3}}},
            "distributed.sglang_disagg.decode_nodes",
            2,
            CARD,
        ),
        ({"env_vars": {"NCCL_DEBUG": "INFO"}}, {}, "env_vars.NCCL_DEBUG", "INFO", CARD),
        ({"env_vars": {"A": "1"}}, {"env_vars": {"A": 2}}, "env_vars.A", "2", "context"),
        ({"env_vars": {"A": "1"}}, {"env_vars": {"B": "2"}}, "env_vars.A", "1", CARD),
    ],
)
def test_the_later_layer_wins_key_by_key(
    card: dict[str, Any], values: dict[str, Any], key: str, value: object, origin: str
) -> None:
    found = merge(card, **values)
    section, *rest = key.split(".")
    holder: Any = getattr(found, section)
    for part in rest:
        holder = holder[part] if isinstance(holder, dict) else getattr(holder, part)
    assert (holder, found.origins[key]) == (value, origin)


@pytest.mark.parametrize(
    ("card", "values", "nodes", "origin"),
    [
        ({"slurm": {"nodes": 2}}, {}, 2, CARD),
        ({"distributed": {"nnodes": 2}}, {}, 2, CARD),
        ({"slurm": {"nodes": 2}, "distributed": {"nnodes": 2}}, {}, 2, CARD),
        ({"slurm": {"nodes": 2}}, {"slurm": {"nodes": 4}}, 4, "context"),
        ({"slurm": {"nodes": 2}, "distributed": {"nnodes": 2}}, {"slurm": {"nodes": 4}}, 4, "context"),
        ({"slurm": {"nodes": 2}, "distributed": {"nnodes": 2}}, {"distributed": {"nnodes": 1}}, 1, "context"),
        ({"distributed": {"nnodes": 2}}, {"distributed": {"nnodes": None}}, 2, CARD),
        ({"distributed": {"launcher": "torchrun"}}, {}, 1, DEFAULTS),
    ],
)
def test_both_keys_for_the_number_of_nodes_follow_the_highest_layer(
    card: dict[str, Any], values: dict[str, Any], nodes: int, origin: str
) -> None:
    found = merge(card, **values)
    assert (found.slurm.nodes, found.distributed.nnodes) == (nodes, nodes)
    assert (found.origins["slurm.nodes"], found.origins["distributed.nnodes"]) == (origin, origin)
    assert found.origins["slurm.time"] == (MULTI if nodes > 1 else SINGLE)


@pytest.mark.parametrize("of_card", [True, False])
def test_a_source_that_states_two_numbers_of_nodes_is_refused(of_card: bool) -> None:  # noqa: FBT001  # pytest passes it
    stated = {"slurm": {"nodes": 2}, "distributed": {"nnodes": 4}}
    with pytest.raises(FaultsError) as caught:
        merge(stated if of_card else {}, **({} if of_card else stated))
    assert str(caught.value) == (
        f"{CARD if of_card else 'context'}: m: slurm.nodes is 2 and distributed.nnodes is 4; "
        "valid: one number for both, or one of the keys"
    )


@pytest.mark.parametrize(
    ("card", "values", "gpus", "origin"),
    [
        ({}, {}, 8, SINGLE),
        ({"n_gpus": "-1"}, {}, 8, SINGLE),
        ({"n_gpus": "0"}, {}, 8, SINGLE),
        ({"n_gpus": "2"}, {}, 2, CARD),
        ({"n_gpus": "2", "distributed": {"nproc_per_node": 4}}, {}, 4, CARD),
        ({"slurm": {"gpus_per_node": 1}, "distributed": {"nproc_per_node": 4}}, {}, 1, CARD),
        ({"n_gpus": "2"}, {"distributed": {"nproc_per_node": 4}}, 4, "context"),
        ({"slurm": {"gpus_per_node": 1}}, {"slurm": {"gpus_per_node": 0}}, 0, "context"),
        ({"slurm": {"gpus_per_node": 1}}, {"n_gpus": 3}, 3, "context"),
        ({"slurm": {"gpus_per_node": 1}}, {"gpu_count": 0}, 0, "context"),
        ({"slurm": {"gpus_per_node": 1}}, {"n_gpus": -1}, 1, CARD),
        ({}, {"gpus_per_node": 3, "slurm": {"gpus_per_node": 5}}, 5, "context"),
    ],
)
def test_gpus_per_node_are_those_that_somebody_asks_for(
    card: dict[str, Any], values: dict[str, Any], gpus: int, origin: str
) -> None:
    found = merge(card, **values)
    assert (found.slurm.gpus_per_node, found.origins["slurm.gpus_per_node"]) == (gpus, origin)


def test_a_partition_unsays_the_matrix_below_it_and_the_other_way_round() -> None:
    single, matrix = {"partition": "a"}, {"partitions": ["b", "c"]}
    found = merge({"slurm": single}, slurm=matrix)
    assert (found.slurm.partition, found.slurm.partitions) == (None, ("b", "c"))
    assert "slurm.partition" not in found.origins
    found = merge({"slurm": matrix}, slurm=single)
    assert (found.slurm.partition, found.slurm.partitions) == ("a", ())


@pytest.mark.parametrize(
    ("card", "values", "found"),
    [
        ({}, {}, ()),
        ({"partitions": "a, b"}, {}, ("a", "b")),
        ({"partitions": ["a"]}, {"partitions": ["b", "c"]}, ("b", "c")),
        ({"partition": "b"}, {"partitions": ["b", "c"]}, ("b", "c")),
        ({"partitions": ["a"]}, {"partition": "b"}, ()),
        ({"partitions": ["a"]}, {"partitions": []}, ()),
    ],
)
def test_a_model_runs_in_each_partition_of_the_highest_layer(
    card: dict[str, Any], values: dict[str, Any], found: tuple[str, ...]
) -> None:
    assert partitions(Model(name="m", slurm=card), context(slurm=values), SOURCE) == found


def test_of_several_partitions_the_one_that_the_card_names_holds() -> None:
    found = merge({"slurm": {"partition": " b "}}, slurm={"partitions": ["a", "b"]})
    assert (found.slurm.partition, found.slurm.partitions) == ("b", ())
    assert (found.origins["slurm.partition"], "slurm.partitions" in found.origins) == ("context", False)
    found = merge({"slurm": {"partition": "c"}}, slurm={"partitions": ["a", "b"]})
    assert (found.slurm.partition, found.slurm.partitions) == (None, ("a", "b"))
    assert merge({}, slurm={"partitions": ["a"]}).slurm.partition == "a"


def test_a_faulty_card_has_no_partitions() -> None:
    with pytest.raises(FaultsError, match=r"models\.json:12: slurm\.nodes \(m\): found 0"):
        partitions(Model(name="m", slurm={"nodes": 0}), context(), SOURCE)


def test_the_reservation_of_the_option_wins_over_card_and_context() -> None:
    model = Model(name="m", slurm={"reservation": "of the card"})
    given = context(slurm={"reservation": "of the context"})
    found = for_model(model, given, SOURCE, "of the option")
    assert (found.slurm.reservation, found.origins["slurm.reservation"]) == ("of the option", "--madengine-reservation")
    found = for_model(model, given, SOURCE)
    assert (found.slurm.reservation, found.origins["slurm.reservation"]) == ("of the context", "context")


def test_each_value_is_listed_with_its_origin_and_secrets_hidden() -> None:
    card = {"slurm": {"mem": "1G", "modules": ["a", "b"]}, "env_vars": {"HF_TOKEN": "short", "A": "1"}}
    found = list(merge(card, distributed={"primus": {"x": 1}}).lines())
    assert ("slurm.options.mem", "1G", CARD) in found
    assert ("slurm.modules", ("a", "b"), CARD) in found
    assert ("distributed.primus.x", 1, "context") in found
    assert ("slurm.time", "12:00:00", SINGLE) in found
    assert ("env_vars.A", "1", CARD) in found
    assert ("env_vars.HF_TOKEN", "***", CARD) in found
    assert {key for key, _, _ in found} == merge(card, distributed={"primus": {"x": 1}}).origins.keys()


def test_a_stated_master_port_wins_over_the_presets_port() -> None:
    found = merge({"distributed": {"master_port": 1234}})
    assert (found.distributed.port, found.distributed.master_port) == (None, 1234)
    assert "distributed.port" not in found.origins
    assert merge({"distributed": {"master_port": 1234}}, distributed={"port": 5}).distributed.master_port is None


def test_a_stated_interface_wins_over_the_one_that_a_preset_guesses() -> None:
    found = merge({"slurm": {"nodes": 2, "network_interface": "eth0"}})
    assert (found.env_vars["NCCL_SOCKET_IFNAME"], found.origins["env_vars.NCCL_SOCKET_IFNAME"]) == ("eth0", CARD)
    found = merge({"slurm": {"nodes": 2, "network_interface": "eth0"}}, env_vars={"NCCL_SOCKET_IFNAME": "x"})
    assert found.env_vars["NCCL_SOCKET_IFNAME"] == "x"
    assert "NCCL_SOCKET_IFNAME" not in merge({"slurm": {"network_interface": "eth0"}}).env_vars


def test_every_fault_of_a_cards_slurm_names_the_card() -> None:
    with pytest.raises(FaultsError) as caught:
        merge({"slurm": {"nodes": 0, "partiton": "gpu"}})
    first, second = str(caught.value).splitlines()
    assert first == "models.json:12: slurm.nodes (m): found 0; valid: greater than or equal to 1"
    assert second.startswith("models.json:12: slurm.partiton (m): unknown key 'partiton'; valid: account, ")
    assert second.endswith("did you mean 'partition'?")


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        (Source(Path("/project/scripts/a/models.json"), 3, Path("/project")), "scripts/a/models.json:3 (card)"),
        (Source(Path("/elsewhere/manifest.json"), 1, Path("/project")), "/elsewhere/manifest.json:1 (card)"),
        (None, "card"),
    ],
)
def test_a_card_is_named_by_its_place(source: Source | None, origin: str) -> None:
    model = Model(name="m", slurm={"qos": "q"})
    assert for_model(model, Context(), source).origins["slurm.qos"] == origin
    with pytest.raises(FaultsError, match=r"slurm\.nodes \(m\): found 0"):
        for_model(Model(name="m", slurm={"nodes": 0}), Context(), source)


def test_secrets_among_the_variables_stay_hidden() -> None:
    found = merge({"env_vars": {"HF_TOKEN": "alpha-secret"}}, env_vars={"API_KEY": "beta-secret"})
    assert (found.env_vars["HF_TOKEN"], found.env_vars["API_KEY"]) == ("alpha-secret", "beta-secret")
    assert "-secret" not in repr(found)


NAMES = st.sampled_from(["NCCL_DEBUG", "OMP_NUM_THREADS", "A", "B"])
VARIABLES = st.dictionaries(NAMES, st.text("xyz"))
SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "slurm": st.fixed_dictionaries(
            {},
            optional={
                "nodes": st.just(3),
                "time": st.integers(0, 99),
                "partition": st.just("p"),
                "options": st.dictionaries(st.sampled_from(["nice", "mem-per-cpu"]), st.integers(0, 9) | st.booleans()),
            },
        ),
        "distributed": st.fixed_dictionaries(
            {}, optional={"nnodes": st.just(3), "port": st.integers(1, 9), "master_port": st.integers(1, 9)}
        ),
        "env_vars": VARIABLES,
    },
)


@given(SECTIONS, SECTIONS)
def test_every_value_is_its_origins_and_nothing_leaks_into_the_next_merge(
    card: dict[str, Any], values: dict[str, Any]
) -> None:
    found = merge(card, **values)
    stated = {"context": values.get("env_vars", {}), CARD: card.get("env_vars", {})}
    for name, value in found.env_vars.items():
        origin = found.origins[f"env_vars.{name}"]
        assert origin.startswith("presets/") or stated[origin][name] == value
        assert (name in stated["context"]) == (origin == "context")
    assert found.slurm.nodes == found.distributed.nnodes
    assert merge(card, **values) == found
    assert merge() == for_model(Model(name="m"), Context(), SOURCE)
    assert merge().env_vars == {**OF_DEFAULTS, "NCCL_DEBUG": "WARN"}
