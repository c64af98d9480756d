"""What only the fake backend has: jobs that are pretended."""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from pytest_madengine.backends.base import Handle, Plan, State, Status
from pytest_madengine.backends.fake import FakeBackend, Pretence
from pytest_madengine.jobs.job import Job
from pytest_madengine.secrets import Secret
from tests.backends.support import FAKE, LONG, ROOT, Bench, Place, text, until

Given = TypeVar("Given")
FOREVER = Pretence(3600)
AT_ONCE = Pretence(0)
SUBMIT = """
import sys
from pathlib import Path
from pytest_madengine.backends.fake import FakeBackend, Pretence
from tests.backends.test_fake import job
folder, seconds, pending = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
backend = FakeBackend(folder / "place", pretend=lambda _: Pretence(seconds, pending=pending))
backend.submit(backend.plan(job(folder)))
print("submitted", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place() -> Place:
    return FAKE


def job(folder: Path, name: str = "job") -> Job:
    return Job(
        id=f"madengine-test-{name}",
        run="test",
        name="llama",
        script="exit 9\n",
        directory=folder / "jobs" / name,
        project=folder,
        env={},
        secrets={"HF_TOKEN": Secret("hunter2")},
        limit=None,
    )


class Stage:
    """One backend that pretends all jobs alike, and others at the same place."""

    def __init__(self, folder: Path, pretence: Pretence) -> None:
        self.folder = folder
        self.pretence = pretence
        self.backend = self.another()
        self.woken = threading.Event()
        self.submitted: list[Handle] = []
        self.backend.watch(self.woken.set)

    def another(self) -> FakeBackend:
        """As another process would have it."""
        return FakeBackend(self.folder / "place", pretend=lambda _: self.pretence)

    def submit(self, name: str = "job") -> Handle:
        handle = self.backend.submit(self.backend.plan(job(self.folder, name)))
        self.submitted.append(handle)
        return handle

    def status(self, handle: Handle) -> Status:
        return self.backend.states([handle])[handle]

    def await_end(self, handle: Handle) -> None:
        """Sleep until the backend says so."""
        while True:
            self.woken.clear()
            if self.status(handle).state.over:
                return
            assert self.woken.wait(LONG)

    def noted(self) -> list[str]:
        """The files at the place."""
        return [path.name for path in (self.folder / "place").rglob("*") if path.is_file()]


Staging = Callable[[Pretence], Stage]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Staging]:
    stages: list[Stage] = []

    def make(pretence: Pretence) -> Stage:
        stages.append(Stage(tmp_path, pretence))
        return stages[-1]

    yield make
    for each in stages:
        each.backend.cancel(each.submitted)


def test_its_names(tmp_path: Path) -> None:
    usual, site = FakeBackend(tmp_path), FakeBackend(tmp_path, name="site", at_once=3)
    assert (usual.name, usual.deployment, usual.containers, usual.at_once) == ("fake", "fake", False, 500)
    assert (site.name, site.deployment, site.containers, site.at_once) == ("site", "fake", False, 3)


def test_a_plan_is_a_value_and_touches_nothing(tmp_path: Path) -> None:
    backend = FakeBackend(tmp_path / "place", pretend=lambda _: Pretence(5, exit_code=3, node="n1"))
    plan = backend.plan(job(tmp_path))
    told = {"seconds": 5, "exit_code": 3, "output": "performance: 1 x\n", "pending": 0.0, "reason": "Resources"}
    assert plan == Plan(job(tmp_path), {"pretence": {**told, "node": "n1"}})
    assert json.loads(json.dumps(plan.request)) == plan.request
    assert list(tmp_path.iterdir()) == []


class TestALife:
    """From submission to outcome."""

    def test_it_waits_runs_and_ends(self, stage: Staging) -> None:
        show = stage(Pretence(0.2, pending=0.2, reason="Priority"))
        handle = show.submit()
        assert show.status(handle) == Status(State.PENDING, "Priority")
        until(lambda: show.status(handle) == Status(State.RUNNING))
        until(lambda: show.status(handle) == Status(State.EXITED))

    def test_a_long_wait_is_pending(self, stage: Staging) -> None:
        show = stage(Pretence(1, pending=3600))
        assert show.status(show.submit()) == Status(State.PENDING, "Resources")

    def test_what_it_leaves(self, stage: Staging) -> None:
        show = stage(Pretence(0.05, exit_code=3, output="größe\nperformance: 7 x\n", node="n17"))
        before = time.time()
        handle = show.submit()
        show.await_end(handle)
        outcome = show.backend.collect(handle)
        assert (outcome.state, outcome.exit_code, outcome.node, outcome.note) == (State.EXITED, 3, "n17", "")
        assert outcome.duration == pytest.approx(0.05)
        assert text(outcome) == "madengine: llama on n17\ngröße\nperformance: 7 x\n"
        assert [(phase.name, phase.code) for phase in outcome.phases] == [("prepare", 0), ("model", 3)]
        model = outcome.phase("model")
        assert model
        assert before - 0.001 <= model.started < model.ended <= time.time()
        assert outcome.log.read_bytes()[model.log_from : model.log_to].decode() == "größe\nperformance: 7 x\n"
        left = {path.name for path in Path(handle.directory).iterdir()}
        assert left == {"run.sh", "run.log", "phases", "started", "exit_code", "artifacts"}
        assert outcome.artifacts == {}

    def test_it_is_as_a_real_job_leaves_it(self, bench: Bench, stage: Staging) -> None:
        real = bench.run("echo 'performance: 1 x'\n", name="llama")
        show = stage(AT_ONCE)
        pretended = show.backend.collect(show.submit())
        show.pretence = Pretence(0.001)
        again = show.submit("again")
        show.await_end(again)
        pretended = show.backend.collect(again)
        assert text(pretended) == text(real)
        assert [replace_moments(phase) for phase in pretended.phases] == [
            replace_moments(phase) for phase in real.phases
        ]
        files = ({path.name: path.stat().st_mode for path in each.log.parent.iterdir()} for each in (real, pretended))
        assert next(files) == next(files)

    def test_nothing_is_noted_of_one_that_was_collected(self, stage: Staging) -> None:
        show = stage(AT_ONCE)
        handle = show.submit()
        assert show.noted() == ["madengine-test-job.json"]
        show.backend.collect(handle)
        assert show.noted() == []
        assert show.status(handle) == Status(State.EXITED)
        assert show.another().states([handle]) == {handle: Status(State.EXITED)}

    def test_collected_twice_it_is_the_same(self, stage: Staging) -> None:
        show = stage(Pretence(0.001, exit_code=3))
        handle = show.submit()
        show.await_end(handle)
        first, second = show.backend.collect(handle), show.another().collect(handle)
        assert (first.exit_code, first.phases) == (second.exit_code, second.phases)
        assert second.duration == pytest.approx(first.duration, abs=0.001)

    def test_no_secret_is_written(self, stage: Staging) -> None:
        show = stage(AT_ONCE)
        handle = show.submit()
        assert b"hunter2" not in b"".join(each.read_bytes() for each in show.folder.rglob("*") if each.is_file())
        show.backend.collect(handle)
        assert b"hunter2" not in b"".join(each.read_bytes() for each in show.folder.rglob("*") if each.is_file())

    def test_an_unknown_one_is_lost(self, stage: Staging, tmp_path: Path) -> None:
        show = stage(FOREVER)
        unknown = Handle("fake", "madengine-test-never", str(tmp_path))
        assert show.backend.states([show.submit(), unknown])[unknown] == Status(State.LOST)
        show.backend.cancel([unknown])
        assert show.backend.collect(unknown).state is State.LOST


def replace_moments(phase: object) -> object:
    """A phase without its times."""
    assert dataclasses.is_dataclass(phase)
    assert not isinstance(phase, type)
    return dataclasses.replace(phase, started=0, ended=0)


class TestCancelling:
    """Ends that come from outside."""

    @pytest.mark.parametrize("hard", [False, True])
    def test_it_ends_at_that_moment(self, stage: Staging, *, hard: bool) -> None:
        show = stage(FOREVER)
        handle = show.submit()
        until(lambda: time.time() - started_at(show) > 0.05)
        show.backend.cancel([handle], hard=hard)
        assert show.status(handle) == Status(State.EXITED)
        outcome = show.backend.collect(handle)
        assert (outcome.state, outcome.exit_code) == (State.EXITED, 143)
        assert 0.02 < outcome.duration < LONG
        assert [(phase.name, phase.code) for phase in outcome.phases] == [("prepare", 0), ("model", -1)]
        assert "performance" not in text(outcome)
        assert show.noted() == []

    def test_one_that_waits_leaves_nothing_but_its_end(self, stage: Staging) -> None:
        show = stage(Pretence(1, pending=3600))
        handle = show.submit()
        show.backend.cancel([handle])
        assert show.status(handle) == Status(State.EXITED)
        outcome = show.backend.collect(handle)
        assert (outcome.exit_code, outcome.phases, outcome.duration, text(outcome)) == (143, (), 0.0, "")

    def test_after_the_end_nothing_changes(self, stage: Staging) -> None:
        show = stage(AT_ONCE)
        handle = show.submit()
        show.backend.cancel([handle, handle])
        assert show.backend.collect(handle).exit_code == 0
        show.backend.cancel([handle])
        assert show.noted() == []

    def test_by_another_backend_it_is_seen_and_wakes(self, stage: Staging) -> None:
        show = stage(FOREVER)
        first, second = show.submit("first"), show.submit("second")
        assert show.status(first) == Status(State.RUNNING)
        for handle in (first, second):  # within moments, which a file system may not tell apart
            show.another().cancel([handle])
            assert show.status(handle) == Status(State.EXITED)
        show.await_end(first)
        assert show.backend.collect(first).exit_code == 143

    def test_by_another_backend_it_wakes(self, stage: Staging) -> None:
        show = stage(FOREVER)
        handle = show.submit()
        until(alarms)
        show.another().cancel([handle])
        assert show.woken.wait(5)

    def test_collected_by_another_backend_it_is_over(self, stage: Staging) -> None:
        show = stage(FOREVER)
        handle = show.submit()
        assert show.status(handle) == Status(State.RUNNING)
        other = show.another()
        other.cancel([handle])
        other.collect(handle)
        assert show.status(handle) == Status(State.EXITED)


def started_at(show: Stage) -> float:
    """When the stage's one job was handed over."""
    submitted: float = json.loads((show.folder / "place/madengine-test-job.json").read_text())["submitted"]
    return submitted


class TestProcesses:
    """Several processes at one place."""

    @pytest.mark.parametrize("pending", [0.0, 3600.0])
    def test_a_job_outlives_its_submitter(self, stage: Staging, pending: float) -> None:
        show = stage(AT_ONCE)
        submit_and_die(show.folder, 3600, pending)
        wanted = job(show.folder)
        found = show.backend.find({wanted.id: wanted.directory})
        assert found == {wanted.id: Handle("fake", wanted.id, str(wanted.directory))}
        handle = found[wanted.id]
        waits = Status(State.PENDING, "Resources")
        assert show.status(handle) == (waits if pending else Status(State.RUNNING))
        assert show.submit() == handle
        assert show.status(handle) == (waits if pending else Status(State.RUNNING))
        show.backend.cancel([handle])
        assert show.backend.collect(handle).exit_code == 143

    def test_it_wakes_at_the_end_of_a_job_of_a_dead_process(self, stage: Staging) -> None:
        show = stage(AT_ONCE)
        submit_and_die(show.folder, 0.5, 0.5)
        wanted = job(show.folder)
        handle = show.backend.find({wanted.id: wanted.directory})[wanted.id]
        show.await_end(handle)
        assert show.backend.collect(handle).exit_code == 0

    def test_one_submission_counts(self, stage: Staging) -> None:
        show = stage(FOREVER)
        handle = show.submit()
        other = stage(AT_ONCE)
        assert other.submit() == handle
        assert other.status(handle) == Status(State.RUNNING)
        other.backend.cancel([handle])
        other.backend.collect(handle)
        assert show.status(show.submit()) == Status(State.EXITED)

    def test_many_are_found_at_once(self, stage: Staging) -> None:
        show = stage(FOREVER)
        handles = [show.submit(str(number)) for number in range(50)]
        folders = {f"madengine-test-{number}": show.folder / "jobs" / str(number) for number in range(100)}
        assert set(show.another().find(folders).values()) == set(handles)

    def test_what_a_writer_left_that_died_is_no_job(self, stage: Staging) -> None:
        show = stage(AT_ONCE)
        show.folder.joinpath("place").mkdir()
        (show.folder / "place/madengine-test-job.1-2.new").write_text('{"model": "llam')
        wanted = job(show.folder)
        assert show.backend.find({wanted.id: wanted.directory}) == {}
        assert show.backend.collect(show.submit()).exit_code == 0


def submit_and_die(folder: Path, seconds: float, pending: float) -> None:
    """Let another process submit a job and be killed."""
    argv = [sys.executable, "-c", SUBMIT, str(folder), str(seconds), str(pending)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "submitted\n"
        process.kill()


def test_some_jobs_are_pretended_and_others_run(bench: Bench) -> None:
    bench.backend = FakeBackend(
        bench.folder / "fake", pretend=lambda job: Pretence(0.1, output="pretended\n") if job.name == "a" else None
    )
    bench.backend.watch(bench.woken.set)
    handles = [bench.submit(bench.job("echo real\n", name=name)) for name in "ab"]
    assert bench.backend.states(handles).keys() == set(handles)
    assert [text(bench.finish(handle)).splitlines()[1:] for handle in handles] == [["pretended"], ["real"]]


class TestWaking:
    """One thread that sleeps until the next end."""

    def test_at_each_end(self, stage: Staging) -> None:
        show = stage(FOREVER)
        show.submit("last")
        for seconds in (0.2, 0.1, 0.05):
            show.pretence = Pretence(seconds)
            handle = show.submit(str(seconds))
            started = time.monotonic()
            show.await_end(handle)
            assert time.monotonic() - started < seconds + 5
        until(lambda: alarms() == 1)  # those of other tests are ending

    def test_its_thread_ends_with_the_last_job(self, stage: Staging) -> None:
        show = stage(Pretence(0.05))
        for name in ("first", "second"):
            show.await_end(show.submit(name))
            until(lambda: alarms() == 0)


def alarms() -> int:
    """The threads that wait for the ends of pretended jobs."""
    return [each.name for each in threading.enumerate()].count("madengine-alarm")


class TestSpeed:
    """Hundreds of jobs in flight cost next to nothing."""

    COUNT = 500

    def test_submit_states_and_collect(self, stage: Staging) -> None:
        show = stage(FOREVER)
        plans = [show.backend.plan(job(show.folder, str(number))) for number in range(self.COUNT)]
        submit, handles = cost(lambda: [show.backend.submit(plan) for plan in plans])
        states, answers = cost(lambda: [show.backend.states(handles) for _ in range(20)])
        assert [set(answer.values()) for answer in answers] == [{Status(State.RUNNING)}] * 20
        show.backend.cancel(handles)
        collect, outcomes = cost(lambda: [show.backend.collect(handle) for handle in handles])
        assert {outcome.exit_code for outcome in outcomes} == {143}
        assert submit / self.COUNT < 0.001
        assert states / 20 < 0.005
        assert collect / self.COUNT < 0.001


def cost(action: Callable[[], Given]) -> tuple[float, Given]:
    """Seconds of processor time that it took, without the system's for the files, and what it gave."""
    started = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    given = action()
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime - started, given
