from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pytest_madengine import command
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.secrets import Masker

SECRET = Masker(["hunter2-secret"])


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_a_commands_output_comes_with_its_errors_and_exit_code() -> None:
    done = command.run(sh("echo out; echo err >&2; exit 3"))
    assert (done.code, bool(done)) == (3, False)
    assert sorted(done.output.split()) == ["err", "out"]
    assert bool(command.run(["true"]))


def test_no_shell_looks_at_the_arguments() -> None:
    awkward = ["$HOME", "a b", "`id`", "'\"", "*", ""]
    done = command.run([sys.executable, "-c", "import sys; print(sys.argv[1:])", *awkward])
    assert done.output.strip() == repr(awkward)


def test_a_command_has_no_input_to_wait_for() -> None:
    assert command.run(["cat"], seconds=20).output == ""


def test_what_a_command_reads_is_in_no_process_list() -> None:
    done = command.run(sh("cat; cat /proc/$$/cmdline"), stdin="hunter2-secret é\n")
    assert done.output.startswith("hunter2-secret é\nsh\0-c\0")
    assert done.output.count("hunter2") == 1


def test_input_that_nobody_reads_is_no_error() -> None:
    assert command.run(["true"], stdin="x" * 10**6)


def test_a_time_limit_holds_for_commands_with_input_too() -> None:
    with pytest.raises(InfrastructureError, match=r"^sleep 61.6: no answer in 0.2 s$"):
        command.run(["sleep", "61.6"], seconds=0.2, stdin="x" * 10**6)


def test_the_environment_is_inherited_or_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INHERITED", "yes")
    assert command.run(sh("echo $INHERITED")).output == "yes\n"
    assert command.run(sh("echo $INHERITED$OWN"), env={"OWN": "mine", "PATH": os.environ["PATH"]}).output == "mine\n"


def test_output_that_is_no_utf8_is_text_nevertheless() -> None:
    assert command.run(["printf", "\\377ok"]).output == "\ufffdok"


def test_a_required_command_that_failed_says_what_it_was_for_and_what_it_said() -> None:
    assert command.run(["echo", "fine"]).require("saying") == "fine\n"
    with pytest.raises(InfrastructureError, match=r"^docker pull x failed \(exit 2\): no route$"):
        command.run(sh("echo no route; exit 2")).require("docker pull x")


def test_a_long_output_is_cut_in_the_error() -> None:
    with pytest.raises(InfrastructureError) as caught:
        command.run(sh("head -c 100000 /dev/zero | tr '\\0' x; exit 1")).require("it")
    assert len(str(caught.value)) < 2100


def test_secrets_are_masked_in_what_is_reported() -> None:
    script = "echo key=hunter2-secret"
    assert command.run(sh(script), mask=SECRET).output == "key=***\n"
    with pytest.raises(InfrastructureError) as caught:
        command.run(sh("sleep 60 # hunter2-secret"), seconds=0.1, mask=SECRET)
    assert "hunter2" not in str(caught.value)


def test_a_command_that_exceeds_its_time_is_ended_and_told() -> None:
    began = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"^sleep 61.5: no answer in 0.2 s$"):
        command.run(["sleep", "61.5"], seconds=0.2)
    assert time.monotonic() - began < 20
    assert not [process for process in psutil.Process().children() if "61.5" in " ".join(_cmdline(process))]


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def unusable(tmp_path: Path) -> str:
    path = tmp_path / "no-program"
    path.write_text("text", encoding="utf-8")
    return str(path)


def test_a_program_that_is_not_there_or_cannot_run_is_infrastructure(tmp_path: Path, unusable: str) -> None:
    for name, reason in (("no-such-program", "command not found"), (unusable, ".")):
        with pytest.raises(InfrastructureError, match=rf"{name}.*{reason}"):
            command.run([name])
        with pytest.raises(InfrastructureError, match=rf"{name}.*{reason}"):
            command.stream([name], tmp_path / "log")
        with pytest.raises(InfrastructureError, match=rf"{name}.*{reason}"):
            command.start([name], env={}, directory=tmp_path)


def test_a_streamed_command_writes_its_masked_output_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    log.write_text("before\n", encoding="utf-8")
    seen: list[str] = []
    code = command.stream(sh("echo a hunter2-secret; echo b >&2; printf c; exit 4"), log, mask=SECRET, line=seen.append)
    assert code == 4
    assert log.read_text(encoding="utf-8") == "before\na **************\nb\nc"
    assert seen == ["a **************", "b", "c"]


def test_a_streamed_command_needs_nobody_to_listen(tmp_path: Path) -> None:
    assert command.stream(sh("echo a; echo b"), tmp_path / "log") == 0
    assert (tmp_path / "log").read_text(encoding="utf-8") == "a\nb\n"


def test_a_streamed_line_is_in_the_log_before_the_command_ends(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    seen = threading.Event()
    ended: list[int] = []
    script = f"echo first; read word <{pipe}"
    thread = threading.Thread(target=lambda: ended.append(command.stream(sh(script), log, line=lambda _: seen.set())))
    thread.start()
    assert seen.wait(20)
    assert log.read_text(encoding="utf-8") == "first\n"
    assert not ended
    pipe.write_text("go\n", encoding="utf-8")
    thread.join(20)
    assert ended == [0]


def test_an_interruption_ends_a_streamed_command(tmp_path: Path) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        command.stream(sh("echo $$; exec sleep 62.5"), tmp_path / "log", line=interrupt)
    assert time.monotonic() - began < 20
    assert not psutil.pid_exists(int((tmp_path / "log").read_text(encoding="utf-8")))


def test_a_command_that_will_not_end_is_made_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "GRACE", 0.1)
    with pytest.raises(KeyboardInterrupt):
        command.stream(sh("trap '' TERM; echo $$; while :; do sleep 0.1; done"), tmp_path / "log", line=interrupt)
    assert not psutil.pid_exists(int((tmp_path / "log").read_text(encoding="utf-8")))


def test_a_started_process_has_a_session_of_its_own(tmp_path: Path) -> None:
    script = "import os, pathlib; pathlib.Path('seen').write_text(f'{os.getsid(0)} {os.environ.get(\"X\")}')"
    process = command.start([sys.executable, "-c", script], env={"X": "1"}, directory=tmp_path)
    assert process.wait() == 0
    assert (tmp_path / "seen").read_text(encoding="utf-8") == f"{process.pid} 1"
