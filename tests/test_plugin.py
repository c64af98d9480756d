from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cards import card, project, rows, run_bare
from tests.test_items import HOST

HEAVY = ("pandas", "kubernetes", "docker", "pymongo", "pydantic", "yaml", "jinja2", "psutil", "filelock")


def test_without_being_asked_no_model_is_collected(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    pytester.makepyfile("def test_it(): pass\n")
    pytester.runpytest().assert_outcomes(passed=1)
    assert not (pytester.path / ".madengine").exists()


@pytest.mark.parametrize("workers", [[], ["-n1"]], ids=["alone", "xdist"])
def test_an_unrelated_run_imports_nothing_heavy(pytester: pytest.Pytester, workers: list[str]) -> None:
    pytester.makepyfile("def test_it(): pass\n")
    pytester.makeconftest(
        f"""
        import json, os, sys

        def pytest_unconfigure(config):
            found = [name for name in {HEAVY} if name in sys.modules]
            found += [name for name in sys.modules if name.startswith("pytest_madengine.") and name.count(".") > 1]
            with open(f"modules-{{os.getpid()}}.json", "w") as file:
                json.dump(found, file)
        """
    )
    run_bare(pytester, *workers).assert_outcomes(passed=1)
    found = [json.loads(path.read_text()) for path in pytester.path.glob("modules-*.json")]
    assert found == [[]] * (1 + len(workers))


def test_options_and_the_marker_are_documented(pytester: pytest.Pytester) -> None:
    help_text = pytester.runpytest("--help").stdout.str()
    assert "--madengine-tags=TAGS" in help_text
    assert "--target=TARGET" in help_text
    pytester.runpytest("--markers").stdout.fnmatch_lines(['@pytest.mark.madengine("name"): run this model once*'])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--madengine-context={'gpu_vendr': 'AMD'}", "unknown key 'gpu_vendr'*did you mean 'gpu_vendor'?"),
        ("--madengine-context={'partition': 'gpu'}", "'partition' does not belong here*slurm.partition"),
        ("--madengine-context={'k8s': {}, 'slurm': {}}", "both 'k8s' and 'slurm' are given*--target"),
        ("--madengine-context={'tools': [{'name': 'rocprof'}]}", "tools: profiling tools do not run in this version"),
        ("--madengine-context={", "--madengine-context: column 2: not JSON*not a Python literal*"),
        ("--madengine-context=[1]", "--madengine-context: found [[]1]; valid: an object*"),
        ("--madengine-context-file=none.json", "*none.json: cannot be read*"),
        ("--madengine-timeout=-7", "--madengine-timeout: found -7; valid: seconds, 0*"),
        ("--madengine-output=no/such/perf.csv", "--madengine-output*no such folder"),
        ("--target=kubernetes", "--target: no backend 'kubernetes' is installed; valid: docker, host, *"),
        ("--target=moon", "--target: no backend 'moon' is installed; valid: docker, host*"),
        ("--target=dokcer", "--target: no backend 'dokcer' is installed; *did you mean 'docker'*"),
        ("--madengine-max-in-flight=0", "--madengine-max-in-flight: found 0; valid: 1 or more"),
        ("--madengine-retries=-1", "--madengine-retries: found -1; valid: 0 or more"),
        ("--madengine-max-infra-failures=0", "--madengine-max-infra-failures: found 0; valid: 1 or more"),
        ("--madengine-on-interrupt=stop", "*--madengine-on-interrupt*stop*choose from*cancel*detach*"),
        ("--madengine-resume=2020", "no run '2020' in *.madengine/runs*"),
        ('--madengine-tags=a:b="1', "--madengine-tags: *closed quotes*"),
    ],
)
def test_a_wrong_option_is_one_clear_message(pytester: pytest.Pytester, option: str, words: str) -> None:
    project(pytester.path, card("a"))
    result = pytester.runpytest("--madengine-tags=a", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{words}*"])
    result.stderr.no_fnmatch_line("*Traceback*")
    assert not (pytester.path / "perf.csv").exists()


def test_faults_of_a_context_file_name_its_lines(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    (pytester.path / "c.yaml").write_text(
        "guest_os: UBUNTU\ndistributed:\n  nnodes: two\n  launchr: x\nenv_vars:\n  A B: 1\n"
    )
    result = pytester.runpytest("--madengine-tags=a", "--madengine-context-file=c.yaml")
    lines = [line for line in result.errlines if "c.yaml" in line]
    assert [line.split("c.yaml:")[1].split(":")[0] for line in lines] == ["3", "4", "6"]


def test_the_inline_context_wins_over_the_file_key_by_key(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"), script='echo "performance: $A$B$C x"\n')
    (pytester.path / "c.json").write_text('{"env_vars": {"A": 1, "B": "1"}, "docker_env_vars": {"C": 1}}')
    inline = '--madengine-context={"env_vars": {"B": 2}}'
    pytester.runpytest("--madengine-tags=a", HOST, "--madengine-context-file=c.json", inline).assert_outcomes(passed=1)
    assert rows(pytester.path / "perf.csv")[0]["performance"] == "121"


@pytest.mark.parametrize(
    ("option", "of_card", "limit"),
    [([], 1, True), (["--madengine-timeout=60"], 1, False), (["--madengine-timeout=1"], 60, True)],
)
def test_an_explicit_timeout_wins_over_the_cards(
    pytester: pytest.Pytester,
    option: list[str],
    of_card: int,
    limit: bool,  # noqa: FBT001
) -> None:
    project(pytester.path, card("a", timeout=of_card), a="sleep 2; echo 'performance: 1 x'\n")
    result = pytester.runpytest("--madengine-tags=a", HOST, *option)
    result.assert_outcomes(failed=int(limit), passed=int(not limit))


def test_a_target_without_engine_says_how_to_do_without(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    project(pytester.path, card("a", dockerfile="docker/d"), card("b", dockerfile="docker/d"))
    result = run_bare(pytester, "--madengine-tags=all")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["no Docker engine can be reached *--target=host"])
    assert [row["status"] for row in rows(pytester.path / "perf.csv")] == ["FAILURE", "FAILURE"]


def test_a_model_that_needs_more_gpus_than_there_are_is_an_error(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a", n_gpus="8"))
    context = '--madengine-context={"docker_env_vars": {"MAD_SYSTEM_NGPUS": "2"}}'
    result = pytester.runpytest("--madengine-tags=a", HOST, context)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["a needs 8 GPUs, * has 2"])


def test_other_plugins_see_ordinary_reports(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"), card("b"), b="exit 1\n")
    result = pytester.runpytest(
        "--madengine-tags=all",
        HOST,
        "--html=report.html",
        "--self-contained-html",
        "--durations=3",
        "--timeout=60",
        "-v",
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "models.json::b" in (pytester.path / "report.html").read_text()


def test_a_model_runs_from_a_foreign_folder_by_path(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    there: Path = project(pytester.path / "there", card("a"))
    monkeypatch.chdir(pytester.mkdir("here"))
    pytester.runpytest(str(there / "models.json"), HOST).assert_outcomes(passed=1)
    assert rows(pytester.path / "here" / "perf.csv")[0]["model"] == "a"


def test_variants_of_a_model_are_told_apart_in_the_table(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    result = pytester.runpytest("--madengine-tags=a:x=1,a:x=2", HOST)
    result.stdout.fnmatch_lines(
        ["=* models =*", "model *", "a[[]x=1] *SUCCESS*", "a[[]x=2] *SUCCESS*"], consecutive=True
    )


def test_a_gpu_that_is_not_there_cannot_be_asked_for(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a", n_gpus="-1"))
    context = '--madengine-context={"docker_env_vars": {"MAD_SYSTEM_NGPUS": "4"}, "docker_gpus": "2,6"}'
    result = pytester.runpytest("--madengine-tags=a", HOST, context)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["docker_gpus names GPU 6, * has 4"])


def test_arguments_of_the_context_replace_the_cards_and_stand_in_the_row(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a", args="1 2"), a='echo "performance: $# x"\n')
    pytester.runpytest("--madengine-tags=a", HOST, "--madengine-context={'model_args': '1 2 3'}")
    (row,) = rows(pytester.path / "perf.csv")
    assert (row["args"], row["performance"]) == ("1 2 3", "3")


def test_a_wrong_context_is_a_usage_error_whatever_the_target(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    for context in ('{"docker_env": {}}', "{bad", '{"tools": [{"name": "x"}]}'):
        result = pytester.runpytest("--madengine-tags=a", HOST, f"--madengine-context={context}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stdout.no_fnmatch_line("*Error*")


@pytest.mark.parametrize("value", ["", " ", ","])
def test_an_empty_tag_does_not_start_everything(pytester: pytest.Pytester, value: str) -> None:
    project(pytester.path, card("a"))
    result = pytester.runpytest(f"--madengine-tags={value}", HOST)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--madengine-tags: names no tag*"])


def test_node_ids_of_another_project_name_its_file_and_last_failed_works(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = project(pytester.path / "there", card("a"), card("b"), b="exit 1\n")
    monkeypatch.setenv("MODEL_DIR", str(there))
    monkeypatch.chdir(pytester.mkdir("here"))
    result = pytester.runpytest("--madengine-tags=all", HOST, "--rootdir=.")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED ../there/models.json::b*"])
    pytester.runpytest("--madengine-tags=all", HOST, "--rootdir=.", "--lf").assert_outcomes(failed=1, deselected=1)
    pytester.runpytest("../there/models.json::b", HOST, "--rootdir=.").assert_outcomes(failed=1)


def test_swapped_mounts_are_refused(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    mounts = f"--madengine-context={{'docker_mounts': {{'{pytester.path}': '/no/such/folder'}}}}"
    result = pytester.runpytest("--madengine-tags=a", HOST, mounts)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["docker_mounts: this host has no /no/such/folder but has *swapped?*"])
