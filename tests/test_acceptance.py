"""The wiki's examples, written out as a project, give the right rows on every target and in every mode."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.cards import rows, run_bare, statuses
from tests.test_items import HOST

PROJECT = Path(__file__).parent / "projects" / "wiki"
CONTEXT = (
    '--madengine-context={"docker_build_arg": {"BASE_DOCKER": "madengine-test-base:latest"},'
    '"docker_env_vars": {"MAD_SYSTEM_GPU_ARCHITECTURE": "gfx90a"}}'
)
EVERYWHERE = {
    "llama3-8b-train": ("SUCCESS", "1234.50"),
    "dummy": ("SUCCESS", "14.25"),
    "dummy_py": ("SUCCESS", "7.5"),
    "dummy_fails": ("FAILURE", "1"),
    "dummy_silent": ("FAILURE", ""),
    "dummy_error_in_log": ("FAILURE", "2"),
    "dummy_timeout": ("FAILURE", ""),
    "dummy_multi_small": ("SUCCESS", "10.50"),
    "dummy_multi_large": ("SUCCESS", "99"),
    "dummy_multi_partial_small": ("SUCCESS", "10.50"),
    "dummy_multi_partial_large": ("FAILURE", ""),
    "dummy_multi_partial_huge": ("FAILURE", ""),
    "dummy_skipped": ("SKIPPED", ""),
    "dummy2/dummy_2": ("SUCCESS", "14.25"),
    "dummy3/dummy_3": ("SUCCESS", "14.25"),
    "dummy3/dummy_4": ("SUCCESS", "14.25"),
}
EXPECTED = {
    "host": EVERYWHERE | {"dummy_build_fails": ("SUCCESS", "14.25")},
    "docker": EVERYWHERE | {"dummy_build_fails": ("FAILURE", "")},
}
OUTCOMES = {
    "host": {"passed": 8, "failed": 5, "skipped": 1},
    "docker": {"passed": 7, "failed": 5, "skipped": 1, "errors": 1},
}
TARGETS = ["host", pytest.param("docker", marks=pytest.mark.requires_docker)]


@pytest.fixture
def wiki(pytester: pytest.Pytester) -> Path:
    shutil.copytree(PROJECT, pytester.path, dirs_exist_ok=True)
    return pytester.path


def found(folder: Path) -> dict[str, tuple[str, str]]:
    return {row["model"]: (row["status"], row["performance"]) for row in rows(folder / "perf.csv")}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_every_model_has_its_row_and_status(pytester: pytest.Pytester, wiki: Path, target: str, workers: str) -> None:
    args = ("--madengine-tags=all", CONTEXT, f"--target={target}", workers, "--junitxml=junit.xml")
    result = run_bare(pytester, *args)
    result.assert_outcomes(**OUTCOMES[target])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert found(wiki) == EXPECTED[target]
    assert len(rows(wiki / "perf.csv")) == len(EXPECTED[target])
    assert (wiki / "loads.txt").read_text() == "loaded\n"
    _check_junit(wiki / "junit.xml", target)


def _check_junit(path: Path, target: str) -> None:
    cases = {case.attrib["name"]: case for case in ET.parse(path).iter("testcase")}  # noqa: S314  # our own file
    assert len(cases) == sum(OUTCOMES[target].values())
    properties = {each.attrib["name"]: each.attrib["value"] for each in cases["llama3-8b-train"].iter("property")}
    assert (properties["performance"], properties["metric"]) == ("1234.50", "tokens_per_second")
    assert bool(properties.get("image_digest")) == (target == "docker")
    assert {each.attrib["name"] for each in cases["dummy_multi"].iter("property")} >= {
        f"{kind}:dummy_multi_{row}" for kind in ("performance", "metric") for row in ("small", "large")
    }
    assert 0.5 < float(cases["dummy_timeout"].attrib["time"]) < 5
    assert float(cases["dummy"].attrib["time"]) < 1
    failure = cases["dummy_fails"].find("failure")
    assert failure is not None
    assert str(failure.text).startswith("dummy_fails: exit code 3")
    assert "giving up" in str(failure.text)
    assert ("error" in {child.tag for child in cases["dummy_build_fails"]}) == (target == "docker")
    assert cases["dummy_skipped"].find("skipped") is not None


@pytest.mark.parametrize("target", TARGETS)
def test_a_failed_models_report_shows_reason_log_and_path_but_no_code_of_ours(
    pytester: pytest.Pytester, wiki: Path, target: str
) -> None:
    result = pytester.runpytest(f"--target={target}", CONTEXT, "--madengine-tags=broken,llama3")
    result.stdout.fnmatch_lines(
        [
            "dummy_fails: exit code 3",
            "    giving up",
            f"log: {wiki}/.madengine/runs/*/jobs/dummy_fails-*/run.log",
            "dummy_error_in_log: error in the log: 'RuntimeError: HIP error' (pattern 'RuntimeError:')",
            "dummy_timeout: time limit of 1 s exceeded",
            "    going to sleep",
            "*dummy_multi_partial: no performance in the row large, huge*",
            "model * status *performance *metric *duration",
            "llama3-8b-train *SUCCESS *1234.50 *tokens_per_second *s",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_madengine/*.py*")


@pytest.mark.requires_docker
def test_a_failed_build_shows_the_step_and_the_end_of_its_log(pytester: pytest.Pytester, wiki: Path) -> None:
    result = pytester.runpytest(CONTEXT, "--madengine-tags=unbuildable,quick")
    result.assert_outcomes(passed=1, errors=1, deselected=12)
    result.stdout.fnmatch_lines(
        [
            "building docker/unbuildable.ubuntu.amd.Dockerfile failed (exit 1): *RUN echo about to fail && exit 9*",
            "*about to fail*",
            f"log: {wiki}/.madengine/runs/*/images/*/build.log",
        ]
    )
    row = next(row for row in rows(wiki / "perf.csv") if row["model"] == "dummy_build_fails")
    assert row["docker_file"] == "docker/unbuildable.ubuntu.amd.Dockerfile"


@pytest.mark.parametrize("target", TARGETS)
def test_the_model_gets_its_arguments_environment_launcher_and_tools(
    pytester: pytest.Pytester, wiki: Path, target: str
) -> None:
    pytester.runpytest(CONTEXT, "--madengine-tags=llama3", f"--target={target}").assert_outcomes(
        passed=1, deselected=13
    )
    (log,) = wiki.glob(".madengine/runs/latest/jobs/llama3-8b-train-*/run.log")
    text = log.read_text()
    assert "arguments: --batch-size 4 --seq-len 4096" in text
    assert 'greeting: it\'s "quoted" and costs $5' in text
    assert "runner: torchrun --standalone --nproc_per_node=2" in text
    assert ("hello from tools" in text) == (target == "docker")


@pytest.mark.parametrize("target", TARGETS)
def test_first_failure_stops_and_last_failed_repeats_only_failures(
    pytester: pytest.Pytester, wiki: Path, target: str
) -> None:
    args = (CONTEXT, "--madengine-tags=dummy,dummy_fails,dummy_silent", f"--target={target}")
    pytester.runpytest(*args, "-x").assert_outcomes(passed=1, failed=1, deselected=11)
    assert statuses(wiki / "perf.csv") == {"dummy": "SUCCESS", "dummy_fails": "FAILURE"}
    pytester.runpytest(*args, "--lf").assert_outcomes(failed=1, deselected=10)
    assert [row["model"] for row in rows(wiki / "perf.csv")] == ["dummy", "dummy_fails", "dummy_fails"]


def test_skipping_by_architecture_can_be_disabled(pytester: pytest.Pytester, wiki: Path) -> None:
    args = (HOST, CONTEXT, "--madengine-tags=skipped")
    result = pytester.runpytest(*args, "-rs")
    result.assert_outcomes(skipped=1, deselected=13)
    result.stdout.fnmatch_lines(["*skip_gpu_arch lists gfx90a, this machine has gfx90a*"])
    pytester.runpytest(*args, "--madengine-disable-skip-gpu-arch").assert_outcomes(passed=1, deselected=13)


@pytest.mark.requires_docker
def test_models_that_share_a_dockerfile_share_one_build(pytester: pytest.Pytester, wiki: Path) -> None:
    dockerfile = wiki / "docker" / "dummy.ubuntu.amd.Dockerfile"
    dockerfile.write_text(f"{dockerfile.read_text()}RUN echo {pytester.path} >/unique\n")
    result = run_bare(pytester, CONTEXT, "--madengine-tags=dummies", "-n2")
    result.assert_outcomes(passed=6)
    assert len(list(wiki.glob(".madengine/runs/latest/images/*/build.log"))) == 1
    built = {(row["docker_image"], row["build_duration"]) for row in rows(wiki / "perf.csv")}
    assert len(built) == 1
    pytester.runpytest(CONTEXT, "--madengine-tags=dummy").assert_outcomes(passed=1, deselected=13)
    assert list(wiki.glob(".madengine/runs/latest/images/*/build.log")) == []
    assert rows(wiki / "perf.csv")[-1]["build_duration"] == "0.000"
