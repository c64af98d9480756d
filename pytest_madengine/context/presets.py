"""Merges the presets for SLURM, a card and the context for one model, and says where each value is from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from pydantic import ValidationError

from pytest_madengine import assets
from pytest_madengine.context.context import Context
from pytest_madengine.context.layers import merged
from pytest_madengine.context.slurm import Slurm
from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.models.model import Distributed, Model, Source
from pytest_madengine.validation import Path as KeyPath
from pytest_madengine.validation import dotted, faults

INTERFACE = "NCCL_SOCKET_IFNAME"
ALTERNATIVES = (
    ("slurm", "partition", "partitions"),
    ("slurm", "partitions", "partition"),
    ("distributed", "port", "master_port"),
    ("distributed", "master_port", "port"),
)
"""A layer that states the first key of a section unsays the second in the layers below."""

Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Merged:
    """What counts for one model.

    Attributes:
        slurm: `nodes` and `gpus_per_node` are settled.
        distributed: `nnodes` is the number of nodes.
        origins: dotted key (`slurm.time`, `env_vars.NCCL_DEBUG`) to where its value is from: a preset's file such as
            `presets/slurm/defaults.json`, a card such as `models.json:12 (card)`, or `context`.
    """

    slurm: Slurm
    distributed: Distributed
    env_vars: dict[str, str]
    origins: Mapping[str, str]


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


def for_model(model: Model, context: Context, source: Source | None = None) -> Merged:
    """The defaults, the profile for the number of nodes, the card and the context, the later over the earlier.

    Args:
        model: the card.
        context: the merged configuration of the session.
        source: where the card stands, to name it.

    Raises:
        FaultsError: the card's `slurm` is wrong, or one source states two numbers of nodes.
    """
    stated = (_of_card(model, source), _of_context(context))
    defaults = _preset("defaults")
    nodes = _nodes((defaults, *stated), model)
    profile = _preset("profiles/multi-node" if nodes.value > 1 else "profiles/single-node")
    values, origins = _stacked((defaults, profile, *stated))
    settled = {
        ("slurm", "nodes"): nodes,
        ("distributed", "nnodes"): nodes,
        ("slurm", "gpus_per_node"): _gpus(stated, model),
    }
    for (section, key), found in settled.items():
        if found:
            values[section][key] = found.value
            origins[f"{section}.{key}"] = found.origin
    _follow_interface(values, origins)
    slurm, distributed = Slurm.model_validate(values["slurm"]), Distributed.model_validate(values["distributed"])
    return Merged(slurm, distributed, values["env_vars"], origins)


def _of_card(model: Model, source: Source | None) -> Layer:
    place = _place(source)
    try:
        slurm = Slurm.model_validate(model.slurm)
    except ValidationError as error:
        raise FaultsError(faults(error, Slurm, lambda key: _where(place, ("slurm", *key), model))) from None
    return Layer(f"{place} (card)" if place else "card", _sections(slurm, model.distributed, model.env_vars))


def _of_context(context: Context) -> Layer:
    sections = _sections(context.slurm, context.distributed, context.env_vars)
    if context.gpus is not None and context.gpus >= 0:
        sections["slurm"] = {"gpus_per_node": context.gpus} | sections["slurm"]
    return Layer("context", sections)


def _sections(slurm: Slurm | None, distributed: Distributed, env_vars: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    return {
        "slurm": slurm.model_dump(exclude_unset=True) if slurm else {},
        "distributed": distributed.model_dump(exclude_unset=True),
        "env_vars": dict(env_vars),
    }


@cache
def _preset(name: str) -> Layer:
    path = f"slurm/{name}.json"
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


def _gpus(stated: Sequence[Layer], model: Model) -> _Found | None:
    """GPUs per node where card or context lets one tell."""
    card = stated[0]
    for section, key in (("slurm", "gpus_per_node"), ("distributed", "nproc_per_node")):
        for layer in reversed(stated):
            if (value := layer.get(section, key)) is not None:
                return _Found(value, layer.origin)
    return _Found(model.n_gpus, card.origin) if model.n_gpus > 0 else None


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
        origins |= dict.fromkeys(_keys(layer.values), layer.origin)
    return values, origins


def _keys(values: Mapping[str, Any], above: KeyPath = ()) -> Iterator[str]:
    """The dotted keys of all values that are no objects themselves."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _keys(value, (*above, key))
        else:
            yield dotted((*above, key))


def _follow_interface(values: Mapping[str, dict[str, Any]], origins: dict[str, str]) -> None:
    """Let a stated `slurm.network_interface` win over the one that a preset only guesses."""
    interface, variable = values["slurm"].get("network_interface"), f"env_vars.{INTERFACE}"
    if interface and origins.get(variable, "").startswith("presets/"):
        values["env_vars"][INTERFACE] = interface
        origins[variable] = origins["slurm.network_interface"]


def _place(source: Source | None) -> str:
    """`models.json:12`, the file by its path from the project."""
    if source is None:
        return ""
    inside = source.file.is_relative_to(source.root)
    return f"{(source.file.relative_to(source.root) if inside else source.file).as_posix()}:{source.line}"


def _where(place: str, key: KeyPath, model: Model) -> str:
    return ": ".join(filter(None, (place, f"{dotted(key)} ({model.name})")))
