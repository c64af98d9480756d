"""The SLURM cluster that tests share, as they use and break it."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = Path(__file__).with_name("slurm.sh")
LONG = 60.0
"""Seconds after which something that never happens is a failure."""
NOT_OVER = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED")


def _text(argv: Sequence[str | Path], **variables: str) -> str:
    done = subprocess.run(argv, capture_output=True, check=False, text=True, env={**os.environ, **variables})
    assert done.returncode == 0, f"{argv} (exit {done.returncode}): {done.stdout}{done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Cluster:
    """Four nodes, node1 to node4, with 8 CPUs and 8 GPUs each; partitions `main` (all, default) and `debug` (1, 2).

    Attributes:
        conf: what SLURM_CONF must say; it is set while a test has the fixture `slurm_cluster`.
        accounting: whether it keeps accounts; then account `research` and quality of service `urgent` exist.
        jobs: the ids of what was submitted through this object.
    """

    conf: Path
    accounting: bool = False
    jobs: list[str] = field(default_factory=list)

    @classmethod
    def of_this_machine(cls, *, accounting: bool = False) -> Cluster:
        """The cluster that `slurm.sh ensure` has made."""
        line = _text([SCRIPT, "env"], DBD=str(int(accounting)))
        return cls(Path(shlex.split(line)[1].partition("=")[2]), accounting)

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Keep those out who want it alone; afterwards end what was submitted through this object."""
        with contextlib.ExitStack() as held:
            with self._locked("turnstile", fcntl.LOCK_EX):  # whoever waits to be alone holds it: newcomers wait behind
                held.enter_context(self._locked("tests", fcntl.LOCK_SH))
            try:
                yield
            finally:
                self.cancel()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep all others out; afterwards nothing runs and the cluster is whole again."""
        with self._locked("turnstile", fcntl.LOCK_EX), self._locked("tests", fcntl.LOCK_EX):
            try:
                yield
            finally:
                self.do("ensure")
                self.text("scancel", f"--user={getpass.getuser()}")
                self.until_quiet()

    @contextlib.contextmanager
    def _locked(self, name: str, how: int) -> Iterator[None]:
        with (self.conf.parents[1] / f"{name}.lock").open("w") as file:
            fcntl.flock(file, how)
            yield

    def do(self, *arguments: str) -> str:
        """Let slurm.sh do something to it: `kill-node 4`, `restart-controller`."""
        return _text([SCRIPT, *arguments], DBD=str(int(self.accounting)))

    def text(self, *argv: str) -> str:
        """What a command of SLURM says; it must succeed."""
        return _text(argv, SLURM_CONF=str(self.conf))

    def submit(self, command: str, output: Path, *options: str) -> str:
        """The id of a job that runs a shell command and writes to a file."""
        job = self.text("sbatch", "--parsable", f"--output={output}", *options, f"--wrap={command}")
        self.jobs.append(job)
        return job

    def state(self, job: str) -> str:
        """A job's state in SLURM's words, `COMPLETED`."""
        return self.text("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")

    def fact(self, job: str, name: str) -> str:
        """What `scontrol show job` says of a job under a name, `ExitCode`."""
        words = self.text("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.partition("=")[::2] for word in words)[name]

    def until(self, job: str, *states: str, seconds: float = LONG) -> str:
        """The state of a job as soon as it is one of these; without any, as soon as the job is over."""
        deadline = time.monotonic() + seconds
        while not self._is(now := self.state(job), states):
            assert time.monotonic() < deadline, f"job {job} is still {now} after {seconds} s"
            time.sleep(0.05)
        return now

    @staticmethod
    def _is(now: str, states: Sequence[str]) -> bool:
        return now in states if states else now not in NOT_OVER

    def notice_death(self, node: str) -> None:
        """Let the controller know at once that a node is dead; by itself it takes 15 to 30 seconds."""
        self.text("scontrol", "update", f"nodename={node}", "state=down", "reason=dead")

    @property
    def memory(self) -> Path:
        """All that a controller which is killed remembers of jobs."""
        return self.conf.parents[1] / "state" / "job_state"

    def until_saved(self) -> None:
        """Return as soon as a controller that is killed remembers what it did; it writes seconds after a change."""
        file = self.memory
        now, deadline = time.time(), time.monotonic() + LONG
        self.submit("true", Path(os.devnull), "--hold")
        while not file.exists() or file.stat().st_mtime <= now:
            assert time.monotonic() < deadline, f"{file} is not written"
            time.sleep(0.05)

    def cancel(self) -> None:
        """End what was submitted through this object."""
        if self.jobs:
            self.text("scancel", *self.jobs)
        for job in self.jobs:
            self.until(job)

    def until_quiet(self) -> None:
        """Return as soon as no job is in flight."""
        deadline = time.monotonic() + LONG
        while left := self.text("squeue", "--noheader"):
            assert time.monotonic() < deadline, f"after {LONG} s there is still: {left}"
            time.sleep(0.05)
