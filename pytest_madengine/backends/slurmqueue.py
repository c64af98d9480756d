"""What SLURM says of jobs: one `squeue` for all of them, and one `sacct` for those that left the queue."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_madengine import command
from pytest_madengine.backends.base import State
from pytest_madengine.errors import InfrastructureError

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
    "CANCELLED": State.LOST,  # by others: who cancels a job does not ask what became of it
    "PREEMPTED": State.LOST,
    "NODE_FAIL": State.LOST,
    "BOOT_FAIL": State.LOST,
    "LAUNCH_FAILED": State.LOST,
    "RECONFIG_FAIL": State.LOST,
    "REVOKED": State.LOST,
}
"""SLURM's job states in our words; squeue's manual lists them."""
HOPELESS = re.compile(
    r"Partition(Down|Inactive|NodeLimit|TimeLimit|MinNodes|MaxNodes)|BadConstraints|NodeDown|JobHeldAdmin"
    r"|Invalid(Account|QOS)|(Account|QOS)NotAllowed|DependencyNeverSatisfied|ReservationDeleted|MaxMemPerLimit"
    r"|(Assoc|QOS)Max\w+Per(Job|Node)(Limit)?|QOSMin\w+"
)
"""Reasons for which a pending job will wait for ever; limits on all jobs of an account together are none."""
SILENT = ("None", "(null)", "")
FIELDS = "%i|%T|%r|%N|%k"
NAMED = re.compile(r"^(?:sbatch|squeue|scancel|srun): (?:error: )?")
UNKEPT = re.compile(r"accounting storage is disabled|accounting_storage plugin", re.IGNORECASE)
"""What sacct says of a cluster that keeps no accounts."""


@dataclass(frozen=True)
class Row:
    """What SLURM says of one job.

    Attributes:
        number: SLURM's own, such as 93, or 78_3 of an array.
        word: its state in SLURM's word.
        reason: why it waits, or how it ended; '' where SLURM gives none.
        nodes: which it has, in SLURM's notation.
        comment: what we called it at its submission.
    """

    number: str
    word: str
    reason: str = ""
    nodes: str = ""
    comment: str = ""

    @property
    def state(self) -> State:
        """In our words; a state that we do not know is one of a job that is not over."""
        return STATES.get(self.word, State.RUNNING)

    @property
    def hopeless(self) -> bool:
        """Whether it will wait for ever."""
        return self.state is State.PENDING and bool(HOPELESS.fullmatch(self.reason.partition(",")[0]))

    @property
    def refused(self) -> bool:
        """Whether sbatch said no: SLURM keeps a record of some requests that it did not take, under our comment."""
        return (self.word, self.reason) == ("FAILED", "BadConstraints")


def version() -> str:
    """The version of SLURM's commands here.

    Raises:
        InfrastructureError: there are none.
    """
    told = command.run(["scontrol", "--version"], seconds=60).require("scontrol --version")
    return (told.split() or [""])[-1]  # `slurm 24.05.1`, Debian's `slurm-wlm 22.05.8`


def read(output: str) -> list[Row]:
    """The rows that squeue printed in the format FIELDS."""
    cells = (line.rstrip().split("|", 4) for line in output.splitlines())
    return [Row(row[0], row[1], _said(row[2]), row[3], row[4]) for row in cells if len(row) == FIELDS.count("|") + 1]


def rows() -> list[Row]:
    """Every job that this user submitted and SLURM still knows, over or not; elements of arrays one by one.

    squeue's JSON is left alone: it ignores filters (seen in 22.05) and would carry all jobs of all users, and its form
    differs between versions.

    Raises:
        InfrastructureError: squeue fails or does not answer.
    """
    asked = ["squeue", "--noheader", "--me", "--array", "--states=all", f"--format={FIELDS}"]
    done = command.run(asked, seconds=60)
    if not done:
        raise InfrastructureError(f"squeue: {brief(done.output)}")
    return [row for row in read(done.output) if not row.refused]


class Accounts:
    """What slurmdbd knows of jobs; nothing where the cluster has none."""

    def __init__(self) -> None:
        self._kept = True

    def words(self, scripts: Mapping[str, str]) -> Mapping[str, str]:
        """How jobs ended, in SLURM's word, by their numbers; those that are not on record as over are left out.

        Args:
            scripts: what sbatch was given for each number, which may meanwhile be that of another job.
        """
        wanted = sorted(scripts.keys() - {"0"})
        if not (wanted and self._kept):
            return {}
        asked = ["sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={','.join(wanted)}"]
        try:
            done = command.run([*asked, "--format=JobID,State,SubmitLine"], seconds=60)
        except InfrastructureError:
            return {}
        self._kept = bool(done) or not UNKEPT.search(done.output)
        return recorded(done.output, scripts) if done else {}


def recorded(output: str, scripts: Mapping[str, str]) -> dict[str, str]:
    """The numbers and words of what sacct printed of these jobs; `CANCELLED by 0` is CANCELLED.

    A job that is not over by its record is one that the controller lost before it could tell.
    """
    cells = (line.split("|", 2) for line in output.splitlines())
    rows = [row for row in cells if len(row) == 3 and row[0] in scripts]  # noqa: PLR2004  # what was asked for
    words = {number: said.partition(" ")[0] for number, said, line in rows if line.endswith(f" {scripts[number]}")}
    return {number: word for number, word in words.items() if word in STATES and STATES[word].over}


def cancel(numbers: Sequence[str]) -> None:
    """Have these jobs ended: TERM, and KILL after the cluster's KillWait; those that are over are left alone.

    Raises:
        InfrastructureError: scancel fails or does not answer.
    """
    if numbers:
        command.run(["scancel", *numbers], seconds=120).require("scancel")


def brief(output: str) -> str:
    """The last words of a command of SLURM, without its name before each line."""
    return "; ".join(NAMED.sub("", line.strip()) for line in output.strip().splitlines()[-3:])


def _said(reason: str) -> str:
    return "" if reason in SILENT else reason
