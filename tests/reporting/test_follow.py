from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.reporting.follow import Follower
from pytest_madengine.secrets import NO_SECRETS, Masker


@pytest.fixture
def follower() -> Follower:
    return Follower()


def said(follower: Follower, *secrets: str) -> list[str]:
    return list(follower.lines(Masker(secrets)))


def test_lines_are_shown_once_with_whose_they_are(follower: Follower, tmp_path: Path) -> None:
    log = tmp_path / "log"
    follower.follow("llama", log)
    assert said(follower) == []
    log.write_text("one\ntwo\n")
    assert said(follower) == ["llama | one", "llama | two"]
    assert said(follower) == []


def test_a_line_is_shown_when_it_is_whole(follower: Follower, tmp_path: Path) -> None:
    log = tmp_path / "log"
    follower.follow("m", log)
    log.write_bytes("größe".encode()[:3])
    assert said(follower) == []
    log.write_bytes("größe\nrest".encode())
    assert said(follower) == ["m | größe"]


def test_what_a_finished_file_ends_with_is_shown_and_the_file_let_go(follower: Follower, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\nno newline")
    follower.follow("m", log)
    follower.finish(log)
    assert said(follower) == ["m | one", "m | no newline"]
    log.write_text("something else entirely\n")
    assert said(follower) == []


def test_a_file_of_several_models_is_shown_once(follower: Follower, tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    log.write_text("step\n")
    follower.follow("first", log)
    follower.follow("second", log)
    assert said(follower) == ["first | step"]


def test_secrets_and_control_characters_are_not_shown(follower: Follower, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("token hunter2-hunter2\n\x1b[31mred\x1b[0m\ttext\n")
    follower.follow("m", log)
    assert said(follower, "hunter2-hunter2") == ["m | token ***", "m | red text"]


def test_files_that_nobody_follows_need_no_end(follower: Follower, tmp_path: Path) -> None:
    follower.finish(tmp_path / "log")
    assert said(follower) == []


@given(pieces=st.lists(st.text("ab\n", max_size=12), max_size=12))
def test_nothing_is_lost_however_a_file_grows(pieces: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    log = tmp_path_factory.mktemp("follow") / "log"
    follower = Follower()
    follower.follow("m", log)
    shown: list[str] = []
    for piece in pieces:
        with log.open("a") as file:
            file.write(piece)
        shown += follower.lines(NO_SECRETS)
    follower.finish(log)
    shown += follower.lines(NO_SECRETS)
    text = "".join(pieces)
    lines = text.removesuffix("\n").split("\n") if text else []
    assert shown == [f"m | {line}" for line in lines]
