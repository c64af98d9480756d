"""Runs jobs as plain processes of this host, each in a private copy of its model's scripts."""

from __future__ import annotations

import functools
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
LOOK = 0.5
"""Seconds between looks at a process that another session started."""
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
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            **({VISIBLE[job.devices.vendor]: visible} if job.devices.gpus else {}),
            **job.env,
            ID_VARIABLE: job.id,
            "MADENGINE_JOB": str(job.directory),
            "MADENGINE_WORKSPACE": str(job.directory / facts.WORKSPACE),
            "MADENGINE_PROJECT": str(job.project),
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
        return _without_process(handle)

    def _running(self, handles: Iterable[Handle]) -> list[Handle]:
        return [handle for handle in handles if self._state(handle) is State.RUNNING]

    def wait(self, handles: Sequence[Handle], seconds: float) -> None:
        """Sleep until one of this backend's processes ends; the end of another's is not noticed but looked for."""
        foreign = any(handle not in self._started for handle in handles)
        self._ended.clear()
        if not any(handle in self._codes for handle in handles):
            self._ended.wait(min(seconds, LOOK) if foreign else seconds)

    def collect(self, handle: Handle) -> Outcome:
        """What the job left; ends whatever it left running."""
        _end([handle])
        duration = time.monotonic() - self._started.pop(handle, time.monotonic())
        code = self._codes.pop(handle, None)
        note = f"its script was killed by signal {-code}" if code is not None and code < 0 else ""
        state = State.LOST if note else _without_process(handle) if code is None else State.EXITED
        return facts.outcome(
            Path(handle.directory), state, exit_code=code, node=platform.node(), duration=duration, note=note
        )

    def cancel(self, handles: Iterable[Handle]) -> None:
        """TERM to the job's script, which ends the model and tidies up; KILL to all that is left."""
        handles = list(handles)
        scripts = [_alive(handle, own=handle in self._started) for handle in self._running(handles)]
        for process in filter(None, scripts):
            _quietly(process.terminate)
        deadline = time.monotonic() + GRACE
        while (running := self._running(handles)) and time.monotonic() < deadline:
            self.wait(running, 0.1)
        _end(handles)


def _without_process(handle: Handle) -> State:
    """Where a job stands whose process is gone and left its exit code to nobody."""
    return State.EXITED if (Path(handle.directory) / facts.EXIT_CODE).exists() else State.LOST


def _alive(handle: Handle, *, own: bool = False) -> psutil.Process | None:
    """The job's script, if it still runs; `own` where this process started it, whose environment shows a bit later."""
    pid, _, token = handle.token.partition("/")
    try:
        process = psutil.Process(int(pid))
    except psutil.Error:
        return None
    return process if _lives(process) and (own or _carried(process) == token) else None


def _family(handles: Iterable[Handle]) -> list[psutil.Process]:
    """Every process that carries the token of one of these jobs, and those in a session that such a one leads.

    A process that lost its environment, as by setproctitle, is found by its session.
    """
    scripts = {token: int(pid) for pid, _, token in (handle.token.partition("/") for handle in handles)}
    living = [process for process in psutil.process_iter() if _lives(process)]
    carriers = {process.pid for process in living if _carried(process) in scripts}
    strangers = {process.pid for process in living} - carriers
    led = {pid for pid in carriers if _session(pid) == pid} | (set(scripts.values()) - strangers)
    return [process for process in living if process.pid in carriers or _session(process.pid) in led]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _carried(process: psutil.Process) -> str:
    try:
        return process.environ().get(ID_VARIABLE, "")
    except (psutil.Error, OSError):
        return ""


def _end(handles: Sequence[Handle]) -> None:
    """TERM and a second later KILL to the families of these jobs, until nothing new turns up in them."""
    act = psutil.Process.terminate
    deadline = time.monotonic() + GRACE
    while (family := _family(handles)) and time.monotonic() < deadline:
        for process in family:
            _quietly(functools.partial(act, process))
        _await_death(family, seconds=1)
        act = psutil.Process.kill


def _await_death(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Wait until all are dead, be they reaped or not."""
    deadline = time.monotonic() + seconds
    while any(_lives(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _quietly(act: Callable[[], None]) -> None:
    try:
        act()
    except psutil.Error:
        return
