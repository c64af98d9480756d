"""What CI systems and people are told of a run, from its Results alone."""

from __future__ import annotations

import json
import platform
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import jsonschema
import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401  # pytester forgets what inner runs import
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cards import card, project, run_bare
from tests.engines.collectors import collecting
from tests.test_items import HOST
from tests.test_loop import ALL, fake, timed

SCHEMA = Path(__file__).parent.parent / "docs" / "summary.schema.json"
MODELS = ("--madengine-tags=all", HOST)
FILES = ("--madengine-summary=summary.json", "--madengine-markdown=comment.md", "--madengine-prometheus=mad.prom")
BAD = "echo 'about to fail' ; exit 3\n"
TAIL = f"madengine: bad on {platform.node()}%0Aabout to fail"


@pytest.fixture
def two(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a model that passes and one that fails."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    return project(pytester.path, card("good"), card("bad"), bad=BAD)


def summary(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    return content


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_a_run_is_told_in_every_file(pytester: pytest.Pytester, two: Path, workers: list[str]) -> None:
    assert run_bare(pytester, *MODELS, *FILES, *workers).ret == pytest.ExitCode.TESTS_FAILED
    told = summary(two)
    assert (told["exit_status"], told["target"]) == (1, "host")
    assert (two / ".madengine" / "runs" / told["run"]).is_dir()
    results = {each["model"]: each for each in told["results"]}
    assert results["good"]["metrics"][0]["value"] == 12.5
    assert (results["bad"]["status"], results["bad"]["reason"]) == ("FAILURE", "exit code 3")
    assert results["bad"]["source"].startswith(f"{two / 'models.json'}:")
    comment = (two / "comment.md").read_text()
    assert comment.startswith("### Models: 1 failed (1 model), 1 passed\n")
    assert "about to fail" in comment
    families = {each.name: each for each in text_string_to_metric_families((two / "mad.prom").read_text())}
    (value,) = families["madengine_measured_value"].samples
    assert (value.labels["model"], value.value) == ("good", 12.5)


def test_without_options_nothing_of_it_is_written(pytester: pytest.Pytester, two: Path) -> None:
    result = pytester.runpytest(*MODELS)
    result.stdout.no_fnmatch_line("::*")
    assert not [path for path in two.iterdir() if path.suffix in (".md", ".prom")]
    assert not (two / "summary.json").exists()


def test_the_exit_status_is_the_one_that_the_process_gives(pytester: pytest.Pytester, two: Path) -> None:
    assert pytester.runpytest(*MODELS, FILES[0], "--madengine-exit-codes").ret == 3
    assert summary(two)["exit_status"] == 3
    assert pytester.runpytest("--madengine-tags=good", HOST, FILES[0]).ret == 0
    assert (summary(two)["exit_status"], len(summary(two)["results"])) == (0, 1)


def test_an_old_summary_is_not_taken_for_that_of_a_run_without_models(pytester: pytest.Pytester, two: Path) -> None:
    for name in ("summary.json", "comment.md"):
        (two / name).write_text("of yesterday")
    assert pytester.runpytest("models.json::none", HOST, *FILES).ret == pytest.ExitCode.USAGE_ERROR
    assert not (two / "summary.json").exists()
    assert not (two / "comment.md").exists()


def test_listing_models_leaves_files_alone(pytester: pytest.Pytester, two: Path) -> None:
    (two / "summary.json").write_text("of yesterday")
    pytester.runpytest(*MODELS, *FILES, "--collect-only")
    assert (two / "summary.json").read_text() == "of yesterday"


def test_a_resumed_run_is_told_whole(pytester: pytest.Pytester, two: Path) -> None:
    pytester.runpytest(*MODELS, "-x", "-k", "good").assert_outcomes(passed=1, deselected=1)
    pytester.runpytest(*MODELS, FILES[0], "--madengine-resume")
    assert {each["model"] for each in summary(two)["results"]} == {"good", "bad"}


def test_tries_are_one_result_with_what_went_before(pytester: pytest.Pytester) -> None:
    from tests.test_loop import TestRetries

    fake(pytester.path, timed("flaky", 0.05), more=TestRetries.FLAKY)
    pytester.runpytest(*ALL, FILES[0], "--madengine-retries=2").assert_outcomes(passed=1)
    (flaky,) = summary(pytester.path)["results"]
    assert (flaky["status"], flaky["attempt"]) == ("SUCCESS", 3)
    assert [each["reason"] for each in flaky["earlier"]] == ["not submitted: the node is down"] * 2


def test_a_file_that_cannot_be_written_any_more_fails_the_run(pytester: pytest.Pytester, two: Path) -> None:
    pytester.makeconftest("def pytest_madengine_result(): import os; os.mkdir('summary.json')")
    result = pytester.runpytest("--madengine-tags=good", HOST, *FILES)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR: --madengine-summary could not write what the run came to: *"])
    assert (two / "comment.md").exists()


def test_a_secret_stands_in_none_of_them(pytester: pytest.Pytester, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2-hunter2")
    (two / "models.json").write_text(json.dumps([card("bad", args="--token hunter2-hunter2")]))
    pytester.runpytest(*MODELS, *FILES[:2]).assert_outcomes(failed=1)
    assert "--token ***" in (two / "summary.json").read_text()
    assert "hunter2" not in (two / "summary.json").read_text() + (two / "comment.md").read_text()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--madengine-summary=missing/s.json"], "--madengine-summary: *s.json cannot be written: no such folder"),
        (["--madengine-markdown=."], "--madengine-markdown: * cannot be written: a folder"),
        (["--madengine-summary=models.json"], "--madengine-summary: models.json is for model cards"),
        (["--madengine-summary=a.md", "--madengine-markdown=./a.md"], "*a.md is the file of *; give another"),
        (["--madengine-markdown=perf.csv"], "--madengine-markdown: *perf.csv is the file of --madengine-output"),
        (["--madengine-prometheus=mad.txt"], "--madengine-prometheus: found mad.txt; valid: *.prom"),
        (["--madengine-summary-output=s.json"], "*which is not given; of a run tells --madengine-summary"),
        (
            ["--madengine-build-only", FILES[0]],
            "--madengine-summary tells of models that ran*--madengine-summary-output",
        ),
        (["--madengine-build-only", "--madengine-otel"], "--madengine-otel tells of models that ran*"),
    ],
)
def test_a_wrong_output_is_one_clear_message(
    pytester: pytest.Pytester, two: Path, given: list[str], words: str
) -> None:
    result = pytester.runpytest("--madengine-tags=all", *(given if "build-only" in given[0] else [HOST, *given]))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{words}*"])
    assert (two / "models.json").exists()


@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [
        (FILES[2], "prometheus_client", "prometheus"),
        ("--madengine-otel", "opentelemetry.sdk", "otel"),
        ("--madengine-otel", "opentelemetry", "otel"),
    ],
)
def test_an_extra_that_is_missing_is_named(
    pytester: pytest.Pytester, two: Path, monkeypatch: pytest.MonkeyPatch, option: str, package: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it could not be imported
    result = pytester.runpytest(*MODELS, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*is not installed; valid: pip install 'pytest-madengine[[]{extra}[]]'"])
    assert pytester.runpytest("--madengine-tags=good", HOST).ret == 0


def test_a_run_is_a_trace(pytester: pytest.Pytester, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        assert pytester.runpytest(*MODELS, "--madengine-otel").ret == pytest.ExitCode.TESTS_FAILED
    assert sorted(collector.below(collector.named("madengine run"))) == ["bad", "good"]
    assert collector.below(collector.named("good")) == ["queue", "run"]
    model = collector.named("bad")
    assert model.status.message == "exit code 3"
    assert 0 < model.end_time_unix_nano - model.start_time_unix_nano < 60e9


@pytest.mark.filterwarnings("ignore")  # the SDK's own
def test_a_collector_that_is_away_costs_the_run_nothing(
    pytester: pytest.Pytester, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    result = pytester.runpytest("--madengine-tags=good", HOST, "--madengine-otel", FILES[0])
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*--madengine-otel: otlp_proto_http could not send * spans*"])
    assert summary(two)["exit_status"] == 0


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_github_gets_annotations_and_a_page(
    pytester: pytest.Pytester, two: Path, monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(two.parent))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(two / "page.md"))
    result = run_bare(pytester, *MODELS, *workers)
    lines = [line for line in result.outlines if line.startswith("::")]
    number = summary_line(two, "bad")
    assert lines == [f"::error file={two.name}/models.json,line={number},title=bad::exit code 3%0A{TAIL}"]
    assert (two / "page.md").read_text().startswith("### Models: 1 failed (1 model), 1 passed\n")


def test_github_gets_annotations_of_images_that_cannot_be_made(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"GITHUB_ACTIONS": "true", "DOCKER_HOST": "tcp://127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
    project(pytester.path, card("a", dockerfile="docker/d"))
    (pytester.path / "docker").mkdir()
    (pytester.path / "docker" / "d.ubuntu.Dockerfile").write_text("FROM scratch\n")
    result = run_bare(pytester, "--madengine-tags=a", "--madengine-build-only")
    result.stdout.fnmatch_lines(["::error file=*models.json,line=2,title=a::*"])


def summary_line(folder: Path, name: str) -> int:
    """The line on which the card begins."""
    lines = (folder / "models.json").read_text().splitlines()
    return next(at for at, line in enumerate(lines, 1) if f'"name": "{name}"' in line) - 1


def cases(folder: Path) -> dict[str, ET.Element]:
    """The test cases of a JUnit file."""
    found = ET.parse(folder / "junit.xml").iter("testcase")  # noqa: S314  # our own file
    return {case.attrib["name"]: case for case in found}


def properties(of: ET.Element | None) -> dict[str, str]:
    assert of is not None
    return {each.attrib["name"]: each.attrib["value"] for each in of.findall("properties/property")}


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_junit_says_what_models_and_the_run_came_to(pytester: pytest.Pytester, two: Path, workers: list[str]) -> None:
    run_bare(pytester, *MODELS, *workers, "--junitxml=junit.xml")
    found = cases(two)
    assert properties(found["good"])["performance"] == "12.50"
    assert properties(found["good"])["metric"] == "tokens_per_second"
    assert properties(found["bad"])["failure"] == "model"
    suite = ET.parse(two / "junit.xml").find("testsuite")  # noqa: S314  # our own file
    told = properties(suite)
    assert told["madengine_target"] == "host"
    assert (two / ".madengine" / "runs" / told["madengine_run"]).is_dir()


def test_junit_of_a_model_whose_setup_failed_says_why(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a", n_gpus="8"))
    context = '--madengine-context={"docker_env_vars": {"MAD_SYSTEM_NGPUS": "2"}}'
    pytester.runpytest("--madengine-tags=a", HOST, context, "--junitxml=junit.xml").assert_outcomes(errors=1)
    assert properties(cases(pytester.path)["a"])["failure"] in ("model", "infrastructure")


def test_a_rerun_is_told_in_place_of_what_went_before(pytester: pytest.Pytester) -> None:
    once = "test -e ../../../../../ran || { touch ../../../../../ran; exit 1; }; echo 'performance: 1 x'\n"
    project(pytester.path, card("a"), a=once)
    pytester.runpytest("--madengine-tags=a", HOST, "--reruns=1", "--junitxml=junit.xml")
    names = [each.attrib["name"] for each in cases(pytester.path)["a"].iter("property")]
    assert len(names) == len(set(names))


def test_gitlab_can_show_each_model(pytester: pytest.Pytester, two: Path) -> None:
    """GitLab reads a case's name, classname, file, time, and the text of its failure, error or system-out."""
    pytester.runpytest(*MODELS, "--junitxml=junit.xml", "-o", "junit_family=xunit1")
    bad, good = cases(two)["bad"], cases(two)["good"]
    assert (bad.attrib["classname"], bad.attrib["file"]) == ("models.json", "models.json")
    assert int(bad.attrib["line"]) == summary_line(two, "bad") - 1
    assert float(good.attrib["time"]) >= 0
    failure = bad.find("failure")
    assert failure is not None
    assert failure.text is not None
    assert failure.text.startswith("bad: exit code 3")
    assert "about to fail" in failure.text
    assert list(good.iter("failure")) == []
