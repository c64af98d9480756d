"""Submits each job to SLURM; on the nodes nothing runs but shell, SLURM's own commands and the container runtime."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from pytest_madengine import command
from pytest_madengine.backends import facts, slurmfacts, slurmqueue
from pytest_madengine.backends.base import Handle, Outcome, Plan, State, Status
from pytest_madengine.backends.preflight import Preflight
from pytest_madengine.backends.slurmpack import Packs, packed
from pytest_madengine.backends.slurmqueue import Accounts, Row, brief
from pytest_madengine.backends.slurmscript import FINISHED, HARD, JOB, environment, scripts, secrets
from pytest_madengine.command import Completed
from pytest_madengine.context.slurm import Slurm
from pytest_madengine.errors import InfrastructureError, RefusedError
from pytest_madengine.jobs.job import Job

PATIENCE = 10.0
"""Seconds for which a job may be in no answer of SLURM, as while its controller restarts, before it counts as lost."""
GLANCE, BETWEEN = 0.25, 0.75
"""Seconds between looks at the folders of jobs in flight, each a `stat`, and more between two that found one over:
others may be soon, and SLURM may need a while to tidy up after a job."""
AWAY = re.compile(
    r"Unable to contact|configuration source|Connection refused|timed out|temporarily|Socket", re.IGNORECASE
)
"""What sbatch says where another time it may do better."""
LAG = 30.0
"""Seconds that files may take to show up here after their job ended, as on network file systems."""
KILLED = "JobLaunchFailure"
"""SLURM's reason where a job's script never ran, or was killed."""
POLL = 0.1
"""Seconds between two questions to SLURM while jobs are made to end."""
GRACE = 120.0
"""Seconds that jobs are given to leave the queue once they are cancelled: KillWait and the epilog of a site."""


class SlurmBackend:
    """`--target=slurm`.

    Args:
        pack: in how many allocations at a time jobs of one shape run one after another; 0 gives each job its own.
    """

    name = "slurm"
    deployment = "slurm"
    containers = True
    at_once = 500
    remote = True

    def __init__(self, pack: int = 0) -> None:
        self.preflight = Preflight()
        self._packs = Packs(pack)
        self._packing = pack > 0
        self._accounts = Accounts()
        self._rows: dict[str, Row] = {}
        self._seen: dict[str, float] = {}
        self._hopeless: dict[str, Row] = {}
        self._over: dict[str, float] = {}
        self._cancelled: set[str] = set()
        self._watched: set[Path] = set()
        self._watcher: threading.Thread | None = None
        self._wake: Callable[[], None] = _nothing

    def plan(self, job: Job) -> Plan:
        """The texts of the scripts: for sbatch, and for each node."""
        return Plan(job, scripts(job), secrets(job))

    def versions(self) -> Mapping[str, str]:
        """That of SLURM's commands here."""
        return {self.name: slurmqueue.version()}

    def submit(self, plan: Plan) -> Handle:
        """`sbatch`; secrets travel in its environment."""
        return facts.once(plan.job, self.find, lambda: self._submit(plan))

    def _submit(self, plan: Plan) -> Handle:
        plan = self._on_clean_nodes(plan)
        job = plan.job
        facts.write_script(job)
        number = self._packs.add(plan) if self._packing else self._number(plan)
        slurmfacts.link(job)
        (job.directory / facts.SUBMITTED).write_text(f"{number}\n", encoding="utf-8")
        self._seen[job.id] = time.monotonic()
        return self._handle(number, job.id, job.directory)

    def _on_clean_nodes(self, plan: Plan) -> Plan:
        """The plan for a job that avoids nodes which are in no state to run it.

        Raises:
            InfrastructureError: too few are left.
        """
        stated = Slurm.model_validate(plan.job.cluster)
        if words := self.preflight.too_few(stated):
            raise InfrastructureError(words)
        bad = self.preflight.bad(stated)
        avoid = (*plan.job.avoid, *sorted(bad.keys() - set(plan.job.avoid)))
        return self.plan(replace(plan.job, avoid=avoid)) if bad else plan

    def _number(self, plan: Plan) -> str:
        """What SLURM calls the job from now on."""
        done = self._sbatch(plan)
        if not done and plan.job.avoid:  # what is left may be too few for it
            done = self._sbatch(self.plan(replace(plan.job, avoid=())))
        if not done:
            kind = InfrastructureError if AWAY.search(done.output) else RefusedError
            raise kind(f"sbatch refused: {brief(done.output)}")
        return done.output.strip().splitlines()[-1].partition(";")[0]

    def _sbatch(self, plan: Plan) -> Completed:
        folder = plan.job.directory
        for name, text in plan.request.items():
            (folder / name).write_text(text, encoding="utf-8")
        asked = ["sbatch", "--parsable", str(folder / JOB)]
        given = environment(os.environ, shutil.which(asked[0]) or "", plan.secrets)
        return command.run(asked, seconds=120, env=given)

    def _handle(self, number: str, token: str, folder: Path) -> Handle:
        return Handle(self.name, f"{number}/{token}", str(folder))

    def find(self, folders: Mapping[str, Path]) -> Mapping[str, Handle]:
        """By the jobs' comments, else by what was noted in their folders."""
        begun = {token: folder for token, folder in folders.items() if (folder / JOB).exists()}
        known = {row.comment: row.number for row in slurmqueue.rows()} if begun else {}
        return {
            token: self._handle(facts.submitted(folder) or known.get(token, "0"), token, folder)
            for token, folder in begun.items()
            if token in known or facts.began(folder) or facts.submitted(folder)
        }

    def states(self, handles: Sequence[Handle]) -> Mapping[Handle, Status]:
        """One `squeue` for all of them, and one `sacct` for those that it knows no more."""
        if not handles:
            return {}
        self._ask(handles)
        self._packs.fill()
        statuses = {handle: self._status(handle) for handle in handles}
        self._end_hopeless(handles)
        self._follow(handle for handle, status in statuses.items() if not status.state.over)
        return statuses

    def _ask(self, handles: Iterable[Handle]) -> None:
        """Take down what SLURM says of these jobs."""
        listed = slurmqueue.rows()
        self._packs.hear(listed)
        rows = {row.comment: row for row in listed}
        now = time.monotonic()
        gone: dict[str, Handle] = {}
        for handle in (each for each in handles if not packed(each)):
            token = token_of(handle)
            if token in rows:
                self._rows[token], self._seen[token] = rows[token], now
            elif token in self._seen or number_of(handle) != "0":
                gone[token] = handle
        words = self._accounts.words({number_of(each): str(Path(each.directory) / JOB) for each in gone.values()})
        for token, handle in gone.items():
            self._rows[token] = Row(number_of(handle), words.get(number_of(handle), ""))

    def _status(self, handle: Handle) -> Status:
        if packed(handle):
            return self._packs.status(handle)
        token, directory = token_of(handle), Path(handle.directory)
        row = self._hopeless.get(token) or self._rows.get(token)
        if row and row.hopeless:
            self._hopeless[token] = row
            return Status(State.LOST)
        if row is None or row.word not in slurmqueue.STATES:
            return Status(self._unknown(token, directory))
        if row.state is State.TIMED_OUT and not slurmfacts.began(directory):
            return Status(State.LOST)
        if row.state is State.EXITED and row.word != "OUT_OF_MEMORY":
            return Status(self._ended(row, token, directory))
        return Status(row.state, row.reason if row.state is State.PENDING else "")

    def _ended(self, row: Row, token: str, directory: Path) -> State:
        """How a job ended of which SLURM says that it did; what its nodes wrote may show up here a while later."""
        state = slurmfacts.left(directory)
        complete = slurmfacts.finished(directory) or row.reason == KILLED
        waited = time.monotonic() - self._over.setdefault(token, time.monotonic())
        return State.RUNNING if state is State.LOST and not complete and waited < LAG else state

    def _unknown(self, token: str, directory: Path) -> State:
        """A job that SLURM has forgotten is lost unless its folder tells its end; the controller may just restart."""
        state = slurmfacts.left(directory)
        silent = time.monotonic() - self._seen.get(token, -PATIENCE)
        return State.RUNNING if state is State.LOST and silent < PATIENCE else state

    def _end_hopeless(self, handles: Iterable[Handle]) -> None:
        tokens = {token_of(handle): handle for handle in handles}
        waiting = [self._hopeless[token] for token in tokens.keys() & self._hopeless.keys()]
        slurmqueue.cancel([row.number for row in waiting if self._rows[row.comment].state is State.PENDING])

    def _follow(self, handles: Iterable[Handle]) -> None:
        """Look into the folders of jobs in flight, so that nobody has to ask SLURM often."""
        self._watched = {Path(handle.directory) / FINISHED for handle in handles}
        if self._watched and self._watcher is None:
            self._watcher = threading.Thread(target=self._look, name="madengine-slurm-watch", daemon=True)
            self._watcher.start()

    def _look(self) -> None:
        while True:
            time.sleep(GLANCE)
            if any(path.exists() for path in self._watched):
                self._wake()
                time.sleep(BETWEEN)

    def watch(self, wake: Callable[[], None]) -> None:
        """`wake` is called when a job's script has ended, which its folder tells."""
        self._wake = wake

    def collect(self, handle: Handle) -> Outcome:
        """What the job left in its folder."""
        token = token_of(handle)
        if token not in self._rows and not packed(handle):
            self._ask([handle])
        status = self._status(handle)
        row = self._hopeless.pop(token, None) or self._rows.pop(token, None) or self._packs.collected(handle)
        self._seen.pop(token, None)
        self._over.pop(token, None)
        made = slurmfacts.outcome(Path(handle.directory), status.state, row)
        return replace(made, note="") if token in self._cancelled else made  # whoever cancels knows why

    def cancel(self, handles: Iterable[Handle], *, hard: bool = False) -> None:
        """`scancel`, which sends TERM and later KILL; returns when none of them is in the queue any more."""
        handles = list(handles)
        if hard:
            slurmfacts.mark(handles, HARD)
        deadline = time.monotonic() + GRACE
        told: set[str] = set()
        claimed = self._packs.cancel(filter(packed, handles))
        alone = {token_of(handle) for handle in handles if not packed(handle)}
        self._cancelled |= alone
        while left := self._not_over(alone, claimed, told):
            if time.monotonic() > deadline:
                raise InfrastructureError(f"still in the queue after {GRACE:g} s: {', '.join(left)}")
            time.sleep(POLL)

    def _not_over(self, alone: Set[str], claimed: Sequence[Handle], told: set[str]) -> list[str]:
        """Those of the jobs that are not over; each in the queue is told once to end."""
        rows = slurmqueue.rows() if alone or claimed else []
        self._packs.hear(rows)
        left = [row.number for row in rows if row.comment in alone and not row.state.over]
        slurmqueue.cancel([number for number in left if number not in told])
        told.update(left)
        return left + [token_of(handle) for handle in claimed if not self._packs.status(handle).state.over]


def token_of(handle: Handle) -> str:
    """Our own name of a job, its comment in SLURM."""
    return handle.token.partition("/")[2]


def number_of(handle: Handle) -> str:
    """SLURM's number of a job; '0' where nobody knows it."""
    return handle.token.partition("/")[0]


def _nothing() -> None:
    """Nobody wants to be woken."""
