"""One item's way from card to Result; every item that needs a model has one, and it always ends in a Result."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pytest_madengine import itemresults
from pytest_madengine.backends.base import Backend, State
from pytest_madengine.engine import journal, leftovers, logscan, rundir
from pytest_madengine.engine.board import Course, Phase, Progress
from pytest_madengine.engine.lane import Flight
from pytest_madengine.errors import BuildError, InfrastructureError, MadengineError, PushError
from pytest_madengine.images.image import Image
from pytest_madengine.images.supply import Want
from pytest_madengine.itemresults import Subject
from pytest_madengine.jobs import compose
from pytest_madengine.jobs.job import Job
from pytest_madengine.models.model import Model
from pytest_madengine.repeats import Repeats, is_part
from pytest_madengine.results.expectations import Stated
from pytest_madengine.results.perf import FAILURE, SKIPPED
from pytest_madengine.results.result import FailureClass, Result
from pytest_madengine.secrets import redacted
from pytest_madengine.session import Session

if TYPE_CHECKING:
    from pytest_madengine.items import Variant

LOST = "the process that ran this model died"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the second try of a model; each further one waits twice as long."""


class Attempt:
    """What is known of one item so far.

    From the start a Result on disk says that it died, until it does not; except of an item whose job runs ahead of it:
    there this process alone knows of the job, and what outlives it is the journal.

    Attributes:
        model: the card that runs; a conftest may have changed it.
        directory: the job's folder.
        number: which try at the item this is, from 1.
        earlier: the Results of tries that infrastructure failed.
        result: None until there is one.
        trouble: what went wrong before there was a job, for the fixtures to raise; None where nothing did.
        prepared: whether image and job are what they are, so that fixtures have nothing left to do.
        past: a job that an earlier session submitted and did not see the end of.
    """

    def __init__(self, nodeid: str, variant: Variant, session: Session, *, ahead: bool = False) -> None:
        self.ahead = ahead
        self.nodeid = nodeid
        self.source = variant.found.source
        self.model = variant.found.model
        self.session = session
        self.number = 1
        self.earlier: list[Result] = []
        self.image: Image | None = None
        self.job: Job | None = None
        self.result: Result | None = None
        self.trouble: BaseException | None = None
        self.prepared = False
        self._image_made = False
        self._unpushed = ""
        self._unwatched = False
        self._refused = False
        self._submitted = 0.0
        self._skipped_before: Result | None = None
        self._variant = variant
        self._repeats = Repeats(session.settings.legs)
        self.past = None if session.settings.build_only else session.past.take(nodeid)
        if self.past:
            self._go_on(self.past)
        else:
            self._begin()

    def _begin(self) -> None:
        self.directory = self.session.directory.new_job(self.nodeid)
        self._expect_the_worst()

    def _expect_the_worst(self) -> None:
        if not (self.ahead or self.session.settings.build_only):
            self.session.directory.keep(self.failed(LOST, FailureClass.INFRASTRUCTURE), self.directory)

    def _go_on(self, past: Course) -> None:
        """Take up what an earlier session left: a Result stands, unless the model was skipped or not to blame."""
        self.number, self.directory = past.number, Path(past.directory)
        self._repeats.take_up(
            Path(each.directory) for each in self.session.past.jobs.values() if each.item == self.nodeid
        )
        if is_part(self.directory):
            self.past = None
            self._begin()
            return
        kept = rundir.result_in(self.directory) if past.judged else None
        if kept is None:
            noted = rundir.noted(self.directory)
            self.image = Image(**noted["image"]) if noted and noted["image"] else None
            self._expect_the_worst()
            return
        self.past = None
        if kept.failure is FailureClass.INFRASTRUCTURE or kept.skipped:
            self._skipped_before = kept if kept.skipped else None
            self.number += 1
            self._begin()
        else:
            self.result, self.prepared = kept, True
            self.trouble = _as_raised(kept)

    def complete(self) -> Model:
        """The card as it is to run; a dynamic one completes itself here, and the context may replace its arguments.

        Raises:
            UserError: what the model is to be compared with cannot be read, which is met before it runs.
        """
        _ = self.session.expectations
        self.model = self.session.context.applied_to(self._variant.model())
        return self.model

    def backend(self, chosen: Backend) -> Backend:
        """Where the job runs: on this machine, a model that starts its own containers runs in none."""
        return self.session.backends["host"] if self.want.self_managed and not chosen.remote else chosen

    @property
    def want(self) -> Want:
        """The image that the model is to have."""
        return want_of(self._variant, self.model, self.session)

    def needs_image(self, chosen: Backend) -> bool:
        """Whether there is an image to get, or at least to name."""
        want = self.want
        if self.session.settings.build_only or not want.self_managed:
            return chosen.containers and self.session.containers
        return self.session.supply.concerns(want) or (chosen.remote and self.session.containers)

    def make_image(self) -> Image:
        """The image that the model runs in; tried again where infrastructure fails, as often as the user allows.

        Raises:
            MadengineError: there is none.
        """
        try:
            self.image = self._begun_image() or self._own_image()
            for side in self.session.settings.ab:
                self._side(side)
        except InfrastructureError as error:
            if not self.may_retry():
                raise
            self.failed_by(error)
            if self.session.stopping.wait(self.again()):
                raise
            return self.make_image()
        return self.image

    def _begun_image(self) -> Image | None:
        """The image that was begun for all who want it, whose failure is shared; a second try is each model's own."""
        begun = None if self.earlier else self.session.images_begun.get(self.session.supply.key(self.want))
        return None if begun is None or begun.cancelled() else begun.result()

    def _side(self, side: str) -> Image:
        """One of two images that are compared."""
        made = self._repeats.images
        if side not in made:
            want = replace(self.want, use=side)
            made[side] = self.session.supply.image(want, lambda seen: self.session.note(self.nodeid, seen))
        return made[side]

    def _own_image(self) -> Image:
        return self.session.supply.image(self.want, lambda progress: self.session.note(self.nodeid, progress))

    def image_made(self, image: Image | None) -> None:
        """Note what is all that was wanted, for the manifest.

        Raises:
            BuildError: there is none, as when a conftest's fixture gives none.
        """
        if image is None:
            error = BuildError(f"no image was made of {self.model.name}: the fixture `image` gave none")
            self.failed_by(error)
            raise error
        self.image, self._image_made = image, True
        self._note_made()

    @property
    def settled(self) -> bool:
        """Whether the item has what it is for: a Result, or the image where only images are made."""
        return self.result is not None or self._image_made

    @property
    def duration(self) -> float:
        """Seconds that the model ran, or that its image took."""
        if self.result:
            return self.result.duration
        return self.image.build_duration if self.image else 0.0

    def _note_made(self, error: str = "") -> None:
        made = {
            "item": self.nodeid,
            "key": self._variant.name,
            "card": redacted(self.model.model_dump(mode="json")),
            "image": self.image.to_json() if self.image and not error else None,
            "unpushed": self._unpushed,
            "error": error,
        }
        self.session.directory.note_made(self.directory, made)

    def compose(self, image: Image | None) -> Job:
        """The job of the card as it stands."""
        return compose.job(self.model, self.source, image, self.directory, self.session.jobs)

    def adopted(self, backend: Backend) -> Flight | None:
        """Go on with the job that an earlier session submitted and did not see the end of; None where there is none.

        Raises:
            InfrastructureError: the backend cannot be reached.
        """
        past, self.past = self.past, None
        data = rundir.noted(self.directory) if past else None
        if past is None or data is None:
            return None
        self._unwatched = True
        self.job = compose.taken_up(data, self.model, self.session.jobs)
        self.image = self.job.image
        self.session.display.hide(itemresults.hidden(self.session, self.job))
        handle = leftovers.handle_of(past, backend)
        began = time.monotonic() - (time.time() - past.began) if past.began else None
        flight = Flight(
            self.nodeid, self.number, self.job, backend, handle=handle, began=began, submitted=past.submitted
        )
        self.session.fleet.add(flight)
        return flight

    def launch(self, job: Job, backend: Backend, pause: float = 0.0) -> Flight:
        """Have the job, or the one of several whose turn it is, submitted; `pause` seconds from now at the earliest."""
        self.job = job = self._of_leg(job)
        self.session.display.hide(itemresults.hidden(self.session, job))
        self.session.directory.note(job)
        flight = Flight(self.nodeid, self.number, job, backend, not_before=time.monotonic() + pause)
        self.session.fleet.add(flight)
        return flight

    def _of_leg(self, job: Job) -> Job:
        """The job as the item's repeats and sides want it."""
        if not self._repeats.several:
            return job
        side = self._repeats.leg.side
        job = replace(job, more=not self._repeats.last)
        if not side:
            return job
        self.image = self._side(side)
        return compose.in_image(job, self.compose(self.image))

    def run(self, job: Job, backend: Backend) -> Result:
        """Run the job to its end; again, where infrastructure fails, as often as the user allows.

        Raises:
            KeyboardInterrupt: or whatever interrupted the run; the Result is kept nevertheless.
        """
        flight: Flight | None = self.adopted(backend) or self.launch(job, backend)
        while flight:
            self._fly(flight)
            flight = self.after(flight)
        assert self.result  # noqa: S101  # nothing follows any more
        return self.result

    def after(self, flight: Flight) -> Flight | None:
        """What follows a job that has landed: the next of several, or another try; None where there is a Result."""
        result = self._landed(flight)
        if self._repeats.passed(result, self.directory):
            return self._next(flight)
        return self.relaunch(flight) if self.retriable(self._keep(self._judged(result))) else None

    def _next(self, flight: Flight) -> Flight:
        """Submit the next of several jobs, in a folder of its own."""
        self.discard()
        self._begin()
        self.session.note(self.nodeid, Progress(Phase.QUEUED, str(self._repeats.leg)))
        return self.launch(replace(flight.job, id=self._id(), directory=self.directory), flight.backend)

    def _fly(self, flight: Flight) -> None:
        fleet = self.session.fleet
        try:
            with self.session.display.shown():
                fleet.wait([flight])
        except BaseException as error:
            self.break_off(flight, detach=self.session.detaches(error))
            raise

    def break_off(self, flight: Flight, *, detach: bool) -> None:
        """End the job, or leave it to a later session; keeps a Result of a job that was submitted and ended."""
        fleet = self.session.fleet
        if detach:
            fleet.leave()
            self.session.detached.append(self.nodeid)
            self.discard()
            return
        fleet.end([flight])
        if flight.handle:
            self.session.cancelled.append(self.nodeid)
            self.conclude(flight)
        else:
            self.discard()

    def retriable(self, result: Result) -> bool:
        """Whether the model is to be tried again; one that was lost while nobody watched is in any case."""
        unwatched, self._unwatched = self._unwatched, False
        return result.failure is FailureClass.INFRASTRUCTURE and not self._refused and (unwatched or self.may_retry())

    def may_retry(self) -> bool:
        """Whether the user allows another try."""
        return len(self.earlier) < self.session.settings.retries

    def again(self) -> float:
        """Begin another try in a folder of its own; gives the seconds to wait before."""
        assert self.result  # noqa: S101  # of the try that failed
        self.earlier.append(self.result)
        self.number += 1
        self.result = self.job = None
        self._submitted = 0.0
        self._begin()
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (len(self.earlier) - 1))

    def relaunch(self, flight: Flight) -> Flight:
        """Submit the job of a try that infrastructure failed once more, as a fresh job that avoids the node."""
        outcome = flight.outcome
        ended = outcome is not None and outcome.state is State.EXITED
        blamed = outcome.suspects or ((outcome.node,) if ended else ()) if outcome else ()
        pause = self.again()
        avoid = tuple(dict.fromkeys((*flight.job.avoid, *filter(None, blamed))))
        job = replace(flight.job, id=self._id(), directory=self.directory, avoid=avoid)
        return self.launch(job, flight.backend, pause)

    def run_shared(self, job: Job, backend: Backend, *, afresh: bool) -> Result:
        """Run the job unless the session has a Result of this very job; items that want the same share one.

        Args:
            job: what to run.
            backend: where.
            afresh: run it in any case.
        """
        kept = self._shared(job, backend)
        with FileLock(f"{kept}.lock"):
            shared = None if afresh else self.share(job, backend)
            if shared:
                self.discard()
                self.result = shared
                return shared
            result = self.run(job, backend)
            if result.failure is not FailureClass.INFRASTRUCTURE:
                kept.write_text(result.to_json(), encoding="utf-8")
            return result

    def share(self, job: Job, backend: Backend) -> Result | None:
        """The Result that another item of this session has of this very job."""
        if not self._shared_folder.is_dir():
            return None
        kept = self._shared(job, backend)
        return Result.from_json(kept.read_text(encoding="utf-8")) if kept.exists() else None

    def _shared(self, job: Job, backend: Backend) -> Path:
        self._shared_folder.mkdir(exist_ok=True)
        return self._shared_folder / f"{_content(job, backend)}.json"

    @property
    def _shared_folder(self) -> Path:
        return self.session.directory.path / "shared"

    def conclude(self, flight: Flight) -> Result:
        """The Result of an item after whose job, which has landed, no other is to follow."""
        return self._keep(self._judged(self._landed(flight)))

    def _judged(self, result: Result) -> Result:
        """The item's result, whose last job gave this, beside what was to be expected."""
        whole = self._repeats.whole(result)
        file, root = self.source.file, self.source.root
        name = file.relative_to(root) if file.is_relative_to(root) else file.name
        card = Stated(self.model.references, f"{name}:{self.source.line} references")
        expectations, sides = self.session.expectations, self.session.settings.ab
        return expectations.judge_sides(whole, card, sides) if sides else expectations.judge(whole, card)

    def _landed(self, flight: Flight) -> Result:
        """What one job gave."""
        self._refused = flight.refused or bool(flight.outcome and flight.outcome.refused)
        self._submitted = flight.submitted
        if flight.outcome is None:
            result = self.failed(flight.error or "not submitted", FailureClass.INFRASTRUCTURE)
            log = self.directory / "run.log"
            return replace(result, log=str(log), tail=logscan.tail(log)) if log.exists() else result
        try:
            return itemresults.measured(self.session, self._subject(), flight.job, flight.outcome)
        except Exception as error:  # noqa: BLE001  # whatever a run left must not cost it its row
            reason = f"what it left cannot be read: {type(error).__name__}: {error}"
            return self.failed(reason, FailureClass.INFRASTRUCTURE)

    def discard(self) -> None:
        """Leave no Result: the item needs no run of its own, or a later session gives it one."""
        self.session.directory.discard(self.directory)

    def failed_by(self, error: BaseException) -> Result:
        """The Result of an item whose setup failed."""
        if isinstance(error, BuildError):
            self.image = Image(reference="", dockerfile=error.dockerfile)
            failed = self.failed(error.reason, FailureClass.BUILD)
            return self._keep(replace(failed, log=error.log, tail=error.tail))
        if isinstance(error, PushError):
            self._unpushed = error.registry_image
        if isinstance(error, InfrastructureError):
            return self._keep(self.failed(str(error), FailureClass.INFRASTRUCTURE))
        if isinstance(error, MadengineError):
            return self._keep(self.failed(str(error), FailureClass.MODEL))
        reason = f"setup failed: {type(error).__name__}: {error}"
        return self._keep(self.failed(reason, FailureClass.INFRASTRUCTURE))

    def skipped(self, reason: str) -> Result:
        """The Result of an item that is not to run here; one row is enough, however often the run is resumed."""
        if self._skipped_before:
            self.discard()
            self.result = self._skipped_before
            return self.result
        return self._keep(self._plain(SKIPPED, reason, FailureClass.NONE))

    def failed(self, reason: str, failure: FailureClass) -> Result:
        """The Result of an item that measured nothing."""
        return self._plain(FAILURE, reason, failure)

    def _plain(self, status: str, reason: str, failure: FailureClass) -> Result:
        return itemresults.unmeasured(self.session, self._subject(), status, reason, failure)

    def _subject(self) -> Subject:
        return Subject(
            id=self._id(),
            nodeid=self.nodeid,
            number=self.number,
            model=self.model,
            source=self.source,
            partition=self._variant.partition,
            image=self.image,
            job=self.job,
            submitted=self._submitted,
        )

    def _id(self) -> str:
        return compose.job_id(self.session.directory.run_id, self.directory)

    def _keep(self, result: Result) -> Result:
        self.result = result
        self.session.directory.keep(result, self.directory)
        if self.session.settings.build_only and result.failed:
            self._note_made(result.reason)
        self.session.journal.write(
            {
                "kind": journal.RESULT,
                "item": self.nodeid,
                "job": result.id,
                "number": self.number,
                "directory": str(self.directory),
                "status": result.status,
                "failure": result.failure.value,
                "reason": result.reason,
            },
            sync=False,  # the record of its rows, which follows, is
        )
        return result


def want_of(variant: Variant, model: Model, session: Session) -> Want:
    """The image that a model is to have.

    Args:
        variant: its item's.
        model: the card that runs.
        session: knows launchers.

    Raises:
        UserError: the card names a launcher that nobody knows.
    """
    launcher = compose.launcher_of(model, session.jobs)
    found = variant.found
    return Want(
        model=model,
        source=found.source,
        dockerfile=variant.dockerfile,
        architecture=variant.architecture,
        entry=found.entry,
        self_managed=bool(launcher and launcher.self_managed),
    )


def _as_raised(kept: Result) -> Exception | None:
    """What a failed build of an earlier session raised."""
    return BuildError(kept.reason, kept.tail, kept.log) if kept.failure is FailureClass.BUILD else None


def _content(job: Job, backend: Backend) -> str:
    """A hash of all that makes one job differ from another, its folder and name aside."""
    plain = replace(job, id="", directory=Path(), name="")
    text = json.dumps([backend.name, asdict(plain)], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
