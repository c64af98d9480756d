"""The only module that starts processes; what it reports is masked."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_madengine.errors import InfrastructureError
from pytest_madengine.secrets import Masker

NO_SECRETS = Masker(())


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
) -> Completed:
    """Run a short command and keep its output, standard error merged in.

    Args:
        argv: program and arguments; no shell is involved.
        seconds: time limit.
        env: the whole environment, or None to inherit.
        mask: hides secrets in the output.

    Raises:
        InfrastructureError: the program is missing or exceeded its time.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            env=env,
            check=False,
        )
    except FileNotFoundError:
        raise InfrastructureError(f"{argv[0]}: command not found") from None
    except subprocess.TimeoutExpired:
        raise InfrastructureError(f"{mask(shlex.join(argv))}: no answer in {seconds:g} s") from None
    return Completed(tuple(argv), done.returncode, mask(done.stdout.decode(errors="replace")))


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
        InfrastructureError: the program is missing.
    """
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
        )
    except FileNotFoundError:
        raise InfrastructureError(f"{argv[0]}: command not found") from None
    assert process.stdout  # noqa: S101  # PIPE was asked for
    try:
        with process, log.open("ab") as file:
            for raw in process.stdout:
                masked = mask.mask_bytes(raw)
                file.write(masked)
                file.flush()
                if line:
                    line(masked.decode(errors="replace").rstrip("\n"))
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return process.returncode


def start(argv: Sequence[str], *, env: Mapping[str, str], directory: Path) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, without input or output."""
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
        cwd=directory,
        start_new_session=True,
    )
