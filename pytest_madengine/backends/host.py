"""Runs jobs as plain processes of this host, each in a private copy of its model's scripts."""

from __future__ import annotations

from pytest_madengine.backends.processes import Processes


class HostBackend(Processes):
    """`--target=host`: bash and the model, nothing else."""

    name = "host"
    deployment = "host"
    containers = False
    at_once = 1
    remote = False

    def __init__(self) -> None:
        super().__init__(self.name)
