"""Everything a backend needs to run one model, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pytest_madengine.images.image import Image
from pytest_madengine.launchers.base import Topology
from pytest_madengine.secrets import Secret

NO_CREDENTIAL = Secret("")
UNTOLD = ("logins", "credential")
"""What a job's file does not tell."""


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
class Logins:
    """Who logs in where nodes pull images.

    Attributes:
        names: registry (as `docker login` takes it; '' for Docker Hub) and user of each.
        variables: what the nodes' scripts see of it and models do not: the passwords, in the order of the names.
    """

    names: tuple[tuple[str, str], ...] = ()
    variables: Mapping[str, Secret] = field(default_factory=dict)


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
        avoid: host names of nodes on which earlier attempts failed; targets of one node have no choice.
        expressions: variables whose values the shell of each node expands.
        cluster: what the scheduler is told: the context's section of its name.
        self_managed: whether the script starts its own containers: it runs once, on the first node, bare.
        logins: for the registry of the image.
        files: paths from the project's root of the files that it needs where the project itself is not to be had; they
            are read when the job is planned.
        credential: the text of credential.json for models that find that file in their workspace; '' for none. No
            variable has it.
        measuring: the ranks whose measurements are the job's; empty for all. The others run no model's script.
        keep: whether what a cluster made for the job stays when it is over, for people to look at and to delete.
        visible_devices: the variables that show the model its GPUs; the first names those that the scheduler granted,
            the others count from 0 within them. Empty where nothing is to be set.
        more: whether another job of its shape follows at once, for which an allocation that they share waits.
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
    avoid: tuple[str, ...] = ()
    expressions: Mapping[str, str] = field(default_factory=dict)
    cluster: Mapping[str, Any] = field(default_factory=dict)
    self_managed: bool = False
    visible_devices: tuple[str, ...] = ()
    logins: Logins = Logins()
    files: tuple[str, ...] = ()
    credential: Secret = NO_CREDENTIAL
    measuring: tuple[int, ...] = ()
    keep: bool = False
    more: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data without secrets, logins and credentials; see `from_json`."""
        plain = {
            "directory": str(self.directory),
            "project": str(self.project),
            "secrets": {},
            "image": self.image.to_json() if self.image else None,
            "mounts": [asdict(mount) for mount in self.mounts],
            "devices": asdict(self.devices),
            "topology": asdict(self.topology),
        }
        return {name: value for name, value in {**vars(self), **plain}.items() if name not in UNTOLD}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], secrets: Mapping[str, Secret]) -> Job:
        """The Job that `to_json` gave, with its secrets found anew."""
        made = {
            "directory": Path(data["directory"]),
            "project": Path(data["project"]),
            "secrets": secrets,
            "image": Image(**data["image"]) if data["image"] else None,
            "mounts": tuple(Mount(**mount) for mount in data["mounts"]),
            "devices": Devices(**{key: _tuple(value) for key, value in data["devices"].items()}),
            "options": tuple(data["options"]),
            "topology": Topology(**data["topology"]),
            "avoid": tuple(data["avoid"]),
            **{name: tuple(data.get(name, ())) for name in ("visible_devices", "files", "measuring")},
        }
        return cls(**{**data, **made})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
