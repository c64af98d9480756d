"""Submits each job to SLURM; on the nodes nothing runs but shell, SLURM's own commands and the container runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_madengine import command
from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Handle, Outcome, Plan, State, Status
from pytest_madengine.backends.slurmscript import scripts
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.jobs.job import Job

STATES = {
    "PENDING": State.PENDING,
    "CONFIGURING": State.PENDING,
    "REQUEUED": State.PENDING,  # goes to the queue again under the same id
    "REQUEUE_HOLD": State.PENDING,
    "REQUEUE_FED": State.PENDING,
    "SPECIAL_EXIT": State.PENDING,  # requeued and held by a rule of the site
    "RESV_DEL_HOLD": State.PENDING,
    "RUNNING": State.RUNNING,
    "COMPLETING": State.RUNNING,
    "SUSPENDED": State.RUNNING,
    "STOPPED": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "STAGE_OUT": State.RUNNING,
    "RESIZING": State.RUNNING,
    "COMPLETED": State.EXITED,
    "FAILED": State.EXITED,
    "OUT_OF_MEMORY": State.EXITED,
    "TIMEOUT": State.TIMED_OUT,
    "DEADLINE": State.TIMED_OUT,
    "CANCELLED": State.CANCELLED,
    "PREEMPTED": State.LOST,
    "NODE_FAIL": State.LOST,
    "BOOT_FAIL": State.LOST,
    "LAUNCH_FAILED": State.LOST,
    "RECONFIG_FAIL": State.LOST,
    "REVOKED": State.LOST,
}
"""SLURM's job states in our words."""
HOPELESS = frozenset(
    [
        *("PartitionDown", "PartitionInactive", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints"),
        *("InvalidAccount", "InvalidQOS", "AccountNotAllowed", "QOSNotAllowed", "DependencyNeverSatisfied"),
        *("AssocGrpCpuLimit", "QOSMaxNodePerJobLimit", "QOSMaxWallDurationPerJobLimit", "AssocMaxNodePerJobLimit"),
        *("NodeDown", "JobHeldAdmin", "ReservationDeleted"),
    ]
)
"""Reasons for which a pending job will wait for ever."""
NOTES = {
    "OUT_OF_MEMORY": "killed for lack of memory",
    "NODE_FAIL": "a node failed",
    "PREEMPTED": "preempted",
    "BOOT_FAIL": "a node did not boot",
}
FIELDS = "%i|%T|%r|%k"


class SlurmBackend:
    """`--target=slurm`."""

    name = "slurm"
    deployment = "slurm"
    containers = True
    at_once = 500
    remote = True

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def plan(self, job: Job) -> Plan:
        """The texts of the scripts: for sbatch, and for each node."""
        return Plan(job, scripts(job), job.secrets)

    def submit(self, plan: Plan) -> Handle:
        """`sbatch`; secrets travel in its environment."""
        job = plan.job
        if found := self.find({job.id: job.directory}):
            return found[job.id]
        facts.write_script(job)
        for name, text in plan.request.items():
            (job.directory / name).write_text(text, encoding="utf-8")
        environment = {**os.environ, **plan.secrets}
        asked = ["sbatch", "--parsable", str(job.directory / "job.sh")]
        done = command.run(asked, seconds=120, env=environment)
        if not done:
            raise InfrastructureError(f"sbatch refused: {_brief(done.output)}")
        number = done.output.strip().splitlines()[-1].partition(";")[0]
        return Handle(self.name, f"{number}/{job.id}", str(job.directory))

    def find(self, folders: Mapping[str, Path]) -> Mapping[str, Handle]:
        """By the jobs' comments, else by what their scripts wrote."""
        begun = {token: folder for token, folder in folders.items() if (folder / "job.sh").exists()}
        known = {comment: number for number, _, _, comment in _queue()} if begun else {}
        return {
            token: Handle(self.name, f"{known.get(token, 0)}/{token}", str(folder))
            for token, folder in begun.items()
            if token in known or facts.began(folder)
        }

    def states(self, handles: Sequence[Handle]) -> Mapping[Handle, Status]:
        """One `squeue` for all of them; what it knows no more, the job's folder tells."""
        known = {comment: (state, reason) for _, state, reason, comment in _queue()}
        return {handle: self._status(handle, known.get(_id(handle))) for handle in handles}

    def _status(self, handle: Handle, row: tuple[str, str] | None) -> Status:
        if row is None:
            return Status(_left(Path(handle.directory)))
        word, reason = row
        self._last[_id(handle)] = word
        state = STATES.get(word, State.RUNNING)
        shown = "" if reason in ("None", "(null)") else reason
        if state is State.PENDING and shown.partition(",")[0] in HOPELESS:
            self._last[_id(handle)] = f"it would wait for ever: {shown}"
            self.cancel([handle], hard=True)
            return Status(State.LOST, shown)
        return Status(state, shown)

    def watch(self, wake: Callable[[], None]) -> None:
        """SLURM tells nobody."""

    def collect(self, handle: Handle) -> Outcome:
        """What the job left in its folder."""
        directory = Path(handle.directory)
        row = next((row for row in _queue() if row[3] == _id(handle)), None)
        word = self._last.pop(_id(handle), "") if row is None else row[1]
        state = STATES.get(word) or _left(directory)
        return _outcome(directory, state, NOTES.get(word, word if ":" in word else ""))

    def cancel(self, handles: Iterable[Handle], *, hard: bool = False) -> None:
        """`scancel`, which sends TERM and later KILL; returns when none of them is in the queue any more."""
        numbers = [number for handle in handles if (number := handle.token.partition("/")[0]) != "0"]
        if not numbers:
            return
        signal = ["--signal=KILL", "--full"] if hard else []
        command.run(["scancel", *signal, *numbers], seconds=120).require("scancel")


def _id(handle: Handle) -> str:
    return handle.token.partition("/")[2]


def _queue() -> list[tuple[str, str, str, str]]:
    """Number, state, reason and comment of every job of ours that SLURM still knows."""
    asked = ["squeue", "--noheader", "--me", "--states=all", f"--format={FIELDS}"]
    done = command.run(asked, seconds=60)
    if not done:
        raise InfrastructureError(f"squeue: {_brief(done.output)}")
    rows = (line.rstrip().split("|", 3) for line in done.output.splitlines())
    return [(row[0], row[1], row[2], row[3]) for row in rows if len(row) == FIELDS.count("|") + 1]


def _outcome(directory: Path, state: State, note: str) -> Outcome:
    """What a job left; of several ranks each has a folder, and the first speaks for all."""
    trouble = directory / "trouble"
    if trouble.exists():
        state, note = State.LOST, trouble.read_text(encoding="utf-8").strip()
    folders = {int(path.name): path for path in sorted((directory / "ranks").glob("*"))}
    first = folders.get(0, directory)
    outcome = facts.outcome(first, state, exit_code=None, node=_word(first / "host"), duration=0.0, note=note)
    if not folders:
        return outcome
    (directory / facts.ENDED).touch()
    codes = {rank: _code(folder) for rank, folder in folders.items()}
    worst = next((code for code in codes.values() if code), 0 if None not in codes.values() else None)
    return replace(outcome, exit_code=worst, ranks=codes, folders=folders)


def _left(directory: Path) -> State:
    """Where a job stands that SLURM has forgotten: each node notes its exit code."""
    folders = list((directory / "ranks").glob("*")) or [directory]
    done = all((folder / facts.EXIT_CODE).exists() for folder in folders)
    return State.EXITED if done else State.LOST


def _code(folder: Path) -> int | None:
    text = _word(folder / facts.EXIT_CODE)
    return int(text) if text.isdecimal() else None


def _word(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _brief(output: str) -> str:
    return "; ".join(line.strip() for line in output.strip().splitlines()[-3:])
