"""Reads what a job's script wrote into the job's folder; the same on every backend."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_madengine.backends.base import Handle, Outcome, Phase, State
from pytest_madengine.jobs.job import Job

ARTIFACTS = "artifacts"
ENDED = "ended"
EXIT_CODE = "exit_code"
LOG = "run.log"
PHASES = "phases"
SCRIPT = "run.sh"
STARTED = "started"
SUBMITTED = "submitted"
"""Holds what a scheduler called the job."""
WORKSPACE = "workspace"


def write_script(job: Job) -> Path:
    """The job's script in its folder, with an empty log that belongs to this user."""
    job.directory.mkdir(parents=True, exist_ok=True)
    script = job.directory / SCRIPT
    script.write_text(job.script, encoding="utf-8")
    (job.directory / LOG).touch(mode=0o600)  # until it is masked at the end
    return script


def began(directory: Path) -> bool:
    """Whether the job's script did anything, or the job was collected before it came to that."""
    return any((directory / name).exists() for name in (STARTED, EXIT_CODE, ENDED))


def submitted(directory: Path) -> str:
    """What a scheduler called the job when it took it; '' where it did not."""
    return word(directory / SUBMITTED)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one process at a time hand over a job; a file system without locks lets all."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def once(job: Job, find: Callable[[Mapping[str, Path]], Mapping[str, Handle]], start: Callable[[], Handle]) -> Handle:
    """The handle of a job: of the one that is there already, else of what `start` begins."""
    job.directory.mkdir(parents=True, exist_ok=True)
    with _alone(job.directory):
        return find({job.id: job.directory}).get(job.id) or start()


def left(directory: Path) -> State:
    """Where a job stands of which its backend knows nothing any more."""
    return State.EXITED if (directory / EXIT_CODE).exists() else State.LOST


def outcome(
    directory: Path, state: State, *, exit_code: int | None, node: str, duration: float, note: str = ""
) -> Outcome:
    """What a job left, with what its backend knows of its end.

    The script's own exit code wins over the backend's, which may be that of a wrapper. A duration that the backend does
    not know (0) is that of the script's steps.
    """
    shutil.rmtree(directory / WORKSPACE, ignore_errors=True)
    if not began(directory) and directory.is_dir():
        (directory / ENDED).touch()  # or nobody could tell that it was ever handed over
    written = word(directory / EXIT_CODE)
    artifacts = directory / ARTIFACTS
    steps = phases(word(directory / PHASES))
    return Outcome(
        state=state,
        exit_code=int(written) if written.removeprefix("-").isdecimal() else exit_code,
        log=directory / LOG,
        artifacts={path.name: path for path in sorted(artifacts.iterdir())} if artifacts.is_dir() else {},
        phases=steps,
        node=node,
        git_commit=word(directory / "git_commit"),
        note=note,
        duration=duration or _span(steps),
    )


def phases(text: str) -> tuple[Phase, ...]:
    """The steps that the script noted: one line when a step begins, a second with its end."""
    found: dict[str, Phase] = {}
    for line in text.splitlines():
        with suppress(ValueError):  # a line that a full disk or a crash cut
            name, started, ended, code, log_from, log_to = line.split(" ")
            begun = ended == "-"
            found[name] = Phase(
                name,
                float(started),
                float(started if begun else ended),
                -1 if begun else int(code),
                int(log_from),
                -1 if begun else int(log_to),
            )
    return tuple(found.values())


def _span(steps: Sequence[Phase]) -> float:
    return max((step.ended for step in steps), default=0.0) - min((step.started for step in steps), default=0.0)


def word(path: Path) -> str:
    """What a file says; '' where there is none that can be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
