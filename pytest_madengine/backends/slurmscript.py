"""The shell texts that SLURM runs for a job; pure but for reading templates."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path

from pytest_madengine import assets
from pytest_madengine.backends import runtimes
from pytest_madengine.context.slurm import Slurm, directive
from pytest_madengine.jobs.job import Job
from pytest_madengine.launchers.base import quoted
from pytest_madengine.secrets import Secret

OF_NODE = (
    *("NODE_LIST", "NODE_IPS", "MASTER_ADDR", "MASTER_PORT", "NNODES", "WORLD_SIZE", "NPROC_PER_NODE"),
    *("GPUS_PER_NODE", "RANK", "MADENGINE_JOB_ID"),
    *("NODE_RANK", "MAD_NODE_RANK", "MAD_TOTAL_NODES", "MAD_DEPLOYMENT_TYPE", "MAD_IN_SLURM_JOB", "MAD_SLURM_JOB_ID"),
    *("TORCH_ELASTIC_RDZV_TIMEOUT", "MIOPEN_USER_DB_PATH", "MAD_SYSTEM_NGPUS", "MAD_SYSTEM_GPU_ARCHITECTURE"),
    *("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES"),
    *("MAD_SYSTEM_GPU_PRODUCT_NAME", "MAD_SYSTEM_HIP_VERSION"),
)
"""Variables that the scripts find out on the nodes."""
JOB = "job.sh"
"""The script for sbatch."""
TROUBLE, FINISHED, HARD, NODES = "trouble", "finished", "hard", "nodes"
"""Files of a job's folder: why it could not run; that its script is over; that it is to end at once; its nodes."""
LOG = "slurm.log"
"""What the scripts and SLURM itself say, in the job's folder."""
KEPT = ("HOME", "USER", "LOGNAME", "LANG")
"""All that jobs see of the environment of the login node."""
OF_SLURM = ("SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_")
"""What names of variables begin with that speak to sbatch, and of nothing that this process may be a part of."""
OVERRULING = tuple(
    f"SBATCH_{name}" for name in ("JOB_NAME", "OPEN_MODE", "EXPORT", "GET_USER_ENV", "REQUEUE", "NO_REQUEUE", "WAIT")
)
"""Those by which a user's defaults would count more than what the script says of itself."""
PLACES = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def scripts(job: Job, *, steps: bool = False) -> dict[str, str]:
    """The script for sbatch, the one that each node runs, and the one that brings the image to it.

    Args:
        job: what is to run.
        steps: whether the first is to find free nodes in the allocation that it runs in.
    """
    stated = Slurm.model_validate(job.cluster)
    texts = {JOB: _job(job, stated, steps=steps), "node.sh": _node(job, stated)}
    return {**texts, "image.sh": runtimes.image_script(job, stated)}


def secrets(job: Job) -> dict[str, Secret]:
    """What the scripts need and nobody is to see; models do not see the logins."""
    return {**job.secrets, **job.logins.variables}


def _job(job: Job, stated: Slurm, *, steps: bool) -> str:
    nodes, processes = job.topology.nodes, job.topology.processes_per_node
    return assets.render(
        "slurm/job.sh.j2",
        name=job.name,
        id=job.id,
        options=options(f"madengine-{job.name}", job.id, job.directory / LOG, stated.sbatch_options(job.avoid)),
        directory=str(job.directory),
        modules=stated.modules,
        prologue=stated.prologue,
        epilogue=stated.epilogue,
        nodes=nodes,
        processes=processes,
        world_size=nodes * processes,
        gpus=len(job.devices.gpus),
        port=job.topology.master_port,
        steps=steps,
        nodelist=stated.nodelist or "",
        exclude=stated.exclude or "",
        self_managed=job.self_managed,
        here=job.self_managed or (nodes == 1 and not steps),
        logins=sorted(job.logins.variables),
        image=job.image is not None and stated.container_runtime != "none",
    )


def _node(job: Job, stated: Slurm) -> str:
    return assets.render(
        "slurm/node.sh.j2",
        name=job.name,
        id=job.id,
        directory=str(job.directory),
        nodes=job.topology.nodes,
        ranks=1 if job.self_managed else job.topology.nodes,
        self_managed=job.self_managed,
        gpus=len(job.devices.gpus),
        visible=job.visible_devices if job.devices.gpus else (),
        run=runtimes.run(job, stated, (*OF_NODE, *job.visible_devices)),
        stop=runtimes.stop(job, stated),
        clean=runtimes.clean(job, stated),
        limit=f"{job.limit:g}" if job.limit else "",
        workspace=stated.shared_workspace or "",
        network_interface=stated.network_interface or "",
        expressions=[(name, quoted(value)) for name, value in job.expressions.items()],
        variables=list(job.env.items()),
    )


def environment(environ: Mapping[str, str], program: str, secrets: Mapping[str, str]) -> dict[str, str]:
    """The environment for sbatch, which a job gets as it is.

    `--export=NAME,...` would keep the rest of a user's environment away too, but makes each node start a login shell
    for each job, one after another, whose variables the job then has.

    Args:
        environ: the user's.
        program: path of sbatch; nodes are likely to have SLURM's commands in the same folder.
        secrets: what the job is to have beside what is `KEPT`.
    """
    speaking = (name for name in environ if name.startswith(OF_SLURM) and name not in OVERRULING)
    kept = {name: environ[name] for name in (*KEPT, *speaking) if name in environ}
    return {**kept, "PATH": f"{posixpath.dirname(program)}:{PLACES}".lstrip(":"), **secrets}


def options(name: str, comment: str, log: Path, stated: Iterable[tuple[str, str | None]]) -> list[str]:
    """The lines for sbatch: a job's names, where it prints, what it sees of the environment, and what it asks for."""
    own = [
        ("job-name", name),
        ("comment", comment),
        ("output", str(log)),
        ("open-mode", "append"),
        ("export", "ALL"),
        ("no-requeue", None),
    ]
    return [directive(*option) for option in (*own, *stated)]
