from __future__ import annotations

from typing import Any

import pytest

from pytest_madengine.errors import FaultsError
from pytest_madengine.launchers.base import Topology
from pytest_madengine.launchers.slurm_multi import LAUNCHERS

(SLURM_MULTI,) = LAUNCHERS


def environment(**options: Any) -> dict[str, str]:
    return SLURM_MULTI.environment(Topology.of_cluster(3, 8), options)


def test_a_script_that_knows_its_own_split_is_told_none() -> None:
    assert environment() == environment(sglang_disagg={}) == environment(sglang_disagg=None) == {}


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"prefill_nodes": 2, "decode_nodes": 3}, {"xP": "2", "yD": "3"}),
        ({"prefill_nodes": 2}, {"xP": "2", "yD": "1"}),
        ({"decode_nodes": 2}, {"xP": "1", "yD": "2"}),
    ],
)
def test_a_stated_split_is_told(stated: dict[str, int], told: dict[str, str]) -> None:
    assert environment(sglang_disagg=stated) == told


def test_a_wrong_split_is_a_users_error() -> None:
    with pytest.raises(FaultsError, match=r"^distributed.sglang_disagg.decode_nodes: found 0"):
        environment(sglang_disagg={"decode_nodes": 0})


def test_the_script_chooses_the_gpus_of_its_containers() -> None:
    assert SLURM_MULTI.visible_devices_of("AMD") == ()
