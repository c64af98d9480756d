"""What a job's container looks like, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pytest_madengine import assets
from pytest_madengine.jobs.job import Job

JOB, PROJECT, WORKSPACE = "/madengine/job", "/madengine/project", "/myworkspace"
PLACES = {"MADENGINE_JOB": JOB, "MADENGINE_PROJECT": PROJECT, "MADENGINE_WORKSPACE": WORKSPACE}
"""The variables by which the job's script knows them."""
RUN_LABEL, JOB_LABEL = "madengine.run", "madengine.job"
PRESETS = {"AMD": "docker/amd", "NVIDIA": "docker/nvidia"}
"""Files of presets/ by the GPUs' vendor."""
DEFAULT_PRESET = PRESETS["AMD"]


def preset(job: Job) -> Mapping[str, Any]:
    """The options and devices that suit the GPUs of a job's machines."""
    vendor = job.devices.vendor or job.env.get("MAD_GPU_VENDOR", "")
    return assets.preset(PRESETS.get(vendor, DEFAULT_PRESET))


def options(job: Job, own: Iterable[str]) -> list[str]:
    """What `docker run` is told on every machine, as arguments, but for its name, devices and the job's folders.

    Args:
        job: what is to run.
        own: options of the backend's own, such as variables; those of the card stand above them.
    """
    return [
        *preset(job)["options"],
        *([f"--cpuset-cpus={job.cpus}"] if job.cpus else []),
        bind(str(job.project), PROJECT),
        *(f"--volume={m.source}:{m.target}{':ro' if m.read_only else ''}" for m in job.mounts),
        f"--workdir={WORKSPACE}",
        *own,
        *(option for option in job.options if option != "--rm"),
        # after the card's own options, so that these hold
        "--entrypoint=bash",
        *(f"--label={RUN_LABEL}={job.run}", f"--label={JOB_LABEL}={job.id}"),
    ]


def bind(source: str, target: str) -> str:
    """A mount of ours; `--volume` would stumble over a colon."""
    return f"--mount=type=bind,{csv('source', source)},target={target}"


def csv(key: str, value: str) -> str:
    """A pair for options that read their value as a line of CSV."""
    doubled = value.replace('"', '""')
    return f'"{key}={doubled}"'
