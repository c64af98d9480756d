"""The shell texts that run containers on nodes; tests/backends/test_slurm_images.py runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.backends import runtimes
from pytest_madengine.backends.containers import preset
from pytest_madengine.context.slurm import Slurm
from pytest_madengine.errors import FaultsError
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Devices, Job, Mount
from pytest_madengine.launchers.base import Topology
from pytest_madengine.secrets import Secret
from tests.golden import compare

GOLDEN = Path(__file__).parent / "golden"
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
RUNTIMES = ("docker", "podman", "apptainer", "enroot", "none")
BUILT = Image("ci-m:0123", digest=f"sha256:{'a' * 64}", content="0123", archive="/shared/my images/a.tar")
PUSHED = replace(
    BUILT, archive="", registry_image="registry.example:5000/team/ci-m:0123", registry_digest=f"sha256:{'d' * 64}"
)
TAGGED = Image("rocm/vllm:latest")
SAID = Image("rocm/vllm:latest", digest=f"sha256:{'b' * 64}")
GPUS = {"AMD": Devices("AMD", (0, 1)), "NVIDIA": Devices("NVIDIA", (0, 1)), "": Devices("AMD")}
JOB = Job(
    id="madengine-run-1-m",
    run="run-1",
    name="m",
    script="",
    directory=Path("/shared/.madengine/runs/run-1/jobs/m"),
    project=Path("/shared/my project"),
    env={"PLAIN": "it's $shown", "OTHER": "1"},
    secrets={"TOKEN": Secret("hunter2")},
    limit=None,
    image=BUILT,
    mounts=(Mount("/data sets", "/data", read_only=True),),
    options=("--shm-size", "64g", "-v", "/models:/models:ro", "--env=MODE=it's fast", "-e", "PLAIN"),
    topology=Topology(2),
    expressions={"ADDRESS": "${MASTER_ADDR}"},
)
SCRIPT = """#!/usr/bin/env bash
export here=$1 rank=0 child='' patience=12
run() {{
{run}
}}
stop() {{
  {stop}
}}
run &
child=$!
stop
"""


def stated(runtime: str) -> Slurm:
    return Slurm.model_validate({"container_runtime": runtime})


def checked(script: str, file: Path) -> None:
    """Meet what bash or shellcheck does not like."""
    file.write_text(script, encoding="utf-8")
    assert subprocess.run(["bash", "-n", file], check=False, capture_output=True).stderr == b""
    done = subprocess.run([SHELLCHECK, "--severity=warning", file], check=False, capture_output=True, text=True)
    assert done.stdout == ""


@pytest.mark.parametrize("vendor", GPUS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_runs_the_script_of_a_job(runtime: str, vendor: str, tmp_path: Path) -> None:
    job = replace(JOB, devices=GPUS[vendor])
    run = runtimes.run(job, stated(runtime), ["RANK", "MASTER_ADDR"])
    script = SCRIPT.format(run=run, stop=runtimes.stop(job, stated(runtime)))
    assert "hunter2" not in script
    assert "$shown" not in script
    checked(script, tmp_path / "script.sh")
    if vendor == "AMD":
        compare(script, GOLDEN / f"run-{runtime}.sh")


RECORDED = {
    ("docker", "archive"),
    ("docker", "tag-of-known"),
    ("podman", "digest"),
    ("apptainer", "archive"),
    ("enroot", "digest"),
}
ORIGINS = {"archive": BUILT, "digest": PUSHED, "tag": TAGGED, "tag-of-known": SAID}


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("runtime", RUNTIMES[:-1])
def test_what_brings_an_image_to_a_node(runtime: str, origin: str, tmp_path: Path) -> None:
    script = runtimes.image_script(replace(JOB, image=ORIGINS[origin]), stated(runtime))
    checked(script, tmp_path / "image.sh")
    if (runtime, origin) in RECORDED:
        compare(script, GOLDEN / f"image-{runtime}-{origin}.sh")


@pytest.mark.parametrize(("image", "runtime"), [(None, "docker"), (BUILT, "none")])
def test_nothing_is_brought_where_no_container_runs(image: Image | None, runtime: str) -> None:
    job = replace(JOB, image=image)
    assert not runtimes.contained(job, stated(runtime))
    assert runtimes.image_script(job, stated(runtime)).splitlines() == ["#!/usr/bin/env bash"]
    assert "docker" not in runtimes.run(job, stated(runtime), [])


def test_a_model_that_starts_its_own_containers_runs_bare_and_finds_the_image_by_its_name() -> None:
    job = replace(JOB, image=PUSHED, self_managed=True)
    assert not runtimes.contained(job, stated("docker"))
    assert 'exec "$BASH" "$here/run.sh"' in runtimes.run(job, stated("docker"), [])
    assert f"docker pull --quiet {PUSHED.registry_image}\n" in runtimes.image_script(job, stated("docker"))


def test_podman_without_root_keeps_the_groups_that_may_use_gpus() -> None:
    job = replace(JOB, devices=GPUS["AMD"])
    run = runtimes.run(job, stated("podman"), [])
    assert "--group-add=keep-groups" in run
    assert run.count("--group-add=video") == sum("--group-add" in option for option in preset(job)["options"]) == 1
    assert "MADENGINE_OWNER" not in run


class TestNotes:
    """What nodes noted of their images."""

    @pytest.mark.parametrize(
        ("notes", "words"),
        [
            ({"node1": "a", "node2": "a"}, ""),
            ({"node1": "a"}, "the image did not reach every node: see slurm.log"),
            ({}, "the image did not reach every node: see slurm.log"),
            ({"node1": "a", "node2": "b"}, "the nodes have different images: node1 has a, node2 has b"),
            ({"node1": "a", "node2.refused": "node2: docker pull failed: why"}, "node2: docker pull failed: why"),
        ],
    )
    def test_are_judged_together(self, tmp_path: Path, notes: dict[str, str], words: str) -> None:
        job = replace(JOB, directory=tmp_path)
        (tmp_path / "images").mkdir()
        for name, text in notes.items():
            (tmp_path / "images" / name).write_text(f"{text}\n", encoding="utf-8")
        (tmp_path / "image.sh").write_text(runtimes.image_script(job, stated("docker")), encoding="utf-8")
        done = subprocess.run(
            ["bash", tmp_path / "image.sh", "verdict"], check=False, capture_output=True, text=True, env=os.environ
        )
        assert (done.stdout.strip(), done.returncode, done.stderr) == (words, int(bool(words)), "")


class TestNames:
    """Images by the names that each runtime understands."""

    @pytest.mark.parametrize(
        ("name", "podman", "enroot"),
        [
            ("ubuntu", "docker.io/library/ubuntu:latest", "library/ubuntu:latest"),
            ("rocm/vllm:1.2", "docker.io/rocm/vllm:1.2", "rocm/vllm:1.2"),
            ("docker.io/rocm/vllm:1.2", "docker.io/rocm/vllm:1.2", "rocm/vllm:1.2"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000#a/b:latest"),
            ("ghcr.io/a/b:1@sha256:0f", "ghcr.io/a/b@sha256:0f", "ghcr.io#a/b:sha256:0f"),
        ],
    )
    def test_are_complete(self, name: str, podman: str, enroot: str) -> None:
        assert runtimes.named("docker", name) == name
        assert runtimes.named("podman", name) == podman
        assert runtimes.named("apptainer", name) == f"docker://{podman}"
        assert runtimes.named("enroot", name) == f"docker://{enroot}"

    @given(
        st.sampled_from(["", "localhost/", "ghcr.io/", "10.0.0.1:5000/"]),
        st.from_regex(r"[a-z0-9]+(/[a-z0-9]+)?", fullmatch=True),
        st.sampled_from(["", ":1", "@sha256:0f"]),
    )
    def test_stay_the_same_when_they_are_complete(self, host: str, path: str, version: str) -> None:
        complete = runtimes.named("podman", f"{host}{path}{version}")
        assert runtimes.named("podman", complete) == complete


class TestOptions:
    """A card's options of `docker run`, where another runtime is to heed them."""

    @pytest.mark.parametrize("runtime", ["docker", "podman", "none"])
    def test_go_through_as_they_are(self, runtime: str) -> None:
        runtimes.check_options(["--hostname=x", "--workdir"], runtime, "m")

    @pytest.mark.parametrize("runtime", ["apptainer", "enroot"])
    def test_that_it_need_not_heed_are_no_fault(self, runtime: str) -> None:
        words = ["-it", "--rm", "--ipc=host", "--shm-size", "1g", "--ulimit", "memlock=-1", "-v", "/a:/b", "--env=X=1"]
        runtimes.check_options(words, runtime, "m")

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--hostname=x", "--user", "me"], r"m: apptainer has no --hostname.*\n?.*m: apptainer has no --user"),
            (["--volume"], "m: argument -v/--volume: expected one argument"),
        ],
    )
    def test_that_it_has_not_are_refused_together(self, words: list[str], said: str) -> None:
        with pytest.raises(FaultsError, match=f"(?s){said}"):
            runtimes.check_options(words, "apptainer", "m")

    @pytest.mark.parametrize("runtime", ["docker", "podman", "apptainer", "enroot"])
    @pytest.mark.parametrize(
        ("word", "said"), [("-d", "-d"), ("-itd", "-d"), ("-deA_TOKEN=x", "-d"), ("--detach=true", "--detach")]
    )
    def test_that_leave_the_run_before_it_is_over_are_refused(self, runtime: str, word: str, said: str) -> None:
        with pytest.raises(FaultsError, match=rf"^m: {said}: the run would be over before its model; valid: none$"):
            runtimes.check_options(["--rm", word], runtime, "m")

    def test_that_only_look_like_it_are_left(self) -> None:
        runtimes.check_options(["--device=/dev/kfd", "--detach-keys=ctrl-x", "-it", "--dns", "10.0.0.1"], "docker", "m")

    def test_that_are_at_fault_in_two_ways_are_told_together(self) -> None:
        with pytest.raises(FaultsError, match=r"m: -d: .*\nm: enroot has no --hostname"):
            runtimes.check_options(["-d", "--hostname=x"], "enroot", "m")
