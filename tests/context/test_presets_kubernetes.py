"""The layers for Kubernetes; what they share with SLURM's is tested in test_presets.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine import assets
from pytest_madengine.context.context import Context, validated
from pytest_madengine.context.kubernetes import Kubernetes, amount
from pytest_madengine.context.presets import InPods, for_pods
from pytest_madengine.errors import FaultsError
from pytest_madengine.models.model import Distributed, Model, Source
from pytest_madengine.validation import dotted

DEFAULTS = "presets/kubernetes/defaults.json"
AMD, NVIDIA = "presets/kubernetes/gpu-vendors/amd.json", "presets/kubernetes/gpu-vendors/nvidia.json"
SEVERAL_OF_AMD = "presets/kubernetes/gpu-vendors/amd-multi-gpu.json"
SINGLE, MULTI, NODES = (
    f"presets/kubernetes/profiles/{name}.json" for name in ("single-gpu", "multi-gpu", "multi-node")
)
CARD = "models.json:12 (card)"
SOURCE = Source(Path("/project/models.json"), 12, Path("/project"))
MORE = {"memory": "64Gi", "memory_limit": "128Gi", "cpu": "16", "cpu_limit": "32"}
LESS = {"memory": "16Gi", "memory_limit": "32Gi", "cpu": "8", "cpu_limit": "16"}
TUNED = {
    "NCCL_DEBUG": "WARN",
    "NCCL_IB_DISABLE": "0",
    "NCCL_SOCKET_IFNAME": "eth0",
    "TORCH_NCCL_HIGH_PRIORITY": "1",
    "GPU_MAX_HW_QUEUES": "8",
    "HSA_ENABLE_SDMA": "0",
    "MIOPEN_FIND_MODE": "1",
    "MIOPEN_USER_DB_PATH": "/tmp/.miopen",  # noqa: S108  # the wiki's
    "HSA_FORCE_FINE_GRAIN_PCIE": "1",
    "RCCL_ENABLE_HIPGRAPH": "0",
}


def context(**values: Any) -> Context:
    return validated(values, dotted, set)


def merge(card: dict[str, Any] | None = None, /, vendor: str = "", **values: Any) -> InPods:
    model = Model.model_validate({"name": "m", **(card or {})})
    return for_pods(model, context(**values), SOURCE, vendor)


def plain(found: InPods, *keys: str) -> dict[str, Any]:
    return {key: getattr(found.k8s, key) for key in keys}


def test_where_nobody_says_anything_the_presets_for_one_gpu_hold() -> None:
    found = merge()
    assert found.k8s == Kubernetes(**LESS, gpu_count=1, gpu_resource_name="amd.com/gpu")
    assert found.distributed == Distributed(nnodes=1)
    assert found.env_vars == {"OMP_NUM_THREADS": "8"}
    assert {found.origins[f"k8s.{key}"] for key in (*LESS, "gpu_count")} == {SINGLE}
    assert found.origins["k8s.gpu_resource_name"] == AMD
    assert found.origins["k8s.secrets.strategy"] == DEFAULTS


def test_several_gpus_of_amd_are_tuned() -> None:
    found = merge(k8s={"gpu_count": 4})
    assert plain(found, *MORE) == MORE
    assert found.env_vars == {"OMP_NUM_THREADS": "8", **TUNED}
    assert found.distributed == Distributed(
        enabled=True, backend="nccl", launcher="torchrun", master_port=29500, nnodes=1
    )
    assert {found.origins[f"env_vars.{name}"] for name in TUNED} == {SEVERAL_OF_AMD}
    assert found.origins["k8s.memory"] == MULTI


def test_gpus_of_nvidia_have_values_of_their_own() -> None:
    found = merge(k8s={"gpu_count": 4}, gpu_vendor="NVIDIA")
    assert found.k8s.gpu_resource_name == "nvidia.com/gpu"
    assert found.env_vars == {
        "NCCL_DEBUG": "INFO",
        "NCCL_IB_DISABLE": "1",
        "NCCL_SOCKET_IFNAME": "eth0",
        "NCCL_P2P_DISABLE": "0",
        "NCCL_P2P_LEVEL": "NVL",
        "OMP_NUM_THREADS": "12",
    }
    assert found.origins["env_vars.OMP_NUM_THREADS"] == NVIDIA


@pytest.mark.parametrize(
    ("values", "vendor", "resource"),
    [
        ({}, "", "amd.com/gpu"),
        ({}, "NVIDIA", "nvidia.com/gpu"),
        ({"gpu_vendor": "AMD"}, "NVIDIA", "amd.com/gpu"),
        ({"k8s": {"gpu_resource_name": "nvidia.com/mig-1g.5gb"}}, "AMD", "nvidia.com/mig-1g.5gb"),
    ],
)
def test_the_vendor_is_the_one_that_the_user_names_before_the_images(
    values: dict[str, Any], vendor: str, resource: str
) -> None:
    found = merge({}, vendor, **values)
    assert found.k8s.gpu_resource_name == resource
    assert ("NCCL_P2P_LEVEL" in found.env_vars) is resource.startswith("nvidia.com/")


def test_several_pods_have_a_profile_of_their_own() -> None:
    found = merge({"n_gpus": "8"}, distributed={"nnodes": 2})
    assert plain(found, "host_ipc", "gpu_count", *MORE) == {"host_ipc": True, "gpu_count": 8, **MORE}
    assert found.env_vars["NCCL_TIMEOUT"] == "600"
    assert (found.distributed.nnodes, found.origins["distributed.nnodes"]) == (2, "context")
    assert found.origins["k8s.host_ipc"] == NODES
    assert merge({"n_gpus": "8"}, distributed={"nnodes": 2}, k8s={"host_ipc": False}).k8s.host_ipc is False


@pytest.mark.parametrize(
    ("card", "values", "gpus", "profile", "origin"),
    [
        ({}, {}, 1, SINGLE, SINGLE),
        ({"n_gpus": "0"}, {}, 0, SINGLE, CARD),
        ({"n_gpus": "2"}, {}, 2, MULTI, CARD),
        ({"n_gpus": "2"}, {"k8s": {"n_gpus": 1}}, 1, SINGLE, "context"),
        ({"n_gpus": "2"}, {"n_gpus": 0}, 0, SINGLE, "context"),
        ({"k8s": {"gpu_count": 2}}, {"n_gpus": -1}, 2, MULTI, CARD),
        ({"kubernetes": {"gpu_count": 2}}, {"k8s": {"gpu_count": 4}}, 4, MULTI, "context"),
        ({}, {"distributed": {"nproc_per_node": 4}}, 4, MULTI, "context"),
        ({"n_gpus": "1", "distributed": {"launcher": "vllm"}}, {}, 1, MULTI, CARD),
    ],
)
def test_gpus_launcher_and_nodes_choose_the_profile(
    card: dict[str, Any], values: dict[str, Any], gpus: int, profile: str, origin: str
) -> None:
    found = merge(card, **values)
    assert (found.k8s.gpu_count, found.origins["k8s.gpu_count"]) == (gpus, origin)
    assert found.origins["k8s.memory"] == profile


def test_all_gpus_of_a_node_cannot_be_asked_for() -> None:
    with pytest.raises(FaultsError) as caught:
        merge({"n_gpus": "-1"}, distributed={"nnodes": 2})
    assert str(caught.value) == (
        "models.json:12: k8s.gpu_count (m): is missing, and Kubernetes has no word for all GPUs of a node; "
        "valid: a whole number there, in distributed.nproc_per_node or in the card's n_gpus"
    )


@pytest.mark.parametrize(
    ("card", "values", "key", "value", "origin"),
    [
        ({}, {}, "namespace", "default", DEFAULTS),
        ({"k8s": {"namespace": "a"}}, {}, "namespace", "a", CARD),
        ({"k8s": {"namespace": "a"}}, {"kubernetes": {"namespace": "b"}}, "namespace", "b", "context"),
        ({"k8s": {"node_selector": {"a": "1"}}}, {"k8s": {"node_selector": {"b": 2}}}, "node_selector.a", "1", CARD),
        (
            {},
            {"k8s": {"secrets": {"image_pull_secret_names": "a, b"}}},
            "secrets.image_pull_secret_names",
            ("a", "b"),
            "context",
        ),
    ],
)
def test_the_later_layer_wins_key_by_key(
    card: dict[str, Any], values: dict[str, Any], key: str, value: object, origin: str
) -> None:
    holder: Any = (found := merge(card, **values)).k8s
    for part in key.split("."):
        holder = holder[part] if isinstance(holder, dict) else getattr(holder, part)
    assert (holder, found.origins[f"k8s.{key}"]) == (value, origin)


@pytest.mark.parametrize(
    ("stated", "memory", "limit", "origins"),
    [
        ({"memory": "200Gi"}, "200Gi", "200Gi", ("context", "context")),
        ({"memory_limit": "8Gi"}, "8Gi", "8Gi", ("context", "context")),
        ({"memory": "20Gi"}, "20Gi", "32Gi", ("context", SINGLE)),
    ],
)
def test_what_is_stated_moves_the_presets_other_bound(
    stated: dict[str, str], memory: str, limit: str, origins: tuple[str, str]
) -> None:
    found = merge(k8s=stated)
    assert (found.k8s.memory, found.k8s.memory_limit) == (memory, limit)
    assert (found.origins["k8s.memory"], found.origins["k8s.memory_limit"]) == origins


def test_a_stated_request_above_a_stated_limit_is_refused() -> None:
    with pytest.raises(FaultsError) as caught:
        merge({"k8s": {"cpu": "9"}}, k8s={"cpu_limit": "8500m"})
    assert str(caught.value) == (
        f"m: k8s.cpu ({CARD}) is 9, more than k8s.cpu_limit (context), 8500m; "
        "valid: a request that is not above its limit"
    )


@given(st.sampled_from(["1Gi", "20Gi", "900Gi", None]), st.sampled_from(["2Gi", "30Gi", None]))
def test_no_request_is_above_its_limit(request: str | None, limit: str | None) -> None:
    stated = {key: value for key, value in (("memory", request), ("memory_limit", limit)) if value}
    try:
        found = merge(k8s=stated).k8s
    except FaultsError:
        assert request
        assert limit
        assert amount(request) > amount(limit)
    else:
        assert found.memory
        assert found.memory_limit
        assert amount(found.memory) <= amount(found.memory_limit)


def test_a_hosts_interface_is_a_guess_for_pods_on_the_hosts_network_alone() -> None:
    name, stated = "NCCL_SOCKET_IFNAME", {"gpu_count": 8}
    assert merge(k8s={**stated, "host_network": True}).env_vars[name] == "ib0"
    assert merge(k8s=stated).env_vars[name] == "eth0"
    assert merge(k8s=stated, env_vars={name: "ib1"}).env_vars[name] == "ib1"
    assert merge({"env_vars": {name: "ib2"}}, k8s=stated).env_vars[name] == "ib2"


def test_no_preset_names_what_another_cluster_lacks() -> None:
    for file in (assets.folder("presets") / "kubernetes").rglob("*.json"):
        text = file.read_text(encoding="utf-8")
        assert '_class": ' not in text.replace('"_storage_class": ', "")
        assert '"kubeconfig"' not in text


@pytest.mark.parametrize("section", ["k8s", "kubernetes"])
def test_a_faulty_card_is_told_with_its_place(section: str) -> None:
    with pytest.raises(FaultsError, match=rf"models\.json:12: {section}\.cpu \(m\): found 'x'; valid: an amount"):
        merge({section: {"cpu": "x"}})


def test_a_card_with_both_names_of_the_section_is_refused() -> None:
    with pytest.raises(FaultsError) as caught:
        merge({"k8s": {"cpu": 1}, "kubernetes": {"cpu": 1}})
    assert str(caught.value) == (
        "models.json:12: kubernetes (m): found beside 'k8s', which means the same; valid: one of them"
    )


def test_each_value_is_told_with_its_origin() -> None:
    lines = list(merge(k8s={"gpu_count": 2}, env_vars={"HF_TOKEN": "hunter2"}).lines())
    assert ("k8s.gpu_count", 2, "context") in lines
    assert ("distributed.backend", "nccl", MULTI) in lines
    assert ("env_vars.HF_TOKEN", "***", "context") in lines
