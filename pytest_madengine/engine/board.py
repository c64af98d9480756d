"""Where every model of a run stands, made from the journal's records: live, or read back by another process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from pytest_madengine.backends.base import Handle
from pytest_madengine.engine import journal
from pytest_madengine.engine.journal import Record


class Phase(str, Enum):
    """What is being done for a model."""

    QUEUED = "queued"
    BUILDING = "building"
    PULLING = "pulling"
    PUSHING = "pushing"
    PENDING = "pending"
    RUNNING = "running"
    COLLECTING = "collecting"
    DONE = "done"


@dataclass(frozen=True)
class Progress:
    """What is being done for a model.

    Attributes:
        detail: what it is about: a Dockerfile, the name of an image; or why the model waits.
        step: how far it is, as `[2/5] RUN make`.
        log: the file that it writes.
    """

    phase: Phase
    detail: str = ""
    step: str = ""
    log: str = ""


@dataclass
class Course:
    """One job: what was done with it, and by whom it is known.

    Attributes:
        id: its token, which stands in the backend's names or labels.
        item: node id of the model.
        number: which attempt at the item it is, from 1.
        handle: None until the backend answered.
        over: whether it ended and was collected.
        judged: whether it has a Result on disk.
        marks: sizes of the files that rows are appended to, from just before they were; None before that.
        recorded: whether its rows are written.
        began: when it was first seen running, epoch seconds; 0 before.
        submitted: when it was handed over, epoch seconds; 0 of one that was not.
    """

    id: str
    item: str
    number: int
    backend: str
    directory: str
    handle: Handle | None = None
    over: bool = False
    judged: bool = False
    marks: dict[str, int] | None = None
    recorded: bool = False
    began: float = 0.0
    submitted: float = 0.0


@dataclass
class Entry:
    """One model.

    Attributes:
        since: when its phase began, epoch seconds.
        status: SUCCESS, FAILURE or SKIPPED once it is done.
        directory: the folder of its present job.
        step: how far its build is.
        log: its build's.
        jobs: ids of its jobs, in the order of time.
    """

    item: str
    phase: Phase = Phase.QUEUED
    detail: str = ""
    since: float = 0.0
    status: str = ""
    directory: str = ""
    step: str = ""
    log: str = ""
    jobs: list[str] = field(default_factory=list)


@dataclass
class Board:
    """A run.

    Attributes:
        run: the record that opened it; empty before.
        items: models by node id, in the order they are known.
        jobs: by id.
    """

    run: Record = field(default_factory=dict)
    items: dict[str, Entry] = field(default_factory=dict)
    jobs: dict[str, Course] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Board:
        """The board after these records."""
        board = cls()
        for record in records:
            board.apply(record)
        return board

    def apply(self, record: Record) -> None:
        """Take one record in; kinds of a later version are passed over, as are jobs whose first record was lost."""
        apply = _APPLY.get(record.get("kind", ""))
        if apply:
            apply(self, record)

    def entry(self, item: str) -> Entry:
        """The model of that node id."""
        return self.items.setdefault(item, Entry(item))

    def in_flight(self) -> list[Course]:
        """Jobs that were handed over, or may have been, and are not known to be over."""
        return [course for course in self.jobs.values() if not course.over]

    def take(self, item: str) -> Course | None:
        """The last job of a model, once."""
        entry = self.items.pop(item, None)
        return self.jobs[entry.jobs[-1]] if entry and entry.jobs else None

    def _open(self, record: Record) -> None:
        self.run = record
        for item in record["items"]:
            self.entry(item).since = record["time"]

    def _close(self, record: Record) -> None:
        self.run = {**self.run, "ended": record["time"]}

    def _phase(self, record: Record) -> None:
        entry = self.entry(record["item"])
        phase = Phase(record["phase"])
        entry.since = entry.since if phase is entry.phase else record["time"]
        entry.phase, entry.detail = phase, record.get("detail", "")
        entry.step, entry.log = record.get("step", ""), record.get("log", "")
        course = self.jobs.get(record.get("job", ""))
        if course and phase is Phase.RUNNING and not course.began:
            course.began = record["time"]

    def _submitting(self, record: Record) -> None:
        keys = ("item", "number", "backend", "directory")
        self._know(Course(record["job"], **{key: record[key] for key in keys}, submitted=record["time"]))

    def _submitted(self, record: Record) -> None:
        if course := self.jobs.get(record["job"]):
            course.handle = Handle(**record["handle"])

    def _ended(self, record: Record) -> None:
        if course := self.jobs.get(record["job"]):
            course.over = True

    def _result(self, record: Record) -> None:
        entry = self.entry(record["item"])
        entry.phase, entry.since, entry.detail = Phase.DONE, record["time"], record.get("reason", "")
        entry.status = record["status"]
        unsubmitted = Course(record["job"], record["item"], record["number"], "", record["directory"], over=True)
        self._know(unsubmitted).judged = True

    def _know(self, course: Course) -> Course:
        entry = self.entry(course.item)
        entry.directory = course.directory
        if course.id not in self.jobs:
            self.jobs[course.id] = course
            entry.jobs.append(course.id)
        return self.jobs[course.id]

    def _recording(self, record: Record) -> None:
        if course := self.jobs.get(record["job"]):
            course.marks = record["marks"]

    def _recorded(self, record: Record) -> None:
        if course := self.jobs.get(record["job"]):
            course.recorded = True


_APPLY = {
    journal.RUN: Board._open,  # noqa: SLF001  # the table is the class's own
    journal.END: Board._close,  # noqa: SLF001
    journal.PHASE: Board._phase,  # noqa: SLF001
    journal.SUBMITTING: Board._submitting,  # noqa: SLF001
    journal.SUBMITTED: Board._submitted,  # noqa: SLF001
    journal.ENDED: Board._ended,  # noqa: SLF001
    journal.RESULT: Board._result,  # noqa: SLF001
    journal.RECORDING: Board._recording,  # noqa: SLF001
    journal.RECORDED: Board._recorded,  # noqa: SLF001
}
