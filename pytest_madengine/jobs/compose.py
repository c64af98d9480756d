"""Composes a Job from a card, the context, the machine and an image; pure but for rendering the script."""

from __future__ import annotations

import posixpath
import shlex
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_madengine import assets
from pytest_madengine.backends import runtimes
from pytest_madengine.context import credentials, presets
from pytest_madengine.context.context import Context, Script, parse_gpus
from pytest_madengine.context.machine import Machine
from pytest_madengine.context.presets import Merged
from pytest_madengine.engine.rundir import job_prefix
from pytest_madengine.errors import Fault, FaultsError, InfrastructureError, UserError, nearest
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Devices, Job, Logins, Mount
from pytest_madengine.launchers.base import CUDA, PORT, ROCR, Launcher, Topology
from pytest_madengine.models.model import Model, Source
from pytest_madengine.results import selfmanaged
from pytest_madengine.secrets import Secret, is_secret, secrets_of_environment

DEFAULT_TIMEOUT = 7200
OWN_PORTS = 20_000
"""From here on, below those that systems give out by themselves, 10,000 ports are for jobs that share nodes."""
PASSED_ON = (
    *("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "NODE_RANK", "NNODES", "NPROC_PER_NODE"),
    *(
        "MAD_MULTI_NODE_RUNNER",
        "MAD_COLLECT_METRICS",
        "NCCL_SOCKET_IFNAME",
        "GLOO_SOCKET_IFNAME",
        "NCCL_DEBUG",
    ),
    *("NCCL_IB_DISABLE", "NCCL_NET_GDR_LEVEL", "PRIMUS_CONFIG_PATH", "PRIMUS_CLI_EXTRA"),
    *("TORCH_ELASTIC_RDZV_TIMEOUT", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    "MIOPEN_USER_DB_PATH",
)
"""Variables of the user's shell that reach the model, as the replaced tool lets them."""


def _none(_: str) -> Logins:
    """Nobody has to log in."""
    return Logins()


@dataclass(frozen=True)
class Session:
    """What all jobs of a session share.

    Attributes:
        run: id of the run directory.
        context: the merged configuration.
        machine: this host.
        launchers: by every name and alias.
        credentials: credential.json with the environment's overrides.
        environ: the environment of the user's shell.
        timeout: `--madengine-timeout`, None when not given.
        reservation: `--madengine-reservation`, '' when not given.
        logins: those that other machines need to pull an image.
        remote: whether jobs run on nodes of a cluster, and nothing of this machine counts.
    """

    run: str
    context: Context
    machine: Machine
    launchers: Mapping[str, Launcher]
    credentials: Mapping[str, Any] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    timeout: float | None = None
    reservation: str = ""
    remote: bool = False
    logins: Callable[[str], Logins] = field(default=_none, repr=False)


def job(model: Model, source: Source, image: Image | None, directory: Path, session: Session) -> Job:
    """The job of one model.

    Raises:
        UserError: the card cannot be run as written.
        InfrastructureError: it needs more than this machine has.
    """
    _require_scripts(model, source)
    if model.data:
        raise UserError(f"{model.name}: data {model.data!r}: data providers do not run in this version")
    launcher = launcher_of(model, session)
    merged = presets.for_model(model, session.context, source, session.reservation) if session.remote else None
    devices = _of_nodes(merged, session.machine) if merged else _devices(model, session)
    _require_options(model, image, launcher, merged)
    topology = _on_nodes(merged, model, launcher) if merged else _topology(model, session, launcher, devices)
    credential = credentials.of(model, session.credentials)
    context = session.context
    options = _launcher_options(model, context)
    launch = (launcher or session.launchers["torchrun"]).environment(topology, options)
    variables = _environment(model, session, image, devices, merged)
    variables = {**({} if merged else launch), **variables, **_image_of_containers(model, launcher, image, merged)}
    prepare = launcher.prepare(topology, options) if launcher and merged else ""
    return Job(
        id=job_id(session.run, directory),
        run=session.run,
        name=model.name,
        script=_script(model, context, credential, prepare, _places(model, launcher, merged)),
        directory=directory,
        project=source.root,
        env={name: value for name, value in variables.items() if not is_secret(name)},
        secrets={
            **secrets(model, session),
            **{
                name: Secret(value)
                for name, value in variables.items()
                if is_secret(name) and name not in context.secrets
            },
        },
        limit=limit(model, context, session.timeout),
        image=image,
        mounts=_mounts(context),
        devices=devices,
        cpus=context.docker_cpus or "",
        options=_options(model),
        topology=topology,
        self_managed=bool(launcher and launcher.self_managed),
        logins=logins(image, session),
        **(_for_cluster(merged, launcher or session.launchers["torchrun"], devices) if merged else {}),
        expressions={name: value for name, value in launch.items() if merged and name not in variables},
    )


def _for_cluster(merged: Merged, launcher: Launcher, devices: Devices) -> dict[str, Any]:
    return {
        "cluster": merged.slurm.model_dump(mode="json", exclude_unset=True),
        "visible_devices": _visible_devices(launcher, devices),
    }


def logins(image: Image | None, session: Session) -> Logins:
    """Those that nodes need for the image, if they pull it."""
    pulled = session.remote and image is not None and not image.archive
    return session.logins(image.registry_image or image.reference) if pulled and image else Logins()


def secrets(model: Model, session: Session) -> dict[str, Secret]:
    """What the job may not show: of the user's shell, the card's credential, card and context.

    Raises:
        UserError: the card names a credential that is not there.
    """
    context = session.context
    variables = {**model.env_vars, **context.env_vars, **context.docker_env_vars}
    return {
        **secrets_of_environment(session.environ),
        **credentials.variables(model, session.credentials),
        **{name: Secret(value) for name, value in variables.items() if is_secret(name)},
        **{name: Secret(value) for name, value in context.secrets.items()},
    }


def job_id(run: str, directory: Path) -> str:
    """Unique on every host, and valid as a container's name."""
    return f"{job_prefix(run)}{directory.name}"


def limit(model: Model, context: Context, option: float | None) -> float | None:
    """Seconds a run may take: the option, else the context's, else the card's, else 7200; 0 means no limit.

    -1 stands for "not given", as in the wiki's table.
    """
    given = [value for value in (option, context.timeout, model.timeout) if value is not None and value != -1]
    seconds = given[0] if given else DEFAULT_TIMEOUT
    return float(seconds) if seconds else None


def launcher_of(model: Model, session: Session) -> Launcher | None:
    """The launcher that the context, the card or MAD_LAUNCHER names; None where nobody does.

    Raises:
        FaultsError: no launcher has that name.
    """
    named = session.context.distribution(model).launcher or session.environ.get("MAD_LAUNCHER", "")
    if not named or named in session.launchers:
        return session.launchers.get(named)
    known = sorted({launcher.name for launcher in session.launchers.values()})
    where = f"{model.name}: distributed.launcher"
    raise FaultsError(
        [Fault(where, f"unknown launcher {named!r}", ", ".join(known), nearest(named, session.launchers))]
    )


def run_directory(model: Model) -> str:
    """Where the model runs inside its workspace: named after its repository, else `run_directory`."""
    name = posixpath.basename(model.url.rstrip("/")).removesuffix(".git")
    return "run_directory" if name in ("", ".", "..") else name


def _require_scripts(model: Model, source: Source) -> None:
    place = f"{source.file}:{source.line}: {model.name}.scripts"
    if not model.scripts:
        raise FaultsError([Fault(place, "is missing", "a .sh or .py file, or a folder with run.sh")])
    if not (source.root / model.scripts_folder / model.entry).is_file() and not model.url:
        wanted = posixpath.join(model.scripts_folder, model.entry)
        raise FaultsError([Fault(place, f"{wanted} does not exist under {source.root}", "a script of the project")])


def _devices(model: Model, session: Session) -> Devices:
    """The GPUs that the run gets: the first of those allowed, as many as it asks for.

    Raises:
        InfrastructureError: fewer are there.
    """
    machine = session.machine
    allowed = parse_gpus(session.context.docker_gpus or "all")
    there = list(range(machine.gpus)) if allowed is None else allowed
    if absent := [gpu for gpu in there if gpu >= machine.gpus]:
        raise InfrastructureError(f"docker_gpus names GPU {absent[0]}, {machine.hostname} has {machine.gpus}")
    wanted = session.context.gpus if session.context.gpus is not None else model.n_gpus
    if wanted > len(there):
        restricted = "" if allowed is None else f" (docker_gpus allows {session.context.docker_gpus})"
        raise InfrastructureError(f"{model.name} needs {wanted} GPUs, {machine.hostname} has {len(there)}{restricted}")
    taken = tuple(there if wanted < 0 else there[:wanted])
    render = tuple(machine.render_nodes[gpu] for gpu in taken if gpu < len(machine.render_nodes))
    return Devices(machine.vendor if taken else "", taken, render)


def _mounts(context: Context) -> tuple[Mount, ...]:
    """The context's mounts; Docker makes a host folder that is missing, unless the two sides are swapped.

    Raises:
        UserError: the host lacks the host side and has the container side.
    """
    for container, host in context.docker_mounts.items():
        if not Path(host).exists() and Path(container).exists():
            valid = f"{{{host!r}: {container!r}}}, container path first"
            raise UserError(f"docker_mounts: this host has no {host} but has {container}: swapped? valid: {valid}")
    return tuple(Mount(host, container) for container, host in context.docker_mounts.items())


def _topology(model: Model, session: Session, launcher: Launcher | None, devices: Devices) -> Topology:
    distribution = session.context.distribution(model)
    if launcher and launcher.least_nodes > 1:
        raise UserError(
            f"{model.name}: the launcher {launcher.name} needs at least {launcher.least_nodes} nodes and this target "
            "has one: use --target=slurm or --target=k8s"
        )
    return Topology(
        processes_per_node=distribution.nproc_per_node or max(1, len(devices.gpus)),
        master_port=distribution.port or distribution.master_port or PORT,
    )


def _of_nodes(merged: Merged, machine: Machine) -> Devices:
    return Devices(machine.vendor, tuple(range(merged.slurm.gpus_per_node or 0)))


def _visible_devices(launcher: Launcher, devices: Devices) -> tuple[str, ...]:
    """The variables by which a model on a node sees its GPUs, the one that looks at the hardware itself first."""
    lowest = CUDA if devices.vendor == "NVIDIA" else ROCR
    return tuple(sorted(launcher.visible_devices_of(devices.vendor), key=lambda name: name != lowest))


def _on_nodes(merged: Merged, model: Model, launcher: Launcher | None) -> Topology:
    """The nodes that the scheduler gives.

    Raises:
        UserError: they are fewer than the launcher needs.
    """
    distributed = merged.distributed
    _require_one_partition(merged, model)
    _require_nodes(merged, model, launcher)
    processes = distributed.nproc_per_node or max(1, merged.slurm.gpus_per_node or 0)
    return Topology.of_cluster(merged.slurm.nodes, processes, _port(merged, model))


def _port(merged: Merged, model: Model) -> int:
    """The rendezvous port; where nobody states one and jobs may share nodes, one that other models hardly have."""
    stated = merged.distributed.port or merged.distributed.master_port
    by_preset = merged.origins.get("distributed.port", "").startswith("presets/")
    if stated and not (by_preset and not merged.slurm.exclusive):
        return stated
    return PORT if merged.slurm.exclusive else OWN_PORTS + zlib.crc32(model.name.encode()) % 10_000


def _require_options(model: Model, image: Image | None, launcher: Launcher | None, merged: Merged | None) -> None:
    """Meet options of `docker run` that the container of a job cannot heed.

    Raises:
        FaultsError: the card has such options.
    """
    runtime = merged.slurm.container_runtime if merged else "docker"
    if image and not (launcher and launcher.self_managed):
        runtimes.check_options(_options(model), runtime, f"{model.name}: additional_docker_run_options")


def check_nodes(model: Model, source: Source, session: Session) -> None:
    """Meet a model that asks a cluster for fewer nodes than its launcher needs, before anything is submitted.

    Raises:
        UserError: it does, or its `slurm` or launcher is wrong.
    """
    launcher = launcher_of(model, session) if session.remote else None
    if launcher and launcher.least_nodes > 1:
        _require_nodes(presets.for_model(model, session.context, source, session.reservation), model, launcher)


def _require_nodes(merged: Merged, model: Model, launcher: Launcher | None) -> None:
    if launcher and launcher.least_nodes > merged.slurm.nodes:
        raise UserError(
            f"{model.name}: the launcher {launcher.name} needs at least {launcher.least_nodes} nodes, "
            f"slurm.nodes is {merged.slurm.nodes}"
        )


def _require_one_partition(merged: Merged, model: Model) -> None:
    """Meet a test that asks for a model of which its file makes several items.

    Raises:
        UserError: nobody says in which partition the model is to run.
    """
    if several := merged.slurm.partitions:
        raise UserError(
            f"{model.name}: slurm.partitions names {', '.join(several)}, and a test runs its model once; "
            "valid: one of them as the card's slurm.partition, or slurm.partition in place of slurm.partitions"
        )


def _environment(
    model: Model, session: Session, image: Image | None, devices: Devices, merged: Merged | None
) -> dict[str, str]:
    """Later sources win: presets, the user's shell, machine and model facts, card, context."""
    context = session.context
    passed = {name: session.environ[name] for name in PASSED_ON if name in session.environ}
    if "HIP_VISIBLE_DEVICES" in passed:
        passed["RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES"] = ""
    card = {**model.env_vars, **_image_name(image)}
    facts = _facts(model, session, image, devices)
    stated = {**card, **context.env_vars, **context.docker_env_vars}
    if merged is None:
        return {**passed, **facts, **stated}
    of_nodes = {name: value for name, value in facts.items() if not name.startswith("MAD_SYSTEM_")}
    return {**_of_presets(merged), **of_nodes, **_of_launcher(model, session, merged), **stated}


def _of_launcher(model: Model, session: Session, merged: Merged) -> dict[str, str]:
    launcher = launcher_of(model, session)
    named = {"MAD_LAUNCHER_TYPE": launcher.name} if launcher else {}
    return {"DISTRIBUTED_BACKEND": merged.distributed.backend, **named}


def _of_presets(merged: Merged) -> dict[str, str]:
    origins = merged.origins
    return {
        name: value
        for name, value in merged.env_vars.items()
        if name != "MIOPEN_USER_DB_PATH" and origins.get(f"env_vars.{name}", "").startswith("presets/")
    }


def _image_name(image: Image | None) -> dict[str, str]:
    """The name by which other nodes can get the image; one that was built and pushed nowhere has none."""
    named = image and (image.registry_image or (image.reference if not image.content else ""))
    return {"DOCKER_IMAGE_NAME": named} if named else {}


def _image_of_containers(
    model: Model, launcher: Launcher | None, image: Image | None, merged: Merged | None
) -> dict[str, str]:
    """What a script that starts its own containers is told of their image, whatever card and context call it.

    Raises:
        UserError: the nodes cannot have it.
    """
    if image is None or not (launcher and launcher.self_managed):
        return {}
    if merged and image.content and not image.registry_image:
        raise UserError(
            f"{model.name} starts its own containers, and its image {image.reference} is on this machine alone; "
            "valid: an image in a registry, as by --madengine-registry or --madengine-use-image"
        )
    return {"DOCKER_IMAGE_NAME": image.registry_image or image.reference}


def _places(model: Model, launcher: Launcher | None, merged: Merged | None) -> tuple[str, ...]:
    """Where the results of a script may stand that starts its own containers."""
    if not (launcher and launcher.self_managed):
        return ()
    return selfmanaged.places(model, merged.slurm.results_dir if merged else None, on_cluster=merged is not None)


def _launcher_options(model: Model, context: Context) -> dict[str, Any]:
    """The merged `distributed` section, with the context's own `primus` section over the one inside."""
    options = context.distribution(model).model_dump()
    return options | {"primus": options["primus"] | context.primus, "model": model.name, "vllm": context.vllm}


def _facts(model: Model, session: Session, image: Image | None, devices: Devices) -> dict[str, str]:
    machine, context = session.machine, session.context
    facts = {
        "MAD_GPU_VENDOR": machine.vendor,
        "MAD_SYSTEM_NGPUS": str(machine.gpus),
        "MAD_SYSTEM_GPU_ARCHITECTURE": machine.architecture,
        "MAD_SYSTEM_HIP_VERSION": machine.toolkit,
        "MAD_SYSTEM_GPU_PRODUCT_NAME": machine.product,
        "MAD_RUNTIME_NGPUS": str(len(devices.gpus)),
        "MAD_GUEST_OS": context.guest_os,
        "MAD_MODEL_NAME": model.name,
        "JENKINS_BUILD_NUMBER": session.environ.get("BUILD_NUMBER", "0"),
    }
    if machine.vendor == "AMD" and (root := _rocm_root(context, image)):
        facts["ROCM_PATH"] = root
    if model.multiple_results:
        facts["MAD_OUTPUT_CSV"] = model.multiple_results
    return facts


def _rocm_root(context: Context, image: Image | None) -> str:
    """Where ROCm is for the model; '' for an image that only nodes have seen, which says so itself."""
    stated = context.docker_env_vars.get("MAD_ROCM_PATH") or (image.rocm_root if image else "")
    unseen = bool(image and image.registry_image and not image.digest)
    return stated or ("" if unseen else "/opt/rocm")


def _options(model: Model) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(model.additional_docker_run_options))
    except ValueError as error:
        place = f"{model.name}: additional_docker_run_options"
        raise FaultsError([Fault(place, str(error), "closed quotes, as in a shell")]) from None


def _script(
    model: Model, context: Context, credential: Mapping[str, Any], launch: str = "", places: Sequence[str] = ()
) -> str:
    return assets.render(
        "job/run.sh.j2",
        name=model.name,
        url=model.url,
        run_directory=run_directory(model),
        scripts_folder=model.scripts_folder or ".",
        credential=model.cred if {"username", "password"} <= credential.keys() else "",
        ssh=_ssh(model, credential),
        artifacts=[model.multiple_results] if model.multiple_results else [],
        pre_scripts=_steps("pre_script", context.pre_scripts),
        post_scripts=_steps("post_script", context.post_scripts),
        command=command(model, context),
        launch=launch,
        places=[selfmanaged.words(place) for place in places],
    )


def command(model: Model, context: Context) -> str:
    """What starts the model, as shell text: `<encapsulate> bash run.sh <args>`."""
    interpreter = "python3" if model.entry.endswith(".py") else "bash"
    entry = f"./{model.entry}" if model.entry.startswith("-") else model.entry
    pieces = (context.encapsulate_script, interpreter, shlex.quote(entry), context.applied_to(model).args)
    return " ".join(piece for piece in pieces if piece)


def _steps(kind: str, scripts: Sequence[Script]) -> list[dict[str, str]]:
    return [
        {
            "function": f"{kind}_{index}",
            "path": script.path,
            "command": f"bash {shlex.quote(posixpath.basename(script.path))} {script.args}".strip(),
        }
        for index, script in enumerate(scripts, 1)
    ]


def _ssh(model: Model, credential: Mapping[str, Any]) -> str:
    if not model.url.startswith("ssh://") or "ssh_key_file" not in credential:
        return ""
    options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new"]
    login = ["-l", str(credential["username"])] if "username" in credential else []
    return shlex.join(["ssh", *login, "-i", str(credential["ssh_key_file"]), *options])
