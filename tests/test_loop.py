"""Models that run ahead of their items, seen from pytest's side."""

from __future__ import annotations

import json
import random
import signal
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.cards import card, project, rows, statuses
from tests.engine.misbehaving import DISASTERS, FAULTS, FINE, HARMLESS, MODEL_FAULTS
from tests.test_waking import eventually, started

ALL = ("--madengine-tags=all", "--target=fake")
MISBEHAVING = """
import pytest
from pytest_madengine.engine.lane import Pace
from tests.engine.misbehaving import Misbehaving

def pytest_madengine_backends():
    return {{"fake": Misbehaving(lambda job: job.env["FAULT"], {disaster!r}, {at_once})}}

def pytest_madengine_pace():
    return Pace(first=0.01, longest=0.05, gap=0.001, patience=0.05, stall=0.3)

def pytest_madengine_job(item, job):
    from dataclasses import replace
    from pytest_madengine.launchers.base import Topology
    limit = 0.2 if job.env["FAULT"] in ("never ends", "cannot be cancelled") else 60.0
    nodes = 2 if job.env["FAULT"] == "loses a rank" else 1
    return replace(job, limit=limit, topology=Topology(nodes=nodes))
"""
OF_THE_MODEL = {
    "gives no performance",
    "outcome has a wrong log",
    "never ends",
    *MODEL_FAULTS,
    "ends without exit code",
    "exit code is garbage",
}
FAKE = """
from pathlib import Path
from pytest_madengine.backends.fake import FakeBackend, Pretence

def pretence(job):
    known = {{"seconds": 0.05, **{known}}}
    seconds = float(job.env.get("SECONDS", known["seconds"]))
    code = int(job.env.get("CODE", "0"))
    return Pretence(seconds, code, job.env.get("OUTPUT", "performance: 1 x\\n"), node=job.env.get("NODE", "node1"))

def pytest_madengine_backends(config):
    place = Path(config.invocation_params.dir) / "cluster"
    return {{"fake": FakeBackend(place, pretend=pretence, at_once={at_once})}}
"""


def misbehaving(folder: Path, faults: dict[str, str], disaster: str = "", at_once: int = 4) -> None:
    project(folder, *(card(name, env_vars={"FAULT": fault}) for name, fault in faults.items()))
    (folder / "conftest.py").write_text(MISBEHAVING.format(disaster=disaster, at_once=at_once))


def fake(folder: Path, *cards: dict[str, object], at_once: int = 100, more: str = "") -> Path:
    project(folder, *cards)
    (folder / "conftest.py").write_text(FAKE.format(known="{}", at_once=at_once) + more)
    return folder


def timed(name: str, seconds: float, **env: str) -> dict[str, object]:
    return card(name, env_vars={"SECONDS": str(seconds), **env})


class TestNoFalseGreen:
    """Exit status 0 says that every model ran, finished and gave its metric."""

    @pytest.mark.parametrize("at_once", [1, 4], ids=["in line", "ahead"])
    @pytest.mark.parametrize("fault", [FINE, *FAULTS, *MODEL_FAULTS])
    def test_of_a_misbehaving_backend(self, pytester: pytest.Pytester, fault: str, at_once: int) -> None:
        misbehaving(pytester.path, {"m": fault, "fine": FINE}, at_once=at_once)
        result = pytester.runpytest(*ALL, "--junitxml=junit.xml")
        good = fault in {FINE, *HARMLESS}
        assert (result.ret == pytest.ExitCode.OK) == good
        assert statuses(pytester.path / "perf.csv") == {"m": "SUCCESS" if good else "FAILURE", "fine": "SUCCESS"}
        assert len(rows(pytester.path / "perf.csv")) == 2
        if not good:
            kind = "failure" if fault in OF_THE_MODEL else "error"
            assert [child.tag for child in _case(pytester.path, "m") if child.tag in ("failure", "error")] == [kind]

    @pytest.mark.parametrize(("remote", "named"), [(True, False), (False, True)])
    def test_a_model_that_never_ran_elsewhere_names_no_machine(
        self, pytester: pytest.Pytester, *, remote: bool, named: bool
    ) -> None:
        misbehaving(pytester.path, {"m": "submit raises"})
        with (pytester.path / "conftest.py").open("a") as conftest:
            conftest.write(f"\nclass Misbehaving(Misbehaving):\n    remote = {remote}\n")
        pytester.runpytest(*ALL).assert_outcomes(errors=1)
        assert [bool(row["machine_name"]) for row in rows(pytester.path / "perf.csv")] == [named]

    @pytest.mark.parametrize("disaster", DISASTERS)
    @pytest.mark.parametrize("at_once", [1, 4], ids=["in line", "ahead"])
    def test_of_a_backend_that_does_not_answer(self, pytester: pytest.Pytester, disaster: str, at_once: int) -> None:
        names = dict.fromkeys("abcde", FINE)
        misbehaving(pytester.path, names, disaster, at_once)
        result = pytester.runpytest(*ALL)
        result.assert_outcomes(errors=5)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        assert statuses(pytester.path / "perf.csv") == dict.fromkeys("abcde", "FAILURE")

    @pytest.mark.parametrize("seed", range(4))
    def test_of_a_mixture_of_everything(self, pytester: pytest.Pytester, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311  # the same mixtures each time
        faults = {f"m{number}": dice.choice([FINE, FINE, *FAULTS, *MODEL_FAULTS]) for number in range(40)}
        misbehaving(pytester.path, faults, at_once=dice.randint(2, 20))
        result = pytester.runpytest(*ALL)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        good = {FINE, *HARMLESS}
        expected = {name: "SUCCESS" if fault in good else "FAILURE" for name, fault in faults.items()}
        assert statuses(pytester.path / "perf.csv") == expected
        assert len(rows(pytester.path / "perf.csv")) == len(faults)

    def test_where_nothing_was_selected(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, card("a"))
        assert pytester.runpytest(*ALL, "-k", "nothing").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def _case(folder: Path, name: str) -> ET.Element:
    cases = ET.parse(folder / "junit.xml").iter("testcase")  # noqa: S314  # our own file
    return next(case for case in cases if case.attrib["name"] == name)


class TestOrder:
    def test_models_are_reported_as_they_finish(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, timed("slow", 0.9), timed("quick", 0.055), timed("middle", 0.4))
        result = pytester.runpytest(*ALL, "-v")
        result.assert_outcomes(passed=3)
        assert _order(result) == ["quick", "middle", "slow"]
        assert [row["model"] for row in rows(pytester.path / "perf.csv")] == ["quick", "middle", "slow"]

    def test_they_are_reported_in_their_order_if_asked_for(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, timed("slow", 0.6), timed("quick", 0.055), timed("middle", 0.3))
        result = pytester.runpytest(*ALL, "-v", "--madengine-ordered")
        assert _order(result) == ["slow", "quick", "middle"]

    def test_a_slow_one_that_is_to_be_reported_first_keeps_no_slot_empty(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, timed("slow", 1.5), *(timed(f"m{n}", 0.05) for n in range(12)), at_once=2)
        result = pytester.runpytest(*ALL, "-v", "--madengine-ordered")
        result.assert_outcomes(passed=13)
        assert _order(result)[0] == "slow"
        ends = [record["job"] for record in _journal(pytester.path) if record["kind"] == "ended"]
        assert "-slow-" in ends[-1]

    def test_they_run_side_by_side(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, *(timed(f"m{n}", 1.0) for n in range(30)))
        result = pytester.runpytest(*ALL)
        result.assert_outcomes(passed=30)
        assert _most_at_once(pytester.path) == 30

    def test_no_more_run_than_the_user_allows(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, *(timed(f"m{n}", 0.1) for n in range(10)))
        pytester.runpytest(*ALL, "--madengine-max-in-flight=3").assert_outcomes(passed=10)
        assert _most_at_once(pytester.path) == 3

    def test_the_host_runs_one_at_a_time_unless_told_otherwise(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, *map(card, "abc"))
        pytester.runpytest("--madengine-tags=all", "--target=host").assert_outcomes(passed=3)
        assert _most_at_once(pytester.path) == 1
        go = "until [ $(ls $MADENGINE_PROJECT/here | wc -l) = 2 ]; do sleep 0.02; done; echo performance: 1 x\n"
        script = f"touch $MADENGINE_PROJECT/here/$MAD_MODEL_NAME; {go}"
        project(pytester.mkdir("two"), card("a"), card("b"), script=script)
        pytester.mkdir("two/here")
        two = ("--madengine-tags=all", "--target=host", "--madengine-max-in-flight=2", "--rootdir=two")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("MODEL_DIR", "two")
            pytester.runpytest(*two).assert_outcomes(passed=2)


def _order(result: pytest.RunResult) -> list[str]:
    return [line.split("::")[1].split()[0] for line in result.outlines if line.startswith("models.json::")]


def _most_at_once(folder: Path) -> int:
    """How many jobs were in flight at the same time at most, as the journal tells."""
    flying, most = 0, 0
    for record in _journal(folder):
        flying += {"submitting": 1, "ended": -1}.get(record["kind"], 0)
        most = max(most, flying)
    return most


def _journal(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob(".madengine/runs/latest/journal.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


FIXTURES = """
import pytest

@pytest.fixture(autouse=True, scope="session")
def session_wide():
    print("SESSION UP"); yield; print("SESSION DOWN")

@pytest.fixture(autouse=True, scope="module")
def module_wide(request):
    print("MODULE UP", request.node.name); yield; print("MODULE DOWN", request.node.name)

@pytest.fixture(autouse=True)
def item_wide(request):
    print("ITEM UP", request.node.name); yield; print("ITEM DOWN", request.node.name)
"""


class TestFixtures:
    def test_items_are_set_up_one_at_a_time_and_wider_fixtures_survive(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, timed("a", 0.3), timed("b", 0.1), timed("c", 0.2), more=FIXTURES)
        result = pytester.runpytest(*ALL, "-s", "-q")
        result.assert_outcomes(passed=3)
        seen = [line.lstrip(".") for line in result.outlines if " UP" in line or " DOWN" in line]
        inner = [f"ITEM {way} {name}" for name in "bca" for way in ("UP", "DOWN")]
        assert seen == ["SESSION UP", "MODULE UP models.json", *inner, "MODULE DOWN models.json", "SESSION DOWN"]

    def test_modules_that_take_turns_are_set_up_anew_each_time(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, timed("a1", 0.1), timed("a2", 0.7), more=FIXTURES)
        project(pytester.path / "scripts" / "other", timed("b1", 0.4), timed("b2", 1.0))
        result = pytester.runpytest(*ALL, "-s", "-q")
        result.assert_outcomes(passed=4)
        seen = [line.lstrip(".").split()[1] for line in result.outlines if "MODULE " in line or "SESSION " in line]
        assert seen == ["UP", *["UP", "DOWN"] * 4, "DOWN"]

    def test_a_fixture_that_fails_to_go_down_between_modules_is_an_error(self, pytester: pytest.Pytester) -> None:
        more = """
import pytest

@pytest.fixture(autouse=True, scope="module")
def clinging(request):
    yield
    assert "other" in request.node.nodeid, "will not go"
"""
        fake(pytester.path, timed("a1", 0.1), timed("a2", 0.7), more=more)
        project(pytester.path / "scripts" / "other", timed("b1", 0.4))
        result = pytester.runpytest(*ALL)
        result.assert_outcomes(passed=3, errors=2)
        assert result.ret == pytest.ExitCode.TESTS_FAILED

    def test_an_item_with_an_overridden_job_runs_that_job(self, pytester: pytest.Pytester) -> None:
        more = """
import dataclasses, pytest

@pytest.fixture
def job(job, request):
    return dataclasses.replace(job, env={**job.env, "OUTPUT": f"performance: 7 {request.node.name}\\n"})
"""
        fake(pytester.path, timed("a", 0.1), timed("b", 0.1), more=more)
        pytester.runpytest(*ALL).assert_outcomes(passed=2)
        found = {row["model"]: (row["performance"], row["metric"]) for row in rows(pytester.path / "perf.csv")}
        assert found == {"a": ("7", "a"), "b": ("7", "b")}
        assert sum(record["kind"] == "submitting" for record in _journal(pytester.path)) == 2

    def test_a_mark_that_skips_an_item_keeps_its_model_from_running(self, pytester: pytest.Pytester) -> None:
        more = """
import pytest

def pytest_collection_modifyitems(items):
    items[0].add_marker(pytest.mark.skip(reason="not today"))
    items[1].add_marker(pytest.mark.xfail(run=False))
"""
        fake(pytester.path, *map(card, "abc"), more=more)
        pytester.runpytest(*ALL).assert_outcomes(passed=1, skipped=1, xfailed=1)
        assert [record["item"] for record in _journal(pytester.path) if record["kind"] == "submitting"] == [
            "models.json::c"
        ]

    def test_a_hook_that_skips_or_fails_does_so_for_its_item_alone(self, pytester: pytest.Pytester) -> None:
        more = """
import pytest

def pytest_madengine_job(item, job):
    {"a": pytest.skip, "b": pytest.fail}.get(item.name, str)("no licence")
"""
        fake(pytester.path, *map(card, "abc"), more=more)
        pytester.runpytest(*ALL).assert_outcomes(passed=1, skipped=1, errors=1)
        assert statuses(pytester.path / "perf.csv") == {"a": "SKIPPED", "b": "FAILURE", "c": "SUCCESS"}

    def test_ordinary_tests_run_first_and_share_results(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, timed("a", 0.1), timed("b", 0.1))
        pytester.makepyfile(
            test_it="""
            import pytest

            @pytest.mark.madengine("a")
            def test_speed(result):
                assert result.performance == 1
            """
        )
        result = pytester.runpytest(*ALL, "-v", ".")
        result.assert_outcomes(passed=3)
        assert next(line for line in result.outlines if "::" in line).startswith("test_it.py::test_speed")
        assert len(rows(pytester.path / "perf.csv")) == 2


class TestEndings:
    @pytest.mark.parametrize("option", ["-x", "--maxfail=1"])
    def test_the_first_failure_ends_what_is_in_flight(self, pytester: pytest.Pytester, option: str) -> None:
        fake(pytester.path, timed("bad", 0.1, CODE="3"), timed("long", 300), timed("good", 0.05))
        result = pytester.runpytest(*ALL, option)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        found = statuses(pytester.path / "perf.csv")
        assert (found["bad"], found["long"], len(found)) == (
            "FAILURE",
            "FAILURE",
            len(rows(pytester.path / "perf.csv")),
        )
        result.stdout.fnmatch_lines(["madengine: cancelled: *long*"])

    def test_what_had_not_begun_has_no_row(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, timed("bad", 0.1, CODE="3"), *(timed(f"m{n}", 300) for n in range(5)), at_once=2)
        pytester.runpytest(*ALL, "-x")
        found = statuses(pytester.path / "perf.csv")
        assert {"bad", "m0"} <= found.keys() <= {"bad", "m0", "m1"}

    def test_an_internal_error_ends_what_is_in_flight(self, pytester: pytest.Pytester) -> None:
        more = "\ndef pytest_runtest_logstart(nodeid):\n    raise RuntimeError('somebody else is broken')\n"
        fake(pytester.path, timed("a", 0.3), timed("long", 300), more=more)
        result = pytester.runpytest(*ALL)
        assert result.ret == pytest.ExitCode.INTERNAL_ERROR
        assert statuses(pytester.path / "perf.csv") == {"a": "SUCCESS", "long": "FAILURE"}

    @pytest.mark.parametrize("option", ["--collect-only", "--setup-only", "--setup-plan"])
    def test_options_that_run_nothing_submit_nothing(self, pytester: pytest.Pytester, option: str) -> None:
        fake(pytester.path, *map(card, "ab"))
        pytester.runpytest(*ALL, option)
        assert not (pytester.path / "cluster").exists()
        assert not (pytester.path / "perf.csv").exists()

    @pytest.mark.parametrize("off", ["debugging", "setuponly", "setupplan", "cacheprovider", "terminal"])
    def test_pytests_own_plugins_may_be_switched_off(self, pytester: pytest.Pytester, off: str) -> None:
        fake(pytester.path, *map(card, "ab"))
        assert pytester.runpytest(*ALL, "-p", f"no:{off}").ret == pytest.ExitCode.OK
        assert statuses(pytester.path / "perf.csv") == dict.fromkeys("ab", "SUCCESS")

    @pytest.mark.requires_docker
    def test_a_signal_ends_builds_too(self, tmp_path: Path) -> None:
        project(tmp_path, *(card(name, dockerfile=f"docker/{name}") for name in "abc"))
        (tmp_path / "docker").mkdir()
        for name in "abc":
            text = f"FROM madengine-test-base:latest\nRUN echo {tmp_path} && sleep 600\n"
            (tmp_path / f"docker/{name}.ubuntu.amd.Dockerfile").write_text(text)
        process = started(tmp_path, "--madengine-max-in-flight=3")
        eventually(
            lambda: (
                "sleep 600" in "".join(path.read_text() for path in tmp_path.glob(".madengine/runs/*/images/*/*.log"))
            )
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == pytest.ExitCode.INTERRUPTED
        assert not (tmp_path / "perf.csv").exists()

    def test_last_failed_and_stepwise_work(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, timed("a", 0.05), timed("b", 0.05, CODE="1"), timed("c", 0.1))
        pytester.runpytest(*ALL).assert_outcomes(passed=2, failed=1)
        pytester.runpytest(*ALL, "--lf").assert_outcomes(failed=1, deselected=2)
        pytester.runpytest(*ALL, "--sw", "--madengine-max-in-flight=1").assert_outcomes(passed=1, failed=1)

    def test_other_plugins_work(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, timed("a", 0.3), timed("b", 0.1, CODE="1"))
        options = ("--timeout=30", "--reruns=1", "--html=report.html", "--report-log=log.jsonl", "--junitxml=junit.xml")
        result = pytester.runpytest(*ALL, *options, "--durations=1")
        result.assert_outcomes(passed=1, failed=1)
        assert [row["status"] for row in rows(pytester.path / "perf.csv") if row["model"] == "b"] == ["FAILURE"] * 2
        assert 0.2 < float(_case(pytester.path, "a").attrib["time"]) < 5
        assert "models.json::a" in (pytester.path / "report.html").read_text()
        assert "madengine_result" in (pytester.path / "log.jsonl").read_text()
        result.stdout.fnmatch_lines(["*s call *models.json::a"])


class TestRetries:
    FLAKY = """
import pytest

class Flaky(FakeBackend):
    def submit(self, plan):
        from pytest_madengine.errors import InfrastructureError
        if plan.job.name == "flaky" and len(list(plan.job.directory.parent.glob("flaky*"))) < 3:
            raise InfrastructureError("the node is down")
        return super().submit(plan)

def pytest_madengine_backends(config):
    return {"fake": Flaky(Path(config.invocation_params.dir) / "cluster", pretend=pretence, at_once=10)}

@pytest.fixture(autouse=True, scope="session")
def soon():
    yield

def pytest_configure():
    from pytest_madengine import attempt
    attempt.FIRST_PAUSE = 0.01
"""

    @pytest.mark.parametrize("ahead", [[], ["--madengine-max-in-flight=1"]], ids=["ahead", "in line"])
    def test_infrastructure_failures_are_tried_again_and_each_try_is_told(
        self, pytester: pytest.Pytester, ahead: list[str]
    ) -> None:
        fake(pytester.path, timed("flaky", 0.05), timed("bad", 0.05, CODE="1"), more=self.FLAKY)
        result = pytester.runpytest(*ALL, *ahead, "--madengine-retries=2", "--junitxml=junit.xml")
        result.assert_outcomes(passed=1, failed=1)
        tries = [row["status"] for row in rows(pytester.path / "perf.csv") if row["model"] == "flaky"]
        assert tries == ["FAILURE", "FAILURE", "SUCCESS"]
        properties = {
            each.attrib["name"]: each.attrib["value"] for each in _case(pytester.path, "flaky").iter("property")
        }
        assert properties["attempt:2"] == "not submitted: the node is down"
        assert len([row for row in rows(pytester.path / "perf.csv") if row["model"] == "bad"]) == 1

    def test_without_retries_they_are_errors(self, pytester: pytest.Pytester) -> None:
        fake(pytester.path, timed("flaky", 0.05), more=self.FLAKY)
        pytester.runpytest(*ALL).assert_outcomes(errors=1)

    @pytest.mark.parametrize("ahead", [[], ["--madengine-max-in-flight=1"]], ids=["ahead", "in line"])
    @pytest.mark.parametrize(("fault", "tries"), [("is refused", 1), ("is refused once it waits", 1), ("is lost", 2)])
    def test_what_is_refused_for_good_is_not_tried_again(
        self, pytester: pytest.Pytester, fault: str, tries: int, ahead: list[str]
    ) -> None:
        misbehaving(pytester.path, {"m": fault})
        with (pytester.path / "conftest.py").open("a") as conftest:
            conftest.write("\nfrom pytest_madengine import attempt\nattempt.FIRST_PAUSE = 0.01\n")
        pytester.runpytest(*ALL, *ahead, "--madengine-retries=1").assert_outcomes(errors=1)
        assert len(rows(pytester.path / "perf.csv")) == tries

    def test_the_node_that_failed_is_avoided(self, pytester: pytest.Pytester) -> None:
        more = """
from pytest_madengine.results.failures import FailureRule
from pytest_madengine.results.result import FailureClass

def pytest_madengine_failure_rules():
    return [FailureRule(FailureClass.INFRASTRUCTURE, exit_codes=frozenset([77]))]

def pytest_configure():
    from pytest_madengine import attempt
    attempt.FIRST_PAUSE = 0.01
"""
        fake(pytester.path, timed("a", 0.05, CODE="77", NODE="node7"), more=more)
        pytester.runpytest(*ALL, "--madengine-retries=1").assert_outcomes(errors=1)
        jobs = sorted(pytester.path.glob(".madengine/runs/latest/jobs/*/job.json"))
        assert [json.loads(path.read_text())["avoid"] for path in jobs] == [[], ["node7"]]
        assert {row["machine_name"] for row in rows(pytester.path / "perf.csv")} == {"node7"}

    def test_a_dead_cluster_stops_the_session(self, pytester: pytest.Pytester) -> None:
        misbehaving(pytester.path, {f"m{n}": "submit raises" for n in range(20)}, at_once=2)
        result = pytester.runpytest(*ALL, "--madengine-max-infra-failures=3")
        assert result.ret == pytest.ExitCode.INTERRUPTED
        result.stdout.fnmatch_lines(["*3 infrastructure failures (--madengine-max-infra-failures=3)*"])
        assert len(rows(pytester.path / "perf.csv")) < 10


class TestExitCodes:
    @pytest.mark.parametrize(
        ("fault", "code"), [(FINE, 0), ("gives no performance", 3), ("submit raises", 3), ("fails", 3)]
    )
    def test_of_the_replaced_tool_if_asked_for(self, pytester: pytest.Pytester, fault: str, code: int) -> None:
        misbehaving(pytester.path, {"m": fault})
        assert pytester.runpytest(*ALL, "--madengine-exit-codes").ret == code

    def test_by_the_ini_file(self, pytester: pytest.Pytester) -> None:
        pytester.makeini("[pytest]\nmadengine_exit_codes = true\n")
        misbehaving(pytester.path, {"m": "fails"})
        assert pytester.runpytest(*ALL).ret == 3

    def test_of_wrong_usage_and_of_other_failures(self, pytester: pytest.Pytester) -> None:
        misbehaving(pytester.path, {"m": FINE})
        assert pytester.runpytest("--madengine-tags=none", "--target=fake", "--madengine-exit-codes").ret == 4
        pytester.makepyfile(test_it="def test_it(): assert 0")
        assert pytester.runpytest(*ALL, ".", "--madengine-exit-codes").ret == 1
        assert pytester.runpytest(*ALL, "-k", "nothing", "--madengine-exit-codes").ret == 1
