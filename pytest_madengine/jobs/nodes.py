"""What a cluster's nodes give a job: GPUs, processes, and where its ranks meet."""

from __future__ import annotations

import zlib

from pytest_madengine.context import presets
from pytest_madengine.context.machine import Machine
from pytest_madengine.context.presets import InPods, Merged, OnCluster
from pytest_madengine.errors import UserError
from pytest_madengine.jobs.job import Devices
from pytest_madengine.launchers.base import CUDA, PORT, ROCR, Launcher, Topology
from pytest_madengine.models.model import Model

OWN_PORTS = 20_000
"""From here on, below those that systems give out by themselves, 10,000 ports are for jobs that share nodes."""


def devices(merged: OnCluster, machine: Machine) -> Devices:
    """The GPUs of each node; the resource that pods ask for says whose they are."""
    vendor = presets.vendor_of(merged.k8s) if isinstance(merged, InPods) else machine.vendor
    return Devices(vendor, tuple(range(_gpus(merged))))


def _gpus(merged: OnCluster) -> int:
    section, stated = merged.section
    return int(getattr(stated, presets.COUNT[section]) or 0)


def visible_devices(launcher: Launcher, devices: Devices) -> tuple[str, ...]:
    """The variables by which a model on a node sees its GPUs, the one that looks at the hardware itself first."""
    lowest = CUDA if devices.vendor == "NVIDIA" else ROCR
    return tuple(sorted(launcher.visible_devices_of(devices.vendor), key=lambda name: name != lowest))


def topology(merged: OnCluster, model: Model, launcher: Launcher | None) -> Topology:
    """The nodes that the cluster gives.

    Raises:
        UserError: they are fewer than the launcher needs.
    """
    distributed = merged.distributed
    if isinstance(merged, Merged):
        _require_one_partition(merged, model)
    require_nodes(merged, model, launcher)
    processes = distributed.nproc_per_node or max(1, _gpus(merged))
    return Topology.of_cluster(distributed.nnodes or 1, processes, _port(merged, model))


def _port(merged: OnCluster, model: Model) -> int:
    """The rendezvous port; where nobody states one and jobs may share nodes, one that other models hardly have."""
    stated = merged.distributed.port or merged.distributed.master_port
    by_preset = merged.origins.get("distributed.port", "").startswith("presets/")
    shared = merged.shares_nodes
    if stated and not (by_preset and shared):
        return stated
    return OWN_PORTS + zlib.crc32(model.name.encode()) % 10_000 if shared else PORT


def require_nodes(merged: OnCluster, model: Model, launcher: Launcher | None) -> None:
    """Meet fewer nodes than a launcher needs.

    Raises:
        UserError: they are.
    """
    key, nodes = "slurm.nodes" if isinstance(merged, Merged) else "distributed.nnodes", merged.distributed.nnodes or 1
    if launcher and launcher.least_nodes > nodes:
        raise UserError(
            f"{model.name}: the launcher {launcher.name} needs at least {launcher.least_nodes} nodes, {key} is {nodes}"
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
