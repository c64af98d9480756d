from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.backends.base import State, Status
from pytest_madengine.backends.kubeleft import Remains, collected, folder, outcome, status
from pytest_madengine.backends.kubeverdict import Ending

LOST = Remains(2, Ending(State.LOST, None, "gone"), codes={0: 0, 1: None}, hosts={0: "node1", 1: "node2"})


def leave(directory: Path, codes: dict[int, int], nodes: int) -> None:
    """Have each rank's exit code in its folder."""
    for rank, code in codes.items():
        place = folder(directory, rank, nodes)
        place.mkdir(parents=True, exist_ok=True)
        (place / "exit_code").write_text(f"{code}\n")


def test_one_pod_leaves_all_in_the_folder_of_its_job(tmp_path: Path) -> None:
    leave(tmp_path, {0: 3}, 1)
    (tmp_path / "host").write_text("node7\n")
    (tmp_path / "machine").write_text("vendor=AMD\ngpus=8\nproduct=\n")
    made = outcome(tmp_path, Remains(1, Ending(State.EXITED, 3), {0: 3}, {0: "node1"}, notes=("", "a word")))
    assert (made.state, made.exit_code, made.node, made.note) == (State.EXITED, 3, "node7", "a word")
    assert made.machine == {"vendor": "AMD", "gpus": "8"}
    assert (made.ranks, made.folders, made.suspects) == ({}, {}, ())


def test_of_several_ranks_each_has_its_folder(tmp_path: Path) -> None:
    leave(tmp_path, {0: 0, 1: 5}, 2)
    made = outcome(tmp_path, Remains(2, Ending(State.EXITED, 5), {0: 0, 1: 5}, {0: "node1", 1: "node2"}))
    assert (made.exit_code, made.ranks, set(made.folders)) == (5, {0: 0, 1: 5}, {0, 1})
    assert collected(tmp_path / "nothing").state is State.LOST


@pytest.mark.parametrize(
    ("changes", "suspects"), [({}, ("node2",)), ({"cancelled": True}, ()), ({"refused": True}, ())]
)
def test_nodes_are_suspected_only_where_one_may_be_to_blame(
    tmp_path: Path, changes: dict[str, Any], suspects: tuple[str, ...]
) -> None:
    leave(tmp_path, {0: 0}, 2)
    made = outcome(tmp_path, replace(LOST, **changes))
    assert (made.state, made.suspects, made.refused) == (State.LOST, suspects, "refused" in changes)


def test_what_only_the_cluster_knew_is_written_down(tmp_path: Path) -> None:
    outcome(tmp_path, Remains(1, Ending(State.EXITED, 137), {0: 137}))
    assert status(tmp_path) == Status(State.EXITED)
    assert collected(tmp_path).exit_code == 137


def test_a_folder_that_somebody_removed_stays_away(tmp_path: Path) -> None:
    made = outcome(tmp_path / "gone", Remains(1, Ending(State.EXITED, 3), {0: 3}))
    assert (made.exit_code, made.artifacts) == (3, {})
    assert not (tmp_path / "gone").exists()
