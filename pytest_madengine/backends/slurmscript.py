"""The shell texts that SLURM runs for a job; pure but for reading templates."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pytest_madengine import assets
from pytest_madengine.backends.containers import (
    DEFAULT_PRESET,
    JOB,
    JOB_LABEL,
    PLACES,
    PRESETS,
    PROJECT,
    RUN_LABEL,
    WORKSPACE,
)
from pytest_madengine.context.slurm import Slurm, directive
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.jobs.job import Job
from pytest_madengine.launchers.base import quoted

OF_NODE = (
    *("NODE_LIST", "MASTER_ADDR", "MASTER_PORT", "NNODES", "WORLD_SIZE", "NPROC_PER_NODE", "GPUS_PER_NODE", "RANK"),
    *("NODE_RANK", "MAD_NODE_RANK", "MAD_TOTAL_NODES", "MAD_DEPLOYMENT_TYPE", "MAD_IN_SLURM_JOB", "MAD_SLURM_JOB_ID"),
    *("TORCH_ELASTIC_RDZV_TIMEOUT", "MIOPEN_USER_DB_PATH", "MAD_SYSTEM_NGPUS", "MAD_SYSTEM_GPU_ARCHITECTURE"),
)
"""Variables that the scripts find out on the nodes."""
KEPT = ("HOME", "USER", "LOGNAME", "LANG")
"""All that jobs see of the environment of the login node."""


def scripts(job: Job) -> dict[str, str]:
    """The script for sbatch, the one that each node runs, and the one that brings the image to it."""
    stated = Slurm.model_validate(job.cluster)
    return {"job.sh": _job(job, stated), "node.sh": _node(job, stated), "image.sh": _image(job)}


def _job(job: Job, stated: Slurm) -> str:
    nodes, processes = job.topology.nodes, job.topology.processes_per_node
    options = [
        ("job-name", f"madengine-{job.name}"),
        ("comment", job.id),
        ("output", str(job.directory / "slurm.log")),
        ("open-mode", "append"),
        ("export", ",".join([*KEPT, *sorted(job.secrets)])),
    ]
    return assets.render(
        "slurm/job.sh.j2",
        name=job.name,
        options=[
            *(directive(*option) for option in options),
            directive("no-requeue"),
            *(directive(*option) for option in stated.sbatch_options(job.avoid)),
        ],
        directory=str(job.directory),
        modules=stated.modules,
        prologue=stated.prologue,
        epilogue=stated.epilogue,
        nodes=nodes,
        processes=processes,
        world_size=nodes * processes,
        gpus=len(job.devices.gpus),
        port=job.topology.master_port,
        image=job.image.reference if _contained(job, stated) and job.image else "",
    )


def _node(job: Job, stated: Slurm) -> str:
    return assets.render(
        "slurm/node.sh.j2",
        name=job.name,
        id=job.id,
        directory=str(job.directory),
        project=str(job.project),
        nodes=job.topology.nodes,
        network_interface=stated.network_interface or "",
        expressions=[(name, quoted(value)) for name, value in job.expressions.items()],
        variables=list(job.env.items()),
        argv=_docker(job) if _contained(job, stated) else "",
    )


def _contained(job: Job, stated: Slurm) -> bool:
    return job.image is not None and stated.container_runtime != "none"


def _docker(job: Job) -> str:
    """The `docker run` of one node, as shell text: variables are exported there, and named here."""
    if job.image is None:
        raise InfrastructureError(f"{job.name}: a container needs an image")
    preset = assets.preset(PRESETS.get(job.devices.vendor, DEFAULT_PRESET))
    names = {*job.env, *job.secrets, *job.expressions, *OF_NODE}
    options = [
        *preset["options"],
        *([f"--cpuset-cpus={job.cpus}"] if job.cpus else []),
        f"--mount=type=bind,source={job.project},target={PROJECT}",
        *(f"--volume={m.source}:{m.target}{':ro' if m.read_only else ''}" for m in job.mounts),
        f"--workdir={WORKSPACE}",
        *(f"--env={name}" for name in sorted(names)),
        *(f"--env={name}={value}" for name, value in PLACES.items()),
        *(option for option in job.options if option != "--rm"),
        *("--rm", "--init", "--entrypoint=bash", f"--label={RUN_LABEL}={job.run}", f"--label={JOB_LABEL}={job.id}"),
    ]
    words = [
        "docker run",
        f'--name={shlex.quote(job.id)}-"$rank"',
        f'--mount=type=bind,source="$here",target={JOB}',
        f'--mount=type=bind,source="$here/workspace",target={WORKSPACE}',
        '--env=MADENGINE_OWNER="$(id -u):$(id -g)"',
        *_device_words(preset["devices"], job.devices.vendor if job.devices.gpus else ""),
        shlex.join(options),
        shlex.join([job.image.reference, f"{JOB}/run.sh"]),
    ]
    return " ".join(words)


def _device_words(common: Iterable[str], vendor: str) -> list[str]:
    """What exists on the node of the devices that a container is to see."""
    if vendor == "NVIDIA":
        return ["--gpus=all"]
    wanted = [*common, *(["/dev/kfd", "/dev/dri"] if vendor == "AMD" else [])]
    return [f"$([ ! -e {device} ] || echo --device={device})" for device in wanted]


def _image(job: Job) -> str:
    reference = job.image.reference if job.image else ""
    return assets.render("slurm/image.sh.j2", reference=reference, digest=job.image.digest if job.image else "")
