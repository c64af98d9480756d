"""The only module that starts processes; what it reports is masked."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_madengine.errors import InfrastructureError
from pytest_madengine.secrets import NO_SECRETS, Masker

_streams: set[subprocess.Popen[bytes]] = set()
GRACE = 10
"""Seconds from TERM to KILL for a command that is interrupted."""


@dataclass(frozen=True)
class Completed:
    """A finished command: its exit code and what it printed (standard error included where merged)."""

    argv: tuple[str, ...]
    code: int
    output: str

    def __bool__(self) -> bool:
        return self.code == 0

    def require(self, action: str) -> str:
        """The output of a command that succeeded.

        Raises:
            InfrastructureError: it exited non-zero; `action` says what it was for.
        """
        if not self:
            raise InfrastructureError(f"{action} failed (exit {self.code}): {self.output.strip()[-2000:]}")
        return self.output


def run(
    argv: Sequence[str],
    *,
    seconds: float = 60,
    env: Mapping[str, str] | None = None,
    mask: Masker = NO_SECRETS,
    endable: bool = False,
    stdin: str = "",
) -> Completed:
    """Run a short command and keep its output, standard error merged in.

    Args:
        argv: program and arguments; no shell is involved.
        seconds: time limit.
        env: the whole environment, or None to inherit.
        mask: hides secrets in the output.
        endable: whether `end_streams` ends it too: one that may take long.
        stdin: what the command reads; it shows up in no process list.

    Raises:
        InfrastructureError: the program cannot be started or exceeded its time.
    """
    with _piped(argv, env, subprocess.PIPE if stdin else subprocess.DEVNULL) as process:
        if endable:
            _streams.add(process)
        try:
            output, _ = process.communicate(stdin.encode() or None, timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise InfrastructureError(f"{mask(shlex.join(argv))}: no answer in {seconds:g} s") from None
        except BaseException:
            process.kill()
            raise
        finally:
            _streams.discard(process)
    return Completed(tuple(argv), process.returncode, mask(output.decode(errors="replace")))


def stream(
    argv: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    mask: Masker = NO_SECRETS,
    line: Callable[[str], None] | None = None,
) -> int:
    """Run a long command; its masked output grows in `log` line by line. Returns the exit code.

    An interruption ends the command before it travels on.

    Raises:
        InfrastructureError: the program cannot be started.
    """
    with log.open("ab") as file, _piped(argv, env) as process:
        assert process.stdout  # noqa: S101  # PIPE was asked for
        _streams.add(process)
        try:
            for raw in process.stdout:
                masked = mask.mask_bytes(raw)
                file.write(masked)
                file.flush()
                if line:
                    line(masked.decode(errors="replace").rstrip("\n"))
        except BaseException:
            _end(process)
            raise
        finally:
            _streams.discard(process)
    return process.returncode


def end_streams() -> None:
    """End every long command that other threads run."""
    for process in list(_streams):
        _end(process)


def _piped(
    argv: Sequence[str], env: Mapping[str, str] | None, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    except OSError as error:
        raise _not_started(argv, error) from None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()


def _not_started(argv: Sequence[str], error: OSError) -> InfrastructureError:
    reason = "command not found" if isinstance(error, FileNotFoundError) else error.strerror
    return InfrastructureError(f"{argv[0]}: {reason}")


def start(argv: Sequence[str], *, env: Mapping[str, str], directory: Path) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, without input or output.

    Raises:
        InfrastructureError: it cannot be started.
    """
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
            cwd=directory,
            start_new_session=True,
        )
    except OSError as error:
        raise _not_started(argv, error) from None
