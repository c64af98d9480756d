"""Reads what a job's script wrote into the job's folder; the same on every backend."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from pytest_madengine.backends.base import Outcome, Phase, State
from pytest_madengine.jobs.job import Job

EXIT_CODE = "exit_code"
LOG = "run.log"
SCRIPT = "run.sh"
WORKSPACE = "workspace"


def write_script(job: Job) -> Path:
    """The job's script in its folder, with an empty log that belongs to this user."""
    job.directory.mkdir(parents=True, exist_ok=True)
    script = job.directory / SCRIPT
    script.write_text(job.script, encoding="utf-8")
    (job.directory / LOG).touch(mode=0o600)  # until it is masked at the end
    return script


def outcome(
    directory: Path, state: State, *, exit_code: int | None, node: str, duration: float, note: str = ""
) -> Outcome:
    """What a job left, with what its backend knows of its end.

    The script's own exit code wins over the backend's, which may be that of a wrapper.
    """
    shutil.rmtree(directory / WORKSPACE, ignore_errors=True)
    written = _text(directory / EXIT_CODE)
    artifacts = directory / "artifacts"
    return Outcome(
        state=state,
        exit_code=int(written) if written.removeprefix("-").isdecimal() else exit_code,
        log=directory / LOG,
        artifacts={path.name: path for path in sorted(artifacts.iterdir())} if artifacts.is_dir() else {},
        phases=phases(_text(directory / "phases")),
        node=node,
        git_commit=_text(directory / "git_commit"),
        note=note,
        duration=duration,
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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
