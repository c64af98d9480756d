"""What a card's options of `docker run` mean to a pod."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.jobs.job import Job, Mount

SWITCHES = ("--rm", "--init", "-i", "--interactive", "-t", "--tty")
NEEDLESS = (
    *("--ipc", "--network", "--net", "--pid", "--ulimit", "--device", "--gpus", "--group-add"),
    *("--security-opt", "--name", "--cpuset-cpus"),
)
"""Options that pods need not be told: devices and networks are the cluster's, and the `k8s` section asks for them."""
HEEDED = ("-v", "-e", "--shm-size", "--cap-add")
SIZES = {"": "", "b": "", "k": "Ki", "m": "Mi", "g": "Gi"}
_SIZE = re.compile(r"(\d+)([bkmg]?)(?:i?b)?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Options:
    """What a pod has of them.

    Attributes:
        mounts: folders of the nodes.
        env: variables with values.
        capabilities: of the kernel, without CAP_.
        shm_size: as a quantity of Kubernetes; '' where nothing is said.
    """

    mounts: tuple[Mount, ...]
    env: Mapping[str, str]
    capabilities: tuple[str, ...]
    shm_size: str


def read(job: Job) -> Options:
    """The options of a job's card.

    Raises:
        FaultsError: no pod could heed one of them.
    """
    place = f"{job.name}: additional_docker_run_options"
    valid = f"{', '.join(HEEDED)}; or what they stand for in k8s.pod_spec"
    try:
        given, rest = _parser().parse_known_args(list(job.options))
    except argparse.ArgumentError as error:
        raise FaultsError([Fault(place, str(error), valid)]) from None
    if unknown := [word.partition("=")[0] for word in rest if word.startswith("-")]:
        raise FaultsError([Fault(place, f"a pod has no {word}", valid) for word in unknown])
    pairs = [pair.partition("=") for pair in given.env]
    return Options(
        mounts=tuple(map(_mount, given.volume)),
        env={name: value for name, equals, value in pairs if equals},
        capabilities=tuple(sorted({name.upper().removeprefix("CAP_") for name in given.cap_add})),
        shm_size=_size(given.shm_size, place),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-v", "--volume", action="append", default=[])
    parser.add_argument("-e", "--env", action="append", default=[])
    parser.add_argument("--cap-add", action="append", default=[])
    parser.add_argument("--shm-size", default="")
    for name in SWITCHES:
        parser.add_argument(name, action="store_true", dest="needless")
    for name in NEEDLESS:
        parser.add_argument(name, action="append", dest="needless_values")
    return parser


def _mount(volume: str) -> Mount:
    """`SOURCE:TARGET[:OPTIONS]`, as docker reads it."""
    source, _, rest = volume.partition(":")
    target, _, flags = rest.partition(":")
    return Mount(source, target or source, "ro" in flags.split(","))


def _size(text: str, place: str) -> str:
    """Docker's sizes are powers of 1024, whatever they are called."""
    if not text:
        return ""
    form = _SIZE.fullmatch(text)
    if not form:
        raise FaultsError([Fault(place, f"--shm-size={text}", "a size of docker, such as 64g")])
    return f"{form[1]}{SIZES[form[2].lower()]}"
