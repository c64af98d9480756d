"""What goes wrong on a cluster while models run there: a row for each try, the right blame, nothing in the queue."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pytest_madengine.engine import journal
from pytest_madengine.results.result import FailureClass
from tests.backends.support import queued, read, until
from tests.backends.test_slurm import on
from tests.cards import card, project, rows
from tests.engines.cluster import Cluster
from tests.test_resume import PATIENCE, pytest_in, said

IMPATIENT = """
from pytest_madengine import attempt
from pytest_madengine.engine.lane import Pace

attempt.FIRST_PAUSE = 0.01

def pytest_madengine_pace():
    return Pace(first=0.05, longest=0.2)
"""
WAITS = """
uname -n >"$MADENGINE_PROJECT/$MAD_MODEL_NAME.$NODE_RANK"
until [ -e "$MADENGINE_PROJECT/go" ]; do sleep 0.05; done
echo performance: 1 x
"""
PROMPT = 10.0
"""Seconds."""
FAILED = pytest.ExitCode.TESTS_FAILED
INFRASTRUCTURE, MODEL, NONE = FailureClass.INFRASTRUCTURE, FailureClass.MODEL, FailureClass.NONE


@dataclass(frozen=True)
class Told:
    """What a run said of one try at a model."""

    status: str
    blame: FailureClass
    reason: str
    folder: Path


def told(folder: Path, model: str = "m") -> list[Told]:
    """Of each try, in their order."""
    records = [each for each in journal.read(folder / ".madengine/runs/latest") if each["kind"] == journal.RESULT]
    return [
        Told(each["status"], FailureClass(each["failure"]), each["reason"], Path(each["directory"]))
        for each in records
        if each["item"].endswith(f"::{model}")
    ]


def models(folder: Path, *cards: dict[str, object], script: str = WAITS, **scripts: str) -> Path:
    project(folder, *cards, script=script, **scripts)
    (folder / "conftest.py").write_text(IMPATIENT)
    return folder


@dataclass(frozen=True)
class Run:
    """A session of pytest in a folder."""

    folder: Path
    process: subprocess.Popen[bytes]

    def until(self, happened: Callable[[], object]) -> None:
        """Return as soon as that is true; a session that is over makes nothing true any more."""
        until(lambda: happened() or self.process.poll() is not None)
        assert happened(), said(self.folder)

    def node(self, model: str = "m", rank: int = 0) -> str:
        """Where a model of `WAITS` waits, as soon as it does."""
        place = self.folder / f"{model}.{rank}"
        self.until(lambda: read(place).endswith("\n"))
        return read(place).strip()

    def number(self) -> str:
        """SLURM's number of the one job that this session has in flight."""
        line = ["squeue", "--noheader", "--format=%i %k"]
        found = subprocess.run(line, capture_output=True, check=True, text=True).stdout.splitlines()
        (number,) = (each.split()[0] for each in found if self.id in each)
        return number

    @property
    def id(self) -> str:
        return (self.folder / ".madengine/runs/latest").resolve().name

    def go(self) -> None:
        """Let the models of `WAITS` go on."""
        (self.folder / "go").touch()

    def ends(self, code: pytest.ExitCode = pytest.ExitCode.OK) -> list[Told]:
        """What it said of `m` when it was over: as many rows, and nothing in the queue."""
        assert self.process.wait(PATIENCE) == code, said(self.folder)
        tries = told(self.folder)
        assert [row["status"] for row in rows(self.folder / "perf.csv") if row["model"] == "m"] == statuses(tries)
        assert queued(self.id) == []
        return tries


@contextlib.contextmanager
def running(folder: Path, *args: str, slurm: dict[str, object] | None = None) -> Iterator[Run]:
    """A session that does not outlive the block."""
    process = pytest_in(folder, *on(slurm={"enable_node_check": False, **(slurm or {})}), *args)
    try:
        yield Run(folder, process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(PATIENCE)


def kill(cluster: Cluster, node: str) -> None:
    cluster.do("kill-node", node.removeprefix("node"))
    cluster.notice_death(node)


def statuses(tries: Sequence[Told]) -> list[str]:
    return [each.status for each in tries]


def waits(folder: Path, model: str = "m") -> str:
    """The last reason for which a model waits, as `--madengine-status` shows it."""
    phases = [each for each in journal.read(folder / ".madengine/runs/latest") if each["kind"] == journal.PHASE]
    details = [each.get("detail", "") for each in phases if each["item"].endswith(f"::{model}")]
    return details[-1] if details else ""


@pytest.mark.requires_slurm(alone=True)
class TestNodes:
    def test_one_that_dies_fails_the_job(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        models(tmp_path, card("m"))
        with running(tmp_path) as run:
            dead = run.node()
            kill(slurm_cluster, dead)
            (failed,) = run.ends(FAILED)
        assert (failed.status, failed.blame) == ("FAILURE", INFRASTRUCTURE)
        assert f"a node failed: {dead}" in failed.reason

    @pytest.mark.parametrize(("nodes", "rank"), [(1, 0), (3, 0), (3, 2)])
    def test_one_that_dies_is_avoided_by_the_next_try(
        self, tmp_path: Path, slurm_cluster: Cluster, nodes: int, rank: int
    ) -> None:
        models(tmp_path, card("m", slurm={"nodes": nodes}))
        with running(tmp_path, "--madengine-retries=1") as run:
            places = [run.node(rank=each) for each in range(nodes)]
            for each in range(nodes):
                (tmp_path / f"m.{each}").unlink()
            kill(slurm_cluster, places[rank])
            assert places[rank] not in {run.node(rank=each) for each in range(nodes)}
            run.go()
            tries = run.ends()
        assert [(each.status, each.blame) for each in tries] == [("FAILURE", INFRASTRUCTURE), ("SUCCESS", NONE)]
        assert f"--exclude={places[rank]}\n" in (tries[1].folder / "job.sh").read_text()

    def test_one_that_is_drained_ends_its_job_and_gets_no_other(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        models(tmp_path, card("m"), card("n", slurm={"nodes": 3}), n="uname -n; echo performance: 1 x\n")
        with running(tmp_path, "--madengine-max-in-flight=1") as run:
            drained = run.node()
            slurm_cluster.text("scontrol", "update", f"nodename={drained}", "state=drain", "reason=test")
            run.go()
            assert statuses(run.ends()) == ["SUCCESS"]
        (others,) = told(tmp_path, "n")
        assert others.status == "SUCCESS"
        hosts = {read(others.folder / f"ranks/{rank}/host").strip() for rank in range(3)}
        assert len(hosts - {drained}) == 3

    def test_while_all_are_drained_jobs_wait_and_say_why(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        models(tmp_path, card("m"), script="echo performance: 1 x\n")
        slurm_cluster.text("scontrol", "update", "nodename=node[1-4]", "state=drain", "reason=test")
        with running(tmp_path) as run:
            run.until(lambda: "DRAINED" in waits(tmp_path) or "ReqNodeNotAvail" in waits(tmp_path))
            try:
                assert pytest_in(tmp_path, "--madengine-status").wait(PATIENCE) == 0
                assert re.search(r"^m +pending +\d+ s +(Nodes required|ReqNode)", said(tmp_path), re.MULTILINE)
            finally:
                slurm_cluster.text("scontrol", "update", "nodename=node[1-4]", "state=resume")
            assert statuses(run.ends()) == ["SUCCESS"]


class TestTheController:
    @pytest.mark.requires_slurm(alone=True)
    def test_that_restarts_costs_no_job(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        models(tmp_path, card("m"), card("n", slurm={"nodes": 2}))
        with running(tmp_path) as run:
            run.node()
            run.node("n", rank=1)
            slurm_cluster.until_saved()
            slurm_cluster.do("kill-controller")
            run.go()
            run.until(lambda: list(tmp_path.glob(".madengine/runs/latest/jobs/m-*/exit_code")))
            slurm_cluster.do("restart-controller")
            assert statuses(run.ends()) == ["SUCCESS"]
        assert statuses(told(tmp_path, "n")) == ["SUCCESS"]

    @pytest.mark.requires_slurm(alone=True, accounting=True)
    def test_that_forgets_a_job_and_gives_its_number_to_another_loses_the_job(
        self, tmp_path: Path, slurm_cluster: Cluster
    ) -> None:
        models(tmp_path, card("m"))
        slurm_cluster.until_saved()
        before = slurm_cluster.memory.read_bytes()
        with running(tmp_path, "--madengine-retries=1") as run:
            run.node()
            number = run.number()
            slurm_cluster.do("kill-controller")
            slurm_cluster.memory.write_bytes(before)  # as if it had not come to save the job
            slurm_cluster.do("restart-controller")
            other = slurm_cluster.submit("exec sleep 600", tmp_path / "other")
            assert other == number
            run.until(lambda: list(tmp_path.glob(".madengine/runs/latest/jobs/m-*-2")))
            run.go()
            tries = run.ends()
        assert [(each.status, each.blame) for each in tries] == [("FAILURE", INFRASTRUCTURE), ("SUCCESS", NONE)]
        assert slurm_cluster.state(other) != "CANCELLED"


@contextlib.contextmanager
def small_disk(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """A folder on a disk of 16 MB that this machine and node1 share."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "small", str(folder)], check=True)
    try:
        cluster.do("kill-node", "1")  # a node sees what was mounted when it was switched on
        cluster.do("start-node", "1")
        yield folder
    finally:
        cluster.do("kill-node", "1")
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.requires_slurm(alone=True)
class TestDisks:
    def test_one_that_is_full_when_the_log_is_copied(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        script = "head -c 30000000 /dev/zero | tr '\\0' x; echo; echo performance: 1 x\n"
        with small_disk(slurm_cluster, tmp_path / "small") as folder:
            models(folder, card("m"), script=script)
            with running(folder, slurm={"nodelist": "node1"}) as run:
                (failed,) = run.ends(FAILED)
            assert (failed.status, failed.blame) == ("FAILURE", INFRASTRUCTURE)
            assert "could not be copied" in failed.reason
            assert "No space left on device" in failed.reason


class TestRequeueing:
    """Only the last start of a job counts."""

    @pytest.mark.requires_slurm
    def test_that_somebody_asks_for(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        self._requeued(tmp_path, slurm_cluster, 2, lambda _, number: slurm_cluster.text("scontrol", "requeue", number))

    @pytest.mark.requires_slurm(alone=True)
    def test_of_what_a_dead_node_ran(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        self._requeued(tmp_path, slurm_cluster, 1, lambda node, _: kill(slurm_cluster, node))

    @staticmethod
    def _requeued(folder: Path, cluster: Cluster, nodes: int, requeue: Callable[[str, str], object]) -> None:
        first = "echo performance: 5 x; echo 1 >a.csv\n"
        script = f'[ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ] || {{ {first} }}\n{WAITS}'
        models(folder, card("m", slurm={"nodes": nodes}), script=script)
        with running(folder) as run:
            places = [run.node(rank=rank) for rank in range(nodes)]
            number = run.number()
            cluster.text("scontrol", "update", f"jobid={number}", "requeue=1")
            requeue(places[0], number)
            cluster.until(number, "PENDING")
            run.go()
            cluster.text("scontrol", "update", f"jobid={number}", "StartTime=now+2")  # not in the second of its death
            (result,) = run.ends()
        assert result.status == "SUCCESS"
        assert [row["performance"] for row in rows(folder / "perf.csv")] == [str(nodes)]
        assert not list(result.folder.rglob("a.csv"))


REFUSED = [
    pytest.param({"partition": "nowhere"}, "sbatch refused: invalid partition specified: nowhere*", id="partition"),
    pytest.param({"constraint": "purple"}, "sbatch refused: *Invalid feature specification*", id="constraint"),
    pytest.param({"gpus_per_node": 9}, "sbatch refused: *node configuration is not available*", id="GPUs"),
    pytest.param({"nodes": 9}, "SLURM will never run it: PartitionNodeLimit", id="nodes"),
    pytest.param(
        {"partition": "debug", "time": "00:20:00"}, "SLURM will never run it: PartitionTimeLimit", id="time limit"
    ),
]
NOT_OURS = [
    pytest.param({"account": "nobody"}, "sbatch refused: *Invalid account*", id="account"),
    pytest.param({"qos": "nosuch"}, "sbatch refused: *Invalid qos specification*", id="QOS"),
]


SmallQos = Callable[[str], str]


@pytest.fixture
def small_qos(slurm_cluster: Cluster) -> Iterator[SmallQos]:
    """Makes a quality of service in which a limit of that name allows one GPU."""
    name = f"small{os.getpid()}"

    def small_qos(limit: str) -> str:
        _manage(slurm_cluster, "add", "qos", name, f"{limit}=gres/gpu=1")
        _manage(slurm_cluster, "modify", "user", "root", "set", f"qos+={name}")
        return name

    yield small_qos
    _manage(slurm_cluster, "modify", "user", "root", "set", f"qos-={name}")
    _manage(slurm_cluster, "delete", "qos", name)


def _manage(cluster: Cluster, *what: str) -> None:
    cluster.text("sacctmgr", "--immediate", "--quiet", *what)


class TestRequests:
    """Those that cannot be met end at once, with SLURM's reason."""

    @pytest.mark.requires_slurm
    @pytest.mark.parametrize(("slurm", "words"), REFUSED)
    def test_that_the_cluster_refuses(self, tmp_path: Path, slurm: dict[str, object], words: str) -> None:
        self._refused(tmp_path, slurm, words)

    @pytest.mark.requires_slurm(accounting=True)
    @pytest.mark.parametrize(("slurm", "words"), NOT_OURS)
    def test_that_the_accounts_refuse(self, tmp_path: Path, slurm: dict[str, object], words: str) -> None:
        self._refused(tmp_path, slurm, words)

    @pytest.mark.requires_slurm(accounting=True)
    def test_that_no_job_of_this_quality_of_service_may_make(self, tmp_path: Path, small_qos: SmallQos) -> None:
        self._refused(tmp_path, {"qos": small_qos("MaxTRESPerJob")}, "SLURM will never run it: QOSMaxGRESPerJob")

    @pytest.mark.requires_slurm(accounting=True)
    def test_that_only_others_stand_in_the_way_of_wait(self, tmp_path: Path, small_qos: SmallQos) -> None:
        models(tmp_path, card("m"), card("n"))
        with running(tmp_path, slurm={"qos": small_qos("GrpTRES"), "gpus_per_node": 1}) as run:
            run.until(lambda: "QOSGrpGRES" in {waits(tmp_path), waits(tmp_path, "n")})
            run.go()
            assert statuses(run.ends()) == ["SUCCESS"]

    @staticmethod
    def _refused(folder: Path, slurm: dict[str, object], words: str) -> None:
        models(folder, card("m"))
        with running(folder, "--madengine-retries=2", slurm={"gpus_per_node": 2, **slurm}) as run:
            (failed,) = run.ends(FAILED)  # to try again would change nothing
        assert (failed.status, failed.blame) == ("FAILURE", INFRASTRUCTURE)
        assert fnmatch(failed.reason, f"*{words}")
        assert fnmatch(said(folder), f"*m: *{words}*")
        times = {each["kind"]: each["time"] for each in journal.read(folder / ".madengine/runs/latest")}
        assert times[journal.RESULT] - times[journal.RUN] < PROMPT


@pytest.mark.requires_slurm
class TestEndings:
    """Of jobs that do not run to their end."""

    def test_somebody_cancels_it(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        models(tmp_path, card("m"))
        with running(tmp_path) as run:
            run.node()
            slurm_cluster.text("scancel", run.number())
            (failed,) = run.ends(FAILED)
        assert (failed.status, failed.blame) == ("FAILURE", INFRASTRUCTURE)
        assert "cancelled" in failed.reason

    def test_somebody_cancels_it_before_it_begins(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        models(tmp_path, card("m"))
        with running(tmp_path, slurm={"options": {"begin": "now+1hour"}}) as run:
            run.until(lambda: waits(tmp_path) == "BeginTime")
            slurm_cluster.text("scancel", run.number())
            (failed,) = run.ends(FAILED)
        assert (failed.status, failed.blame) == ("FAILURE", INFRASTRUCTURE)
        assert "cancelled" in failed.reason

    def test_slurm_ends_it_at_its_own_limit(self, tmp_path: Path, slurm_cluster: Cluster) -> None:
        models(tmp_path, card("m", slurm={"nodes": 2}))
        with running(tmp_path) as run:
            run.node(rank=1)
            slurm_cluster.text("scontrol", "update", f"jobid={run.number()}", "TimeLimit=0")
            (failed,) = run.ends(FAILED)
        assert (failed.status, failed.blame) == ("FAILURE", MODEL)
        assert failed.reason.startswith("time limit exceeded (SLURM's own time limit)")

    def test_its_deadline_comes_before_it_could_begin(self, tmp_path: Path) -> None:
        models(tmp_path, card("m"))
        with running(tmp_path, slurm={"time": "00:01:00", "options": {"deadline": "now+10seconds"}}) as run:
            (failed,) = run.ends(FAILED)
        assert (failed.status, failed.blame) == ("FAILURE", INFRASTRUCTURE)
        assert "deadline" in failed.reason

    def test_the_models_own_limit_is_up(self, tmp_path: Path) -> None:
        models(tmp_path, card("m", slurm={"nodes": 2}))
        with running(tmp_path, "--madengine-timeout=2") as run:
            (failed,) = run.ends(FAILED)
        assert (failed.status, failed.blame) == ("FAILURE", MODEL)
        assert failed.reason == "time limit of 2 s exceeded"

    def test_an_interruption_ends_jobs_that_run_and_that_wait(self, tmp_path: Path) -> None:
        models(tmp_path, card("m", slurm={"nodes": 2}), card("n", slurm={"options": {"begin": "now+1hour"}}))
        with running(tmp_path) as run:
            run.node(rank=1)
            run.until(lambda: waits(tmp_path, "n") == "BeginTime")
            run.process.send_signal(signal.SIGINT)
            (failed,) = run.ends(pytest.ExitCode.INTERRUPTED)
        assert (failed.status, failed.blame) == ("FAILURE", INFRASTRUCTURE)
        assert statuses(told(tmp_path, "n")) == ["FAILURE"]

    def test_what_a_killed_pytest_left_is_found_by_the_next(self, tmp_path: Path) -> None:
        models(tmp_path, card("m", slurm={"nodes": 2}), script=f"echo x >>$MADENGINE_PROJECT/runs.$NODE_RANK\n{WAITS}")
        with running(tmp_path) as run:
            run.node(rank=0)
            run.node(rank=1)
            run.until(lambda: "m: running" in said(tmp_path))
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()
        with running(tmp_path, "--madengine-resume") as run:
            run.until(lambda: said(tmp_path).count("m: running") == 2)
            run.go()
            assert statuses(run.ends()) == ["SUCCESS"]
        assert [read(tmp_path / f"runs.{rank}") for rank in range(2)] == ["x\n", "x\n"]


@pytest.mark.requires_slurm
class TestSessions:
    def test_two_in_one_folder(self, tmp_path: Path) -> None:
        models(tmp_path, card("one"), card("other"))
        with running(tmp_path, "-k", "one") as one, running(tmp_path, "-k", "other") as other:
            one.node("one")
            other.node("other")
            one.go()
            assert (one.process.wait(PATIENCE), other.process.wait(PATIENCE)) == (0, 0), said(tmp_path)
        assert sorted((row["model"], row["status"]) for row in rows(tmp_path / "perf.csv")) == [
            ("one", "SUCCESS"),
            ("other", "SUCCESS"),
        ]

    def test_of_a_project_elsewhere_with_names_that_are_no_file_names(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        elsewhere, here = tmp_path / "else where's", tmp_path / "here"
        here.mkdir()
        odd = card('team a/its model\'s "x"', scripts="scripts/odd one.sh")
        project(elsewhere, odd, script='cat "$MADENGINE_PROJECT/data"; echo performance: 1 x\n')
        (elsewhere / "data").write_text("of the project\n")
        monkeypatch.setenv("MODEL_DIR", str(elsewhere))
        with running(here) as run:
            assert run.process.wait(PATIENCE) == 0, said(here)
        assert [(row["model"], row["status"]) for row in rows(here / "perf.csv")] == [(odd["name"], "SUCCESS")]
        (log,) = here.glob(".madengine/runs/latest/jobs/*/run.log")
        assert "of the project\n" in log.read_text()
