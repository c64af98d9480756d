"""Container runtimes on the nodes of a cluster, as shell text; pure but for reading templates.

The texts stand in scripts that know `$here`, a folder of the node with the job's script and a folder `workspace` in it,
and `$rank`. Variables are exported there and only named here, so that no list of processes shows a value.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_madengine import assets
from pytest_madengine.backends.containers import JOB, PLACES, PROJECT, WORKSPACE, csv, options, preset
from pytest_madengine.context.slurm import Slurm
from pytest_madengine.engine import rundir
from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.images import registry
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Job, Mount

LIKE_DOCKER = ("docker", "podman")
ALL_OF_NVIDIA = {"docker": "--gpus=all", "podman": "--device=nvidia.com/gpu=all"}
OF_AMD = ("/dev/kfd", "/dev/dri")
CONVERTING = {"apptainer": ".sif", "enroot": ".sqsh"}
"""Runtimes with an image format of their own, and what names of such files end with."""
NOTES = "images"
"""The folder of a job in which each node notes which image it has."""
DETACHING = re.compile(r"--detach(=([tT]|true|True|TRUE|1))?|-[iPqt]*d.*")
"""`-d` of `docker run`, by itself or among other letters."""
SWITCHES = ("--rm", "--init", "--privileged", "-i", "--interactive", "-t", "--tty")
NEEDLESS = (
    *("--ipc", "--network", "--net", "--pid", "--shm-size", "--ulimit", "--device", "--gpus", "--group-add"),
    *("--cap-add", "--security-opt"),
)
"""Options of `docker run` that those need not be told: processes, devices and networks are the host's."""


@dataclass(frozen=True)
class Origin:
    """Where nodes get an image.

    Attributes:
        reference: its name in a registry.
        archive: a file that holds it; '' where it comes from the registry.
        fixed: whether the reference can only ever mean this image.
        known: the image's id without `sha256:`, where no other is right; '' where nobody knows it.
    """

    reference: str
    archive: str = ""
    fixed: bool = False
    known: str = ""


def contained(job: Job, stated: Slurm) -> bool:
    """Whether the model runs in a container of ours."""
    return job.image is not None and not job.self_managed and stated.container_runtime != "none"


def run(job: Job, stated: Slurm, of_node: Iterable[str]) -> str:
    """What runs the job's script on one node, as the body of a shell function that nothing follows.

    Args:
        job: what is to run.
        stated: says which runtime.
        of_node: names of variables that the node itself finds out.
    """
    runtime = stated.container_runtime if contained(job, stated) else "none"
    names = {*job.env, *job.secrets, *job.expressions, *of_node}
    values = _for_docker(job, runtime, names) if runtime in LIKE_DOCKER else _for_others(job, runtime, names)
    text = assets.render(
        "slurm/container.sh.j2",
        runtime=runtime,
        id=job.id,
        notes=str(job.directory / NOTES),
        project=str(job.project),
        vendor=job.devices.vendor if job.devices.gpus else "",
        job=JOB,
        workspace=WORKSPACE,
        **values,
    )
    return text.rstrip("\n")


def stop(job: Job, stated: Slurm) -> str:
    """A command that ends `run`: it knows its process, `$child`, and `$patience`, the seconds from TERM to KILL."""
    if contained(job, stated) and stated.container_runtime in LIKE_DOCKER:
        name, runtime = f'{shlex.quote(job.id)}-"$rank"', stated.container_runtime
        kill, end = f"{runtime} rm --force {name}", f'{runtime} stop -t "$patience" {name}'
        gone = f"{runtime} ps --all --quiet --filter=name=^/?{name}$ && echo gone"
        # again, since what ends the job may end each of these clients before the container has gone
        return (
            f'for _ in {{1..100}}; do if [ "$patience" = 0 ]; then {kill}; else {end}; fi >/dev/null 2>&1; '
            f'[ "$({gone})" != gone ] || break; sleep 0.1; done 2>/dev/null'
        )
    return '[ -z "$child" ] || if [ "$patience" = 0 ]; then kill -KILL "$child"; else kill "$child"; fi 2>/dev/null'


def clean(job: Job, stated: Slurm) -> str:
    """A command that removes what `run` left when nobody could `stop` it; '' where nothing outlives its process."""
    if contained(job, stated) and stated.container_runtime in LIKE_DOCKER:
        return f'{stated.container_runtime} rm --force {shlex.quote(job.id)}-"$rank" >/dev/null 2>&1'
    return ""


def image_script(job: Job, stated: Slurm) -> str:
    """The script that brings the image to one node; with the argument `verdict` it says why the job cannot run.

    A job that needs no image gets a script that does nothing.
    """
    runtime = stated.container_runtime
    if job.image is None or runtime == "none":
        return "#!/usr/bin/env bash\n"
    origin = _origin(job.image, by_name=job.self_managed)
    return assets.render(
        "slurm/image.sh.j2",
        runtime=runtime,
        title=job.image.reference,
        notes=str(job.directory / NOTES),
        logins=job.logins.names,
        nodes=job.topology.nodes,
        origin=origin,
        reference=named(runtime, origin.reference),
        converted=_converted(job, runtime, origin) if runtime in CONVERTING else "",
    )


def check_options(words: Sequence[str], runtime: str, place: str) -> None:
    """Meet options of `docker run` that no job can have, and those that another runtime could not heed.

    Args:
        words: the card's options.
        runtime: `slurm.container_runtime`, or `docker` on this machine.
        place: where they stand.

    Raises:
        FaultsError: all of them.
    """
    if runtime == "none":
        return
    detaching = [word for word in words if DETACHING.fullmatch(word)]
    faults = [
        Fault(place, f"{'--detach' if word.startswith('--') else '-d'}: the run would be over before its model", "none")
        for word in detaching
    ]
    if runtime in CONVERTING:
        faults += _unheeded([word for word in words if word not in detaching], runtime, place)
    if faults:
        raise FaultsError(faults)


def _unheeded(words: Sequence[str], runtime: str, place: str) -> list[Fault]:
    valid = f"-v, -e, {', '.join(NEEDLESS)}; or slurm.container_runtime 'docker'"
    try:
        unknown = [word for word in _parsed(words)[1] if word.startswith("-")]
    except argparse.ArgumentError as error:
        return [Fault(place, str(error), valid)]
    return [Fault(place, f"{runtime} has no {word.partition('=')[0]}", valid) for word in unknown]


def named(runtime: str, reference: str) -> str:
    """A reference in the words of a runtime; only docker looks on Docker Hub unasked."""
    if runtime == "docker" or not reference:
        return reference
    name, _, digest = reference.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2] or "latest"
    place = registry.host(reference)
    path = registry.repository(reference).removeprefix(f"{place}/")
    path = path if "/" in path or place != registry.HUB else f"library/{path}"
    if runtime == "enroot":
        return f"docker://{'' if place == registry.HUB else f'{place}#'}{path}:{digest or tag}"
    scheme = "docker://" if runtime == "apptainer" else ""
    return f"{scheme}{place}/{path}{f'@{digest}' if digest else f':{tag}'}"


def _origin(image: Image, *, by_name: bool) -> Origin:
    """Where nodes get an image; `by_name` where a script of the user's starts containers of that name."""
    known = image.digest.removeprefix("sha256:")
    if by_name:
        name = image.registry_image or image.reference
        return Origin(name, fixed="/" not in name, known=known)
    if image.registry_image and image.registry_digest:
        return Origin(f"{registry.repository(image.registry_image)}@{image.registry_digest}", fixed=True)
    if "@sha256:" in image.reference:
        return Origin(image.reference, fixed=True)
    return Origin(image.reference, image.archive, known=known)


def _converted(job: Job, runtime: str, origin: Origin) -> str:
    """The file that holds an image in a runtime's own format; one that nothing identifies is converted for each run."""
    _, _, digest = origin.reference.partition("@sha256:")
    unnamed = hashlib.sha256(f"{job.run} {origin.reference}".encode()).hexdigest()
    identity = origin.known if origin.archive else digest or unnamed
    return str(rundir.archives_of(job.directory) / f"{identity}{CONVERTING[runtime]}")


def _for_docker(job: Job, runtime: str, names: Iterable[str]) -> dict[str, Any]:
    vendor = job.devices.vendor if job.devices.gpus else ""
    of_preset = preset(job)
    keeps_groups = runtime == "podman" and vendor == "AMD"
    groups = [option for option in of_preset["options"] if keeps_groups and option.startswith("--group-add=")]
    stated = options(job, (f"--env={name}={place}" for name, place in PLACES.items()))
    return {
        "names": sorted(names),
        "gpus": ALL_OF_NVIDIA[runtime] if vendor == "NVIDIA" else "",
        "devices": [*of_preset["devices"], *(OF_AMD if vendor == "AMD" else ())],
        "groups": groups,
        "options": [option for option in stated if option not in groups],
    }


def _for_others(job: Job, runtime: str, names: Iterable[str]) -> dict[str, Any]:
    """What these have of docker's options."""
    given = _parsed(job.options)[0] if runtime in CONVERTING else argparse.Namespace(volume=[], env=[])
    mounts = [Mount(str(job.project), PROJECT), *job.mounts, *map(_mount, given.volume)]
    pairs = [pair.partition("=") for pair in given.env]
    return {
        "mounts": [_MOUNTS[runtime](mount) for mount in mounts] if runtime in _MOUNTS else [],
        "exports": [*PLACES.items(), *((name, value) for name, equals, value in pairs if equals)],
        "names": sorted({*names, *PLACES, *(name for name, _, _ in pairs)}),
    }


def _parsed(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-v", "--volume", action="append", default=[])
    parser.add_argument("-e", "--env", action="append", default=[])
    for name in SWITCHES:
        parser.add_argument(name, action="store_true", dest="needless")
    for name in NEEDLESS:
        parser.add_argument(name, action="append", dest="needless_values")
    return parser.parse_known_args(words)


def _mount(volume: str) -> Mount:
    """`SOURCE:TARGET[:OPTIONS]`, as docker reads it."""
    source, _, rest = volume.partition(":")
    target, _, flags = rest.partition(":")
    return Mount(source, target or source, "ro" in flags.split(","))


def _of_apptainer(mount: Mount) -> str:
    pairs = f"{csv('source', mount.source)},{csv('destination', mount.target)}"
    return f"--mount=type=bind,{pairs}{',ro' if mount.read_only else ''}"


def _of_enroot(mount: Mount) -> str:
    """A line of an fstab with colons in place of blanks."""
    source, target = (text.replace(" ", r"\040") for text in (mount.source, mount.target))
    return f"--mount={source}:{target}:none:x-create=auto,rbind{',ro' if mount.read_only else ''}"


_MOUNTS = {"apptainer": _of_apptainer, "enroot": _of_enroot}
