from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.cards import PASSES, card, project, rows, run_bare, statuses

HOST, BUILD = "--target=host", "--madengine-build-only"


def collected(pytester: pytest.Pytester, *args: str) -> list[str]:
    result = pytester.runpytest("--collect-only", "-q", *args)
    return [line for line in result.outlines if "::" in line]


@pytest.fixture
def three(pytester: pytest.Pytester) -> Path:
    return project(
        pytester.path,
        card("llama", tags=["text", "slow"], training_precision="bf16"),
        card("bert", tags="text, quick", distributed={"launcher": "torchrun"}),
        card("resnet", tags=["vision"]),
    )


def test_a_tag_selects_the_cards_that_bear_it(pytester: pytest.Pytester, three: Path) -> None:
    assert collected(pytester, "--madengine-tags=text") == ["models.json::llama", "models.json::bert"]


def test_all_selects_every_card(pytester: pytest.Pytester, three: Path) -> None:
    assert len(collected(pytester, "--madengine-tags=all")) == 3


def test_a_name_selects_its_card_and_overlapping_selectors_select_it_once(
    pytester: pytest.Pytester, three: Path
) -> None:
    assert collected(pytester, "--madengine-tags=bert,quick", "--madengine-tags=text") == [
        "models.json::llama",
        "models.json::bert",
    ]


def test_the_cards_that_no_tag_names_are_deselected(pytester: pytest.Pytester, three: Path) -> None:
    result = pytester.runpytest("--madengine-tags=vision", HOST)
    result.assert_outcomes(passed=1, deselected=2)


def test_arguments_of_a_tag_make_an_item_of_their_own(pytester: pytest.Pytester, three: Path) -> None:
    project(pytester.path, card("llama", args="--x 1"), script='echo "performance: $# $4"\n')
    result = pytester.runpytest("--madengine-tags=llama,llama:batch=512:fp16", HOST)
    result.assert_outcomes(passed=2)
    found = [(row["args"], row["performance"]) for row in rows(pytester.path / "perf.csv")]
    assert found == [("--x 1", "2"), ("--x 1 --batch 512 --fp16", "5")]


def test_an_argument_value_may_hold_a_comma(pytester: pytest.Pytester, three: Path) -> None:
    assert collected(pytester, '--madengine-tags=llama:sizes="1,2"') == ["models.json::llama[sizes=1,2]"]


def test_scoped_tags_restrict_to_a_scripts_folder(pytester: pytest.Pytester, three: Path) -> None:
    for folder in ("one", "two"):
        project(pytester.path / "scripts" / folder, card("m", tags=["text"], scripts="run.sh"))
    assert collected(pytester, "--madengine-tags=one/text") == ["scripts/one/models.json::one/m"]
    assert collected(pytester, "--madengine-tags=two/all") == ["scripts/two/models.json::two/m"]
    assert collected(pytester, "--madengine-tags=two/m") == ["scripts/two/models.json::two/m"]


def test_a_scoped_tag_takes_arguments_in_both_spellings(pytester: pytest.Pytester, three: Path) -> None:
    project(pytester.path / "scripts" / "one", card("m", tags=["text"], scripts="run.sh"))
    expected = ["scripts/one/models.json::one/m[batch=5]"]
    assert collected(pytester, "--madengine-tags=one:m:batch=5") == expected
    assert collected(pytester, "--madengine-tags=one/m:batch=5") == expected
    assert collected(pytester, "--madengine-tags=one/text:batch=5") == expected


def test_the_second_piece_is_a_flag_where_no_such_scope_exists(pytester: pytest.Pytester, three: Path) -> None:
    assert collected(pytester, "--madengine-tags=llama:fp16") == ["models.json::llama[fp16]"]


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_a_tag_that_selects_nothing_is_an_error_that_names_the_nearest(
    pytester: pytest.Pytester, three: Path, workers: list[str]
) -> None:
    result = run_bare(pytester, "--madengine-tags=vison,llama", HOST, *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    assert "'vison' selects no model" in text
    assert "did you mean 'vision'?" in text
    assert "Traceback" not in text
    assert not (pytester.path / "perf.csv").exists()


def test_tags_vendor_precision_and_launcher_are_markers(pytester: pytest.Pytester, three: Path) -> None:
    (pytester.path / "docker").mkdir()
    (pytester.path / "docker" / "d.ubuntu.amd.Dockerfile").write_text("# CONTEXT {'gpu_vendor': 'AMD'}\nFROM x\n")
    project(
        pytester.path,
        card("llama", tags=["text", "slow"], training_precision="bf16", dockerfile="docker/d"),
        card("bert", tags=["text"], distributed={"launcher": "torchrun"}, dockerfile="docker/d"),
    )
    tags = "--madengine-tags=all"
    assert collected(pytester, tags, "-m", "amd and not slow", "--strict-markers") == ["models.json::bert"]
    assert collected(pytester, tags, "-m", "bf16") == ["models.json::llama"]
    assert collected(pytester, tags, "-m", "torchrun or nvidia") == ["models.json::bert"]
    assert collected(pytester, tags, "-k", "text and llama") == ["models.json::llama"]


def test_tags_are_registered_markers_for_ordinary_tests_too(pytester: pytest.Pytester, three: Path) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.vision\ndef test_it(): pass\n")
    result = pytester.runpytest("--madengine-tags=vision", HOST, "--strict-markers", "-m", "vision", ".")
    result.assert_outcomes(passed=2, deselected=2)


def test_a_tag_named_like_an_acting_marker_does_not_act(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m", tags=["skip", "xfail", "timeout", "usefixtures"]))
    pytester.runpytest("--madengine-tags=skip", HOST).assert_outcomes(passed=1)


@pytest.mark.parametrize("tag", ["a:b", "bench(v2)"])
def test_a_tag_that_cannot_be_a_marker_selects_by_keyword(pytester: pytest.Pytester, tag: str) -> None:
    project(pytester.path, card("m", tags=[tag]), card("n"))
    result = pytester.runpytest("--madengine-tags=all", HOST, "--strict-markers", "-k", tag[:4].replace("(", ""))
    result.assert_outcomes(passed=1, deselected=1)


def test_paths_without_models_are_named(pytester: pytest.Pytester, three: Path) -> None:
    pytester.mkdir("tests")
    result = pytester.runpytest("--madengine-tags=bert", HOST, "tests")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "no model in tests; leave the paths out or add a models.json to them" in "".join(result.errlines)


def test_variants_of_other_arguments_have_other_names(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"))
    tags = "--madengine-tags=m:x=1-y,m:x=1:y,m:x='1:y'"
    assert collected(pytester, tags) == [
        "models.json::m[x=1-y]",
        "models.json::m[x=1:y]",
        "models.json::m[x=1\\:y]",
    ]


def test_a_node_id_selects_one_model(pytester: pytest.Pytester, three: Path) -> None:
    result = pytester.runpytest("models.json::bert", HOST)
    result.assert_outcomes(passed=1)


def test_the_location_is_the_cards_line(pytester: pytest.Pytester, three: Path) -> None:
    text = (pytester.path / "models.json").read_text().splitlines()
    items = pytester.inline_run("--collect-only", "--madengine-tags=all").getcalls("pytest_itemcollected")
    for call in items:
        _, line, name = call.item.location
        assert text[line].strip() == "{"
        assert f'"{name}"' in text[line + 1]


def test_all_faults_of_a_file_are_reported_at_once_with_their_lines(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a", n_gpus="many"), card("b", distributed={"launchr": "x"}), card("a"))
    result = pytester.runpytest("--madengine-tags=all", HOST)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.re_match_lines(
        [
            r".*models\.json:5: \[0\]\.n_gpus \(a\): found 'many'; valid: a whole number",
            r".*models\.json:16: \[1\]\.distributed\.launchr \(b\): unknown key 'launchr'.* mean 'launcher'\?",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_an_unknown_key_of_a_card_is_kept_and_warned_about(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a", skip_gpu_arhc="gfx908"))
    result = pytester.runpytest("--madengine-tags=all", HOST, "-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*models.json:*skip_gpu_arhc*did you mean 'skip_gpu_arch'*"])


def test_a_warning_turned_into_an_error_shows_no_traceback(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a", skip_gpu_arhc="gfx908"))
    result = pytester.runpytest("--madengine-tags=all", HOST, "-W", "error")
    result.assert_outcomes(errors=1)
    result.stdout.no_fnmatch_line("*in collect*")


DYNAMIC = """
from {module} import CustomModel

def note(name, text):
    with open(name, "a") as file:
        file.write(text + "\\n")

note("loads.txt", "load")

class Slow(CustomModel):
    def update_model(self):
        note("updates.txt", self.name)
        self.args = "--updated"

def list_models():
    return [Slow(name=n, scripts="run.sh", n_gpus="0", tags=["dyn", n]) for n in ("m1", "m2", "m3")]
"""


@pytest.fixture
def dynamic(pytester: pytest.Pytester) -> Path:
    folder = pytester.path / "scripts" / "dyn"
    folder.mkdir(parents=True)
    (folder / "run.sh").write_text('echo "performance: $# x"\n')
    (folder / "get_models_json.py").write_text(DYNAMIC.format(module="madengine.utils.discover_models"))
    return folder


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("module", ["madengine.utils.discover_models", "madengine.tools.discover_models"])
def test_a_dynamic_script_imports_its_class_by_either_path(
    pytester: pytest.Pytester, dynamic: Path, module: str
) -> None:
    (dynamic / "get_models_json.py").write_text(DYNAMIC.format(module=module))
    assert len(collected(pytester, "--madengine-tags=dyn")) == 3
    assert "madengine" not in sys.modules


def test_update_model_runs_only_for_models_that_run(pytester: pytest.Pytester, dynamic: Path) -> None:
    pytester.runpytest("--madengine-tags=dyn", HOST, "-k", "m2").assert_outcomes(passed=1, deselected=2)
    assert lines(pytester.path / "updates.txt") == ["m2"]
    assert rows(pytester.path / "perf.csv")[0]["args"] == "--updated"


@pytest.mark.parametrize("workers", [[], ["-n3"]], ids=["alone", "xdist"])
def test_a_dynamic_script_runs_once_in_a_session(pytester: pytest.Pytester, dynamic: Path, workers: list[str]) -> None:
    run_bare(pytester, "--madengine-tags=dyn", HOST, *workers).assert_outcomes(passed=3)
    assert lines(pytester.path / "loads.txt") == ["load"]
    assert sorted(lines(pytester.path / "updates.txt")) == ["m1", "m2", "m3"]
    assert {row["args"] for row in rows(pytester.path / "perf.csv")} == {"--updated"}


def test_a_failing_dynamic_script_is_one_clear_error(pytester: pytest.Pytester, dynamic: Path) -> None:
    (dynamic / "get_models_json.py").write_text("x = 1\nraise OSError('no network')\n")
    result = pytester.runpytest("--madengine-tags=dyn", HOST)
    result.stdout.fnmatch_lines(["*get_models_json.py:2: raised OSError: no network"])


def test_a_dynamic_script_that_exits_is_an_error_of_its_file(pytester: pytest.Pytester, dynamic: Path) -> None:
    (dynamic / "get_models_json.py").write_text("import sys\nsys.exit(0)\n")
    result = pytester.runpytest("--madengine-tags=dyn", HOST)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*get_models_json.py:2: raised SystemExit: 0"])


def test_model_dir_names_the_project_and_nothing_is_copied(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = project(pytester.path / "there", card("m"))
    here = pytester.mkdir("here")
    before = sorted(there.rglob("*"))
    monkeypatch.setenv("MODEL_DIR", str(there))
    monkeypatch.chdir(here)
    result = pytester.runpytest("--madengine-tags=m", HOST)
    result.assert_outcomes(passed=1)
    assert {path.name for path in here.iterdir() if not path.name.startswith("perf")} <= {".madengine", ".pytest_cache"}
    assert [path for path in sorted(there.rglob("*")) if "__pycache__" not in path.parts] == before


def test_a_model_file_is_collected_wherever_pytest_is_pointed_at(pytester: pytest.Pytester) -> None:
    project(pytester.path / "deep" / "down", card("m"))
    assert collected(pytester, "deep", "--madengine-tags=m") == ["deep/down/models.json::m"]


def test_several_matching_dockerfiles_make_several_items(pytester: pytest.Pytester) -> None:
    docker = pytester.mkdir("docker")
    for name in ("d.ubuntu.amd", "d.ctx1.ubuntu.amd"):
        (docker / f"{name}.Dockerfile").write_text("# CONTEXT {'gpu_vendor': 'AMD'}\nFROM scratch\n")
    project(pytester.path, card("m", dockerfile="docker/d"))
    assert collected(pytester, "--madengine-tags=m", "--target=docker") == [
        "models.json::m[d.ctx1.ubuntu.amd]",
        "models.json::m[d.ubuntu.amd]",
    ]
    assert collected(pytester, "--madengine-tags=m", HOST) == ["models.json::m"]


SLURM = "--target=slurm"


def matrix(*partitions: str, **more: object) -> str:
    given = {"container_runtime": "none", "partitions": list(partitions), **more}
    return f"--madengine-context={json.dumps({'slurm': given})}"


def test_several_partitions_make_several_items_on_a_cluster_alone(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"), card("own", slurm={"partitions": ["c"]}), card("fixed", slurm={"partition": "a"}))
    tags = "--madengine-tags=all"
    in_each = [f"models.json::{name}[{partition}]" for name in ("m", "own", "fixed") for partition in "ab"]
    assert collected(pytester, tags, SLURM, matrix("a", "b")) == in_each
    assert collected(pytester, tags, SLURM) == ["models.json::m", "models.json::own[c]", "models.json::fixed"]
    plain = ["models.json::m", "models.json::own", "models.json::fixed"]
    assert collected(pytester, tags, HOST, matrix("a", "b")) == plain
    assert collected(pytester, tags, SLURM, '--madengine-context={"slurm": {"partition": "b"}}') == plain
    assert collected(pytester, SLURM, matrix("a", "b"), "models.json::m[b]") == ["models.json::m[b]"]


def test_partitions_stand_last_in_brackets_and_images_do_not_depend_on_them(pytester: pytest.Pytester) -> None:
    docker = pytester.mkdir("docker")
    for name in ("d.one", "d.two"):
        (docker / f"{name}.Dockerfile").write_text("FROM scratch\n")
    project(pytester.path, card("m", dockerfile="docker/d"), card("n"))
    given = ["--madengine-tags=m:x=1", SLURM, matrix("p", "q", container_runtime="docker")]
    images = ["x=1-d.one-gfx90a", "x=1-d.two-gfx90a"]
    archs = "--madengine-target-archs=gfx90a"
    in_each = [f"models.json::m[{image}-{partition}]" for image in images for partition in "pq"]
    assert collected(pytester, *given, archs) == in_each
    assert collected(pytester, *given, archs, BUILD) == [f"models.json::m[{image}]" for image in images]


def test_what_is_wrong_with_a_cards_slurm_is_its_items_error(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m", slurm={"partitons": ["a"]}))
    result = pytester.runpytest("--madengine-tags=all", SLURM, matrix())
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*models.json:2: slurm.partitons (m): unknown key 'partitons'*mean 'partitions'?"])


def test_a_test_names_one_of_several_partitions(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"))
    pytester.makepyfile("import pytest\n@pytest.mark.madengine('m')\ndef test_it(result): pass")
    result = pytester.runpytest(SLURM, matrix("a", "b"))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["m: slurm.partitions names a, b, and a test runs its model once; valid: one of them*"])


@pytest.mark.requires_slurm
def test_a_model_has_a_row_for_each_partition_and_is_resumed_in_each(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"), script='echo "performance: 1 $SLURM_JOB_PARTITION"\n')
    given = ["--madengine-tags=all", SLURM, matrix("main", "debug", exclusive=False, time=5, gpus_per_node=0)]
    run_bare(pytester, *given).assert_outcomes(passed=2)
    found = sorted((row["metric"], row["model"]) for row in rows(pytester.path / "perf.csv"))
    assert found == [("debug", "m[debug]"), ("main", "m[main]")]
    run_bare(pytester, *given, "--madengine-resume").assert_outcomes(passed=2)
    assert len(rows(pytester.path / "perf.csv")) == 2


def test_last_failed_and_stepwise_know_models(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"), card("b"), card("c"), b="exit 1\n")
    pytester.runpytest("--madengine-tags=all", HOST).assert_outcomes(passed=2, failed=1)
    pytester.runpytest("--madengine-tags=all", HOST, "--lf").assert_outcomes(failed=1, deselected=2)
    pytester.runpytest("--madengine-tags=all", HOST, "--sw").assert_outcomes(passed=1, failed=1)
    (pytester.path / "scripts" / "b.sh").write_text(PASSES)
    pytester.runpytest("--madengine-tags=all", HOST, "--sw").assert_outcomes(passed=2, deselected=1)


ARGUMENTS, ARCHS = "--madengine-tags=m:x=1,m:x=2:y", "--madengine-target-archs=gfx90a,gfx942"


@pytest.mark.parametrize(
    ("options", "dockerfiles", "failing"),
    [
        ([ARGUMENTS, HOST], ["d"], "m[x=2:y]"),
        ([ARGUMENTS, BUILD], ["d"], "m[x=2:y]"),
        ([ARCHS, BUILD], ["d"], "m[gfx942]"),
        ([BUILD], ["d.ubuntu.amd", "d.ctx1.ubuntu.amd"], "m[d.ubuntu.amd]"),
        ([ARGUMENTS, ARCHS, BUILD], ["d.one", "d.two"], "m[x=2:y-d.one-gfx90a]"),
    ],
    ids=["arguments", "arguments of a build", "architectures", "Dockerfiles", "all of them"],
)
def test_last_failed_and_stepwise_know_what_stands_in_brackets(
    pytester: pytest.Pytester, options: list[str], dockerfiles: list[str], failing: str
) -> None:
    pytester.mkdir("docker")
    for name in dockerfiles:
        (pytester.path / f"docker/{name}.Dockerfile").write_text("FROM scratch\n")
    project(pytester.path, card("m", dockerfile="docker/d"))
    pytester.makeconftest(
        f"""
        import pytest
        from pytest_madengine.images.image import Image

        @pytest.fixture
        def image(request):
            if request.node.name == {failing!r}: pytest.fail("not this one")
            return Image("x:1")
        """
    )
    assert collected(pytester, *options)[0] != f"models.json::{failing}"
    assert pytester.runpytest(*options, "--sw").parseoutcomes()["passed"] > 0
    for option in ("--sw", "--lf"):
        found = pytester.runpytest(*options, option).parseoutcomes()
        assert (found["errors"], found.get("passed", 0)) == (1, 0)


def test_exitfirst_and_deselect_work(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"), card("b"), card("c"), b="exit 1\n")
    pytester.runpytest("--madengine-tags=all", HOST, "-x").assert_outcomes(passed=1, failed=1)
    assert statuses(pytester.path / "perf.csv") == {"a": "SUCCESS", "b": "FAILURE"}
    pytester.runpytest("--madengine-tags=all", HOST, "--deselect", "models.json::b").assert_outcomes(
        passed=2, deselected=1
    )


def test_ini_key_collects_without_tags(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    pytester.makeini("[pytest]\nmadengine = true\n")
    pytester.runpytest(HOST).assert_outcomes(passed=1)


def test_tags_alone_run_models_and_not_the_projects_own_tests(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    pytester.makepyfile("def test_it(): pass\n")
    pytester.runpytest("--madengine-tags=a", HOST).assert_outcomes(passed=1)
    pytester.runpytest("--madengine-tags=a", HOST, ".").assert_outcomes(passed=2)


def test_a_project_without_cards_says_where_it_looked(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--madengine-tags=a", HOST)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*no model cards under*MODEL_DIR*"])


def test_skip_and_xfail_of_a_conftest_apply_to_models(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"), card("b", tags=["broken"]), b="exit 1\n")
    pytester.makeconftest(
        """
        import pytest
        def pytest_collection_modifyitems(items):
            for item in items:
                item.add_marker(pytest.mark.xfail if item.get_closest_marker("broken") else pytest.mark.skip("later"))
        """
    )
    pytester.runpytest("--madengine-tags=all", HOST).assert_outcomes(skipped=1, xfailed=1)
    assert statuses(pytester.path / "perf.csv") == {"a": "SKIPPED", "b": "FAILURE"}


def test_json_output_of_names_with_slashes_keeps_folders_apart(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a/b", scripts="scripts/x.sh"), card("a-b", scripts="scripts/y.sh"))
    pytester.runpytest("--madengine-tags=all", HOST).assert_outcomes(passed=2)
    jobs = os.listdir(pytester.path / ".madengine" / "runs" / "latest" / "jobs")  # noqa: PTH208  # names are wanted
    assert len(jobs) == 2
    kept = [
        json.loads((pytester.path / ".madengine/runs/latest/jobs" / job / "result.json").read_text()) for job in jobs
    ]
    assert {each["model"] for each in kept} == {"a/b", "a-b"}


def test_a_fixture_that_a_conftest_gives_to_one_item_is_not_set_up_for_others(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"), card("b"), card("c"))
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def special(request): print("SPECIAL FOR", request.node.name)

        def pytest_collection_modifyitems(items):
            items[1].fixturenames.insert(0, "special")
        """
    )
    result = pytester.runpytest("--madengine-tags=all", HOST, "-s")
    result.assert_outcomes(passed=3)
    assert [line for line in result.outlines if "SPECIAL FOR" in line] == ["models.json .SPECIAL FOR b"]
