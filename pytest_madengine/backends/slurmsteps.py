"""Runs jobs as steps of the SLURM allocation that pytest itself runs in; the allocation stays its owner's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pytest_madengine import command
from pytest_madengine.backends import slurmfacts, slurmqueue
from pytest_madengine.backends.base import Handle, Outcome, Plan, State, Status
from pytest_madengine.backends.processes import ID_VARIABLE, Processes
from pytest_madengine.backends.slurmscript import HARD, JOB, KEPT, NODES, scripts, secrets
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.jobs.job import Job

ALLOCATION = "SLURM_JOB_ID"
WAITING = "all nodes of the allocation are taken"


class StepsBackend(Processes):
    """`--target=slurm` inside an allocation. The script of each job, a process here, takes nodes that no other has.

    Attributes:
        at_once: one job for each node; more would only wait.
    """

    deployment = "slurm"
    containers = True
    remote = True

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__("slurm", script=JOB)
        self._environ = environ
        self._alive = False
        self.at_once = int(environ.get("SLURM_JOB_NUM_NODES", "1"))

    def plan(self, job: Job) -> Plan:
        """The texts of the scripts."""
        return Plan(job, scripts(job, steps=True), secrets(job))

    def versions(self) -> Mapping[str, str]:
        """That of SLURM's commands here."""
        return {self.name: slurmqueue.version()}

    def submit(self, plan: Plan) -> Handle:
        """Start the job's script, which waits for its nodes.

        Raises:
            InfrastructureError: the allocation has fewer nodes than the job needs.
        """
        self._check(plan.job)
        wanted = plan.job.topology.nodes
        if wanted > self.at_once:
            number = self._environ[ALLOCATION]
            raise InfrastructureError(
                f"{plan.job.name} needs {wanted} nodes, the allocation {number} has {self.at_once}; "
                "slurm.in_allocation: submit hands it to SLURM as a job of its own"
            )
        plan.job.directory.mkdir(parents=True, exist_ok=True)
        for name, text in plan.request.items():
            (plan.job.directory / name).write_text(text, encoding="utf-8")
        slurmfacts.link(plan.job)
        return super().submit(plan)

    def _check(self, job: Job) -> None:
        """Meet what the allocation cannot give.

        Raises:
            InfrastructureError: it is over, or has fewer GPUs on each node.
        """
        number = self._environ[ALLOCATION]
        if not self._alive:
            asked = command.run(["squeue", "--noheader", f"--jobs={number}", "--format=%T"])
            self._alive = bool(asked) and asked.output.strip() == "RUNNING"
        if not self._alive:
            raise InfrastructureError(f"{ALLOCATION} names the job {number}, which does not run: unset it")
        there = self._environ.get("SLURM_GPUS_PER_NODE", "").rpartition(":")[2]
        if there.isdecimal() and int(there) < len(job.devices.gpus):
            raise InfrastructureError(
                f"{job.name} needs {len(job.devices.gpus)} GPUs per node, the allocation {number} has {there}"
            )

    def _environment(self, plan: Plan) -> dict[str, str]:
        own = {name: value for name, value in self._environ.items() if name in KEPT or name.startswith("SLURM_")}
        return {**own, "PATH": os.defpath, **plan.secrets, ID_VARIABLE: plan.job.id}

    def _status(self, handle: Handle, state: State) -> Status:
        directory = Path(handle.directory)
        if state is State.RUNNING and not (directory / NODES).exists():
            return Status(State.PENDING, WAITING)
        return Status(slurmfacts.left(directory) if state is State.EXITED else state)

    def states(self, handles: Sequence[Handle]) -> Mapping[Handle, Status]:
        """Running from the moment when a job has its nodes until its script ends."""
        return {handle: self._status(handle, status.state) for handle, status in super().states(handles).items()}

    def collect(self, handle: Handle) -> Outcome:
        """What the job left in its folder."""
        status = self.states([handle])[handle]
        super().collect(handle)
        return slurmfacts.outcome(Path(handle.directory), status.state, None)

    def cancel(self, handles: Iterable[Handle], *, hard: bool = False) -> None:
        """TERM to the job's script, which tells its steps; they know whether there is to be a grace."""
        handles = list(handles)
        if hard:
            slurmfacts.mark(handles, HARD)
        super().cancel(handles)


def inside(environ: Mapping[str, str]) -> bool:
    """Whether this process runs in an allocation."""
    return ALLOCATION in environ
