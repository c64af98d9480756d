"""Composes a Job from a card, the context, the machine and an image; pure but for rendering the script."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_madengine import assets
from pytest_madengine.backends import runtimes
from pytest_madengine.context import credentials, presets
from pytest_madengine.context.context import Context, Script, parse_gpus
from pytest_madengine.context.machine import Machine
from pytest_madengine.context.presets import InPods, Merged, OnCluster
from pytest_madengine.engine.rundir import job_prefix
from pytest_madengine.errors import Fault, FaultsError, InfrastructureError, UserError, nearest
from pytest_madengine.images.image import Image
from pytest_madengine.jobs import nodes, pods, variables
from pytest_madengine.jobs.job import NO_CREDENTIAL, Devices, Job, Logins, Mount
from pytest_madengine.launchers.base import PORT, Launcher, Topology
from pytest_madengine.models.model import Model, Source
from pytest_madengine.results import selfmanaged
from pytest_madengine.secrets import Secret, is_secret

DEFAULT_TIMEOUT = 7200
PODS = "k8s"
"""The cluster whose jobs are pods; what else is one counts as SLURM's kind."""


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
        cluster: `slurm` or `k8s` where jobs run on nodes of one, and nothing of this machine counts; '' elsewhere.
        keep: whether what a cluster made for jobs is to stay when they are over.
    """

    run: str
    context: Context
    machine: Machine
    launchers: Mapping[str, Launcher]
    credentials: Mapping[str, Any] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    timeout: float | None = None
    reservation: str = ""
    cluster: str = ""
    keep: bool = False
    logins: Callable[[str], Logins] = field(default=_none, repr=False)

    @property
    def remote(self) -> bool:
        """Whether jobs run on nodes of a cluster."""
        return bool(self.cluster)


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
    merged = on_cluster(model, source, image, session)
    devices = nodes.devices(merged, session.machine) if merged else _devices(model, session)
    _require_options(model, image, launcher, merged)
    topology = nodes.topology(merged, model, launcher) if merged else _topology(model, session, launcher, devices)
    context, options = session.context, _launcher_options(model, session.context)
    starts = launcher or session.launchers["torchrun"]
    launch = starts.environment(topology, options)
    stated = {**({} if merged else launch), **variables.stated(model, session, image, devices, launcher, merged)}
    prepare = launcher.prepare(topology, options) if launcher and merged else ""
    credential = credentials.of(model, session.credentials)
    made = Job(
        id=job_id(session.run, directory),
        run=session.run,
        name=model.name,
        script=_script(model, context, credential, prepare, _places(model, launcher, merged)),
        directory=directory,
        project=source.root,
        env={name: value for name, value in stated.items() if not is_secret(name)},
        secrets=_hidden(model, session, stated),
        limit=limit(model, context, session.timeout),
        image=image,
        mounts=_mounts(context, of_nodes=session.cluster == PODS),
        devices=devices,
        cpus=context.docker_cpus or "",
        options=_options(model),
        topology=topology,
        self_managed=bool(launcher and launcher.self_managed),
        logins=logins(image, session),
    )
    made = _for_cluster(made, merged, starts, launch) if merged else made
    return _for_pods(made, merged, model, source, session, launcher) if isinstance(merged, InPods) else made


def on_cluster(model: Model, source: Source, image: Image | None, session: Session) -> OnCluster | None:
    """What counts for a model on the session's cluster, with the origin of each value; None where there is none.

    Raises:
        UserError: card and context do not fit together.
    """
    if session.cluster == PODS:
        return presets.for_pods(model, session.context, source, image.vendor if image else "")
    return presets.for_model(model, session.context, source, session.reservation) if session.remote else None


def taken_up(data: Mapping[str, Any], model: Model, session: Session) -> Job:
    """A job of an earlier session from what its folder says, with the secrets, logins and credentials of now."""
    known = Job.from_json(data, variables.secrets(model, session))
    return replace(known, logins=logins(known.image, session), credential=_credential(session))


def _hidden(model: Model, session: Session, stated: Mapping[str, str]) -> dict[str, Secret]:
    """The secrets, and those variables that are some by their names."""
    more = {name: Secret(value) for name, value in stated.items() if is_secret(name)}
    return {
        **variables.secrets(model, session),
        **{name: value for name, value in more.items() if name not in session.context.secrets},
    }


def _for_cluster(made: Job, merged: OnCluster, launcher: Launcher, launch: Mapping[str, str]) -> Job:
    """The job with what only nodes of a cluster need."""
    _, section = merged.section
    known = {*made.env, *made.secrets}
    return replace(
        made,
        cluster=section.model_dump(mode="json", exclude_unset=True),
        visible_devices=nodes.visible_devices(launcher, made.devices),
        expressions={name: value for name, value in launch.items() if name not in known},
    )


def _for_pods(
    made: Job, merged: InPods, model: Model, source: Source, session: Session, launcher: Launcher | None
) -> Job:
    """The job with what it brings along, since pods see no folder of this machine.

    Raises:
        UserError: no pod could run it.
    """
    made = replace(
        made,
        files=pods.files(model, source, session.context, launcher),
        credential=_credential(session),
        measuring=(0,) if launcher and launcher.client else (),
        keep=session.keep,
    )
    pods.check(made, merged.k8s)
    return made


def _credential(session: Session) -> Secret:
    if session.cluster != PODS or not session.credentials:
        return NO_CREDENTIAL
    return Secret(json.dumps(session.credentials, indent=1))


def in_image(job: Job, other: Job) -> Job:
    """A job in the image of another one of the same model; what else was changed in it stays."""
    names = ("DOCKER_IMAGE_NAME", "ROCM_PATH")
    env = {name: value for name, value in job.env.items() if name not in names}
    env |= {name: other.env[name] for name in names if name in other.env}
    return replace(job, image=other.image, logins=other.logins, env=env)


def logins(image: Image | None, session: Session) -> Logins:
    """Those that nodes need for the image, if they pull it."""
    pulled = session.remote and image is not None and not image.archive
    return session.logins(image.registry_image or image.reference) if pulled and image else Logins()


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
        FaultsError: no launcher has that name, or pods cannot do what it does.
    """
    named = session.context.distribution(model).launcher or session.environ.get("MAD_LAUNCHER", "")
    launcher, where = session.launchers.get(named), f"{model.name}: distributed.launcher"
    if named and launcher is None:
        known = sorted({each.name for each in session.launchers.values()})
        found = f"unknown launcher {named!r}"
        raise FaultsError([Fault(where, found, ", ".join(known), nearest(named, session.launchers))])
    if launcher and launcher.self_managed and session.cluster == PODS:
        found = f"{named!r} starts its own containers, and pods can start none"
        raise FaultsError([Fault(where, found, "another launcher, or --target=slurm or docker")])
    return launcher


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


def _mounts(context: Context, *, of_nodes: bool = False) -> tuple[Mount, ...]:
    """The context's mounts; Docker makes a host folder that is missing, unless the two sides are swapped.

    Args:
        context: names them.
        of_nodes: whether the folders are those of other machines, of which nothing is known here.

    Raises:
        UserError: the host lacks the host side and has the container side.
    """
    for container, host in context.docker_mounts.items():
        if not of_nodes and not Path(host).exists() and Path(container).exists():
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


def _require_options(model: Model, image: Image | None, launcher: Launcher | None, merged: OnCluster | None) -> None:
    """Meet options of `docker run` that the container of a job cannot heed.

    Raises:
        FaultsError: the card has such options.
    """
    if isinstance(merged, InPods):
        return
    runtime = merged.slurm.container_runtime if isinstance(merged, Merged) else "docker"
    if image and not (launcher and launcher.self_managed):
        runtimes.check_options(_options(model), runtime, f"{model.name}: additional_docker_run_options")


def check_nodes(model: Model, source: Source, session: Session) -> None:
    """Meet a model that asks a cluster for fewer nodes than its launcher needs, before anything is submitted.

    Raises:
        UserError: it does, or its `slurm`, `k8s` or launcher is wrong.
    """
    launcher = launcher_of(model, session) if session.remote else None
    merged = on_cluster(model, source, None, session) if launcher and launcher.least_nodes > 1 else None
    if merged:
        nodes.require_nodes(merged, model, launcher)


def _places(model: Model, launcher: Launcher | None, merged: OnCluster | None) -> tuple[str, ...]:
    """Where the results of a script may stand that starts its own containers."""
    if not (launcher and launcher.self_managed):
        return ()
    folder = merged.slurm.results_dir if isinstance(merged, Merged) else None
    return selfmanaged.places(model, folder, on_cluster=merged is not None)


def _launcher_options(model: Model, context: Context) -> dict[str, Any]:
    """The merged `distributed` section, with the context's own `primus` section over the one inside."""
    options = context.distribution(model).model_dump()
    return options | {"primus": options["primus"] | context.primus, "model": model.name, "vllm": context.vllm}


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
