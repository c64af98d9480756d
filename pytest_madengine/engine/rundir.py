"""The directory of one session: `.madengine/runs/<run id>/`."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pytest_madengine import files
from pytest_madengine.errors import UserError
from pytest_madengine.jobs.job import Job
from pytest_madengine.results.result import Result

TOP = ".madengine"
RECORD = "results.jsonl"
UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
LONGEST = 60


def job_prefix(run_id: str) -> str:
    """What the ids of a run's jobs begin with; the folder's name follows."""
    return f"madengine-{run_id}-"


def archives_of(job: Path) -> Path:
    """Where images lie as files, for all runs: beside those of the run that a job's folder is in."""
    return job.parents[2].with_name("images")


def check(place: Path) -> None:
    """Refuse a folder that no run directory can be made in.

    Raises:
        UserError: this user may not write there.
    """
    top = place / TOP
    if not os.access(top if top.exists() else place, os.W_OK):
        raise UserError(
            f"{place} cannot be written, and runs are kept there in {TOP}/: start pytest in a folder of yours and name "
            "the project's folder in MODEL_DIR"
        )


@dataclass(frozen=True)
class RunDirectory:
    """Where a session keeps logs, scripts, artifacts and results; never reused.

    Attributes:
        path: `<where pytest was started>/.madengine/runs/<run id>`.
    """

    path: Path

    @classmethod
    def create(cls, place: Path, run_id: str) -> RunDirectory:
        """Make the directory and let `latest` point at it."""
        runs = place / TOP / "runs"
        (runs / run_id / "jobs").mkdir(parents=True, exist_ok=True)
        ignore = place / TOP / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
        latest = runs / f".latest-{run_id}-{os.getpid()}"
        latest.symlink_to(run_id)
        latest.replace(runs / "latest")
        return cls(runs / run_id)

    @property
    def run_id(self) -> str:
        """The directory's name."""
        return self.path.name

    @property
    def record(self) -> Path:
        """Every Result of the run, one JSON text a line."""
        return self.path / RECORD

    @property
    def images(self) -> Path:
        """Build logs and outcomes."""
        return self.path / "images"

    @property
    def archives(self) -> Path:
        """Images as files, of all runs."""
        return archives_of(self.path / "jobs" / "any")

    @property
    def discovery(self) -> Path:
        """What dynamic scripts gave."""
        return self.path / "discovery"

    def job(self, job_id: str) -> Path:
        """The folder of a job."""
        return self.path / "jobs" / job_id.removeprefix(f"{job_prefix(self.run_id)}")

    def new_job(self, nodeid: str) -> Path:
        """A folder for one attempt at an item; its name is safe for containers and file systems.

        The first is named after the item, further ones (of reruns) are numbered.
        """
        name = UNSAFE.sub("-", nodeid.rpartition("::")[2]).strip("-.")[:LONGEST] or "job"
        first = self.path / "jobs" / f"{name}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}"
        for number in itertools.count(1):
            folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
        raise AssertionError  # the count never ends

    def keep(self, result: Result, folder: Path) -> None:
        """Write a result down in its job's folder, before anybody reports it."""
        files.put(folder / "result.json", result.to_json())

    def discard(self, folder: Path) -> None:
        """Take back what `keep` wrote: the item turned out to need no job of its own."""
        (folder / "result.json").unlink(missing_ok=True)

    def kept(self) -> Iterator[Result]:
        """Every result that a process of this session wrote down."""
        for path in sorted(self.path.glob("jobs/*/result.json")):
            yield result_in(path.parent)

    def forget_images(self) -> None:
        """Take nothing for granted that an earlier session knew of images."""
        for record in (*self.images.glob("*/image.json"), *self.images.glob("push-*")):
            record.unlink(missing_ok=True)

    def note_made(self, folder: Path, made: Mapping[str, Any]) -> None:
        """Write down the image that was made for an item, or why there is none."""
        files.put(folder / "made.json", json.dumps(made))

    def made(self) -> Iterator[dict[str, Any]]:
        """What `note_made` wrote down last for each item: a retry or a resumed run has a folder of its own."""
        paths = sorted(self.path.glob("jobs/*/made.json"), key=lambda path: path.stat().st_mtime_ns)
        noted = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        last = {each["item"]: each for each in noted}
        yield from (last[item] for item in sorted(last))

    def note(self, job: Job) -> None:
        """Write down what is about to be submitted, so that a later process can go on with it."""
        (job.directory / "job.json").write_text(json.dumps(job.to_json()), encoding="utf-8")


def lock(run: Path) -> FileLock:
    """What the session holds that a run belongs to."""
    return FileLock(run / "lock")


def in_use(run: Path) -> bool:
    """Whether a living session has this run."""
    try:
        with lock(run).acquire(blocking=False):
            return False
    except Timeout:
        return True


def noted(folder: Path) -> dict[str, Any] | None:
    """What `note` wrote down in a job's folder; None where nothing was submitted from there."""
    path = folder / "job.json"
    if not path.exists():
        return None
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def result_in(folder: Path, name: str = "result.json") -> Result:
    """The Result that stands in a job's folder, under that name."""
    return Result.from_json((folder / name).read_text(encoding="utf-8"))
