"""What a job on SLURM's nodes left in its folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Handle, Outcome, State
from pytest_madengine.backends.slurmqueue import Row
from pytest_madengine.backends.slurmscript import FINISHED, LOG, NODES, TROUBLE
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.jobs.job import Job

NOTES = {
    "OUT_OF_MEMORY": "killed for lack of memory",
    "NODE_FAIL": "a node failed",
    "PREEMPTED": "preempted",
    "BOOT_FAIL": "a node did not boot",
    "CANCELLED": "cancelled in SLURM by somebody else",
    "TIMEOUT": "SLURM's own time limit",
    "DEADLINE": "its deadline in SLURM passed",
}
OF_NODES = {"NODE_FAIL", "BOOT_FAIL"}
SEVERAL = re.compile(r"[\[,]")
CONSEQUENCE = re.compile(
    r"Exited with exit code|Job step aborted|Application launch failed|forcing job termination|got SIGCONT"
)
"""In lines of SLURM that follow when something went wrong, and do not say what."""
LATE = "late"
"""The file by which a node says that the model's time was up."""
OF_RUNTIMES = ("docker:", "Error:", "FATAL:")
"""What the lines begin with in which container runtimes say why they cannot."""
BLAMELESS = ("PREEMPTED", "CANCELLED")
"""States in which a job's nodes did nothing wrong."""
LAG = 5.0
"""Seconds that files of a job that ended well may take to show up here: network file systems remember what was."""
POLL = 0.1


def outcome(directory: Path, state: State, row: Row | None) -> Outcome:
    """What a job left; of several ranks each has a folder, and the first speaks for all."""
    trouble = facts.word(directory / TROUBLE)
    folders = {int(path.name): path for path in sorted((directory / "ranks").glob("*"))}
    first = folders.get(0, directory)
    suspects = _suspects(directory, row)
    made = facts.outcome(
        first,
        State.LOST if trouble else state,
        exit_code=_number(first / "status"),
        node=facts.word(first / "host"),
        duration=_duration(directory, first),
        note=trouble or _note(directory, state, row, suspects),
    )
    refused = row is not None and (row.hopeless or bool(row.reason and not row.word))
    made = replace(made, refused=refused, log=_log(directory, first), suspects=suspects, machine=_machine(first))
    if not folders:
        return made
    (directory / facts.ENDED).touch()
    codes = {rank: _number(folder / facts.EXIT_CODE) for rank, folder in folders.items()}
    worst = next((code for code in codes.values() if code), 0 if None not in codes.values() else None)
    return replace(made, exit_code=worst, ranks=codes, folders=folders)


def link(job: Job) -> None:
    """Let `slurm.output_dir` lead to the job's folder.

    Raises:
        InfrastructureError: nothing can be written there.
    """
    place = job.cluster.get("output_dir")
    if not place:
        return
    folder = job.project / place
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            (folder / job.id).symlink_to(job.directory)
    except OSError as error:
        raise InfrastructureError(f"slurm.output_dir: {folder}: {error.strerror}") from None


def mark(handles: Iterable[Handle], name: str) -> None:
    """Leave a file of that name in the folders of jobs."""
    for directory in (Path(handle.directory) for handle in handles):
        if directory.is_dir():
            (directory / name).touch()


def _suspects(directory: Path, row: Row | None) -> tuple[str, ...]:
    """The nodes that left no exit code, unless the job was taken from them."""
    if row and row.word in BLAMELESS:
        return ()
    if folders := _folders(directory):
        return tuple(node for node, folder in folders.items() if not (folder / facts.EXIT_CODE).exists())
    return (row.nodes,) if row and row.nodes and not SEVERAL.search(row.nodes) else ()


def _folders(directory: Path) -> dict[str, Path]:
    """What each node's rank writes to; nothing of a job that had no nodes or several, of which none began."""
    nodes = facts.word(directory / NODES).split(",")
    ranks = directory / "ranks"
    if ranks.is_dir():
        return {node: ranks / str(rank) for rank, node in enumerate(nodes)}
    return {nodes[0]: directory} if nodes[0] and len(nodes) == 1 else {}


def _note(directory: Path, state: State, row: Row | None, suspects: Sequence[str]) -> str:
    """What SLURM has to say of a job's end."""
    if row and row.hopeless:
        return f"SLURM will never run it: {row.reason}"
    if row and row.reason and not row.word:
        return row.reason  # it never came into the queue
    if row and row.word in NOTES:
        nodes = f": {', '.join(suspects)}" if row.word in OF_NODES and suspects else ""
        return f"{NOTES[row.word]}{nodes}"
    if state is not State.LOST:
        return ""
    status = facts.word(directory / "status") or facts.word(directory / FINISHED)
    words = f"its script ended with {status}" if status else "its script did not come to its end"
    said = [line for line in facts.word(directory / LOG).splitlines() if not CONSEQUENCE.search(line)]
    named = [line for line in said if line.startswith(OF_RUNTIMES)]
    return ": ".join([words, *(named or said)[-1:]])


def _duration(directory: Path, first: Path) -> float:
    """Seconds from a script's first step to its end; 0 where nobody knows one of the two."""
    steps = facts.phases(facts.word(first / facts.PHASES))
    ends = [path.stat().st_mtime for path in (first / "status", directory / FINISHED) if path.exists()]
    return max(0.0, ends[0] - steps[0].started) if steps and ends else 0.0


def _log(directory: Path, first: Path) -> Path:
    """The model's log, or what SLURM and the scripts said where it never came to one."""
    log = first / facts.LOG
    empty = not log.exists() or not log.stat().st_size
    return directory / LOG if empty and (directory / LOG).exists() else log


def _machine(folder: Path) -> dict[str, str]:
    """The facts of a node that its script took there."""
    pairs = (line.partition("=") for line in facts.word(folder / "machine").splitlines())
    return {name: value for name, _, value in pairs if value}


def left(directory: Path, *, patient: bool = False) -> State:
    """Where a job stands whose end is all that SLURM tells: each node notes its exit code."""
    deadline = time.monotonic() + (LAG if patient else 0.0)
    while not (done := _all_done(directory)) and time.monotonic() < deadline and directory.is_dir():
        time.sleep(POLL)
    if any((folder / LATE).exists() for folder in (directory, *_folders(directory).values())):
        return State.TIMED_OUT
    return State.EXITED if done else State.LOST


def finished(directory: Path) -> bool:
    """Whether a job's script came to its end, and all that it wrote before is to be seen."""
    return (directory / FINISHED).exists()


def began(directory: Path) -> bool:
    """Whether a job had nodes."""
    return (directory / facts.STARTED).exists()


def _all_done(directory: Path) -> bool:
    with suppress(OSError):
        os.scandir(directory).close()  # network file systems look anew when a folder is opened
    folders = _folders(directory).values() or [directory]
    return all((folder / facts.EXIT_CODE).exists() for folder in folders)


def _number(path: Path) -> int | None:
    text = facts.word(path)
    return int(text) if text.isdecimal() else None
