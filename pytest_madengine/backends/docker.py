"""Runs each job in a container of this host's Docker engine."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_madengine import command
from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Handle, Outcome, Plan, State, Status
from pytest_madengine.backends.containers import JOB, JOB_LABEL, PLACES, WORKSPACE, bind, options, preset
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.images import engine
from pytest_madengine.jobs.job import Devices, Job
from pytest_madengine.secrets import Masker

GRACE = 15
"""Seconds from TERM to KILL; the job's script itself gives the model 5 s and then tidies up."""
STARTING = 15.0
"""Seconds in which a living client starts the container that it made."""
POLL = 0.02
NAME_TAKEN = "is already in use by container"
SIGNALLED = 128
"""Exit codes above are those of processes that a signal ended."""
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
    at_once = 1
    remote = False

    def __init__(self) -> None:
        self._wake: Callable[[], None] = _nothing
        self._dead: set[str] = set()
        self._listening = False

    def plan(self, job: Job) -> Plan:
        """The `docker run` arguments; secrets are named there and travel in the client's environment."""
        if job.image is None:
            raise InfrastructureError(f"{job.name}: the docker target needs an image")
        owner = {"MADENGINE_OWNER": f"{os.getuid()}:{os.getgid()}"}
        variables = {**job.env, **PLACES, **owner}
        request = [
            *("docker", "run"),
            *(f"--device={device}" for device in preset(job)["devices"] if Path(device).exists()),
            *_gpu_options(job.devices),
            *(bind(str(job.directory), JOB), bind(str(job.directory / facts.WORKSPACE), WORKSPACE)),
            *options(
                job,
                [
                    *(f"--env={name}={value}" for name, value in variables.items() if name not in job.secrets),
                    *(f"--env={name}" for name in job.secrets),
                ],
            ),
            *("--detach", "--init", f"--name={job.id}", job.image.reference, f"{JOB}/{facts.SCRIPT}"),
        ]
        return Plan(job, request, job.secrets)

    def submit(self, plan: Plan) -> Handle:
        """Create and start the container."""
        if found := self.find({plan.job.id: plan.job.directory}):
            return found[plan.job.id]
        facts.write_script(plan.job)
        (plan.job.directory / facts.WORKSPACE).mkdir(exist_ok=True)
        environment = {**engine.client_environment(), **plan.secrets}
        self._dead.discard(plan.job.id)
        try:
            started = command.run(plan.request, seconds=600, env=environment, mask=Masker(plan.secrets.values()))
            if NAME_TAKEN not in started.output:  # by a client of a dead process, which was only slower
                started.require("docker run")
        except BaseException:
            self._remove(plan.job.id)
            raise
        return Handle(self.name, plan.job.id, str(plan.job.directory))

    def find(self, folders: Mapping[str, Path]) -> Mapping[str, Handle]:
        """By the containers' names, else by what their scripts wrote."""
        begun = {token: folder for token, folder in folders.items() if (folder / facts.SCRIPT).exists()}
        known = self._started_of(begun) if begun else set()
        return {
            token: Handle(self.name, token, str(folder))
            for token, folder in begun.items()
            if token in known or facts.began(folder)
        }

    def _started_of(self, tokens: Iterable[str]) -> set[str]:
        """Those that have a container; one that its client does not come to start is removed."""
        deadline = time.monotonic() + STARTING
        while (half := self._unstarted(tokens)) and time.monotonic() < deadline:
            time.sleep(POLL)
        for token in half:
            self._remove(token)
        return set(self._listed()) - half

    def _unstarted(self, tokens: Iterable[str]) -> set[str]:
        known = self._listed()
        return {token for token in tokens if known.get(token) is State.PENDING}

    def _listed(self) -> dict[str, State]:
        """Every container of ours by its name."""
        with engine.translated("docker ps"):
            listed = engine.client().api.containers(all=True, filters={"label": JOB_LABEL})
        return {name.lstrip("/"): STATES.get(each["State"], State.LOST) for each in listed for name in each["Names"]}

    def versions(self) -> Mapping[str, str]:
        """The engine's."""
        with engine.translated("docker version"):
            return {self.name: str(engine.client().version()["Version"])}

    def states(self, handles: Sequence[Handle]) -> Mapping[Handle, Status]:
        """One listing of all our containers."""
        self._listen_once()
        known = self._listed()
        # the listing lags behind the events
        known |= {name: State.EXITED for name in known if name in self._dead}
        return {handle: Status(known.get(handle.token) or facts.left(Path(handle.directory))) for handle in handles}

    def watch(self, wake: Callable[[], None]) -> None:
        """`wake` is called when the engine reports the end of one of our containers."""
        self._wake = wake

    def _listen_once(self) -> None:
        if not self._listening:
            self._listening = True
            threading.Thread(target=self._listen, args=(int(time.time()) - 1,), daemon=True).start()

    def _listen(self, since: int) -> None:
        """Wake at each container's end; without the event stream the next look is only later."""
        import urllib3

        filters = {"label": JOB_LABEL, "event": "die"}
        try:
            for event in engine.client().events(since=since, filters=filters, decode=True):
                self._dead.add(event["Actor"]["Attributes"]["name"])
                self._wake()
        except (OSError, InfrastructureError, urllib3.exceptions.HTTPError):
            pass
        finally:
            self._listening = False

    def collect(self, handle: Handle) -> Outcome:
        """What the job left; removes the container."""
        directory = Path(handle.directory)
        attributes = self._attributes(handle.token)
        if attributes:
            self._keep_output(handle)
            self._remove(handle.token)
        self._dead.discard(handle.token)
        if os.getuid() and not (directory / facts.EXIT_CODE).exists():
            _take_over(directory, attributes)
        state: dict[str, Any] = attributes.get("State", {})
        found, note = _ending(handle, state)
        return facts.outcome(
            directory,
            found,
            exit_code=state.get("ExitCode"),
            node=platform.node(),
            duration=_seconds(state),
            note=note,
        )

    def cancel(self, handles: Iterable[Handle], *, hard: bool = False) -> None:
        """TERM to the job's script, which ends the model and tidies up; KILL after that."""
        handles = list(handles)
        if not handles:
            return
        names = [handle.token for handle in handles]
        request = ["docker", "kill", *names] if hard else ["docker", "stop", "-t", str(GRACE), *names]
        stopped = command.run(request, seconds=GRACE * len(names) + 60)
        deadline = time.monotonic() + GRACE
        while not all(status.state.over for status in self.states(handles).values()):
            if time.monotonic() > deadline:
                raise InfrastructureError(f"{' '.join(request[:2])}: exit {stopped.code}: {stopped.output.strip()}")
            time.sleep(POLL)

    def _keep_output(self, handle: Handle) -> None:
        """Add to the log what came before the job's script could open it; nothing where Docker will not say."""
        import docker

        with suppress(docker.errors.DockerException, OSError):
            output: bytes = engine.client().api.logs(handle.token)
            with (Path(handle.directory) / facts.LOG).open("ab") as log:
                log.write(output)

    def _attributes(self, name: str) -> dict[str, Any]:
        import docker

        try:
            with engine.translated("docker inspect"):
                return dict(engine.client().containers.get(name).attrs)
        except docker.errors.NotFound:
            return {}

    def _remove(self, name: str) -> None:
        command.run(["docker", "rm", "--force", "--volumes", name], seconds=120)


def _nothing() -> None:
    """Nobody wants to be woken."""


def _ending(handle: Handle, state: Mapping[str, Any]) -> tuple[State, str]:
    """How a job ended, and what Docker says of it; `state` is empty where its container is gone."""
    finished = (Path(handle.directory) / facts.EXIT_CODE).exists()
    if state.get("OOMKilled"):
        return State.EXITED, "killed for lack of memory"
    if finished:
        return State.EXITED, str(state.get("Error") or "")
    if not state:
        return State.LOST, "its container vanished"
    if state.get("ExitCode", 0) > SIGNALLED:
        return State.LOST, f"its container was ended by signal {state['ExitCode'] - SIGNALLED}"
    return State.EXITED, str(state.get("Error") or "")


def _take_over(directory: Path, attributes: Mapping[str, Any]) -> None:
    """Make files ours that a container made as root, where its script came to no end that did it."""
    image = attributes.get("Image")
    if image:
        owner = f"{os.getuid()}:{os.getgid()}"
        asked = ["--rm", "--user=root", "--network=none", "--entrypoint=chown", bind(str(directory), JOB)]
        command.run(["docker", "run", *asked, str(image), "-R", owner, JOB], seconds=600)


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
