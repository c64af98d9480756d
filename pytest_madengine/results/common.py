"""The columns that all rows of one item share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_madengine.backends.base import Outcome
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Job
from pytest_madengine.models.model import Model


@dataclass(frozen=True)
class Facts:
    """What is known of an item beside its card; all but the first four may come later or never.

    Attributes:
        deployment: `local`, `host`, `slurm` or `kubernetes`.
        launcher: the launcher's name, or the backend's word for none.
        architecture: the GPU's.
        environ: the user's shell, for CI's build number and pipeline.
        partition: of the item, where a model is run in several; it tells their rows apart.
    """

    deployment: str
    launcher: str
    architecture: str
    environ: Mapping[str, str]
    hostname: str = ""
    partition: str = ""
    image: Image | None = None
    job: Job | None = None
    outcome: Outcome | None = None


def columns(model: Model, facts: Facts) -> dict[str, str]:
    """The row of an item so far, as text."""
    card = {
        "model": f"{model.name}[{facts.partition}]" if facts.partition else model.name,
        "n_gpus": str(model.n_gpus),
        "training_precision": model.training_precision,
        "args": model.args,
        "tags": ",".join(model.tags),
        "dataname": model.data,
        "additional_docker_run_options": model.additional_docker_run_options,
        "pipeline": facts.environ.get("pipeline", ""),
        "build_number": facts.environ.get("BUILD_NUMBER", "0"),
        "deployment_type": facts.deployment,
        "launcher": facts.launcher,
        "gpu_architecture": facts.architecture,
        "machine_name": facts.hostname,
    }
    return {**card, **_of_image(facts.image), **_of_job(facts.job), **_of_outcome(facts.outcome)}


def seconds(value: float) -> str:
    """A duration with milliseconds."""
    return f"{value:.3f}"


def model_duration(outcome: Outcome) -> float:
    """Seconds that the model's own script ran; 0 when it never began. One that was cut short ran to the end."""
    phase = outcome.phase("model")
    if phase is None:
        return 0.0
    if phase.code < 0:
        return max(0.0, outcome.duration - (phase.started - outcome.phases[0].started))
    return phase.ended - phase.started


def hosts(outcome: Outcome, known: Mapping[int, str]) -> tuple[str, ...]:
    """The node of each rank, in their order; '' where it is not known."""
    ranks = sorted({*outcome.ranks, *outcome.folders, *known})
    return tuple(known.get(rank, "") for rank in ranks) or tuple(filter(None, [outcome.node]))


def _of_image(image: Image | None) -> dict[str, str]:
    if image is None:
        return {}
    return {
        "docker_file": image.dockerfile,
        "base_docker": image.base,
        "docker_sha": image.base_digest,
        "docker_image": image.reference,
        "build_duration": seconds(image.build_duration),
    }


def _of_job(job: Job | None) -> dict[str, str]:
    if job is None:
        return {}
    per_node = len(job.devices.gpus)
    nodes = job.topology.nodes
    return {"n_gpus": str(nodes * per_node), "nnodes": str(nodes), "gpus_per_node": str(per_node)}


def _of_outcome(outcome: Outcome | None) -> dict[str, str]:
    if outcome is None:
        return {}
    columns = {"git_commit": outcome.git_commit, "test_duration": seconds(model_duration(outcome))}
    found = {"machine_name": outcome.node, "gpu_architecture": outcome.machine.get("architecture", "")}
    return columns | {name: value for name, value in found.items() if value}
