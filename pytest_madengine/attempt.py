"""One item's way from card to Result; every item that needs a model has one, and it always ends in a Result."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock

from pytest_madengine.backends.base import Backend, Outcome
from pytest_madengine.engine import logscan, measure
from pytest_madengine.engine.run import InterruptedRunError, run
from pytest_madengine.errors import BuildError, InfrastructureError, MadengineError
from pytest_madengine.images.image import Image
from pytest_madengine.jobs import compose
from pytest_madengine.jobs.job import Job
from pytest_madengine.models.discovery import Found
from pytest_madengine.models.model import Model
from pytest_madengine.results.common import Facts, columns, model_duration
from pytest_madengine.results.judge import judge, single
from pytest_madengine.results.perf import FAILURE, SKIPPED
from pytest_madengine.results.result import FailureClass, Result
from pytest_madengine.secrets import Masker
from pytest_madengine.session import Session

LOST = "the process that ran this model died"


class Attempt:
    """What is known of one item so far; from the start a Result on disk says that it died, until it does not.

    Attributes:
        model: the card that runs; a conftest may have changed it.
        directory: the job's folder.
        result: None until there is one.
    """

    def __init__(self, nodeid: str, found: Found, model: Callable[[], Model], session: Session) -> None:
        self.nodeid = nodeid
        self.source = found.source
        self.model = found.model
        self.session = session
        self.directory = session.directory.new_job(nodeid)
        self.image: Image | None = None
        self.job: Job | None = None
        self.result: Result | None = None
        self._complete = model
        session.directory.keep(self.failed(LOST, FailureClass.INFRASTRUCTURE), self.directory)

    def complete(self) -> Model:
        """The card as it is to run; a dynamic one completes itself here, and the context may replace its arguments."""
        self.model = self.session.context.applied_to(self._complete())
        return self.model

    def backend(self, chosen: Backend) -> Backend:
        """Where the job runs: a model that manages its own containers runs on the host."""
        launcher = compose.launcher_of(self.model, self.session.jobs)
        return self.session.backends["host"] if launcher and launcher.self_managed else chosen

    def run(self, job: Job, backend: Backend) -> Result:
        """Run the job, once; keeps the Result on disk before anybody reports it.

        Raises:
            InfrastructureError: the backend failed.
            KeyboardInterrupt: or whatever interrupted the run; the Result is kept nevertheless.
        """
        self.job = job
        try:
            outcome = run(job, backend, self.session.directory)
        except InterruptedRunError as interruption:
            self._conclude(job, interruption.outcome)
            raise interruption.cause from None
        return self._conclude(job, outcome)

    def run_shared(self, job: Job, backend: Backend, *, afresh: bool) -> Result:
        """Run the job unless the session has a Result of this very job; items that want the same share one.

        Args:
            job: what to run.
            backend: where.
            afresh: run it in any case.
        """
        kept = self._shared(job, backend)
        with FileLock(f"{kept}.lock"):
            if kept.exists() and not afresh:
                self.discard()
            else:
                kept.write_text(self.run(job, backend).to_json(), encoding="utf-8")
        self.result = Result.from_json(kept.read_text(encoding="utf-8"))
        return self.result

    def _shared(self, job: Job, backend: Backend) -> Path:
        folder = self.session.directory.path / "shared"
        folder.mkdir(exist_ok=True)
        return folder / f"{_content(job, backend)}.json"

    def _conclude(self, job: Job, outcome: Outcome) -> Result:
        masker = Masker(job.secrets.values())
        for path in (outcome.log, *outcome.artifacts.values()):
            logscan.mask(path, masker)
        measured = measure.measure(self.model, self.source, self.session.context, outcome)
        verdict = judge(columns(self.model, self._facts(outcome)), outcome, measured, job.limit)
        return self._keep(
            Result(
                id=job.id,
                nodeid=self.nodeid,
                model=self.model.name,
                status=verdict.status,
                rows=verdict.rows,
                reason=verdict.reason,
                failure=verdict.failure,
                duration=model_duration(outcome),
                log=str(outcome.log),
                tail=logscan.tail(outcome.log) if verdict.reason else (),
            )
        )

    def discard(self) -> None:
        """Leave no Result: the item needs no run of its own."""
        self.session.directory.discard(self.directory)

    def failed_by(self, error: BaseException) -> Result:
        """The Result of an item whose setup failed."""
        if isinstance(error, BuildError):
            self.image = Image(reference="", dockerfile=error.dockerfile)
            failed = self.failed(error.reason, FailureClass.BUILD)
            return self._keep(replace(failed, log=error.log, tail=error.tail))
        if isinstance(error, InfrastructureError):
            return self._keep(self.failed(str(error), FailureClass.INFRASTRUCTURE))
        if isinstance(error, MadengineError):
            return self._keep(self.failed(str(error), FailureClass.MODEL))
        reason = f"setup failed: {type(error).__name__}: {error}"
        return self._keep(self.failed(reason, FailureClass.INFRASTRUCTURE))

    def skipped(self, reason: str) -> Result:
        """The Result of an item that is not to run here."""
        return self._keep(self._plain(SKIPPED, reason, FailureClass.NONE))

    def failed(self, reason: str, failure: FailureClass) -> Result:
        """The Result of an item that measured nothing."""
        return self._plain(FAILURE, reason, failure)

    def _plain(self, status: str, reason: str, failure: FailureClass) -> Result:
        return Result(
            id=self._id(),
            nodeid=self.nodeid,
            model=self.model.name,
            status=status,
            rows=single(columns(self.model, self._facts()), status),
            reason=reason,
            failure=failure,
        )

    def _id(self) -> str:
        return self.job.id if self.job else compose.job_id(self.session.directory.run_id, self.directory)

    def _keep(self, result: Result) -> Result:
        self.result = result
        self.session.directory.keep(result, self.directory)
        return result

    def _facts(self, outcome: Outcome | None = None) -> Facts:
        session = self.session
        backend = session.backends[session.target]
        launcher = session.context.distribution(self.model).launcher or os.environ.get("MAD_LAUNCHER", "")
        return Facts(
            deployment=os.environ.get("MAD_DEPLOYMENT_TYPE", backend.deployment),
            launcher=launcher or backend.name,
            architecture=session.machine.architecture,
            hostname=session.machine.hostname,
            environ=os.environ,
            image=self.image,
            job=self.job,
            outcome=outcome,
        )


def _content(job: Job, backend: Backend) -> str:
    """A hash of all that makes one job differ from another, its folder and name aside."""
    plain = replace(job, id="", directory=Path(), name="")
    text = json.dumps([backend.name, asdict(plain)], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
