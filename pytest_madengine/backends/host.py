"""Runs jobs as plain processes of this host, each in a private copy of its model's scripts."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from pytest_madengine import command
from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Handle, Outcome, Plan, State
from pytest_madengine.jobs.job import Job

ID_VARIABLE = "MADENGINE_ID"
"""The variable by which everything that a job started is found, whatever session or group it moved to."""
GRACE = 15.0
"""Seconds from TERM to KILL; the job's script itself gives the model 5 s and then tidies up."""
VISIBLE = {"AMD": "HIP_VISIBLE_DEVICES", "NVIDIA": "CUDA_VISIBLE_DEVICES"}


class HostBackend:
    """`--target=host`: bash and the model, nothing else."""

    name = "host"
    deployment = "host"
    containers = False

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._codes: dict[Handle, int] = {}
        self._started: dict[Handle, float] = {}

    def plan(self, job: Job) -> Plan:
        """The command and its environment (what it adds to the user's own)."""
        visible = ",".join(map(str, job.devices.gpus))
        environment = {
            **({VISIBLE[job.devices.vendor]: visible} if job.devices.gpus else {}),
            **job.env,
            ID_VARIABLE: job.id,
            "MADENGINE_JOB": str(job.directory),
            "MADENGINE_WORKSPACE": str(job.directory / facts.WORKSPACE),
            "MADENGINE_PROJECT": str(job.project),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        }
        argv = ["bash", str(job.directory / facts.SCRIPT)]
        return Plan(job, {"argv": argv, "environment": environment}, job.secrets)

    def submit(self, plan: Plan) -> Handle:
        """Start the process in a session of its own."""
        facts.write_script(plan.job)
        environment = {**os.environ, **plan.request["environment"], **plan.secrets}
        process = command.start(plan.request["argv"], env=environment, directory=plan.job.directory)
        handle = Handle(self.name, f"{process.pid}/{plan.job.id}", str(plan.job.directory))
        self._started[handle] = time.monotonic()
        threading.Thread(target=self._watch, args=(handle, process.wait), daemon=True).start()
        return handle

    def _watch(self, handle: Handle, wait: Callable[[], int]) -> None:
        self._codes[handle] = wait()
        self._ended.set()

    def states(self, handles: Sequence[Handle]) -> Mapping[Handle, State]:
        """Running until the process has ended; a process of an earlier session is looked up by its id."""
        return {handle: self._state(handle) for handle in handles}

    def _state(self, handle: Handle) -> State:
        if handle in self._codes:
            return State.EXITED
        if handle in self._started or _alive(handle):
            return State.RUNNING
        return State.EXITED if (Path(handle.directory) / "exit_code").exists() else State.LOST

    def wait(self, handles: Sequence[Handle], seconds: float) -> None:
        """Sleep until one of this backend's processes ends."""
        self._ended.clear()
        if not any(handle in self._codes for handle in handles):
            self._ended.wait(seconds)

    def collect(self, handle: Handle) -> Outcome:
        """What the job left; ends whatever it left running."""
        _end(_family(handle), grace=1)
        duration = time.monotonic() - self._started.pop(handle, time.monotonic())
        code = self._codes.pop(handle, None)
        state = State.LOST if code is not None and code < 0 else State.EXITED
        note = f"its script was killed by signal {-code}" if code is not None and code < 0 else ""
        return facts.outcome(
            Path(handle.directory), state, exit_code=code, node=platform.node(), duration=duration, note=note
        )

    def cancel(self, handles: Iterable[Handle]) -> None:
        """TERM to the job's script, which ends the model and tidies up; KILL to all that is left."""
        handles = list(handles)
        scripts = [process for handle in handles if (process := _alive(handle))]
        for process in scripts:
            _quietly(process.terminate)
        deadline = time.monotonic() + GRACE
        while State.RUNNING in self.states(handles).values() and time.monotonic() < deadline:
            self.wait(handles, 0.1)
        _end([process for handle in handles for process in _family(handle)], grace=1)


def _alive(handle: Handle) -> psutil.Process | None:
    """The job's script, if it still runs."""
    pid, _, token = handle.token.partition("/")
    try:
        process = psutil.Process(int(pid))
        ours = process.environ().get(ID_VARIABLE) == token and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return None
    return process if ours else None


def _family(handle: Handle) -> list[psutil.Process]:
    """Every process that carries the job's token."""
    token = handle.token.partition("/")[2]
    return [process for process in psutil.process_iter() if _carries(process, token)]


def _carries(process: psutil.Process, token: str) -> bool:
    try:
        return process.environ().get(ID_VARIABLE) == token
    except (psutil.Error, OSError):
        return False


def _end(processes: Sequence[psutil.Process], grace: float) -> None:
    for process in processes:
        _quietly(process.terminate)
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        _quietly(process.kill)
    psutil.wait_procs(left, timeout=GRACE)


def _quietly(act: Callable[[], None]) -> None:
    try:
        act()
    except psutil.NoSuchProcess:
        return
