"""What people see of models while they run."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cards import BARE, UNLOADED, card, project
from tests.test_loop import ALL, fake, timed

PENDING = """
def pretence(job):
    return Pretence(0.6, pending=0.6, reason="Priority")
"""


def test_elsewhere_a_plain_line_tells_of_each_change(pytester: pytest.Pytester) -> None:
    fake(pytester.path, timed("a", 0.1), at_once=5, more=PENDING)
    result = pytester.runpytest(*ALL)
    result.stdout.fnmatch_lines(["madengine: a: pending (Priority)", "madengine: a: running", "models.json .*"])


def test_quiet_is_quiet(pytester: pytest.Pytester) -> None:
    fake(pytester.path, timed("a", 0.1), at_once=5, more=PENDING)
    pytester.runpytest(*ALL, "-q").stdout.no_fnmatch_line("madengine: *")


def test_one_model_at_a_time_needs_no_lines(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    pytester.runpytest("--madengine-tags=a", "--target=host").stdout.no_fnmatch_line("madengine: a: *")


@pytest.mark.requires_docker
def test_a_build_is_told_of_even_then(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a", dockerfile="docker/a"))
    dockerfile = pytester.mkdir("docker") / "a.ubuntu.amd.Dockerfile"
    dockerfile.write_text(f"FROM madengine-test-base:latest\nRUN echo {pytester.path} >/unique\n")
    result = pytester.runpytest("--madengine-tags=a")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["madengine: a: building docker/a.ubuntu.amd.Dockerfile"])


def on_a_terminal(folder: Path, *args: str) -> str:
    """What a run writes to a terminal."""
    outer, inner = pty.openpty()
    environment = {**os.environ, **UNLOADED, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    argv = [sys.executable, "-m", "pytest", *BARE, *args]
    process = subprocess.Popen(argv, cwd=folder, env=environment, stdout=inner, stderr=inner, stdin=inner)
    os.close(inner)
    written = b""
    while process.poll() is None or select.select([outer], [], [], 0)[0]:
        if select.select([outer], [], [], 0.1)[0]:
            try:
                written += os.read(outer, 1 << 16)
            except OSError:
                break
    os.close(outer)
    process.wait()
    return written.decode(errors="replace")


@pytest.mark.parametrize("options", [[], ["--madengine-max-in-flight=1"]], ids=["ahead", "in line"])
def test_on_a_terminal_running_models_are_shown_with_their_last_line(tmp_path: Path, options: list[str]) -> None:
    project(tmp_path, card("a"), card("b"), script="echo halfway there; sleep 1; echo performance: 1 x\n")
    shown = on_a_terminal(
        tmp_path, "--madengine-tags=all", "--target=host", *(options or ["--madengine-max-in-flight=2"])
    )
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "halfway there" in plain
    assert re.search(r"\d running", plain)
    assert "2 passed" in plain
    assert "madengine: a: running" not in plain


def test_a_secret_in_a_log_that_grows_is_not_shown(tmp_path: Path) -> None:
    project(tmp_path, card("a"), script="echo token $TOKEN; sleep 1; echo performance: 1 x\n")
    context = '--madengine-context={"secrets": {"TOKEN": "hunter2-hunter2"}}'
    for options in (["--madengine-max-in-flight=2"], []):
        shown = on_a_terminal(tmp_path, "--madengine-tags=all", "--target=host", context, *options)
        assert "token ***" in shown
        assert "hunter2" not in shown
