"""What only the Docker backend has: containers, mounts, raw options, an engine that can go away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_madengine.backends import docker as backend
from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Handle, State
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Job
from tests.backends.contract import COUNT, WAIT_FOR_GO, runs
from tests.backends.support import DOCKER, ROOT, Bench, MortalEngine, Place, text, until, write

pytestmark = pytest.mark.requires_docker


@pytest.fixture
def place() -> Place:
    return DOCKER


def last(bench: Bench, script: str, options: str = "", **keywords: object) -> list[str]:
    """The lines that a model printed which had these options."""
    outcome = bench.run(script, additional_docker_run_options=options, **keywords)
    assert outcome.exit_code == 0, text(outcome)
    return text(outcome).splitlines()[1:]


class TestRefusals:
    """`docker run` that fails."""

    def test_a_missing_image(self, bench: Bench) -> None:
        job = replace(bench.job("true\n"), image=Image("localhost:1/nobody/has-it:ever"))
        with pytest.raises(InfrastructureError, match=r"docker run failed \(exit 125\).*localhost:1"):
            bench.submit(job)
        assert bench.held() == []

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ("--no-such-option", "unknown flag: --no-such-option"),
            ("--memory=plenty", "invalid size: 'plenty'"),
            ("--volume=relative:/x:sometimes", "sometimes"),
            ("--device=/dev/no-such-device", "no-such-device"),
            ("--workdir=relative", "relative"),
        ],
    )
    def test_a_wrong_option(self, bench: Bench, options: str, said: str) -> None:
        job = bench.job("true\n", additional_docker_run_options=options)
        with pytest.raises(InfrastructureError, match="docker run failed") as caught:
            bench.submit(job)
        assert said in str(caught.value)
        assert bench.held() == []

    def test_an_interruption_leaves_no_container(self, bench: Bench, tmp_path: Path) -> None:
        docker = write(tmp_path / "bin/docker", '#!/bin/bash\nPATH=${PATH#*:}\ndocker "$@" || exit\n')
        with docker.open("a") as script:
            script.write(f'if [ "$1" = run ]; then touch {tmp_path}/started; exec sleep {bench.nap}; fi\n')
        docker.chmod(0o755)
        argv = [
            sys.executable,
            "-m",
            "tests.backends.elsewhere",
            "docker",
            str(tmp_path),
            bench.run_id,
            "hold",
            "sleep 9",
            "",
        ]
        path = {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
        with subprocess.Popen(argv, env={**os.environ, **path}, cwd=ROOT, stderr=subprocess.PIPE) as process:
            until((tmp_path / "started").exists)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate()
        assert b"KeyboardInterrupt" in said
        assert bench.held() == []
        assert bench.sleeping() == []


class TestContainersOfOtherClients:
    """Containers that some process made and did not live to tell of."""

    def test_a_name_that_is_taken_is_the_job(self, bench: Bench) -> None:
        job = bench.job(f"{COUNT}{WAIT_FOR_GO}exit 3\n")
        handle = bench.submit(job)
        until(lambda: runs(bench))
        (job.directory / "run.sh").unlink()  # as it was when both of two clients had looked for the job
        assert bench.find(job) is None
        again = bench.fresh_backend()
        assert again.submit(again.plan(job)) == handle
        assert bench.state(handle) is State.RUNNING
        bench.go(handle)
        assert bench.finish(handle).exit_code == 3
        assert runs(bench) == 1

    def test_one_that_was_never_started_is_removed(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "STARTING", 0.2)
        job = bench.job(f"{COUNT}exit 3\n")
        create(bench, job)
        assert bench.held() == [job.id]
        assert bench.find(job) is None
        assert bench.held() == []
        assert bench.finish(bench.submit(job)).exit_code == 3
        assert runs(bench) == 1

    def test_one_that_is_just_being_started_is_waited_for(self, bench: Bench) -> None:
        job = bench.job(f"{COUNT}{WAIT_FOR_GO}exit 3\n")
        create(bench, job)
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(bench.find, job)
            docker("start", job.id)
            handle = found.result()
        assert handle
        bench.submitted.append(handle)
        assert bench.submit(job) == handle
        bench.go(handle)
        assert bench.finish(handle).exit_code == 3
        assert runs(bench) == 1

    def test_one_that_is_gone_had_been_there(self, bench: Bench) -> None:
        job = bench.job(f"{COUNT}sleep {bench.nap}\n")
        bench.submit(job)
        until(lambda: runs(bench))
        docker("rm", "--force", job.id)
        handle = bench.submit(job)
        assert bench.state(handle) is State.LOST
        assert runs(bench) == 1
        assert bench.held() == []


def create(bench: Bench, job: Job) -> None:
    """All that `submit` does up to the moment in which the container is made."""
    facts.write_script(job)
    (job.directory / facts.WORKSPACE).mkdir()
    request = [word for word in bench.backend.plan(job).request if word != "--detach"]
    docker("create", *request[2:])


class TestOptions:
    """What the context and the card say of the container."""

    def test_mounts_can_be_read_and_written(self, bench: Bench, tmp_path: Path) -> None:
        write(tmp_path / "data/words", "words\n")
        mounts = {"docker_mounts": {"/data": str(tmp_path / "data")}}
        assert last(bench, "cat /data/words; echo new > /data/new\n", context=mounts) == ["words"]
        assert (tmp_path / "data/new").read_text() == "new\n"

    def test_a_mount_inside_the_workspace_keeps_its_files(self, bench: Bench, tmp_path: Path) -> None:
        write(tmp_path / "precious/words", "words\n")
        write(bench.project / "data/ours", "ours\n")
        places = ("/myworkspace/data", "/myworkspace/run_directory/deep", "/myworkspace/.cache")
        mounts = {"docker_mounts": dict.fromkeys(places, str(tmp_path / "precious"))}
        write(tmp_path / "theirs.json", "theirs\n")
        write(bench.project / "settings.json", "ours\n")
        mounts["docker_mounts"]["/myworkspace/settings.json"] = str(tmp_path / "theirs.json")
        script = "cat ../data/words deep/words ../.cache/words; ls ../data; cat ../settings.json\n"
        outcome = bench.run(script, context=mounts)
        assert text(outcome).splitlines()[1:] == [*["words"] * 4, "theirs"]
        assert (tmp_path / "theirs.json").read_text() == "theirs\n"
        assert (tmp_path / "precious/words").read_text() == "words\n"
        assert [path.name for path in (tmp_path / "precious").iterdir()] == ["words"]
        assert not (outcome.log.parent / "workspace").exists()

    def test_cpus(self, bench: Bench) -> None:
        assert last(bench, "nproc\n", context={"docker_cpus": "0"}) == ["1"]

    def test_raw_options(self, bench: Bench) -> None:
        script = 'echo "$A" "$B"; cat /etc/hostname; ulimit -n\n'
        options = "--env A='x y' -e B=2 --network=none --hostname=box --ulimit nofile=77:77"
        assert last(bench, script, options) == ["x y 2", "box", "77"]

    @pytest.mark.parametrize(
        "options",
        ["--rm", "--entrypoint ''", "--entrypoint=false", "--name=mine", "-it", "--detach=false", "--init=false"],
    )
    def test_raw_options_that_would_take_the_job_away_do_not(self, bench: Bench, options: str) -> None:
        outcome = bench.run("echo fine; echo 1 > a.csv\n", additional_docker_run_options=options)
        assert (outcome.state, outcome.exit_code, set(outcome.artifacts)) == (State.EXITED, 0, {"a.csv"})
        assert text(outcome).splitlines()[1:] == ["fine"]
        assert bench.held() == []

    def test_an_init_process_reaps_the_dead(self, bench: Bench) -> None:
        assert last(bench, "(sleep 0 &); tr '\\0' ' ' < /proc/1/cmdline; echo\n")[0].startswith("/sbin/docker-init")

    def test_a_folder_with_a_name_that_options_would_stumble_over(self, tmp_path: Path) -> None:
        bench = Bench(DOCKER, write(tmp_path / "a:b,c \"d\" 'e' $f/x", "").parent)
        write(bench.project / "data/words", "words\n")
        assert last(bench, "cat ../data/words; echo 1 > a.csv\n") == ["words"]

    def test_why_a_job_cannot_begin_is_in_its_log(self, bench: Bench) -> None:
        outcome = bench.run("true\n", additional_docker_run_options="--user=65534")
        assert outcome.exit_code != 0
        assert "Permission denied" in text(outcome)


class TestContainersThatEndOtherwise:
    """Somebody or something else ends a container."""

    def test_lack_of_memory(self, bench: Bench) -> None:
        options = "--memory=40m --memory-swap=40m"
        outcome = bench.run("python3 -c 'x = bytearray(10**9)'\n", additional_docker_run_options=options)
        assert (outcome.state, outcome.exit_code) == (State.EXITED, 137)
        assert outcome.note == "killed for lack of memory"

    @pytest.mark.parametrize(("signal", "number"), [("KILL", 9), ("HUP", 1)])
    def test_somebody_kills_it(self, bench: Bench, signal: str, number: int) -> None:
        handle = bench.submit(bench.job(f"echo so far; sleep {bench.nap}\n"))
        until(lambda: bench.says(handle, "so far"))
        docker("kill", f"--signal={signal}", handle.token)
        outcome = bench.finish(handle)
        assert (outcome.state, outcome.exit_code) == (State.LOST, 128 + number)
        assert outcome.note == f"its container was ended by signal {number}"
        assert "so far" in text(outcome)

    def test_somebody_stops_it(self, bench: Bench) -> None:
        handle = bench.submit(bench.job(f"echo so far; echo 1 > a.csv; sleep {bench.nap}\n"))
        until(lambda: bench.says(handle, "so far"))
        docker("stop", handle.token)
        outcome = bench.finish(handle)
        assert (outcome.state, outcome.exit_code, outcome.note) == (State.EXITED, 143, "")
        assert set(outcome.artifacts) == {"a.csv"}

    def test_somebody_removes_it(self, bench: Bench) -> None:
        handle = bench.submit(bench.job(f"echo so far; sleep {bench.nap}\n"))
        until(lambda: bench.says(handle, "so far"))
        docker("rm", "--force", handle.token)
        outcome = bench.finish(handle)
        assert (outcome.state, outcome.exit_code) == (State.LOST, None)
        assert outcome.note == "its container vanished"
        assert "so far" in text(outcome)
        assert not (outcome.log.parent / "workspace").exists()

    def test_somebody_removes_it_after_its_end(self, bench: Bench) -> None:
        handle = bench.submit(bench.job("echo 1 > a.csv; exit 3\n"))
        until(lambda: bench.state(handle).over)
        docker("rm", handle.token)
        assert bench.state(handle) is State.EXITED
        outcome = bench.collect(handle)
        assert (outcome.state, outcome.exit_code, set(outcome.artifacts)) == (State.EXITED, 3, {"a.csv"})

    def test_a_paused_one_runs_and_can_be_cancelled(self, bench: Bench) -> None:
        handle = bench.submit(bench.job(f"echo so far; sleep {bench.nap}\n"))
        until(lambda: bench.says(handle, "so far"))
        docker("pause", handle.token)
        assert bench.state(handle) is State.RUNNING
        bench.backend.cancel([handle])
        assert bench.state(handle).over
        assert bench.sleeping() == []


def docker(*arguments: str) -> None:
    subprocess.run(["docker", *arguments], check=True, capture_output=True)


class TestAnEngineThatGoesAway:
    """The engine ends while a job runs, and comes back."""

    def test_it_is_an_infrastructure_error_and_the_job_is_found_again(
        self, bench: Bench, mortal_engine: MortalEngine
    ) -> None:
        def find(handle: Handle) -> Mapping[str, Handle]:
            return bench.backend.find({handle.token: Path(handle.directory)})

        handle = bench.submit(bench.job(f"echo so far\n{WAIT_FOR_GO}exit 3\n"))
        until(lambda: bench.says(handle, "so far"))
        assert bench.state(handle) is State.RUNNING
        mortal_engine.kill()
        for question in (bench.state, bench.backend.collect, lambda handle: bench.backend.cancel([handle]), find):
            with pytest.raises(InfrastructureError, match="docker"):
                question(handle)
        mortal_engine.start()
        assert find(handle) == {handle.token: handle}
        assert bench.state(handle) is State.RUNNING
        bench.go(handle)
        assert bench.finish(handle).exit_code == 3
