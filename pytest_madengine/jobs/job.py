"""Everything a backend needs to run one model, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_madengine.images.image import Image
from pytest_madengine.launchers.base import Topology
from pytest_madengine.secrets import Secret


@dataclass(frozen=True)
class Mount:
    """A folder or file of the host inside the container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Devices:
    """GPUs of one node: whose, and which; the render nodes are AMD's."""

    vendor: str = ""
    gpus: tuple[int, ...] = ()
    render_nodes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Job:
    """One run of one model.

    Attributes:
        id: unique on every host; names containers and labels.
        run: id of the session's run directory; labels all that belongs to it.
        name: the item's name, for people.
        script: the shell text that runs the model; the same on every backend.
        directory: the job's own folder: script, log, facts, artifacts.
        project: the folder that the model's paths start from.
        env: variables that may be shown.
        secrets: variables that may not.
        limit: seconds for the whole run; None for no limit.
        image: None where nothing is to be containerised.
        options: raw `docker run` options of the card.
    """

    id: str
    run: str
    name: str
    script: str
    directory: Path
    project: Path
    env: Mapping[str, str]
    secrets: Mapping[str, Secret]
    limit: float | None
    image: Image | None = None
    mounts: tuple[Mount, ...] = ()
    devices: Devices = Devices()
    cpus: str = ""
    options: tuple[str, ...] = ()
    topology: Topology = field(default_factory=Topology)
