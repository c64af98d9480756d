"""What a dry run shows is what a run hands over."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine import dryrun
from tests.cards import PASSES, card, project, run_bare
from tests.engines.registries import Images

DRY, ALL = "--madengine-dry-run", "--madengine-tags=all"
HEADING = re.compile(r"(=+|-+) (.+) \1=*-*")
BARE = {"container_runtime": "none", "exclusive": False, "time": "00:05:00", "gpus_per_node": 1}
HOSTILE = """it's "q" $HOME `x` \\ a
second line"""
WATCHED = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "os.mkdir", "os.rename")
AUDIT = f"""
import os, sys
WRITING = os.O_WRONLY | os.O_RDWR
def seen(event, args):
    writes = event == "open" and args[2] & WRITING and args[0] != os.devnull
    if (event in {WATCHED} or writes) and ".coverage" not in str(args[:1]):
        sys.__stdout__.write(f"TOUCHED {{event}} {{args}}\\n")
sys.addaudithook(seen)
"""
RECORDER = """#!/bin/sh
printf '%s\\0' "$@" >"$(mktemp {folder}/call-XXXXXX)"
{then}
"""


def context(**values: Any) -> str:
    return f"--madengine-context={json.dumps(values)}"


def on_slurm(*, slurm: dict[str, Any] | None = None, **values: Any) -> list[str]:
    return ["--target=slurm", context(**values, slurm={**BARE, **(slurm or {})})]


def shown(result: pytest.RunResult) -> dict[str, dict[str, str]]:
    """Texts by item and title; what stands before the first title is called ''."""
    found: dict[str, dict[str, list[str]]] = {}
    lines: list[str] = []
    for line in result.outlines:
        heading = HEADING.fullmatch(line)
        if heading and heading[1].startswith("="):
            found[heading[2]] = {"": (lines := [])}
        elif heading:
            found[list(found)[-1]][heading[2]] = (lines := [])
        else:
            lines.append(line)
    return {item: {title: "\n".join(text) for title, text in texts.items()} for item, texts in found.items()}


def one(result: pytest.RunResult) -> dict[str, str]:
    """The texts of the only item."""
    (texts,) = (texts for item, texts in shown(result).items() if "::" in item)
    return texts


def as_placeholders(text: str, folder: Path) -> str:
    """A text of a real run with placeholders for its ids."""
    (job,) = folder.glob(".madengine/runs/latest/jobs/*")
    return text.replace((folder / ".madengine/runs/latest").resolve().name, "RUN").replace(
        job.name, job.name.rpartition("-")[0].rstrip("-")
    )


def recorder(folder: Path, then: str = "") -> Path:
    """A folder in which `docker` notes its arguments."""
    (folder / "calls").mkdir(parents=True)
    program = folder / "docker"
    program.write_text(RECORDER.format(folder=folder / "calls", then=then))
    program.chmod(0o755)
    return folder


def calls(folder: Path) -> list[list[str]]:
    return [path.read_text().split("\0")[:-1] for path in (folder / "calls").iterdir()]


def as_a_shell_reads(text: str, folder: Path) -> list[str]:
    """The arguments that `docker` gets when the text is run."""
    path = recorder(folder)
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", text], check=True, env=environment)
    (found,) = calls(path)
    return found


@pytest.mark.requires_docker
def test_on_docker_the_arguments_are_those_of_the_run(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pytester.mkdir("docker") / "d.ubuntu.amd.Dockerfile").write_text("FROM madengine-test-base:latest\n")
    options = "--memory 1g"
    project(pytester.path, card("m", dockerfile="docker/d", additional_docker_run_options=options))
    mounts = {"/further": str(pytester.path)}
    given = context(env_vars={"TEXT": HOSTILE, "MY_TOKEN": "planted-token"}, docker_mounts=mounts)
    before = one(run_bare(pytester, ALL, given, DRY))
    assert "would build docker/d.ubuntu.amd.Dockerfile, unless" in before[""]
    real = shutil.which("docker")
    path = recorder(tmp_path / "real", f'exec {real} "$@"')
    monkeypatch.setenv("PATH", str(path), prepend=os.pathsep)
    run_bare(pytester, ALL, given).assert_outcomes(passed=1)
    (run,) = (call for call in calls(path) if call[0] == "run")
    text = as_placeholders("\0".join(run), pytester.path)
    expected = re.sub(r"ci-d\.ubuntu\.amd:\w+", "ci-d.ubuntu.amd:CONTENT", text).split("\0")
    assert as_a_shell_reads(before["command"], tmp_path / "shown") == expected
    assert "planted-token" not in "".join(before.values())


def test_on_the_host_command_and_environment_are_those_of_the_run(pytester: pytest.Pytester) -> None:
    project(
        pytester.path, card("m", env_vars={"TEXT": HOSTILE, "MY_TOKEN": "planted-token"}), script=f"env -0\n{PASSES}"
    )
    before = one(run_bare(pytester, ALL, "--target=host", "-v", DRY))
    assert "planted" not in "".join(before.values())
    run_bare(pytester, ALL, "--target=host").assert_outcomes(passed=1)
    (job,) = pytester.path.glob(".madengine/runs/latest/jobs/*")
    seen = as_placeholders((job / "run.log").read_text(), pytester.path).split("\0")
    for name, value in exported(before["environment"]).items():
        assert any(line.endswith(f"{name}={value}") for line in seen)
    assert {"TEXT", "MADENGINE_JOB", "PATH"} <= exported(before["environment"]).keys()
    assert before["argv"] == f"bash {pytester.path}/.madengine/runs/RUN/jobs/m/run.sh"
    assert before["run.sh"] + "\n" == as_placeholders((job / "run.sh").read_text(), pytester.path)


def exported(text: str) -> dict[str, str]:
    """What the variables are for a shell that reads the text."""
    script = f"set -a\n{text}\nset +a\n/usr/bin/env -0"
    done = subprocess.run(["/bin/bash", "-c", script], check=True, capture_output=True, text=True, env={})
    found = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    return {name: value for name, value in found.items() if f"{name}=" in text}


@pytest.mark.requires_slurm
def test_on_slurm_the_scripts_are_those_of_the_run(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("team/m", env_vars={"TEXT": HOSTILE, "MY_TOKEN": "planted-token"}, args="--x 'a b'"))
    args = [ALL, *on_slurm(slurm={"nodes": 2, "prologue": "echo begun"}, secrets={"KEY": "planted-secret"})]
    before = one(run_bare(pytester, *args, "-v", DRY))
    assert "planted" not in "".join(before.values())
    run_bare(pytester, *args).assert_outcomes(passed=1)
    (job,) = pytester.path.glob(".madengine/runs/latest/jobs/*")
    scripts = {title: text + "\n" for title, text in before.items() if title.endswith(".sh")}
    assert {"job.sh", "node.sh", "run.sh"} <= scripts.keys()
    for name, text in scripts.items():
        assert text == as_placeholders((job / name).read_text(), pytester.path)


@pytest.mark.requires_docker
@pytest.mark.requires_slurm
def test_so_they_are_where_the_image_is_built_here(pytester: pytest.Pytester, images: Images) -> None:
    (pytester.mkdir("docker") / "d.ubuntu.amd.Dockerfile").write_text(f"FROM {images.make()}\n")
    project(pytester.path, card("m", dockerfile="docker/d"))
    args = [ALL, *on_slurm(slurm={"container_runtime": "docker", "gpus_per_node": 0})]
    before = one(run_bare(pytester, *args, DRY))
    assert run_bare(pytester, *args).ret == pytest.ExitCode.TESTS_FAILED  # there is no shell in it
    (job,) = pytester.path.glob(".madengine/runs/latest/jobs/*")
    image = json.loads((job / "job.json").read_text())["image"]
    images.ids.append(image["digest"])
    assert before[""].splitlines()[0].startswith("would build docker/d.ubuntu.amd.Dockerfile, unless")
    for name in ("job.sh", "node.sh", "image.sh"):
        text = as_placeholders((job / name).read_text(), pytester.path)
        text = text.replace(image["digest"].removeprefix("sha256:"), "ID").replace(image["content"][:16], "CONTENT")
        assert before[name] + "\n" == text


@pytest.mark.requires_slurm
def test_a_reservation_reaches_the_scheduler(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m", slurm={"reservation": "of-the-card"}))
    result = run_bare(pytester, ALL, *on_slurm(), "--madengine-reservation=of-the-option")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*Requested reservation is invalid*"])
    (job,) = pytester.path.glob(".madengine/runs/latest/jobs/*/job.sh")
    assert "#SBATCH --reservation=of-the-option\n" in job.read_text()


@pytest.mark.parametrize("target", ["docker", "host", "slurm", "k8s --madengine-registry=registry.example"])
def test_nothing_is_contacted_started_or_written(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (pytester.mkdir("docker") / "d.ubuntu.amd.Dockerfile").write_text("FROM nowhere.example/base:1\n")
    project(pytester.path, card("m", dockerfile="docker/d"))
    pytester.makeconftest(AUDIT)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    result = run_bare(pytester, DRY, *f"--target={target}".split(), "-p", "no:cacheprovider", "-s")
    assert [line for line in result.outlines if "TOUCHED" in line] == []
    assert result.ret == pytest.ExitCode.OK
    assert not any(path.name.startswith((".madengine", "perf")) for path in pytester.path.iterdir())


def test_what_watches_that_sees_a_run(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"))
    pytester.makeconftest(AUDIT)
    result = run_bare(pytester, ALL, "--target=host", "-p", "no:cacheprovider", "-s")
    result.stdout.fnmatch_lines_random(["TOUCHED os.mkdir*", "TOUCHED open*", "TOUCHED subprocess.Popen*"])


def dry(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest(DRY, *args)


def test_paths_tags_keywords_and_markers_select_as_in_a_run(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a", tags=["x"]), card("b", tags=["x", "slow"]), card("c"))
    pytester.makepyfile(test_it="def test_it(): raise AssertionError")
    assert items(dry(pytester, "--target=host")) == ["models.json::a", "models.json::b", "models.json::c"]
    assert items(dry(pytester, "--target=host", "--madengine-tags=x", "-m", "not slow")) == ["models.json::a"]
    assert items(dry(pytester, "--target=host", "models.json", "-k", "c")) == ["models.json::c"]
    result = dry(pytester, "--target=host", "models.json::b", "test_it.py")
    assert items(result) == ["models.json::b"]
    result.stdout.fnmatch_lines(["models: 1, tests without one: 1; nothing was built or submitted"])
    assert not (pytester.path / ".madengine").exists()


def items(result: pytest.RunResult) -> list[str]:
    assert result.ret == pytest.ExitCode.OK
    return [item for item in shown(result) if "::" in item]


def test_a_test_that_asks_for_a_model_shows_its_model(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    pytester.makepyfile("import pytest\n@pytest.mark.madengine('a:batch=5')\ndef test_it(result): pass")
    texts = one(dry(pytester, "--target=host", "-v", ".", "--deselect=models.json"))
    assert "a.sh --batch 5" in texts["run.sh"]


def test_what_is_wrong_with_a_card_stands_at_its_item_and_fails_the_session(pytester: pytest.Pytester) -> None:
    wide = {"launcher": "sglang-disagg", "nnodes": 2}
    project(
        pytester.path,
        card("good"),
        card("unknown", distributed={"launcher": "torchrnu"}),
        card("narrow", distributed=wide),
        card("wrong", slurm={"nodes": 0}),
    )
    result = dry(pytester, *on_slurm())
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = {item.rpartition("::")[2]: texts[""] for item, texts in shown(result).items() if "::" in item}
    assert found["good"] == ""
    assert found["unknown"].startswith("ERROR: unknown: distributed.launcher: unknown launcher 'torchrnu'")
    assert found["narrow"] == "ERROR: narrow: the launcher sglang_disagg needs at least 3 nodes, slurm.nodes is 2"
    assert "slurm.nodes (wrong): found 0" in found["wrong"]
    result.stdout.fnmatch_lines(["ERROR models.json::unknown cannot run", "ERROR models.json::wrong cannot run"])
    result.stdout.no_fnmatch_line("*good cannot run")


def test_a_missing_script_is_such_a_fault(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"))
    (pytester.path / "scripts" / "m.sh").unlink()
    result = dry(pytester, "--target=host")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "scripts/m.sh does not exist" in one(result)[""]


def test_what_a_conftest_raises_is_such_a_fault_and_a_skip_is_none(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"), card("b"))
    pytester.makeconftest(
        "import pytest\n"
        "def pytest_madengine_job(item, job):\n"
        "    if item.name == 'a': pytest.skip('not today')\n"
        "    raise KeyError('site')\n"
    )
    result = dry(pytester, "--target=host")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert shown(result)["models.json::a"] == {"": "would be skipped: not today"}
    assert shown(result)["models.json::b"] == {"": "ERROR: KeyError: 'site'"}


def test_what_a_hook_changes_is_shown_and_what_a_fixture_changes_is_said(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"))
    pytester.makeconftest(
        "import pytest\n"
        "from dataclasses import replace\n"
        "def pytest_madengine_job(item, job): return replace(job, env={'FROM_SITE': 'yes'})\n"
        "@pytest.fixture\n"
        "def model(model): return model.with_args('--more')\n"
        "def pytest_collection_modifyitems(items): items[0].add_marker(pytest.mark.xfail)\n"
    )
    texts = one(dry(pytester, "--target=host"))
    assert "FROM_SITE=yes" in texts["environment"]
    assert texts[""].splitlines() == [
        "not heeded here: the fixture 'model' of a conftest.py",
        "not heeded here: the mark 'xfail'",
    ]


def test_a_model_that_is_not_for_this_gpu_would_be_skipped(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m", skip_gpu_arch="gfx90a"))
    facts = {"docker_env_vars": {"MAD_SYSTEM_GPU_ARCHITECTURE": "gfx90a"}}
    result = dry(pytester, "--target=host", context(**facts))
    assert one(result) == {"": "would be skipped: skip_gpu_arch lists gfx90a, this machine has gfx90a"}
    assert result.ret == pytest.ExitCode.OK


def test_secrets_are_shown_nowhere(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAD_SECRETS_OF_SHELL", "planted-shell")
    (pytester.path / "credential.json").write_text(json.dumps({"hub": {"username": "me", "password": "planted-hub"}}))
    variables = {"API_KEY": "planted-key", "COPY": "x planted-inline y"}
    project(pytester.path, card("m", args="planted-key", cred="hub", env_vars=variables))
    for target in ("host", "slurm"):
        given = context(secrets={"S": "planted-inline"}, slurm=BARE)
        result = dry(pytester, f"--target={target}", "-v", given)
        texts = one(result)
        assert "planted" not in result.stdout.str().replace(str(pytester.path), "")
        assert "x *** y" in "".join(texts.values())


@pytest.mark.parametrize(
    ("images", "notes"),
    [
        ({"options": ["--madengine-use-image=r.example/x:1"]}, ["image r.example/x:1"]),
        ({"context": {"MAD_CONTAINER_IMAGE": "r.example/x:1"}}, ["image r.example/x:1"]),
        (
            {"options": ["--madengine-registry=r.example/team"]},
            [
                "would build docker/d.ubuntu.amd.Dockerfile, unless an image of its present content is there",
                "would push it as r.example/team/ci-d.ubuntu.amd:CONTENT",
            ],
        ),
    ],
    ids=["option", "context", "registry"],
)
def test_an_image_is_told_as_far_as_it_can_be_without_an_engine(
    pytester: pytest.Pytester, images: dict[str, Any], notes: list[str]
) -> None:
    (pytester.mkdir("docker") / "d.ubuntu.amd.Dockerfile").write_text("FROM x\n")
    project(pytester.path, card("m", dockerfile="docker/d"))
    texts = one(dry(pytester, *images.get("options", []), context(**images.get("context", {}))))
    assert texts[""].splitlines() == notes
    reference = notes[-1].split()[-1].removeprefix("r.example/team/")
    assert texts["command"].endswith(f"  {reference} /madengine/job/run.sh")
    named = [line for line in texts["command"].splitlines() if "DOCKER_IMAGE_NAME" in line]
    assert [line.strip(" \\").rpartition("=")[2] for line in named] == [notes[-1].split()[-1]]
    assert texts.get("build", "").endswith("docker" if "build" in notes[0] else "")


@pytest.mark.parametrize(
    ("options", "notes", "image"),
    [
        (["--madengine-use-image=r.example/x:1"], ["image r.example/x:1"], "r.example/x@sha256:ID"),
        (["--madengine-use-image=r.example/x@sha256:1"], ["image r.example/x@sha256:1"], "r.example/x@sha256:1"),
        (
            ["--madengine-registry=r.example", "--madengine-build-on-compute"],
            [
                "would build docker/d.ubuntu.amd.Dockerfile on a node",
                "would push it as r.example/ci-d.ubuntu.amd:CONTENT",
            ],
            "r.example/ci-d.ubuntu.amd@sha256:ID",
        ),
    ],
    ids=["name", "digest", "built there"],
)
def test_nodes_get_an_image_of_a_registry_by_its_digest(
    pytester: pytest.Pytester, options: list[str], notes: list[str], image: str
) -> None:
    (pytester.mkdir("docker") / "d.ubuntu.amd.Dockerfile").write_text("FROM x\n")
    project(pytester.path, card("m", dockerfile="docker/d"))
    texts = one(dry(pytester, "--target=slurm", *options))
    assert texts[""].splitlines() == notes
    assert f" {image}" in texts["image.sh"]
    assert "build" not in texts


def test_images_of_a_manifest_are_those_that_it_names(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"), card("failed"))
    (pytester.path / "manifest.json").write_text(
        json.dumps(
            {
                "built_images": {"m": {"docker_image": "ci-m:1", "registry_image": "r.example/m:1"}},
                "built_models": {"m": card("m")},
                "summary": {"failed_builds": [{"model": "failed", "error": "no space left"}]},
            }
        )
    )
    result = dry(pytester, "--madengine-manifest=manifest.json")
    found = {item: texts for item, texts in shown(result).items() if "::" in item}
    assert found["manifest.json::m"][""] == "image r.example/m:1"
    assert found["manifest.json::failed"][""] == "ERROR: the manifest has no image of failed: no space left"


def test_the_wish_of_a_batch_manifest_counts(pytester: pytest.Pytester) -> None:
    (pytester.mkdir("docker") / "d.ubuntu.amd.Dockerfile").write_text("FROM x\n")
    project(pytester.path, card("m", dockerfile="docker/d"), card("n", dockerfile="docker/d"), card("o"))
    wishes = [
        {"model_name": "m", "build_new": False},
        {"model_name": "n", "build_new": False, "registry": "r.example"},
        {"model_name": "o", "build_new": False, "registry_image": "r.example/o:1"},
    ]
    (pytester.path / "batch.json").write_text(json.dumps(wishes))
    result = dry(pytester, "--madengine-batch-manifest=batch.json")
    found = {item: texts for item, texts in shown(result).items() if "::" in item}
    assert [texts[""] for texts in found.values()] == [
        "image ci-d.ubuntu.amd:CONTENT",
        "image r.example/ci-d.ubuntu.amd:CONTENT",
        "image r.example/o:1",
    ]
    assert " r.example/o@sha256:ID " in found["models.json::o"]["command"]


def test_verbosely_each_value_comes_with_its_origin(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m", slurm={"qos": "night"}, env_vars={"HF_TOKEN": "s3", "A": "1"}))
    args = [*on_slurm(slurm={"epilogue": "a\nb"}), "--madengine-reservation=r"]
    found = {line.split("  ")[0]: line.split()[-1] for line in one(dry(pytester, "-v", *args))["origins"].splitlines()}
    expected = {
        "slurm.time = 00:05:00": "context",
        "slurm.qos = night": "(card)",
        'slurm.epilogue = "a\\nb"': "context",
        "slurm.exclusive = false": "context",
        "slurm.reservation = r": "--madengine-reservation",
        "distributed.port = 29500": "presets/slurm/defaults.json",
        "env_vars.NCCL_DEBUG = WARN": "presets/slurm/profiles/single-node.json",
        "env_vars.HF_TOKEN = ***": "(card)",
    }
    assert expected.items() <= found.items()
    assert "origins" not in one(dry(pytester, *args))
    assert "origins" not in one(dry(pytester, "-v", "--target=host"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--madengine-detach"], "--madengine-dry-run and --madengine-detach contradict each other"),
        (["--madengine-build-only"], "--madengine-dry-run and --madengine-build-only contradict each other"),
        (["--madengine-resume"], "--madengine-dry-run and --madengine-resume contradict each other"),
        (["--madengine-status"], "--madengine-dry-run and --madengine-status contradict each other"),
        (["--madengine-preflight"], "--madengine-dry-run and --madengine-preflight contradict each other"),
        (["-n2"], "--madengine-dry-run: this one process shows all models; leave -n and --dist out"),
        (["--madengine-reservation=r"], "--madengine-reservation: the target is host, which has no reservations"),
        (
            ["--madengine-keep-alive"],
            "--madengine-keep-alive: the target is host, where nothing of a run stays; valid:",
        ),
        (["--madengine-reservation="], "--madengine-reservation: is empty"),
        (["--madengine-reservation=a\nb"], "--madengine-reservation: found 'a\\nb'; valid: one line of text"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(pytester: pytest.Pytester, args: list[str], words: str) -> None:
    project(pytester.path, card("m"))
    (pytester.path / ".madengine/runs/20260101-000000000-abcdef").mkdir(parents=True)
    (pytester.path / ".madengine/runs/latest").symlink_to("20260101-000000000-abcdef")
    result = pytester.runpytest(DRY, "--target=host", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in result.stderr.str() + result.stdout.str()


def test_only_collecting_and_only_setting_up_start_nothing_either(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"))
    assert shown(dry(pytester, "--target=host", "--collect-only")).keys().isdisjoint({"models.json::m"})
    assert items(dry(pytester, "--target=host", "--setup-only")) == ["models.json::m"]
    assert not (pytester.path / ".madengine").exists()


def test_without_a_terminal_reporter_faults_still_fail(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"))
    assert run_bare(pytester, DRY, "--target=host", "-p", "no:terminal").ret == pytest.ExitCode.OK
    (pytester.path / "scripts" / "m.sh").unlink()
    assert run_bare(pytester, DRY, "--target=host", "-p", "no:terminal").ret == pytest.ExitCode.TESTS_FAILED


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["-x", "--a=b", "--c", "d", "e=f"]) | WORDS))
def test_a_shell_reads_a_shown_command_as_the_same_arguments(argv: list[str]) -> None:
    text = dryrun.command(["printf", "%s\\0", "", *argv])
    done = subprocess.run(["bash", "-c", text], check=True, capture_output=True)
    assert done.stdout.decode().split("\0")[1:-1] == argv


def test_an_option_and_its_value_share_a_line() -> None:
    argv = ["docker", "run", "-v", "/a:/b", "--env=X=1 2", "--init", "image:1", "run.sh"]
    assert dryrun.command(["docker", "run", "--name=x", *argv[2:]]).split(" \\\n  ") == [
        "docker run",
        "--name=x",
        "-v /a:/b",
        "'--env=X=1 2'",
        "--init image:1 run.sh",
    ]


def test_a_request_of_any_form_is_shown() -> None:
    request = {"argv": ["a", "b c"], "environment": {"A": "1 2"}, "job.sh": "text\n", "spec": {"n": 1, "p": ["x"]}}
    assert dryrun.texts_of(request) == {
        "argv": "a 'b c'",
        "environment": "A='1 2'",
        "job.sh": "text\n",
        "spec": '{\n  "n": 1,\n  "p": [\n    "x"\n  ]\n}',
    }
    assert dryrun.texts_of(["a", "b"]) == {"command": "a b"}
    assert dryrun.texts_of("text") == {"command": "text"}
