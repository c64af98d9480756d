"""Runs each job in a container of this host's Docker engine."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_madengine import assets, command
from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Handle, Outcome, Plan, State
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.images import engine
from pytest_madengine.jobs.job import Devices, Job

JOB, PROJECT, WORKSPACE = "/madengine/job", "/madengine/project", "/myworkspace"
RUN_LABEL, JOB_LABEL = "madengine.run", "madengine.job"
GRACE = 15
"""Seconds from TERM to KILL; the job's script itself gives the model 5 s and then tidies up."""
STATES = {
    "created": State.PENDING,
    "running": State.RUNNING,
    "paused": State.RUNNING,
    "restarting": State.RUNNING,
    "removing": State.EXITED,
    "exited": State.EXITED,
    "dead": State.LOST,
}
"""Docker's container states in our words; a container that is gone is LOST."""


class DockerBackend:
    """`--target=docker`."""

    name = "docker"
    deployment = "local"
    containers = True

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._watched = False

    def plan(self, job: Job) -> Plan:
        """The `docker run` arguments; secrets are named there and travel in the client's environment."""
        if job.image is None:
            raise InfrastructureError(f"{job.name}: the docker target needs an image")
        mounts = [
            (str(job.directory), JOB),
            (str(job.directory / facts.WORKSPACE), WORKSPACE),
            (str(job.project), PROJECT),
        ]
        own = {"MADENGINE_JOB": JOB, "MADENGINE_PROJECT": PROJECT, "MADENGINE_WORKSPACE": WORKSPACE}
        owner = {"MADENGINE_OWNER": f"{os.getuid()}:{os.getgid()}"}
        preset = assets.preset(f"docker/{(job.devices.vendor or job.env.get('MAD_GPU_VENDOR') or 'AMD').lower()}")
        request = [
            *("docker", "run", "--detach", "--init", "--entrypoint=bash", f"--name={job.id}"),
            *(f"--label={RUN_LABEL}={job.run}", f"--label={JOB_LABEL}={job.id}"),
            *preset["options"],
            *(f"--device={device}" for device in preset["devices"] if Path(device).exists()),
            *_gpu_options(job.devices),
            *([f"--cpuset-cpus={job.cpus}"] if job.cpus else []),
            *(f"--volume={source}:{target}" for source, target in mounts),
            *(f"--volume={m.source}:{m.target}{':ro' if m.read_only else ''}" for m in job.mounts),
            f"--workdir={WORKSPACE}",
            *(
                f"--env={name}={value}"
                for name, value in {**job.env, **own, **owner}.items()
                if name not in job.secrets
            ),
            *(f"--env={name}" for name in job.secrets),
            *job.options,
            *(job.image.reference, f"{JOB}/{facts.SCRIPT}"),
        ]
        return Plan(job, request, job.secrets)

    def submit(self, plan: Plan) -> Handle:
        """Create and start the container."""
        self._watch()
        facts.write_script(plan.job)
        (plan.job.directory / facts.WORKSPACE).mkdir()
        started = command.run(plan.request, seconds=600, env={**engine.client_environment(), **plan.secrets})
        if not started:
            self._remove(plan.job.id)
            raise InfrastructureError(f"docker run failed (exit {started.code}): {started.output.strip()}")
        return Handle(self.name, plan.job.id, str(plan.job.directory))

    def states(self, handles: Sequence[Handle]) -> Mapping[Handle, State]:
        """One listing of all our containers."""
        listed = engine.client().api.containers(all=True, filters={"label": JOB_LABEL})
        known = {name.lstrip("/"): STATES.get(each["State"], State.LOST) for each in listed for name in each["Names"]}
        return {handle: known.get(handle.token, State.LOST) for handle in handles}

    def wait(self, handles: Sequence[Handle], seconds: float) -> None:
        """Sleep until the engine reports the end of one of our containers."""
        del handles
        self._ended.wait(seconds)
        self._ended.clear()

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Wake the waiting at each container's end; without the event stream the waiting is only longer."""
        filters = {"label": JOB_LABEL, "event": "die"}
        try:
            for _ in engine.client().events(filters=filters, decode=True):
                self._ended.set()
        except OSError:
            self._watched = False

    def collect(self, handle: Handle) -> Outcome:
        """What the job left; removes the container."""
        attributes = self._attributes(handle.token)
        self._remove(handle.token)
        state: dict[str, Any] = attributes.get("State", {})
        note = "killed for lack of memory" if state.get("OOMKilled") else str(state.get("Error") or "")
        return facts.outcome(
            Path(handle.directory),
            State.EXITED if attributes else State.LOST,
            exit_code=state.get("ExitCode"),
            node=platform.node(),
            duration=_seconds(state),
            note=note if attributes else "its container vanished",
        )

    def cancel(self, handles: Iterable[Handle]) -> None:
        """TERM to the job's script, which ends the model and tidies up; KILL after that."""
        names = [handle.token for handle in handles]
        if names:
            command.run(["docker", "stop", f"--time={GRACE}", *names], seconds=GRACE * len(names) + 60)

    def _attributes(self, name: str) -> dict[str, Any]:
        import docker

        try:
            return dict(engine.client().containers.get(name).attrs)
        except docker.errors.NotFound:
            return {}

    def _remove(self, name: str) -> None:
        command.run(["docker", "rm", "--force", "--volumes", name], seconds=120)


def _gpu_options(devices: Devices) -> list[str]:
    if devices.vendor == "AMD" and devices.gpus:
        return ["--device=/dev/kfd", *(f"--device=/dev/dri/renderD{node}" for node in devices.render_nodes)]
    if devices.vendor == "NVIDIA" and devices.gpus:
        return [f'--gpus="device={",".join(map(str, devices.gpus))}"']
    return []


def _seconds(state: Mapping[str, Any]) -> float:
    """From the container's start to its end; to now if it still runs."""
    started, finished = (_moment(state.get(key, "")) for key in ("StartedAt", "FinishedAt"))
    if not started:
        return 0.0
    return (finished if finished > started else time.time()) - started


def _moment(text: str) -> float:
    """Docker's nanosecond timestamps as epoch seconds; 0 for its zero time."""
    if not text or text.startswith("0001"):
        return 0.0
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction[:6] or 0}")
