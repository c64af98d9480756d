"""Making images, seen from pytest's side: options, manifests, batches, architectures and what people are shown."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine import attempt, checks, options, settings
from pytest_madengine.context import machine
from pytest_madengine.engine import journal
from pytest_madengine.images import registry as registries
from tests.backends.support import BASE_IMAGE, read, running, until, write
from tests.cards import PASSES, card, project, rows, run_bare, statuses
from tests.engines.registries import Registry
from tests.images.test_build import BASH, Gate, docker
from tests.images.test_registry import NOBODY
from tests.test_loop import _case
from tests.test_resume import PATIENCE, pytest_in, said
from tests.test_waking import started

BUILD, ALL = "--madengine-build-only", "--madengine-tags=all"
MANIFEST = "--madengine-manifest=build_manifest.json"
HOST = "--target=host"
RESUME = "--madengine-resume"
LABEL = "madengine.test"
SHARED = "shared"
"""The label of images that many tests have in common; they stay."""
FLAGS = {each.dest.removeprefix("madengine_"): each for each in options.OPTIONS}
VALUES = {
    "build_jobs": "1",
    "registry": "localhost:5000",
    "target_archs": "gfx90a",
    "batch_manifest": "batch.json",
    "manifest": "empty.json",
}
"""What may be given for an option; others take any text."""


def flag(name: str) -> str:
    """An option as it is written, with a value where it takes one."""
    return f"{FLAGS[name].flag}={VALUES.get(name, 'x')}" if FLAGS[name].metavar else FLAGS[name].flag


def context(**given: Any) -> str:
    return f"--madengine-context={json.dumps(given)}"


def on(architecture: str) -> str:
    """The context of a machine that has such GPUs."""
    return context(docker_env_vars={"MAD_SYSTEM_GPU_ARCHITECTURE": architecture})


def cooked(name: str, **more: Any) -> dict[str, Any]:
    """A card whose Dockerfile bears its name."""
    return card(name, **{"dockerfile": f"docker/{name}", **more})


@dataclass
class Yard:
    """A project whose Dockerfiles are small.

    Attributes:
        label: by which its images are found again; those that are not shared are built by this test.
    """

    pytester: pytest.Pytester
    label: str = field(default_factory=lambda: f"building-{secrets.token_hex(5)}")

    @property
    def folder(self) -> Path:
        return self.pytester.path

    def cards(self, *cards: dict[str, Any], script: str = PASSES, **scripts: str) -> None:
        """Write the cards."""
        project(self.folder, *cards, script=script, **scripts)

    def dockerfile(self, name: str, *lines: str, label: str = "") -> None:
        """Write a Dockerfile; its variable keeps BuildKit from knowing the steps of an earlier test."""
        of = label or self.label
        text = "\n".join([f"FROM {BASE_IMAGE}", f"LABEL {LABEL}={of}", f"ENV OF={of}", *lines, ""])
        write(self.folder / f"docker/{name}.Dockerfile", text)

    def shared(self, *names: str, script: str = PASSES, **more: Any) -> None:
        """Cards of one image, which other tests have built already."""
        self.cards(*(card(name, dockerfile="docker/shared", **more) for name in names), script=script)
        self.dockerfile("shared", label=SHARED)

    def run(self, *args: str) -> pytest.RunResult:
        return self.pytester.runpytest(*args)

    def built(self, *args: str) -> dict[str, Any]:
        """The manifest of a run that only builds."""
        self.run(BUILD, *args)
        return self.manifest()

    @property
    def path(self) -> Path:
        return self.folder / "build_manifest.json"

    def manifest(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(read(self.path))
        return content

    def change(self, **changes: Any) -> None:
        """Change what the manifest says of every image."""
        content = self.manifest()
        for image in content["built_images"].values():
            image.update(changes)
        self.path.write_text(json.dumps(content, indent=1))

    @property
    def rows(self) -> list[dict[str, str]]:
        return rows(self.folder / "perf.csv")

    @property
    def statuses(self) -> dict[str, str]:
        return statuses(self.folder / "perf.csv")

    @property
    def latest(self) -> Path:
        return self.folder / ".madengine/runs/latest"

    def logs(self) -> list[str]:
        """The Dockerfiles that the latest run built."""
        return sorted(path.parent.name.rpartition("-")[0] for path in self.latest.glob("images/*/build.log"))

    def log(self) -> str:
        """What builds of the latest run printed."""
        return "".join(map(read, self.latest.glob("images/*/build.log")))

    def records(self) -> list[dict[str, Any]]:
        return list(journal.read(self.latest))

    def builds(self) -> Counter[str]:
        """How many builds of each Dockerfile the latest run began."""
        told = [each for each in self.records() if each.get("phase") == "building"]
        return Counter(each["detail"] for each in told if not each["step"])

    def job(self, name: str) -> dict[str, Any]:
        """What was submitted for a model last."""
        (path,) = self.latest.glob(f"jobs/{name}-*/job.json")
        job: dict[str, Any] = json.loads(read(path))
        return job


@pytest.fixture
def yard(pytester: pytest.Pytester) -> Iterator[Yard]:
    yard = Yard(pytester)
    yield yard
    listed = ["docker", "images", "--quiet", f"--filter=label={LABEL}={yard.label}"]
    made = subprocess.run(listed, capture_output=True, check=False, text=True).stdout.split()
    if made:
        subprocess.run(["docker", "rmi", "--force", *made], capture_output=True, check=False)


@pytest.fixture
def gate() -> Iterator[Gate]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        yield Gate(server)


def errors(result: pytest.RunResult) -> str:
    """The text of a usage error."""
    text = result.stderr.str() + result.stdout.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR, text
    assert "Traceback" not in text
    return text


PAIRS = [(one, other) for one, others in settings.EXCLUSIVE for other in others]
BATCH = '[{"model_name": "a"}]'


class TestContradictions:
    """What cannot be meant is a usage error that names what does not go together."""

    @pytest.mark.parametrize(("one", "other"), PAIRS, ids=map("-".join, PAIRS))
    def test_of_two_options(self, yard: Yard, one: str, other: str) -> None:
        yard.pytester.makeini("[pytest]\nmadengine = true\n")
        said = errors(yard.run(flag(one), flag(other)))
        assert f"{FLAGS[one].flag} and {FLAGS[other].flag} contradict each other" in said

    @pytest.mark.parametrize("name", settings.OF_BUILD_ONLY)
    def test_of_options_that_belong_to_one_that_is_not_given(self, yard: Yard, name: str) -> None:
        yard.shared("a")
        assert f"{FLAGS[name].flag} belongs to {BUILD}" in errors(yard.run(ALL, flag(name)))

    @pytest.mark.parametrize("name", checks.OF_IMAGES)
    def test_of_images_and_a_target_without_them(self, yard: Yard, name: str) -> None:
        yard.shared("a")
        (yard.folder / "batch.json").write_text(BATCH)
        tags = [] if name == "batch_manifest" else [ALL]
        said = errors(yard.run(*tags, HOST, flag(name)))
        assert f"{FLAGS[name].flag}: the target host runs models without images" in said

    @pytest.mark.parametrize("key", ["docker_image", "MAD_CONTAINER_IMAGE"])
    @pytest.mark.parametrize("name", [*(name for name in checks.OF_IMAGES if name != "build_only"), "manifest"])
    def test_of_an_image_for_all_and_wishes_for_others(self, yard: Yard, name: str, key: str) -> None:
        yard.shared("a")
        (yard.folder / "batch.json").write_text(BATCH)
        (yard.folder / "empty.json").write_text('{"built_images": {}, "built_models": {}}')
        tags = [] if name == "batch_manifest" else [ALL]
        said = errors(yard.run(*tags, flag(name), context(**{key: BASE_IMAGE})))
        assert f"{FLAGS[name].flag}: the context names an image for all models" in said

    def test_of_architectures_and_a_build_argument(self, yard: Yard) -> None:
        yard.shared("a")
        given = context(docker_build_arg={"MAD_SYSTEM_GPU_ARCHITECTURE": "gfx908"})
        said = errors(yard.run(BUILD, "--madengine-target-archs=gfx90a", given))
        assert "--madengine-target-archs, and docker_build_arg.MAD_SYSTEM_GPU_ARCHITECTURE" in said
        assert "'gfx908'" in said

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("--madengine-registry=http://example.com", "http://example.com"),
            ("--madengine-registry=", "--madengine-registry: is empty"),
            ("--madengine-use-image=", "--madengine-use-image: is empty"),
            ("--madengine-target-archs=", "--madengine-target-archs: no architecture is named"),
            ("--madengine-target-archs=gfx90a,mi300y", "found 'mi300y'"),
            ("--madengine-target-archs=native", "native: this machine has no GPU"),
            ("--madengine-build-jobs=0", "--madengine-build-jobs: found 0; valid: 1 or more"),
            ("--madengine-manifest=", "cannot be read"),
            ("--madengine-manifest-output=", "--madengine-manifest-output: "),
            ("--madengine-summary-output=missing/s.json", "--madengine-summary-output: "),
            ("--madengine-manifest-output=models.json", "models.json is for model cards; give another file"),
            ("--madengine-summary-output=models.json", "models.json is for model cards; give another file"),
            ("--madengine-summary-output=build_manifest.json", "is the manifest's own file; give another"),
        ],
    )
    def test_of_values_that_name_nothing(self, yard: Yard, given: str, said: str) -> None:
        yard.shared("a")
        assert said in errors(yard.run(*([BUILD] if "-output" in given else [ALL]), given, on("")))

    @pytest.mark.parametrize("way", ["{}", "down/../{}", "{folder}/{}", "link.json"])
    def test_of_one_file_for_the_manifest_and_its_summary(self, yard: Yard, way: str) -> None:
        yard.shared("a")
        yard.pytester.mkdir("down")
        (yard.folder / "link.json").symlink_to("out.json")
        given = way.format("out.json", folder=yard.folder)
        said = errors(yard.run(BUILD, "--madengine-manifest-output=out.json", f"--madengine-summary-output={given}"))
        assert "is the manifest's own file; give another" in said

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('[{"model_name": "a", "registry": "http://x"}]', "http://x"),
            ('[{"model_nam": "a"}]', "batch.json:1: [0].model_nam"),
            ("[]", "batch.json:1: found an empty list"),
        ],
    )
    def test_of_a_batch_file_that_is_wrong(self, yard: Yard, text: str, said: str) -> None:
        yard.shared("a")
        (yard.folder / "batch.json").write_text(text)
        assert said in errors(yard.run(flag("batch_manifest")))


@pytest.mark.requires_docker
class TestBuildingOnly:
    def test_images_that_are_there_pass_and_those_that_cannot_be_built_are_errors(self, yard: Yard) -> None:
        yard.cards(cooked("good"), cooked("bad"))
        yard.dockerfile("good", "RUN echo building")
        yard.dockerfile("bad", "RUN exit 7")
        result = yard.run(BUILD, "--madengine-summary-output=summary.json", "--junitxml=junit.xml")
        result.assert_outcomes(passed=1, errors=1)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        made = yard.manifest()
        assert list(made["built_images"]) == list(made["built_models"]) == ["good"]
        (failed,) = made["summary"]["failed_builds"]
        assert (failed["key"], "RUN exit 7" in failed["error"]) == ("bad", True)
        assert json.loads((yard.folder / "summary.json").read_text()) == made["summary"]
        assert list(yard.folder.glob("perf*")) == []
        self._is_told(result, yard)
        took = float(_case(yard.folder, "good").attrib["time"]) + 0.001
        assert 0 <= took - made["built_images"]["good"]["build_duration"] < 0.2
        assert yard.run(BUILD, "--madengine-exit-codes").ret == 2

    def _is_told(self, result: pytest.RunResult, yard: Yard) -> None:
        result.stdout.fnmatch_lines(
            [
                "building docker/bad.Dockerfile failed (exit 1): *RUN exit 7*",
                "model *state *image",
                "bad *failed *-",
                "good *built in * s *ci-good:*",
                "madengine: images: 1 built, 0 there already, 1 failed",
                f"madengine: manifest: {yard.path}, written",
            ]
        )

    def test_a_second_run_builds_nothing_and_leaves_the_manifest_as_it_is(self, yard: Yard) -> None:
        yard.cards(cooked("a"))
        yard.dockerfile("a")
        yard.built()
        before, then = yard.path.read_bytes(), yard.path.stat().st_mtime_ns
        result = yard.run(BUILD)
        result.stdout.fnmatch_lines(
            [
                "a *there already *ci-a:*",
                "madengine: images: 0 built, 1 there already",
                f"madengine: manifest: {yard.path}, unchanged",
            ]
        )
        assert (yard.path.read_bytes(), yard.path.stat().st_mtime_ns) == (before, then)
        assert yard.logs() == []
        assert run_bare(yard.pytester, BUILD, "-n2").ret == pytest.ExitCode.OK
        assert (yard.path.read_bytes(), yard.path.stat().st_mtime_ns) == (before, then)

    @pytest.mark.parametrize("options", [["--collect-only"], ["--collect-only", "-n2"], ["--fixtures"]], ids=" ".join)
    def test_one_that_runs_no_item_writes_no_manifest(self, yard: Yard, options: list[str]) -> None:
        yard.shared("a")
        assert run_bare(yard.pytester, BUILD, *options).ret == pytest.ExitCode.OK
        assert not yard.path.exists()
        yard.path.write_text("of yesterday\n")
        result = run_bare(yard.pytester, BUILD, *options)
        assert yard.path.read_text() == "of yesterday\n"
        result.stdout.no_fnmatch_line("*ended early*")

    @pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
    def test_one_of_which_nothing_is_selected_leaves_the_manifest(self, yard: Yard, workers: list[str]) -> None:
        yard.shared("a")
        yard.path.write_text("of yesterday\n")
        result = run_bare(yard.pytester, BUILD, "-k", "nothing", *workers)
        assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
        assert yard.path.read_text() == "of yesterday\n"
        result.stdout.no_fnmatch_line("*ended early*")

    def test_without_cache_it_builds_again(self, yard: Yard) -> None:
        yard.cards(cooked("a"))
        yard.dockerfile("a", "RUN echo here")
        yard.built()
        result = yard.run(BUILD, "--madengine-no-cache")
        result.stdout.fnmatch_lines(["a *built in *", "madengine: images: 1 built, 0 there already"])
        assert re.search(r"^#\d+ [\d.]+ here$", yard.log(), re.MULTILINE)

    def test_workers_give_the_manifest_that_one_process_gives(self, yard: Yard) -> None:
        yard.cards(cooked("a"), cooked("b"), cooked("bad"))
        yard.dockerfile("a")
        yard.dockerfile("b")
        yard.dockerfile("bad", "RUN exit 7")
        result = run_bare(yard.pytester, BUILD, "-n2")
        result.assert_outcomes(passed=2, errors=1)
        result.stdout.fnmatch_lines(["madengine: images: 2 built, 0 there already, 1 failed", "*written"])
        by_workers = yard.manifest()
        assert list(by_workers["built_images"]) == ["a", "b"]
        alone = yard.built()
        for each in (by_workers, alone):
            each["summary"]["failed_builds"][0].pop("error")  # it names steps by the number of a log's line
        assert alone == by_workers

    def test_gpus_are_not_looked_for_unless_they_are_meant(self, yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = yard.folder / "asked"
        program = write(yard.folder / "bin/nvidia-smi", f"#!/bin/sh\ntouch {asked}\necho 'NVIDIA X9, 1.2'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(machine, "KFD_NODES", yard.folder)
        yard.shared("a")
        yard.run(BUILD).assert_outcomes(passed=1)
        assert not asked.exists()
        yard.run(BUILD, "--madengine-target-archs=native").assert_outcomes(passed=1)
        assert asked.exists()
        assert list(yard.manifest()["built_images"]) == ["a[NVIDIA X9]"]

    @pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
    def test_one_that_stops_at_the_first_failure_leaves_the_manifest(self, yard: Yard, workers: list[str]) -> None:
        yard.cards(*map(cooked, ("bad", "worse", "worst")))
        for name in ("bad", "worse", "worst"):
            yard.dockerfile(name, "RUN exit 7")
        yard.path.write_text("of yesterday\n")
        result = run_bare(yard.pytester, BUILD, "-x", *workers)
        result.stdout.fnmatch_lines([f"ERROR: {yard.path} was not written: the session ended early"])
        assert result.ret != pytest.ExitCode.OK
        assert yard.path.read_text() == "of yesterday\n"

    def test_a_run_that_was_killed_is_gone_on_with(self, yard: Yard, gate: Gate) -> None:
        yard.cards(cooked("quick"), cooked("slow"))
        yard.dockerfile("quick")
        yard.dockerfile("slow", BASH, gate.step)
        process = pytest_in(yard.folder, BUILD, "--madengine-build-jobs=2")
        with gate.reached() as step:
            until(lambda: list(yard.latest.glob("jobs/quick-*/made.json")))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            step.settimeout(PATIENCE)
            assert step.recv(100) == b""  # the engine ended the build, and nobody can join it
        assert not yard.path.exists()
        again = pytest_in(yard.folder, BUILD, "--madengine-resume")
        with gate.reached() as step:
            step.sendall(b"go\n")
        assert again.wait(PATIENCE) == pytest.ExitCode.OK, said(yard.folder)
        assert list(yard.manifest()["built_images"]) == ["quick", "slow"]
        assert len(list((yard.folder / ".madengine/runs").glob("2*"))) == 1
        assert yard.builds() == {"docker/quick.Dockerfile": 1, "docker/slow.Dockerfile": 2}

    def test_the_image_of_an_overridden_fixture_goes_to_the_manifest(self, yard: Yard) -> None:
        yard.cards(cooked("a"))
        yard.pytester.makeconftest(
            """
            import pytest
            from pytest_madengine.images.image import Image

            @pytest.fixture
            def image(model):
                return Image(f"elsewhere/{model.name}:1")
            """
        )
        yard.run(BUILD).assert_outcomes(passed=1)
        assert yard.manifest()["built_images"]["a"]["docker_image"] == "elsewhere/a:1"
        assert yard.logs() == []

    @pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
    def test_a_model_whose_overridden_fixture_gives_no_image_fails(self, yard: Yard, workers: list[str]) -> None:
        yard.shared("a")
        yard.pytester.makeconftest("import pytest\n@pytest.fixture\ndef image(): return None\n")
        result = run_bare(yard.pytester, BUILD, *workers)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*no image was made of a: the fixture `image` gave none"])
        (failed,) = yard.manifest()["summary"]["failed_builds"]
        assert (failed["key"], "gave none" in failed["error"]) == ("a", True)
        assert yard.manifest()["built_images"] == {}

    def test_a_model_that_starts_its_own_containers_and_names_no_image_is_an_error(self, yard: Yard) -> None:
        yard.cards(cooked("a", distributed={"launcher": "slurm_multi"}))
        yard.dockerfile("a")
        result = yard.run(BUILD)
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*models.json:2: a starts its own containers and names no image: set *"])
        assert [each["key"] for each in yard.manifest()["summary"]["failed_builds"]] == ["a"]

    def test_an_image_that_was_removed_is_built_again_in_a_resumed_run(self, yard: Yard) -> None:
        yard.cards(cooked("a"))
        yard.dockerfile("a")
        image = yard.built()["built_images"]["a"]["docker_image"]
        docker("rmi", image)
        yard.run(BUILD, RESUME).assert_outcomes(passed=1)
        assert yard.builds() == {"docker/a.Dockerfile": 2}
        assert docker("image", "inspect", "--format={{.Id}}", image) == yard.manifest()["built_images"]["a"]["image_id"]

    def test_a_run_that_is_done_is_gone_on_with_for_its_images(self, yard: Yard) -> None:
        yard.shared("good", "bad")
        (yard.folder / "scripts/bad.sh").write_text("exit 3\n")
        yard.run(ALL).assert_outcomes(passed=1, failed=1)
        yard.run(BUILD, RESUME).assert_outcomes(passed=2)
        assert list(yard.manifest()["built_images"]) == ["bad", "good"]
        assert len(yard.rows) == 2

    def test_resuming_one_needs_no_other_option(self, yard: Yard) -> None:
        yard.cards(card("good", dockerfile="docker/shared"), cooked("bad"))
        yard.dockerfile("shared", label=SHARED)
        yard.dockerfile("bad", "RUN exit 7")
        before = yard.built()
        yard.path.unlink()
        result = yard.run(RESUME, "--madengine-exit-codes")
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["model *state *image", f"madengine: manifest: {yard.path}, written"])
        assert result.ret == 2
        assert list(yard.manifest()["built_images"]) == list(before["built_images"]) == ["good"]
        assert not (yard.folder / "perf.csv").exists()

    def test_pushes_that_fail_of_models_of_one_name_are_told_apart(
        self, yard: Yard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registries, "TRIES", 1)
        yard.shared("a")
        project(yard.folder / "deep", card("a", dockerfile="docker/deep"))
        yard.dockerfile("deep", label=SHARED)
        (yard.folder / "docker/deep.Dockerfile").rename(write(yard.folder / "deep/docker/deep.Dockerfile", ""))
        result = yard.run(BUILD, f"--madengine-registry={NOBODY}", "models.json", "deep/models.json")
        result.assert_outcomes(errors=2)
        failed = yard.manifest()["summary"]["failed_pushes"]
        assert sorted(each["image"] for each in failed) == ["deep/models.json:a", "models.json:a"]
        assert len({each["intended_registry_image"] for each in failed}) == 2


@pytest.mark.requires_docker
class TestOnce:
    """Each image is built once, however many models want it."""

    @pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
    @pytest.mark.parametrize("mode", [BUILD, ALL])
    def test_for_many_models(self, yard: Yard, mode: str, workers: list[str]) -> None:
        yard.cards(*(card(f"m{n}", dockerfile=f"docker/d{n % 3}") for n in range(12)))
        for number in range(3):
            yard.dockerfile(f"d{number}", "RUN echo building")
        run_bare(yard.pytester, mode, *workers).assert_outcomes(passed=12)
        assert yard.logs() == ["d0", "d1", "d2"]
        assert set(yard.builds().values()) == {1}

    @pytest.mark.parametrize("mode", [BUILD, ALL])
    def test_one_after_another(self, yard: Yard, mode: str) -> None:
        yard.cards(*map(cooked, "abc"))
        for name in "abc":
            yard.dockerfile(name, f"RUN echo {name}")
        yard.run(mode, "--madengine-build-jobs=1").assert_outcomes(passed=3)
        told = [each["item"][-1] for each in yard.records() if each.get("phase") == "building"]
        changes = [name for name, before in zip(told, ["", *told], strict=False) if name != before]
        assert changes == ["a", "b", "c"]

    @pytest.mark.parametrize("mode", [BUILD, ALL])
    def test_side_by_side(self, yard: Yard, gate: Gate, mode: str) -> None:
        yard.cards(*map(cooked, "abc"))
        for name in "abc":
            yard.dockerfile(name, BASH, f"ENV NAME={name}", gate.step)
        with together(gate, 3):
            yard.run(mode, "--madengine-build-jobs=3").assert_outcomes(passed=3)


@contextmanager
def together(gate: Gate, number: int) -> Iterator[None]:
    """Let so many steps through once all of them wait at the same time; else the builds fail."""

    def let_through() -> None:
        with ExitStack() as stack:
            steps = [stack.enter_context(gate.reached()) for _ in range(number)]
            for step in steps:
                step.sendall(b"go\n")

    thread = threading.Thread(target=let_through)
    thread.start()
    yield
    thread.join()


@pytest.mark.requires_docker
class TestRunning:
    """Models that run on this machine one at a time find their images made."""

    def test_all_images_are_made_before_the_first_model_runs(self, yard: Yard) -> None:
        yard.cards(*map(cooked, "ab"))
        for name in "ab":
            yard.dockerfile(name)
        yard.run(ALL).assert_outcomes(passed=2)
        kinds = [each.get("phase", each["kind"]) for each in yard.records()]
        last_build = max(at for at, kind in enumerate(kinds) if kind == "building")
        assert kinds.count("building") >= 2
        assert last_build < kinds.index("submitting")

    def test_models_without_containers_get_no_image(self, yard: Yard) -> None:
        yard.cards(*map(cooked, "ab"))
        for name in "ab":
            yard.dockerfile(name)
        yard.run(ALL, HOST, "--madengine-max-in-flight=2").assert_outcomes(passed=2)
        assert yard.logs() == []
        assert not any(each["kind"] == journal.PHASE and each["phase"] == "queued" for each in yard.records())

    def test_what_is_said_of_an_image_is_said_before_its_models_begin(self, yard: Yard) -> None:
        yard.cards(*(card(name, dockerfile="docker/d") for name in "abc"))
        yard.dockerfile("d", "RUN echo building")
        yard.run(ALL, "--madengine-max-in-flight=3").assert_outcomes(passed=3)
        told = [each.get("phase", each["kind"]) for each in yard.records()]
        assert "queued" in told[: told.index("submitting")]
        assert not {"queued", "building"} & set(told[told.index("submitting") :])

    @pytest.mark.parametrize("mode", [BUILD, ALL])
    def test_models_that_a_mark_skips_get_no_image(self, yard: Yard, mode: str) -> None:
        yard.cards(*map(cooked, "ab"))
        for name in "ab":
            yard.dockerfile(name)
        yard.pytester.makeconftest(
            """
            import pytest
            def pytest_collection_modifyitems(items): items[0].add_marker(pytest.mark.skip(reason="not today"))
            """
        )
        yard.run(mode).assert_outcomes(passed=1, skipped=1)
        assert yard.logs() == ["b"]

    def test_models_that_are_done_get_none_in_a_resumed_run(self, yard: Yard) -> None:
        yard.cards(*map(cooked, "ab"), b="exit 3\n")
        for name in "ab":
            yard.dockerfile(name)
        yard.run(ALL).assert_outcomes(passed=1, failed=1)
        for name in "ab":
            yard.dockerfile(name, "ENV CHANGED=1")
        yard.run(ALL, "--madengine-resume").assert_outcomes(passed=1, failed=1)
        assert yard.logs() == ["a", "b"]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
    @pytest.mark.parametrize("mode", [BUILD, ALL])
    def test_an_interrupt_ends_the_builds(self, yard: Yard, mode: str, number: signal.Signals) -> None:
        nap = f"7200.{secrets.randbelow(10**9):09}"
        yard.cards(*map(cooked, "ab"))
        for name in "ab":
            yard.dockerfile(name, f"RUN echo {name} && sleep {nap}")
        yard.path.write_text("of yesterday\n")
        process = started(yard.folder, mode, "--madengine-build-jobs=2")
        until(lambda: len(running(nap)) == 2)
        os.killpg(process.pid, number)
        assert process.wait(PATIENCE) == pytest.ExitCode.INTERRUPTED
        until(lambda: not running(nap))
        assert yard.path.read_text() == "of yesterday\n"
        assert ("was not written: the session ended early" in said(yard.folder)) == (mode == BUILD)
        assert not (yard.folder / "perf.csv").exists()

    @pytest.mark.parametrize("mode", [BUILD, ALL])
    def test_what_an_interrupt_ended_is_built_in_a_resumed_run(self, yard: Yard, gate: Gate, mode: str) -> None:
        yard.cards(cooked("a"))
        yard.dockerfile("a", BASH, gate.step)
        process = started(yard.folder, mode)
        with gate.reached() as step:
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == pytest.ExitCode.INTERRUPTED
            step.settimeout(PATIENCE)
            assert step.recv(100) == b""
        with together(gate, 1):
            result = yard.run(mode, RESUME)
        result.assert_outcomes(passed=1)
        assert yard.builds() == {"docker/a.Dockerfile": 2}
        assert len(list((yard.folder / ".madengine/runs").glob("2*"))) == 1
        assert yard.path.exists() == (mode == BUILD)

    @pytest.mark.parametrize("mode", [BUILD, ALL])
    def test_a_build_that_fails_as_expected_is_told_as_a_failure(self, yard: Yard, mode: str) -> None:
        yard.cards(cooked("a"))
        yard.dockerfile("a", "RUN exit 7")
        yard.pytester.makeconftest(
            """
            import pytest
            def pytest_collection_modifyitems(items): items[0].add_marker(pytest.mark.xfail(reason="known"))
            """
        )
        yard.run(mode).assert_outcomes(xfailed=1)
        if mode == BUILD:
            assert [each["key"] for each in yard.manifest()["summary"]["failed_builds"]] == ["a"]
        else:
            assert yard.statuses == {"a": "FAILURE"}


@pytest.mark.requires_docker
class TestRegistryThatIsDown:
    """Models that share an image share the tries to get it, and each has its own error and row."""

    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registries, "TRIES", 1)
        monkeypatch.setattr(attempt, "FIRST_PAUSE", 0.01)

    def _base(self, yard: Yard) -> list[str]:
        yard.cards(*(card(name, dockerfile="docker/d") for name in "abc"))
        write(yard.folder / "docker/d.Dockerfile", f"FROM {NOBODY}/x:1\n")
        return [ALL]

    def _named(self, yard: Yard) -> list[str]:
        yard.cards(*map(card, "abc"))
        return [ALL, f"--madengine-use-image={NOBODY}/x:1"]

    def _listed(self, yard: Yard) -> list[str]:
        yard.cards(*map(card, "abc"))
        image = {"docker_image": "x:1", "registry_image": f"{NOBODY}/x:1"}
        models = {name: card(name) for name in "abc"}
        yard.path.write_text(json.dumps({"built_images": dict.fromkeys("abc", image), "built_models": models}))
        return [MANIFEST]

    WAYS = (_base, _named, _listed)

    def _pulls(self, yard: Yard) -> int:
        return sum(each.get("phase") == "pulling" for each in yard.records())

    @pytest.mark.parametrize("ahead", [[], ["--madengine-max-in-flight=3"]], ids=["in line", "ahead"])
    @pytest.mark.parametrize("way", WAYS, ids=["base", "named", "listed"])
    def test_it_is_asked_once_for_all(
        self, yard: Yard, way: Callable[[TestRegistryThatIsDown, Yard], list[str]], ahead: list[str]
    ) -> None:
        result = yard.run(*way(self, yard), *ahead)
        result.assert_outcomes(errors=3)
        assert self._pulls(yard) == 1
        assert yard.statuses == dict.fromkeys("abc", "FAILURE")
        assert len(yard.rows) == 3

    @pytest.mark.parametrize("ahead", [[], ["--madengine-max-in-flight=3"]], ids=["in line", "ahead"])
    @pytest.mark.parametrize("way", WAYS, ids=["base", "named", "listed"])
    def test_a_further_try_is_each_models_own(
        self, yard: Yard, way: Callable[[TestRegistryThatIsDown, Yard], list[str]], ahead: list[str]
    ) -> None:
        yard.run(*way(self, yard), *ahead, "--madengine-retries=1").assert_outcomes(errors=3)
        assert self._pulls(yard) == 1 + 3
        assert Counter(row["model"] for row in yard.rows) == dict.fromkeys("abc", 2)


ARCHS = "--madengine-target-archs=gfx90a,MI300X"
LENIENT = ("-W", "default")
"""Against this project's own setting that warnings are errors."""


@pytest.mark.requires_docker
class TestArchitectures:
    def _project(self, yard: Yard, *cards: dict[str, Any]) -> None:
        yard.cards(*cards)
        asks = ("ARG MAD_SYSTEM_GPU_ARCHITECTURE", "ENV MADE_FOR=$MAD_SYSTEM_GPU_ARCHITECTURE")
        yard.dockerfile("a", *asks, "ENV PYTORCH_ROCM_ARCH=gfx942", "RUN echo building")

    def test_each_has_its_item_its_image_and_its_log(self, yard: Yard) -> None:
        self._project(yard, cooked("a"), cooked("b", dockerfile="docker/a", skip_gpu_arch=["gfx90a"]))
        result = yard.run(BUILD, ARCHS, *LENIENT, "-v", "-rs")
        result.assert_outcomes(passed=3, skipped=1, warnings=1)
        result.stdout.fnmatch_lines(["*skip_gpu_arch lists gfx90a, the image is for gfx90a"])
        result.stdout.fnmatch_lines(["*a.Dockerfile:6: PYTORCH_ROCM_ARCH=gfx942 does not name gfx90a*"])
        assert yard.logs() == ["a", "a"]
        images = yard.manifest()["built_images"]
        assert {key: image["gpu_architecture"] for key, image in images.items()} == {
            "a[gfx90a]": "gfx90a",
            "a[gfx942]": "gfx942",
            "b[gfx942]": "gfx942",
        }
        assert {key: self._made_for(image["docker_image"]) for key, image in images.items()} == {
            key: image["gpu_architecture"] for key, image in images.items()
        }

    def _made_for(self, image: str) -> str:
        argv = ["docker", "image", "inspect", "--format={{json .Config.Env}}", image]
        variables = json.loads(subprocess.run(argv, capture_output=True, check=True, text=True).stdout)
        return str(dict(each.split("=", 1) for each in variables)["MADE_FOR"])

    def test_models_of_other_machines_are_skipped_and_get_no_image(self, yard: Yard) -> None:
        self._project(yard, cooked("a"))
        result = yard.run(ALL, ARCHS, on("gfx90a"), *LENIENT, "-rs")
        result.assert_outcomes(passed=1, skipped=1, warnings=1)
        result.stdout.fnmatch_lines(["*the image is for gfx942, this machine has gfx90a"])
        found = sorted((row["model"], row["status"], row["gpu_architecture"]) for row in yard.rows)
        assert found == [("a", "SKIPPED", "gfx90a"), ("a", "SUCCESS", "gfx90a")]
        assert yard.logs() == ["a"]

    def test_one_that_stands_alone_keeps_its_name_in_a_manifest(self, yard: Yard) -> None:
        yard.shared("ar")
        yard.run(BUILD, "--madengine-target-archs=gfx90a").assert_outcomes(passed=1)
        assert collected(yard.run(MANIFEST, "--collect-only", "-q")) == ["build_manifest.json::ar[gfx90a]"]

    def test_what_a_manifest_has_for_other_machines_is_skipped(self, yard: Yard) -> None:
        self._project(yard, cooked("a"))
        yard.built(ARCHS, *LENIENT)
        result = yard.run(MANIFEST, on("gfx942"), "-v")
        result.assert_outcomes(passed=1, skipped=1)
        result.stdout.fnmatch_lines(
            ["build_manifest.json::a?gfx90a? SKIPPED*", "build_manifest.json::a?gfx942? PASSED*"]
        )
        assert sorted(row["status"] for row in yard.rows) == ["SKIPPED", "SUCCESS"]


def collected(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line]


@pytest.mark.requires_docker
class TestManifest:
    def test_its_models_are_items_like_others(self, yard: Yard) -> None:
        yard.shared("llama", "qwen", tags=["text"])
        yard.built()
        (yard.folder / "models.json").unlink()
        before = yard.path.read_bytes(), yard.path.stat().st_mtime_ns
        only = (MANIFEST, "--collect-only", "-q")
        llama, qwen = "build_manifest.json::llama", "build_manifest.json::qwen"
        assert collected(yard.run(*only)) == [llama, qwen]
        assert collected(yard.run(*only, "-k", "qwen")) == [qwen]
        assert collected(yard.run(*only, "-m", "text", "--strict-markers")) == [llama, qwen]
        assert collected(yard.run(*only, "--madengine-tags=qwen,llama:batch=5")) == [f"{llama}[batch=5]", qwen]
        assert "'lama' selects no model" in errors(yard.run(MANIFEST, "--madengine-tags=lama"))
        yard.run(MANIFEST, "--madengine-tags=llama:batch=5").assert_outcomes(passed=1, deselected=2)
        assert [row["args"] for row in yard.rows] == ["--batch 5"]
        assert yard.logs() == []
        assert (yard.path.read_bytes(), yard.path.stat().st_mtime_ns) == before

    def test_those_that_failed_run_again_and_workers_share_them(self, yard: Yard) -> None:
        yard.shared("a", "b")
        yard.built()
        (yard.folder / "scripts/b.sh").write_text("exit 3\n")
        run_bare(yard.pytester, MANIFEST, "-n2").assert_outcomes(passed=1, failed=1)
        assert yard.statuses == {"a": "SUCCESS", "b": "FAILURE"}
        again = yard.run(MANIFEST, "--lf", "-v")
        again.assert_outcomes(failed=1, deselected=1)
        again.stdout.fnmatch_lines(["build_manifest.json::b FAILED*"])

    def test_a_worker_that_dies_before_its_model_began_costs_no_row(self, yard: Yard) -> None:
        yard.shared("a", "b")
        yard.built()
        yard.pytester.makeconftest(
            """
            import os, pytest
            @pytest.fixture(autouse=True)
            def die(request):
                if request.node.name == "b": os._exit(1)
            """
        )
        assert run_bare(yard.pytester, MANIFEST, "-n2").ret == pytest.ExitCode.TESTS_FAILED
        assert yard.statuses == {"a": "SUCCESS", "b": "FAILURE"}

    def test_a_node_id_and_paths_are_of_the_manifest_alone(self, yard: Yard) -> None:
        yard.shared("a", "b")
        yard.built()
        yard.run(MANIFEST, "build_manifest.json::b", "-v").assert_outcomes(passed=1)
        assert yard.statuses == {"b": "SUCCESS"}
        items = ["build_manifest.json::a", "build_manifest.json::b"]
        assert collected(yard.run(MANIFEST, ".", "--collect-only", "-q")) == items

    def test_resuming_a_run_of_one_needs_no_other_option_and_tags_win(self, yard: Yard) -> None:
        yard.shared("a", "b")
        yard.built()
        yard.run(MANIFEST).assert_outcomes(passed=2)
        result = run_bare(yard.pytester, RESUME, "-v")
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["build_manifest.json::a PASSED*", "build_manifest.json::b PASSED*"])
        assert len(yard.rows) == 2
        result = yard.run(RESUME, "--madengine-tags=a", "-v")
        result.assert_outcomes(passed=1, deselected=1)
        result.stdout.fnmatch_lines(["models.json::a PASSED*"])

    def test_it_is_found_by_whatever_path_leads_there(self, yard: Yard) -> None:
        yard.shared("a")
        yard.built()
        yard.pytester.mkdir("down")
        path = "--madengine-manifest=down/../build_manifest.json"
        assert collected(yard.run(path, "--collect-only", "-q")) == ["build_manifest.json::a"]
        yard.path.rename(yard.folder / "down/other.json")
        assert collected(yard.run("--madengine-manifest=down/other.json", "--collect-only", "-q")) == [
            "down/other.json::a"
        ]

    def test_the_runs_own_context_wins_over_its(self, yard: Yard) -> None:
        yard.shared("a", script="echo performance: $FIRST$SECOND x\n")
        yard.built(
            context(
                docker_env_vars={"FIRST": "1", "SECOND": "1"},
                distributed={"nproc_per_node": 2, "launcher": "megatron"},
                model_args="--of build",
            )
        )
        own = context(docker_env_vars={"SECOND": "2"}, distributed={"nproc_per_node": 3}, model_args="--of run")
        yard.run(MANIFEST, own).assert_outcomes(passed=1)
        assert [(row["performance"], row["args"]) for row in yard.rows] == [("12", "--of run")]
        assert yard.job("a")["env"]["TENSOR_MODEL_PARALLEL_SIZE"] == "3"
        yard.run(MANIFEST).assert_outcomes(passed=1)
        assert (yard.rows[-1]["performance"], yard.rows[-1]["args"]) == ("11", "--of build")

    def test_failed_builds_are_errors_with_rows(self, yard: Yard) -> None:
        yard.cards(cooked("good"), cooked("bad"))
        yard.dockerfile("good")
        yard.dockerfile("bad", "RUN exit 7")
        yard.built()
        result = yard.run(MANIFEST, "--madengine-exit-codes")
        result.assert_outcomes(passed=1, errors=1)
        assert result.ret == 2
        result.stdout.fnmatch_lines(["*the manifest has no image of bad: *RUN exit 7*"])
        assert yard.statuses == {"good": "SUCCESS", "bad": "FAILURE"}

    def test_images_for_gpus_of_another_vendor_are_skipped(self, yard: Yard) -> None:
        yard.shared("a")
        yard.built()
        yard.change(gpu_vendor="NVIDIA")
        amd = context(gpu_vendor="AMD", docker_env_vars={"MAD_SYSTEM_NGPUS": "1"})
        result = yard.run(MANIFEST, amd, "-rs")
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["*the image is for NVIDIA GPUs, this machine has AMD's"])
        assert yard.statuses == {"a": "SKIPPED"}

    def test_the_machine_that_built_is_not_taken_for_the_one_that_runs(self, yard: Yard) -> None:
        yard.shared("a")
        facts = {"MAD_SYSTEM_GPU_ARCHITECTURE": "gfx777", "MAD_SYSTEM_NGPUS": "77", "OTHER": "1"}
        yard.built(context(docker_env_vars=facts))
        yard.run(MANIFEST).assert_outcomes(passed=1)
        env = yard.job("a")["env"]
        assert env["MAD_SYSTEM_GPU_ARCHITECTURE"] != "gfx777"
        assert env["MAD_SYSTEM_NGPUS"] != "77"
        assert env["OTHER"] == "1"
        assert yard.rows[0]["gpu_architecture"] != "gfx777"

    def test_it_holds_no_secret_and_a_run_must_be_given_them(self, yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
        yard.shared("a", script='echo "performance: ${#HF_TOKEN} x"\n')
        secret = "planted-secret"  # noqa: S105  # planted
        yard.built(context(docker_env_vars={"HF_TOKEN": secret}))
        assert secret not in read(yard.path)
        assert yard.manifest()["secrets_required"] == ["HF_TOKEN"]
        monkeypatch.delenv("HF_TOKEN", raising=False)
        assert "secrets_required: HF_TOKEN" in errors(yard.run(MANIFEST))
        assert collected(yard.run(MANIFEST, "--collect-only", "-q")) == ["build_manifest.json::a"]
        yard.run(MANIFEST, context(secrets={"HF_TOKEN": "12345678"})).assert_outcomes(passed=1)
        monkeypatch.setenv("HF_TOKEN", secret)
        yard.run(MANIFEST).assert_outcomes(passed=1)
        assert [row["performance"] for row in yard.rows] == ["8", str(len(secret))]
        assert not any(secret in read(path) for path in yard.folder.rglob("*") if path.is_file())

    @pytest.mark.requires_registry
    def test_an_image_of_a_registry_is_what_the_model_is_told_of(self, yard: Yard, registry: Registry) -> None:
        yard.cards(cooked("a"), script="echo performance: 1 $DOCKER_IMAGE_NAME\n")
        yard.dockerfile("a")
        yard.built(f"--madengine-registry={registry.address}")
        remote = yard.manifest()["built_images"]["a"]["registry_image"]
        assert remote.startswith(f"{registry.address}/")
        yard.run(MANIFEST).assert_outcomes(passed=1)
        assert yard.rows[0]["metric"] == remote
        assert yard.job("a")["image"]["reference"].startswith(f"{registry.address}/")

    def test_a_test_that_names_a_model_gets_the_manifests_image(self, yard: Yard) -> None:
        yard.shared("a")
        yard.built()
        yard.change(docker_image=BASE_IMAGE, image_id="", content_hash="")
        yard.pytester.makepyfile(
            test_it=f"""
            import pytest

            @pytest.mark.madengine("a")
            def test_speed(job, result):
                assert job.image.reference == {BASE_IMAGE!r}
                assert job.env["DOCKER_IMAGE_NAME"] == {BASE_IMAGE!r}
            """
        )
        yard.run(MANIFEST, "test_it.py").assert_outcomes(passed=1)
        assert yard.logs() == []

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('{\n "built_images": {', "build_manifest.json:2:19: not JSON"),
            ('{\n "built_images": {\n  "a": {}},\n "built_models": {}}', "build_manifest.json:3: built_images.a"),
            ('{\n "built_images": {}}', "build_manifest.json:1: 'built_models' is missing"),
            (
                '{"built_images": {}, "built_models": {},\n "context": {\n  "docker_env_var": {}}}',
                "build_manifest.json:3: context.docker_env_var",
            ),
            ("[]", "build_manifest.json:1"),
        ],
        ids=["no JSON", "no image", "no models", "context", "no object"],
    )
    def test_a_broken_one_is_a_usage_error_with_its_place(self, yard: Yard, text: str, said: str) -> None:
        yard.path.write_text(text)
        assert said in errors(yard.run(MANIFEST))

    @pytest.mark.parametrize("options", [[], ["--madengine-tags=a"], ["--collect-only"]], ids=" ".join)
    def test_one_without_models_says_so(self, yard: Yard, options: list[str]) -> None:
        yard.path.write_text('{"built_images": {}, "built_models": {}}')
        result = yard.run(MANIFEST, *options)
        assert result.ret in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED)
        assert "build_manifest.json names no model" in result.stdout.str() + result.stderr.str()

    def test_a_repository_that_is_called_like_its_user_is_no_secret(self, yard: Yard) -> None:
        team, secret = BASE_IMAGE.partition(":")[0], "planted-secret"
        login = {"username": team, "password": secret, "repository": team}
        (yard.folder / "credential.json").write_text(json.dumps({NOBODY: login}))
        yard.shared("a", args=f"--for {team} --with {secret}")
        image = yard.built(f"--madengine-use-image={BASE_IMAGE}")["built_images"]["a"]
        assert image["docker_image"] == BASE_IMAGE
        assert yard.manifest()["built_models"]["a"]["args"] == f"--for {team} --with ***"
        yard.run(MANIFEST).assert_outcomes(passed=1)

    @pytest.mark.parametrize("word", ["docker", "shared", "sha256"])
    def test_a_secret_that_is_a_common_word_does_not_spoil_it(
        self, yard: Yard, monkeypatch: pytest.MonkeyPatch, word: str
    ) -> None:
        monkeypatch.setenv("X_TOKEN", word)
        yard.shared("a", args=f"--say {word}")
        image = yard.built()["built_images"]["a"]
        assert yard.manifest()["built_models"]["a"]["args"] == "--say ***"
        assert (image["dockerfile"], image["docker_image"][:10]) == ("docker/shared.Dockerfile", "ci-shared:")
        yard.run(MANIFEST).assert_outcomes(passed=1)

    def test_one_that_is_missing_is_a_usage_error(self, yard: Yard) -> None:
        assert "build_manifest.json: cannot be read" in errors(yard.run(MANIFEST))


@pytest.mark.requires_docker
class TestBatch:
    GIVEN = "--madengine-batch-manifest=batch.json"

    def _wishes(self, yard: Yard, *wishes: dict[str, Any]) -> None:
        (yard.folder / "batch.json").write_text(json.dumps(wishes))

    @pytest.mark.parametrize("mode", [[BUILD], []], ids=["build only", "run"])
    def test_only_its_models_are_meant_each_by_its_wish(self, yard: Yard, mode: list[str]) -> None:
        yard.cards(cooked("new"), cooked("there"), cooked("lost"), cooked("other"))
        for name in ("new", "there", "lost", "other"):
            yard.dockerfile(name)
        there = {"model_name": "there", "build_new": True}
        self._wishes(yard, there)
        yard.run(BUILD, self.GIVEN).assert_outcomes(passed=1, deselected=3)
        assert yard.logs() == ["there"]
        self._wishes(
            yard, {"model_name": "new", "build_new": True}, {**there, "build_new": False}, {"model_name": "lost"}
        )
        result = yard.run(*mode, self.GIVEN)
        result.assert_outcomes(passed=2, errors=1, deselected=1)
        result.stdout.fnmatch_lines(["*[[]2[]].build_new is false, and this machine has no image of docker/lost*"])
        assert yard.logs() == ["new"]
        assert (yard.folder / "perf.csv").exists() == (mode == [])

    @pytest.mark.parametrize("mode", [[BUILD], []], ids=["build only", "run"])
    def test_an_entry_that_selects_no_model_is_named_by_its_index(self, yard: Yard, mode: list[str]) -> None:
        yard.shared("llama")
        self._wishes(yard, {"model_name": "llama"}, {"model_name": "lama", "build_new": True})
        text = errors(yard.run(*mode, self.GIVEN))
        assert "batch.json:1: [1].model_name: 'lama' selects no model" in text
        assert "did you mean 'llama'?" in text

    def test_resuming_a_run_of_one_needs_no_other_option_and_tags_win(self, yard: Yard) -> None:
        yard.shared("a", "b")
        yard.cards(cooked("a"), card("b", dockerfile="docker/shared"))
        yard.dockerfile("a")
        self._wishes(yard, {"model_name": "a", "build_new": True})
        yard.run(BUILD, self.GIVEN).assert_outcomes(passed=1, deselected=1)
        yard.dockerfile("a", "ENV CHANGED=1")
        self._wishes(yard, {"model_name": "a", "build_new": False})
        result = run_bare(yard.pytester, RESUME)
        result.assert_outcomes(errors=1, deselected=1)
        result.stdout.fnmatch_lines(["*[[]0[]].build_new is false, and this machine has no image of docker/a*"])
        yard.run(RESUME, "--madengine-tags=b").assert_outcomes(passed=1, deselected=1)

    def test_all_faults_of_the_file_are_told_with_their_index(self, yard: Yard) -> None:
        yard.shared("a")
        self._wishes(yard, {"model_name": "a", "build_new": "yes"}, {"model_nam": "a"})
        text = errors(yard.run(self.GIVEN))
        assert "[0].build_new" in text
        assert "[1].model_nam" in text


@pytest.mark.requires_docker
class TestLiveOutput:
    def test_lines_appear_as_they_are_printed_and_without_secrets(
        self, yard: Yard, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MAD_SECRETS_TEST", "planted-secret")
        wait = "until [ -e $MADENGINE_PROJECT/go ]; do sleep 0.02; done"
        script = f"echo performance: 5 x; echo {'$MAD_SECRETS_TEST'}; {wait}; printf 'no newline'\n"
        yard.cards(cooked("a"), script=script)
        shown = "RUN --mount=type=secret,id=MAD_SECRETS_TEST cat /run/secrets/MAD_SECRETS_TEST; echo; echo of the build"
        yard.dockerfile("a", BASH, shown, gate.step)
        process = pytest_in(yard.folder, ALL, "--madengine-live-output")
        with gate.reached() as step:
            until(lambda: "of the build" in _shown(yard))
            step.sendall(b"go\n")
        until(lambda: "a | performance: 5 x" in said(yard.folder).splitlines())
        (yard.folder / "go").touch()
        assert process.wait(PATIENCE) == pytest.ExitCode.OK, said(yard.folder)
        assert "a | no newline" in said(yard.folder).splitlines()
        assert "a | ***" in said(yard.folder).splitlines()
        assert "planted-secret" not in said(yard.folder) + yard.log()

    def test_without_it_one_line_tells_of_a_build_whose_log_grows(self, yard: Yard, gate: Gate) -> None:
        yard.cards(cooked("a"))
        yard.dockerfile("a", BASH, "RUN echo of the$EMPTY build", gate.step)
        process = pytest_in(yard.folder, BUILD)
        with gate.reached() as step:
            until(lambda: "of the build" in yard.log())
            assert "madengine: a: building docker/a.Dockerfile" in said(yard.folder).splitlines()
            step.sendall(b"go\n")
        assert process.wait(PATIENCE) == pytest.ExitCode.OK, said(yard.folder)
        assert "of the build" not in said(yard.folder)


def _shown(yard: Yard) -> str:
    """The lines that a build printed by itself, without the names of its steps."""
    return "\n".join(line for line in said(yard.folder).splitlines() if "a | #" in line and "RUN" not in line)
