from __future__ import annotations

from typing import Any

import pytest

from pytest_madengine.errors import FaultsError
from pytest_madengine.launchers.base import RUNNER, Topology
from pytest_madengine.launchers.primus import LAUNCHERS

(PRIMUS,) = LAUNCHERS


def environment(**options: Any) -> dict[str, str]:
    return PRIMUS.environment(Topology.of_cluster(4, 8), options)


def test_without_a_section_the_scripts_own_configuration_counts() -> None:
    assert environment() == environment(primus=None) == environment(primus={}) == {RUNNER: ""}


def test_the_section_becomes_primus_variables() -> None:
    section = {"config_path": "examples/a.yaml", "cli_extra": "--x 1", "backend": "megatron"}
    assert environment(primus=section) == {
        RUNNER: "",
        "PRIMUS_CONFIG_PATH": "examples/a.yaml",
        "PRIMUS_CLI_EXTRA": "--x 1",
        "BACKEND": "megatron",
    }


@pytest.mark.parametrize(
    ("model", "backend"),
    [
        ("primus_pretrain/maxtext_MI300X_llama2_7B-pretrain", "MaxText"),
        ("primus_pretrain/torchtitan_MI300X_qwen3_1.7B-pretrain", "torchtitan"),
        ("primus_pretrain/TorchTitan_MI300X_qwen3_4B-pretrain", "torchtitan"),
        ("primus_pretrain/megatron_MI355X_llama3_8B", "megatron"),
        ("primus_pretrain/megatron_bridge_MI300X_qwen3", "megatron_bridge"),
        ("primus_pretrain/moe_package_MI300X_mixtral", "moe_package"),
        ("primus_pretrain/megatron", "megatron"),
        ("primus_pretrain/megatronic_x", None),
        ("primus_pretrain/other_x", None),
        ("primus_pretrain/", None),
        ("primus_pretrain", None),
        ("other/megatron_x", None),
        ("megatron_x", None),
        ("", None),
    ],
)
def test_the_models_name_tells_the_backend(model: str, backend: str | None) -> None:
    assert environment(model=model).get("BACKEND") == backend


def test_a_stated_backend_counts_more_than_the_name() -> None:
    assert environment(model="primus_pretrain/megatron_x", primus={"backend": "MaxText"})["BACKEND"] == "MaxText"


def test_a_misspelt_key_is_a_users_error_with_the_nearest() -> None:
    with pytest.raises(FaultsError, match=r"^primus.config: unknown key 'config'; valid: .*mean 'config_path'\?"):
        environment(primus={"config": "x.yaml"})
