"""Makes the Results of an item: of one whose job ended, and of one that measured nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from pytest_madengine import __version__
from pytest_madengine.backends.base import Outcome
from pytest_madengine.backends.base import Phase as JobPhase
from pytest_madengine.backends.facts import LOG
from pytest_madengine.context import credentials
from pytest_madengine.engine import logscan, measure
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Job
from pytest_madengine.models.model import Model, Source
from pytest_madengine.results import selfmanaged
from pytest_madengine.results.common import Facts, columns, hosts, model_duration
from pytest_madengine.results.failures import classified
from pytest_madengine.results.judge import Verdict, judge, single
from pytest_madengine.results.metric import metrics_of
from pytest_madengine.results.perf import FAILURE, SKIPPED
from pytest_madengine.results.result import FailureClass, Result, Row, Step
from pytest_madengine.secrets import Masker
from pytest_madengine.session import Session


@dataclass(frozen=True)
class Subject:
    """One try at an item.

    Attributes:
        id: of the job, be it submitted or not.
        number: which try it is, from 1.
        partition: SLURM's, where the model runs in several.
        submitted: when its job was, epoch seconds; 0 where none was.
    """

    id: str
    nodeid: str
    number: int
    model: Model
    source: Source
    partition: str = ""
    image: Image | None = None
    job: Job | None = None
    submitted: float = 0.0


def unmeasured(session: Session, subject: Subject, status: str, reason: str, failure: FailureClass) -> Result:
    """The Result of a try that measured nothing: it failed before it could, or was skipped.

    Args:
        session: knows where models run.
        subject: the try.
        status: FAILURE or SKIPPED.
        reason: why.
        failure: whose fault that is.
    """
    rows = single(columns(subject.model, _facts(session, subject)), status)
    made = replace(_begun(session, subject, rows), status=status, reason=reason, failure=failure)
    return replace(made, metrics=()) if status == SKIPPED else made


def measured(session: Session, subject: Subject, job: Job, outcome: Outcome) -> Result:
    """The Result of a job that ended; secrets are taken out of all that it left before anything is read.

    Raises:
        Exception: whatever comes of what a job may leave behind.
    """
    paths = _left(outcome)
    _mask(session, job, [outcome.log, *(folder / LOG for folder in outcome.folders.values()), *paths])
    places = selfmanaged.of_job(subject.model, job)
    found = measure.measure(subject.model, subject.source, session.context, outcome, places, job.measuring)
    ranks = 1 if job.self_managed else job.topology.nodes
    verdict = judge(columns(subject.model, _facts(session, subject, outcome)), outcome, found, job.limit, ranks)
    folder = outcome.folders.get(verdict.rank)
    log = folder / LOG if folder else outcome.log
    tail = logscan.tail(log) if verdict.reason else ()
    return replace(
        _begun(session, subject, verdict.rows, outcome),
        id=job.id,
        status=verdict.status,
        reason=verdict.reason,
        failure=_class(session, verdict, tail, outcome),
        duration=model_duration(outcome),
        log=str(log),
        tail=tail,
        notes=verdict.notes,
        hosts=hosts(outcome, found.hosts),
        artifacts=tuple(map(str, paths)),
        steps=tuple(map(_step, outcome.phases)),
    )


def _begun(session: Session, subject: Subject, rows: tuple[Row, ...], outcome: Outcome | None = None) -> Result:
    """What is true of a try however it went; that it failed is to be replaced."""
    image = subject.image
    machine = _machine(session, outcome)
    return Result(
        id=subject.id,
        nodeid=subject.nodeid,
        model=subject.model.name,
        status=FAILURE,
        rows=rows,
        hosts=() if session.backends[session.target].remote else (session.machine.hostname,),
        machine=machine,
        run=session.directory.run_id,
        attempt=subject.number,
        started=moment(subject.submitted) if subject.submitted else "",
        ended=now(),
        image=image.reference if image else "",
        digest=(image.digest or image.registry_digest) if image else "",
        versions={**_versions(machine), **(session.versions if outcome else {})},
        metrics=metrics_of(rows),
        source=f"{subject.source.file}:{subject.source.line}",
    )


def now() -> str:
    """The present moment, ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def moment(epoch: float) -> str:
    """A moment, ISO 8601 in UTC.

    Args:
        epoch: seconds since 1970.
    """
    return datetime.fromtimestamp(epoch, timezone.utc).isoformat(timespec="milliseconds")


def _left(outcome: Outcome) -> list[Path]:
    """The files that the model left, on each rank, each once."""
    of_ranks = [path for folder in outcome.folders.values() for path in sorted(folder.glob("artifacts/*"))]
    return list(dict.fromkeys((*outcome.artifacts.values(), *of_ranks)))


def hidden(session: Session, job: Job) -> list[str]:
    """What may not be shown of all that a job knows."""
    known = session.credentials if job.credential else {}
    return [*job.secrets.values(), *credentials.hidden_texts(known)]


def _mask(session: Session, job: Job, paths: list[Path]) -> None:
    masker = Masker(hidden(session, job))
    for path in paths:
        logscan.mask(path, masker)


def _step(phase: JobPhase) -> Step:
    return Step(phase.name, moment(phase.started), moment(phase.ended) if phase.code >= 0 else "")


def _class(session: Session, verdict: Verdict, tail: tuple[str, ...], outcome: Outcome) -> FailureClass:
    code = outcome.ranks.get(verdict.rank, outcome.exit_code)
    return classified(verdict.failure, verdict.reason, tail, code, session.failure_rules)


def _machine(session: Session, outcome: Outcome | None) -> dict[str, str]:
    """What is known of the first node: the job's own words, on this machine what the session found out."""
    if outcome and outcome.machine:
        return dict(outcome.machine)
    if session.backends[session.target].remote:
        return {}
    here = session.machine
    known = {name: getattr(here, name) for name in ("vendor", "architecture", "product", "toolkit")}
    known |= {"gpus": str(here.gpus), "driver": here.toolkit if here.vendor == "NVIDIA" else ""}
    return {name: value for name, value in known.items() if value}


def _versions(machine: Mapping[str, str]) -> dict[str, str]:
    ours = {"pytest-madengine": __version__, "python": platform.python_version()}
    return {**ours, **{name: machine[name] for name in ("toolkit", "driver") if machine.get(name)}}


def _facts(session: Session, subject: Subject, outcome: Outcome | None = None) -> Facts:
    backend = session.backends[session.target]
    launcher = session.context.distribution(subject.model).launcher or os.environ.get("MAD_LAUNCHER", "")
    return Facts(
        deployment=os.environ.get("MAD_DEPLOYMENT_TYPE", backend.deployment),
        launcher=launcher or backend.name,
        architecture=session.machine.architecture,
        hostname="" if backend.remote else session.machine.hostname,
        environ=os.environ,
        partition=subject.partition,
        image=subject.image,
        job=subject.job,
        outcome=outcome,
    )
