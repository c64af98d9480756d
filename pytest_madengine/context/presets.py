"""Merges a cluster's presets, a card and the context for one model, and says where each value is from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from pytest_madengine import assets
from pytest_madengine.context.context import Context
from pytest_madengine.context.kubernetes import Kubernetes, amount
from pytest_madengine.context.layers import merged
from pytest_madengine.context.slurm import Slurm
from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.models.model import Distributed, Model, Source
from pytest_madengine.secrets import redacted
from pytest_madengine.validation import Path as KeyPath
from pytest_madengine.validation import dotted, faults

INTERFACE = "NCCL_SOCKET_IFNAME"
RESERVATION = "--madengine-reservation"
ALTERNATIVES = (
    ("slurm", "partition", "partitions"),
    ("slurm", "partitions", "partition"),
    ("distributed", "port", "master_port"),
    ("distributed", "master_port", "port"),
)
"""A layer that states the first key of a section unsays the second in the layers below."""

POD_NETWORK = "eth0"
"""What the interface of a pod is called that has a network of its own."""
LIMITS = (("memory", "memory_limit"), ("cpu", "cpu_limit"))

Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class OnCluster:
    """What counts for one model, whatever the cluster.

    Attributes:
        distributed: `nnodes` is the number of nodes.
        origins: dotted key (`slurm.time`, `env_vars.NCCL_DEBUG`) to where its value is from: a preset's file such as
            `presets/slurm/defaults.json`, a card such as `models.json:12 (card)`, or `context`.
    """

    distributed: Distributed
    env_vars: dict[str, str]
    origins: Mapping[str, str]

    @property
    def section(self) -> tuple[str, BaseModel]:
        """What the cluster is told, with the name of that section."""
        raise NotImplementedError

    @property
    def shares_nodes(self) -> bool:
        """Whether other jobs may be on the same node and its network."""
        raise NotImplementedError

    def lines(self) -> Iterator[tuple[str, Any, str]]:
        """Dotted key, value and origin of all that is stated; what a variable for secrets holds is hidden."""
        name, stated = self.section
        sections = {name: stated.model_dump(), "distributed": self.distributed.model_dump()}
        for key, value in _leaves({**sections, "env_vars": redacted(self.env_vars)}):
            if key in self.origins:
                yield key, value, self.origins[key]


@dataclass(frozen=True)
class Merged(OnCluster):
    """What counts for one model on SLURM; `nodes` and `gpus_per_node` of `slurm` are settled."""

    slurm: Slurm

    @property
    def section(self) -> tuple[str, BaseModel]:
        """What SLURM is told."""
        return "slurm", self.slurm

    @property
    def shares_nodes(self) -> bool:
        """Whether the allocation is not exclusive."""
        return not self.slurm.exclusive


@dataclass(frozen=True)
class InPods(OnCluster):
    """What counts for one model on Kubernetes; `gpu_count` of `k8s` is settled."""

    k8s: Kubernetes

    @property
    def section(self) -> tuple[str, BaseModel]:
        """What Kubernetes is told."""
        return "k8s", self.k8s

    @property
    def shares_nodes(self) -> bool:
        """Whether pods are on their node's network."""
        return bool(self.k8s.host_network)


@dataclass(frozen=True)
class Layer:
    """What one source states."""

    origin: str
    values: Sections

    def get(self, section: str, key: str) -> Any:
        """The value, None where it is not stated."""
        return self.values.get(section, {}).get(key)


class _Found(NamedTuple):
    value: int
    origin: str


def for_model(model: Model, context: Context, source: Source | None = None, reservation: str = "") -> Merged:
    """The defaults, the profile for the number of nodes, the card and the context, the later over the earlier.

    Args:
        model: the card; where several `partitions` are stated it runs in the one that it names itself.
        context: the merged configuration of the session.
        source: where the card stands, to name it.
        reservation: the option's, which wins over all; '' where it is not given.

    Raises:
        FaultsError: the card's `slurm` is wrong, or one source states two numbers of nodes.
    """
    stated = (_of_card("slurm", model, source), _of_context("slurm", context))
    defaults = _preset("slurm/defaults")
    nodes = _nodes((defaults, *stated), model)
    profile = _preset("slurm/profiles/multi-node" if nodes.value > 1 else "slurm/profiles/single-node")
    option = Layer(RESERVATION, {"slurm": {"reservation": reservation}} if reservation else {})
    values, origins = _stacked((defaults, profile, *stated, option))
    settled = {
        ("slurm", "nodes"): nodes,
        ("distributed", "nnodes"): nodes,
        ("slurm", "gpus_per_node"): _gpus("slurm", stated, model),
    }
    _settle(settled, values, origins)
    _follow_interface(values, origins)
    _settle_partition(values["slurm"], origins, stated[0])
    slurm, distributed = Slurm.model_validate(values["slurm"]), Distributed.model_validate(values["distributed"])
    return Merged(distributed, values["env_vars"], origins, slurm)


def for_pods(model: Model, context: Context, source: Source | None = None, vendor: str = "") -> InPods:
    """The defaults, the GPUs' vendor, the profile, the card and the context, the later over the earlier.

    Args:
        model: the card.
        context: the merged configuration of the session.
        source: where the card stands, to name it.
        vendor: whose GPUs the image is for; '' where nobody says. The context and a stated resource name win.

    Raises:
        FaultsError: the card's `k8s` is wrong, nobody says how many GPUs each of several processes gets, or more is
            requested than the limit allows.
    """
    stated = (_of_card("k8s", model, source), _of_context("k8s", context))
    nodes = next((count for layer in reversed(stated) if (count := layer.get("distributed", "nnodes"))), 1)
    gpus = _gpus("k8s", stated, model)
    launcher = next((name for layer in reversed(stated) if (name := layer.get("distributed", "launcher"))), "")
    profile = "multi-node" if nodes > 1 else "multi-gpu" if launcher or (gpus and gpus.value > 1) else "single-gpu"
    if gpus is None and profile != "single-gpu":
        raise FaultsError([_uncounted(model, source)])
    layers = (
        _preset("kubernetes/defaults"),
        *_of_vendor(_vendor(stated, context) or vendor, several=profile != "single-gpu" and _several(nodes, gpus)),
        _preset(f"kubernetes/profiles/{profile}"),
        *stated,
    )
    values, origins = _stacked(layers)
    _settle({("k8s", "gpu_count"): gpus}, values, origins)
    values["distributed"].setdefault("nnodes", nodes)
    _settle_limits(values["k8s"], origins, model)
    _own_network(values, origins)
    k8s, distributed = Kubernetes.model_validate(values["k8s"]), Distributed.model_validate(values["distributed"])
    return InPods(distributed, values["env_vars"], origins, k8s)


def partitions(model: Model, context: Context, source: Source | None = None) -> tuple[str, ...]:
    """The partitions in each of which a model is to run; empty where it runs once.

    Raises:
        FaultsError: the card's `slurm` is wrong.
    """
    values, _ = _stacked((_of_card("slurm", model, source), _of_context("slurm", context)))
    return tuple(values["slurm"].get("partitions") or ())


FORMS: Mapping[str, type[Slurm | Kubernetes]] = {"slurm": Slurm, "k8s": Kubernetes}
COUNT = {"slurm": "gpus_per_node", "k8s": "gpu_count"}
"""The key for the GPUs of each node or pod."""


def _of_card(section: str, model: Model, source: Source | None) -> Layer:
    place, form = _place(source), FORMS[section]
    key, given = ("slurm", model.slurm) if section == "slurm" else _pods_of(model, place)
    try:
        stated = form.model_validate(given)
    except ValidationError as error:
        raise FaultsError(faults(error, form, lambda path: _where(place, (key, *path), model))) from None
    sections = _sections(section, stated, model.distributed, model.env_vars)
    return Layer(f"{place} (card)" if place else "card", sections)


def _pods_of(model: Model, place: str) -> tuple[str, dict[str, Any]]:
    """A card's section for Kubernetes, under either of its names.

    Raises:
        FaultsError: it has both.
    """
    if model.k8s and model.kubernetes:
        where = _where(place, ("kubernetes",), model)
        raise FaultsError([Fault(where, "found beside 'k8s', which means the same", "one of them")])
    return ("kubernetes", model.kubernetes) if model.kubernetes else ("k8s", model.k8s)


def _of_context(section: str, context: Context) -> Layer:
    stated = context.slurm if section == "slurm" else context.pods
    sections = _sections(section, stated, context.distributed, context.env_vars)
    if context.gpus is not None and context.gpus >= 0:
        sections[section] = {COUNT[section]: context.gpus} | sections[section]
    return Layer("context", sections)


def _sections(
    section: str, stated: BaseModel | None, distributed: Distributed, env_vars: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    return {
        section: stated.model_dump(exclude_unset=True) if stated else {},
        "distributed": distributed.model_dump(exclude_unset=True),
        "env_vars": dict(env_vars),
    }


@cache
def _preset(name: str) -> Layer:
    path = f"{name}.json"
    sections = json.loads((assets.folder("presets") / path).read_text(encoding="utf-8"))
    return Layer(f"presets/{path}", {name: _uncommented(section) for name, section in _uncommented(sections).items()})


def _uncommented(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if not key.startswith("_")}


def _nodes(layers: Sequence[Layer], model: Model) -> _Found:
    """The number of nodes, from the highest layer that states one by either key."""
    for layer in reversed(layers):
        nodes, nnodes = layer.get("slurm", "nodes"), layer.get("distributed", "nnodes")
        if nodes and nnodes and nodes != nnodes:
            found = f"slurm.nodes is {nodes} and distributed.nnodes is {nnodes}"
            raise FaultsError(
                [Fault(f"{layer.origin}: {model.name}", found, "one number for both, or one of the keys")]
            )
        if nodes or nnodes:
            return _Found(nodes or nnodes, layer.origin)
    return _Found(1, "")


def _gpus(cluster: str, stated: Sequence[Layer], model: Model) -> _Found | None:
    """GPUs of each node or pod where card or context lets one tell; a whole node of SLURM has GPUs anyway."""
    card = stated[0]
    for section, key in ((cluster, COUNT[cluster]), ("distributed", "nproc_per_node")):
        for layer in reversed(stated):
            if (value := layer.get(section, key)) is not None:
                return _Found(value, layer.origin)
    least = 1 if cluster == "slurm" else 0
    return _Found(model.n_gpus, card.origin) if model.n_gpus >= least else None


def _uncounted(model: Model, source: Source | None) -> Fault:
    where = _where(_place(source), ("k8s", "gpu_count"), model)
    found = "is missing, and Kubernetes has no word for all GPUs of a node"
    return Fault(where, found, "a whole number there, in distributed.nproc_per_node or in the card's n_gpus")


def _vendor(stated: Sequence[Layer], context: Context) -> str:
    """Whose GPUs are asked for, by the context or the resource that somebody names; '' where nobody says."""
    names = (layer.get("k8s", "gpu_resource_name") or "" for layer in reversed(stated))
    name: str = next(filter(None, names), "")
    return _maker(name) if name else context.gpu_vendor or ""


def vendor_of(k8s: Kubernetes) -> str:
    """Whose GPUs a settled section asks for."""
    return _maker(k8s.gpu_resource_name)


def _maker(resource: str) -> str:
    return "NVIDIA" if resource.startswith("nvidia.com/") else "AMD"


def _several(nodes: int, gpus: _Found | None) -> bool:
    return bool(gpus and gpus.value * nodes > 1)


def _of_vendor(vendor: str, *, several: bool) -> Iterator[Layer]:
    name = "nvidia" if vendor == "NVIDIA" else "amd"
    yield _preset(f"kubernetes/gpu-vendors/{name}")
    if name == "amd" and several:
        yield _preset("kubernetes/gpu-vendors/amd-multi-gpu")


def _settle(
    settled: Mapping[tuple[str, str], _Found | None], values: Mapping[str, dict[str, Any]], origins: dict[str, str]
) -> None:
    """Write down what several keys together say."""
    for (section, key), found in settled.items():
        if found:
            values[section][key] = found.value
            origins[f"{section}.{key}"] = found.origin


def _settle_limits(k8s: dict[str, Any], origins: dict[str, str], model: Model) -> None:
    """Let a stated request raise the limit of a preset, and a stated limit lower its request.

    Raises:
        FaultsError: somebody states both, and the request is the larger one.
    """
    for key, limit in LIMITS:
        request, most = k8s.get(key), k8s.get(limit)
        if request is None or most is None or amount(request) <= amount(most):
            continue
        of_request, of_limit = origins[f"k8s.{key}"], origins[f"k8s.{limit}"]
        if of_limit.startswith("presets/"):
            k8s[limit], origins[f"k8s.{limit}"] = request, of_request
        elif of_request.startswith("presets/"):
            k8s[key], origins[f"k8s.{key}"] = most, of_limit
        else:
            found = f"k8s.{key} ({of_request}) is {request}, more than k8s.{limit} ({of_limit}), {most}"
            raise FaultsError([Fault(model.name, found, "a request that is not above its limit")])


def _own_network(values: Mapping[str, dict[str, Any]], origins: Mapping[str, str]) -> None:
    """Replace a host's interface that a preset guesses where pods have a network of their own."""
    guessed = origins.get(f"env_vars.{INTERFACE}", "").startswith("presets/")
    if guessed and not values["k8s"].get("host_network"):
        values["env_vars"][INTERFACE] = POD_NETWORK


def _stacked(layers: Sequence[Layer]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """All layers as one, in dictionaries of its own, and each key's origin."""
    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for section, key, other in ALTERNATIVES:
            if layer.get(section, key):
                values.get(section, {}).pop(other, None)
                origins.pop(f"{section}.{other}", None)
        values = merged({section: {} for section in layer.values}, values, layer.values)
        origins |= dict.fromkeys((key for key, _ in _leaves(layer.values)), layer.origin)
    return values, origins


def _leaves(values: Mapping[str, Any], above: KeyPath = ()) -> Iterator[tuple[str, Any]]:
    """All values that are no objects themselves, by their dotted keys."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, key))
        else:
            yield dotted((*above, key)), value


def _follow_interface(values: Mapping[str, dict[str, Any]], origins: dict[str, str]) -> None:
    """Let a stated `slurm.network_interface` win over the one that a preset only guesses."""
    interface, variable = values["slurm"].get("network_interface"), f"env_vars.{INTERFACE}"
    if interface and origins.get(variable, "").startswith("presets/"):
        values["env_vars"][INTERFACE] = interface
        origins[variable] = origins["slurm.network_interface"]


def _settle_partition(slurm: dict[str, Any], origins: dict[str, str], card: Layer) -> None:
    """Of several partitions choose the one that the card names, or the only one."""
    several: tuple[str, ...] = slurm.get("partitions") or ()
    chosen = several[0] if len(several) == 1 else card.get("slurm", "partition")
    if chosen in several:
        slurm["partition"] = chosen
        origins["slurm.partition"] = origins.pop("slurm.partitions")
        del slurm["partitions"]


def _place(source: Source | None) -> str:
    """`models.json:12`, the file by its path from the project."""
    if source is None:
        return ""
    inside = source.file.is_relative_to(source.root)
    return f"{(source.file.relative_to(source.root) if inside else source.file).as_posix()}:{source.line}"


def _where(place: str, key: KeyPath, model: Model) -> str:
    return ": ".join(filter(None, (place, f"{dotted(key)} ({model.name})")))
