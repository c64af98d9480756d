"""Many short jobs in few allocations: jobs of one shape wait in a folder, and allocations take one after another."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pytest_madengine import assets, command
from pytest_madengine.backends import facts, slurmfacts, slurmqueue
from pytest_madengine.backends.base import Handle, Plan, State, Status
from pytest_madengine.backends.slurmqueue import Row, brief
from pytest_madengine.backends.slurmscript import FINISHED, environment, options
from pytest_madengine.context.slurm import Slurm
from pytest_madengine.engine.rundir import job_prefix

PREFIX = "pack-"
"""What the number of a packed job begins with; the shape follows."""
CLAIM, WORKER, CANCEL, CANCELLED = "claim", "worker", "cancel", "cancelled"
"""Files of a job's folder: that an allocation took it, and which; that it is to end; that it never began."""
SALT = os.urandom(16)
LINGER = 20
"""Half seconds for which an allocation that has nothing to do waits for further jobs."""


@dataclass
class Pack:
    """Jobs that ask for the same, and the allocations that run them.

    Attributes:
        folder: its script, and the queue.
        comment: what its allocations are called in SLURM.
        script: the text for sbatch.
        secrets: what its jobs may not show, the same for all.
        waiting: ids of jobs that are not collected.
        refused: what sbatch said; '' unless it refused.
        more: ids of jobs that another follows as soon as they are collected.
    """

    folder: Path
    comment: str
    script: str
    secrets: Mapping[str, str]
    waiting: set[str] = field(default_factory=set)
    refused: str = ""
    more: set[str] = field(default_factory=set)

    @property
    def queue(self) -> Path:
        """The folder with a file for each job that no allocation took."""
        return self.folder / "queue"

    def begin(self, count: int) -> None:
        """Ask SLURM for further allocations, as one array."""
        script = self.folder / "pack.sh"
        script.write_text(self.script, encoding="utf-8")
        asked = ["sbatch", "--parsable", f"--array=0-{count - 1}", str(script)]
        given = environment(os.environ, shutil.which(asked[0]) or "", self.secrets)
        done = command.run(asked, seconds=120, env=given)
        self.refused = "" if done else f"sbatch refused: {brief(done.output)}"


class Packs:
    """All packs of a session."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._packs: dict[str, Pack] = {}
        self._rows: dict[str, list[Row]] = {}
        self._lost: dict[str, Row] = {}

    def add(self, plan: Plan) -> str:
        """Put a job into the queue of its shape; gives what stands for its number."""
        job = plan.job
        stated = Slurm.model_validate(job.cluster).sbatch_options(job.avoid)
        shape = _shape(stated, plan.secrets)
        folder = job.directory.parent.parent / "packs" / shape
        if shape not in self._packs:
            comment = f"{job_prefix(job.run)}{PREFIX}{shape}"
            lines = options("madengine-pack", comment, folder / "slurm.log", stated)
            text = assets.render("slurm/pack.sh.j2", options=lines, queue=str(folder / "queue"), linger=LINGER)
            self._packs[shape] = Pack(folder, comment, text, plan.secrets)
        pack = self._packs[shape]
        pack.refused = pack.refused if pack.waiting else ""
        pack.queue.mkdir(parents=True, exist_ok=True)
        for name, text in plan.request.items():
            (job.directory / name).write_text(text, encoding="utf-8")
        pack.waiting.add(job.id)
        pack.more |= {job.id} if job.more else set()
        entry = job.directory / "entry"
        entry.write_text(f"{job.directory}\n", encoding="utf-8")
        entry.rename(pack.queue / f"{time.time_ns()}-{job.directory.name}")
        return f"{PREFIX}{shape}"

    def hear(self, rows: Iterable[Row]) -> None:
        """Take down what SLURM says of the allocations."""
        self._rows = {}
        for row in rows:
            self._rows.setdefault(row.comment, []).append(row)

    def fill(self) -> None:
        """Ask for further allocations where jobs wait."""
        for pack in self._packs.values():
            alive = [row for row in self._rows.get(pack.comment, ()) if not row.state.over]
            queued = sum(1 for _ in pack.queue.iterdir())
            wanted = min(self._count - len(alive), queued - sum(row.state is State.PENDING for row in alive))
            if wanted > 0 and not pack.refused:
                pack.begin(wanted)

    def status(self, handle: Handle) -> Status:
        """Where a packed job stands, by its folder and the state of its allocation."""
        directory = Path(handle.directory)
        if (directory / FINISHED).exists():
            return Status(slurmfacts.left(directory))
        if (directory / CANCELLED).exists():
            return Status(State.CANCELLED)
        rows = self._rows.get(self._comment(handle), [])
        return self._running(handle, rows) if (directory / CLAIM).exists() else self._queued(handle, rows)

    def _running(self, handle: Handle, rows: Sequence[Row]) -> Status:
        worker = facts.word(Path(handle.directory) / WORKER)
        own = [row for row in rows if row.number == worker or not worker]
        if any(not row.state.over for row in own):
            return Status(State.RUNNING)
        if slurmfacts.left(Path(handle.directory), patient=bool(own)) is State.EXITED:
            return Status(State.EXITED)
        return self._gone(handle, own[0] if own else Row(worker, ""))

    def _queued(self, handle: Handle, rows: Sequence[Row]) -> Status:
        pack = self._packs.get(_shape_of(handle))
        if pack and pack.refused:
            return self._gone(handle, Row("", "", pack.refused))
        hopeless = next((row for row in rows if row.hopeless), None)
        if hopeless:
            slurmqueue.cancel([hopeless.number])
            return self._gone(handle, hopeless)
        alive = [row for row in rows if not row.state.over]
        if pack is None and not alive:
            return self._gone(handle, Row("", ""))
        return Status(State.PENDING, next((row.reason for row in alive if row.state is State.PENDING), ""))

    def _gone(self, handle: Handle, row: Row) -> Status:
        self._lost[handle.token] = row
        return Status(State.LOST)

    def _comment(self, handle: Handle) -> str:
        """Of the pack of a job, which an earlier session may have made."""
        pack = self._packs.get(_shape_of(handle))
        run = Path(handle.directory).parent.parent.name
        return pack.comment if pack else f"{job_prefix(run)}{PREFIX}{_shape_of(handle)}"

    def collected(self, handle: Handle) -> Row | None:
        """What SLURM said of a job's allocation if that failed it; allocations with nothing left to do are ended.

        One that another job is to follow into stays: it ends by itself if none comes.
        """
        pack = self._packs.get(_shape_of(handle))
        if pack:
            token = handle.token.partition("/")[2]
            pack.waiting.discard(token)
            followed = token in pack.more
            pack.more.discard(token)
            if not (pack.waiting or followed):
                idle = [row.number for row in slurmqueue.rows() if row.comment == pack.comment and not row.state.over]
                slurmqueue.cancel(idle)
        return self._lost.pop(handle.token, None)

    def cancel(self, handles: Iterable[Handle]) -> list[Handle]:
        """Have these jobs ended; gives those that began and have to be waited for."""
        handles = [handle for handle in handles if Path(handle.directory).is_dir()]
        for handle in handles:
            self._drop(Path(handle.directory))
        claimed = [handle for handle in handles if (Path(handle.directory) / CLAIM).exists()]
        slurmfacts.mark(claimed, CANCEL)
        return claimed

    @staticmethod
    def _drop(directory: Path) -> None:
        """Take a job out of the queue, if it is in it."""
        with suppress(FileNotFoundError):  # an allocation was faster
            for entry in directory.parent.parent.glob(f"packs/*/queue/*-{directory.name}"):
                entry.rename(directory / CANCELLED)


def packed(handle: Handle) -> bool:
    """Whether a job waits for an allocation that it shares."""
    return handle.token.startswith(PREFIX)


def _shape_of(handle: Handle) -> str:
    return handle.token.partition("/")[0].removeprefix(PREFIX)


def _shape(stated: Sequence[tuple[str, str | None]], secrets: Mapping[str, str]) -> str:
    """A name for all that jobs must share that run in one allocation; it tells nothing of the secrets."""
    text = json.dumps([sorted(map(list, stated), key=str), sorted(secrets.items())])
    return hashlib.blake2b(text.encode(), digest_size=6, key=SALT).hexdigest()
