"""What the objects of a job are called in Kubernetes, and how its pods find each other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from pytest_madengine.context.kubernetes import LONGEST_LABEL
from pytest_madengine.jobs.job import Job

RUN_LABEL, JOB_LABEL, MODEL_LABEL = "madengine.run", "madengine.job", "model"
APP = {"app": "madengine", "app.kubernetes.io/managed-by": "pytest-madengine"}
"""Labels of all objects that are made here."""
NAME, JOB = "madengine.name", "madengine.id"
"""Annotations with the model's name and the job's id as they are."""
RANKS = "n"
"""What a JobSet calls its only group of pods."""
PREFIX = "madengine-"
READABLE = 24
"""Characters of the model's name within that of an object: operators add up to 18 to it, and pods may have 63."""
_UNFIT_FOR_DNS = re.compile(r"[^a-z0-9]+")
_UNFIT_FOR_VALUES = re.compile(r"[^A-Za-z0-9._-]+")
_ENDS = "._-"


def dns_label(text: str, longest: int = LONGEST_LABEL) -> str:
    """`text` as a DNS label; where that changes or shortens it, a hash keeps different texts apart.

    Args:
        text: any.
        longest: characters, at least 20.
    """
    fit = _UNFIT_FOR_DNS.sub("-", text.lower()).strip("-")
    return fit if fit and fit == text and len(fit) <= longest else _hashed(fit, text, longest)


def label_value(text: str) -> str:
    """`text` as the value of a label; where that changes or shortens it, a hash keeps different texts apart."""
    fit = _UNFIT_FOR_VALUES.sub("-", text).strip(_ENDS)
    return fit if fit == text and len(fit) <= LONGEST_LABEL else _hashed(fit, text, LONGEST_LABEL)


def object_name(job: Job) -> str:
    """What a job's objects are called: a DNS label of at most 45 characters, unique for each job's id."""
    readable = _UNFIT_FOR_DNS.sub("-", job.name.lower()).strip("-")[:READABLE].strip("-")
    return f"{PREFIX}{readable or 'model'}-{_hash(job.id)}"


def labels(job: Job) -> dict[str, str]:
    """By what all objects of a job are found."""
    return {**APP, MODEL_LABEL: label_value(job.name), **selector(job)}


def selector(job: Job) -> dict[str, str]:
    """By what nothing but the objects of this job is found."""
    return {RUN_LABEL: label_value(job.run), JOB_LABEL: label_value(job.id)}


def of_run(run: str) -> str:
    """The label selector for all objects of a run."""
    return f"{RUN_LABEL}={label_value(run)}"


def hosts(job: Job, shape: str) -> tuple[str, ...]:
    """The names by which a job's pods reach each other in their namespace, rank 0 first.

    Args:
        job: what runs in them.
        shape: `job`, `jobset` or `leaderworkerset`.
    """
    name = object_name(job)
    return tuple(f"{pod}.{name}" for pod in _pods(name, shape, range(job.topology.nodes)))


def _pods(name: str, shape: str, ranks: Iterable[int]) -> Iterable[str]:
    """Host names of pods; a leader of a LeaderWorkerSet has no number of its own."""
    if shape == "leaderworkerset":
        return (f"{name}-0-{rank}" if rank else f"{name}-0" for rank in ranks)
    group = f"{name}-{RANKS}-0" if shape == "jobset" else name
    return (f"{group}-{rank}" for rank in ranks)


def _hashed(fit: str, text: str, longest: int) -> str:
    code = _hash(text)
    return f"{fit[: longest - len(code) - 1].strip(_ENDS) or 'x'}-{code}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:10]
