from __future__ import annotations

from pathlib import Path

import pytest

from tests.cards import card, project, rows, run_bare, statuses
from tests.test_items import HOST


@pytest.fixture
def counted(pytester: pytest.Pytester) -> Path:
    """A project whose model notes each of its runs."""
    script = f"echo run >>{pytester.path}/runs.txt\necho 'performance: 12.5 tokens'\n"
    return project(pytester.path, card("llama", tags=["text"]), card("bert", tags=["text"]), script=script)


def runs(pytester: pytest.Pytester) -> int:
    path = pytester.path / "runs.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_marked_test_gets_the_models_result(pytester: pytest.Pytester, counted: Path) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.madengine("llama")
        def test_speed(result, model):
            assert model.name == "llama"
            assert result.performance > 10
            assert result.metric == "tokens"
        """
    )
    pytester.runpytest(HOST, "--strict-markers").assert_outcomes(passed=1)
    assert statuses(pytester.path / "perf.csv") == {"llama": "SUCCESS"}


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_several_tests_of_one_model_run_it_once(pytester: pytest.Pytester, counted: Path, workers: list[str]) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.madengine("llama")
        @pytest.mark.parametrize("least", [1, 2, 3, 4])
        def test_speed(result, least):
            assert result.performance > least
        """
    )
    run_bare(pytester, HOST, *workers).assert_outcomes(passed=4)
    assert runs(pytester) == 1
    assert len(rows(pytester.path / "perf.csv")) == 1


def test_an_assertion_on_the_result_fails_the_test_and_keeps_the_row(pytester: pytest.Pytester, counted: Path) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.madengine("llama")
        def test_speed(result):
            assert result.performance > 100
        """
    )
    result = pytester.runpytest(HOST)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 12.5 > 100*"])
    assert statuses(pytester.path / "perf.csv") == {"llama": "SUCCESS"}


def test_a_test_that_does_not_look_at_a_failed_result_fails(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("llama"), llama="echo out of luck; exit 4\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.madengine("llama")
        def test_it(result):
            assert True
        """
    )
    result = pytester.runpytest(HOST)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["llama: exit code 4", "*out of luck"])


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ('@pytest.mark.madengine("lama")', "did you mean 'llama'"),
        ('@pytest.mark.madengine("text")', "names 2 models (llama, bert); name one"),
        ("@pytest.mark.madengine()", 'mark it with @pytest.mark.madengine("name")'),
        ("", 'mark it with @pytest.mark.madengine("name")'),
    ],
)
def test_a_marker_that_names_no_single_model_is_an_error(
    pytester: pytest.Pytester, counted: Path, mark: str, words: str
) -> None:
    pytester.makepyfile(f"import pytest\n{mark}\ndef test_it(result): pass\n")
    result = pytester.runpytest(HOST)
    result.assert_outcomes(errors=1)
    assert words in result.stdout.str()
    result.stdout.no_fnmatch_line("*Traceback*")
    assert runs(pytester) == 0


def test_a_conftest_may_change_the_card(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("llama"), script='echo "performance: $# x"\n')
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def model(model):
            return model.model_copy(update={"args": "1 2 3"})
        """
    )
    pytester.runpytest("--madengine-tags=llama", HOST).assert_outcomes(passed=1)
    assert [(row["args"], row["performance"]) for row in rows(pytester.path / "perf.csv")] == [("1 2 3", "3")]


def test_a_conftest_may_change_the_job_by_fixture_or_hook(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("llama"), script='echo "performance: $A$B x"\n')
    pytester.makeconftest(
        """
        import dataclasses
        import pytest

        @pytest.fixture
        def job(job):
            return dataclasses.replace(job, env={**job.env, "A": "4"})

        def pytest_madengine_job(item, job):
            return dataclasses.replace(job, env={**job.env, "B": "2"})
        """
    )
    pytester.runpytest("--madengine-tags=llama", HOST).assert_outcomes(passed=1)
    assert rows(pytester.path / "perf.csv")[0]["performance"] == "42"


def test_a_conftest_sees_results_and_the_context(pytester: pytest.Pytester, counted: Path) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(autouse=True)
        def show(madengine_context, backend):
            print("GUEST", madengine_context.guest_os, backend.name)

        def pytest_madengine_result(item, result):
            print("SAW", item.name, result.status, result.performances)
        """
    )
    result = pytester.runpytest("--madengine-tags=llama", HOST, "-s", "--madengine-context={'guest_os': 'centos'}")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*GUEST CENTOS host", "*SAW llama SUCCESS {'llama': 12.5}*"])


def test_fixtures_of_every_scope_work_for_models(pytester: pytest.Pytester, counted: Path) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(autouse=True, scope="session")
        def a(): yield "a"
        @pytest.fixture(autouse=True, scope="module")
        def b(a): yield "b"
        @pytest.fixture(autouse=True)
        def c(b, tmp_path, capsys, monkeypatch, record_property): record_property("seen", b)
        """
    )
    pytester.runpytest("--madengine-tags=all", HOST).assert_outcomes(passed=2)


def test_setup_only_runs_no_model(pytester: pytest.Pytester, counted: Path) -> None:
    pytester.runpytest("--madengine-tags=llama", HOST, "--setup-only")
    pytester.runpytest("--madengine-tags=llama", HOST, "--setup-plan")
    assert runs(pytester) == 0
    assert not (pytester.path / "perf.csv").exists()


def test_a_site_adds_a_backend_a_launcher_and_a_reporter(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("llama", distributed={"launcher": "ours"}), script='echo "performance: $SIZE x"\n')
    pytester.makeconftest(
        """
        from pytest_madengine.backends.host import HostBackend
        from pytest_madengine.launchers.base import Launcher

        class Site(HostBackend):
            name = "docker"
            deployment = "site"

        class Notes:
            name = "notes"
            def write(self, result):
                with open("notes.txt", "a") as file:
                    file.write(result.model)

        def pytest_madengine_backends():
            return {"docker": Site()}

        def pytest_madengine_launchers():
            return [Launcher("ours", lambda topology, options: {"SIZE": str(topology.world_size)})]

        def pytest_madengine_reporters():
            return [Notes()]
        """
    )
    pytester.runpytest("--madengine-tags=llama").assert_outcomes(passed=1)
    (row,) = rows(pytester.path / "perf.csv")
    assert (row["deployment_type"], row["launcher"], row["performance"]) == ("site", "ours", "1")
    assert (pytester.path / "notes.txt").read_text() == "llama"


def test_a_secret_in_a_fixture_shows_nowhere(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAD_SECRETS_TOKEN", "hunter2-hunter2")
    script = """
echo "token $MAD_SECRETS_TOKEN" | tee out.json
printf "model,performance,metric\\n$MAD_SECRETS_TOKEN,1,x\\n" >r.csv
exit 1
"""
    project(pytester.path, card("llama", multiple_results="r.csv"), llama=script)
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(autouse=True)
        def broken(job):
            raise OSError("something else")
        """
    )
    shown = pytester.runpytest("--madengine-tags=llama", HOST, "--showlocals", "--junitxml=j.xml", "-vv")
    shown.assert_outcomes(errors=1)
    (pytester.path / "conftest.py").unlink()
    shown_again = pytester.runpytest("--madengine-tags=llama", HOST, "--showlocals", "--junitxml=k.xml", "-vv")
    shown_again.assert_outcomes(failed=1)
    shown_again.stdout.fnmatch_lines(["*token [*][*][*]*"])
    files = [path for path in pytester.path.rglob("*") if path.is_file()]
    leaking = [path for path in files if b"hunter2-hunter2" in path.read_bytes()]
    assert leaking == []
    assert "hunter2" not in shown.stdout.str() + shown_again.stdout.str()


def test_a_test_shares_the_result_of_the_models_own_item(pytester: pytest.Pytester, counted: Path) -> None:
    pytester.makepyfile(
        test_later="""
        import pytest

        @pytest.mark.madengine("llama")
        def test_speed(result):
            assert result.performance > 10
        """
    )
    pytester.runpytest("--madengine-tags=llama", HOST, ".").assert_outcomes(passed=2, deselected=1)
    assert runs(pytester) == 1
    assert len(rows(pytester.path / "perf.csv")) == 1


def test_a_card_for_several_nodes_warns_on_a_target_of_one(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("llama", distributed={"launcher": "torchrun", "nnodes": 2}))
    result = pytester.runpytest("--madengine-tags=llama", HOST, "-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*llama asks for 2 nodes and runs on one*"])
    assert rows(pytester.path / "perf.csv")[0]["nnodes"] == "1"


def test_a_card_that_needs_data_is_refused(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("llama", data="imagenet"))
    result = pytester.runpytest("--madengine-tags=llama", HOST)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["llama: data 'imagenet': data providers do not run in this version"])


def test_a_lost_job_is_an_error_and_no_failure_of_the_model(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("llama"), llama="kill -9 $(ps -o sid= $$); sleep 5\n")
    result = pytester.runpytest("--madengine-tags=llama", HOST)
    result.assert_outcomes(errors=1)
    assert statuses(pytester.path / "perf.csv") == {"llama": "FAILURE"}


@pytest.mark.parametrize("name", ["model", "image"])
def test_a_test_that_runs_no_model_has_no_row(pytester: pytest.Pytester, counted: Path, name: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.madengine('llama')\ndef test_it({name}): pass\n")
    result = pytester.runpytest(HOST)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    assert not (pytester.path / "perf.csv").exists()


def test_a_models_item_that_runs_no_model_fails(pytester: pytest.Pytester, counted: Path) -> None:
    pytester.makeconftest("import pytest\n@pytest.fixture\ndef result(): return None\n")
    result = pytester.runpytest("--madengine-tags=llama", HOST)
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(["llama: no model ran*"])
    assert statuses(pytester.path / "perf.csv") == {"llama": "FAILURE"}


@pytest.mark.parametrize("tag", ["llama:level=9:fast", "dir:llama:level=9:fast"])
def test_a_marker_may_carry_arguments(pytester: pytest.Pytester, tag: str) -> None:
    folder = pytester.path / ("scripts/dir" if tag.startswith("dir") else ".")
    project(folder, card("llama", tags=["llama"]), script='echo "got $*"; echo performance: 1 x\n')
    pytester.makepyfile(
        f"""
        import pytest
        from pathlib import Path

        @pytest.mark.madengine({tag!r})
        def test_it(result):
            assert "got --level 9 --fast" in Path(result.log).read_text()
        """
    )
    pytester.runpytest(HOST, "test_a_marker_may_carry_arguments.py").assert_outcomes(passed=1)


def test_a_marked_test_that_is_rerun_runs_its_model_again(pytester: pytest.Pytester) -> None:
    script = f"[ -e {pytester.path}/tried ] || {{ touch {pytester.path}/tried; exit 1; }}; echo performance: 1 x\n"
    project(pytester.path, card("llama"), script=script)
    pytester.makepyfile("import pytest\n@pytest.mark.madengine('llama')\ndef test_it(result): pass\n")
    result = pytester.runpytest(HOST, "--reruns=1")
    assert result.ret == pytest.ExitCode.OK
    assert [row["status"] for row in rows(pytester.path / "perf.csv")] == ["FAILURE", "SUCCESS"]


def test_a_models_item_shares_the_result_of_an_earlier_test(pytester: pytest.Pytester, counted: Path) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.madengine('llama')\ndef test_it(result): pass\n")
    test = "test_a_models_item_shares_the_result_of_an_earlier_test.py"
    pytester.runpytest(HOST, test, "models.json::llama").assert_outcomes(passed=2)
    assert runs(pytester) == 1
    assert len(rows(pytester.path / "perf.csv")) == 1
