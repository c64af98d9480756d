"""What a job's script noted is read, whatever is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Outcome, Phase, State
from tests.backends.support import write

NOTED = "prepare 10.5 - - 20 -\nprepare 10.5 11.25 0 20 20\nmodel 11.5 - - 20 -\nmodel 11.5 12.5 7 20 300\n"


def outcome(directory: Path, exit_code: int | None = None) -> Outcome:
    return facts.outcome(directory, State.EXITED, exit_code=exit_code, node="n", duration=1)


def test_each_step_has_its_end() -> None:
    assert facts.phases(NOTED) == (Phase("prepare", 10.5, 11.25, 0, 20, 20), Phase("model", 11.5, 12.5, 7, 20, 300))


def test_a_step_that_never_ended_has_code_minus_one() -> None:
    assert facts.phases("model 11.5 - - 20 -\n") == (Phase("model", 11.5, 11.5, -1, 20, -1),)


@pytest.mark.parametrize("kept", range(len(NOTED)))
def test_cut_notes_are_read_as_far_as_they_go(kept: int) -> None:
    found = facts.phases(NOTED[:kept])
    assert [phase.name for phase in found] == ["prepare", "model"][: len(found)]
    assert len(found) >= NOTED[:kept].count("\n") // 2


@pytest.mark.parametrize(("written", "expected"), [("7\n", 7), ("", 5), ("-", 5), ("nonsense", 5), ("²", 5)])
def test_the_scripts_own_exit_code_wins_where_it_is_one(tmp_path: Path, written: str, expected: int) -> None:
    write(tmp_path / "exit_code", written)
    assert outcome(tmp_path, exit_code=5).exit_code == expected


def test_an_empty_folder_gives_an_outcome(tmp_path: Path) -> None:
    found = outcome(tmp_path)
    assert (found.exit_code, found.artifacts, found.phases, found.git_commit) == (None, {}, (), "")


def test_the_workspace_goes_and_everything_else_stays(tmp_path: Path) -> None:
    write(tmp_path / "workspace/deep/.hidden", "x")
    write(tmp_path / "artifacts/a.csv", "1")
    write(tmp_path / "git_commit", "abc\n")
    write(tmp_path / "started", "")
    found = outcome(tmp_path)
    assert found.artifacts == {"a.csv": tmp_path / "artifacts/a.csv"}
    assert found.git_commit == "abc"
    assert {path.name for path in tmp_path.iterdir()} == {"artifacts", "git_commit", "started"}


def test_a_job_that_is_collected_before_it_began_is_known_to_have_been(tmp_path: Path) -> None:
    assert not facts.began(tmp_path)
    outcome(tmp_path)
    assert facts.began(tmp_path)
    assert facts.left(tmp_path) is State.LOST


def test_a_folder_that_is_gone_stays_so(tmp_path: Path) -> None:
    outcome(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(("known", "expected"), [(0.0, 2.0), (9.0, 9.0)])
def test_a_duration_that_nobody_knows_is_that_of_the_steps(tmp_path: Path, known: float, expected: float) -> None:
    write(tmp_path / "phases", NOTED)
    assert facts.outcome(tmp_path, State.EXITED, exit_code=0, node="n", duration=known).duration == expected
