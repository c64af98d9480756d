from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_madengine.errors import MadengineError
from pytest_madengine.reporting.mongoreporter import MongoReporter
from pytest_madengine.reporting.mongosettings import of_environment
from pytest_madengine.reporting.spool import Spool
from pytest_madengine.results.result import Result
from pytest_madengine.secrets import Masker
from tests.cards import card, project, rows, run_bare
from tests.engines.mongo import PASSWORD, Database, MongoServer, free_port, silent
from tests.results.test_documents import result
from tests.test_items import HOST

AWAY = {"MONGO_HOST": "127.0.0.1", "MONGO_TIMEOUT_MS": "100"}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def reporter(spool: Spool, environ: Mapping[str, str], run: str = "run1") -> MongoReporter:
    return MongoReporter(of_environment(environ), spool, run, Masker(["hunter22"]))


def record(sender: MongoReporter, *results: Result) -> None:
    for each in results:
        sender.keep(each)
        sender.write(each)


def models(mongo: Database) -> list[str]:
    return [f"{each['run']} {each['model']}" for each in mongo.documents()]


@pytest.mark.requires_mongo
def test_each_result_is_sent_and_nothing_waits(spool: Spool, mongo: Database) -> None:
    sender = reporter(spool, {"MONGO_URI": mongo.uri})
    record(sender, result(reason="hunter22 is secret"))
    sender.finish()
    assert (models(mongo), spool.count(), sender.waiting()) == (["run1 m"], 0, "")
    (document,) = mongo.documents()
    assert document["reason"] == "*** is secret"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", document["created_date"])


@pytest.mark.requires_mongo
def test_the_history_of_a_model_is_kept_and_a_result_that_comes_twice_is_there_once(
    spool: Spool, mongo: Database
) -> None:
    for run in ("run1", "run2", "run2"):
        sender = reporter(spool, {"MONGO_URI": mongo.uri}, run)
        record(sender, result(run))
        sender.finish()
    assert models(mongo) == ["run1 m", "run2 m"]


def test_while_the_server_is_away_results_wait_and_it_is_asked_seldom(spool: Spool) -> None:
    sender = reporter(spool, {**AWAY, "MONGO_PORT": str(free_port())})
    record(sender, *(result(id=str(number)) for number in range(50)))
    sender.finish()
    assert spool.count() == 50
    assert re.fullmatch(
        r"MongoDB at 127\.0\.0\.1:\d+: no answer within 0\.1 s.*: 50 results wait in .*/\.madengine/spool: the next "
        r"run with --madengine-mongo, or `pytest-madengine database --spooled`, sends what waits",
        sender.waiting(),
    )


@pytest.mark.requires_mongo
def test_the_next_run_sends_what_waits(spool: Spool, mongo: Database) -> None:
    record(reporter(spool, {**AWAY, "MONGO_PORT": str(free_port()), "MONGO_DATABASE": mongo.name}), result())
    later = reporter(spool, {"MONGO_URI": mongo.uri}, "run2")
    record(later, result("run2"))
    later.finish()
    assert (models(mongo), spool.count()) == (["run1 m", "run2 m"], 0)


@pytest.mark.requires_mongo
def test_a_run_without_results_sends_what_waits_too(spool: Spool, mongo: Database) -> None:
    sender = reporter(spool, {"MONGO_URI": mongo.uri})
    sender.keep(result())
    reporter(spool, {"MONGO_URI": mongo.uri}, "run2").finish()
    assert (models(mongo), spool.count()) == (["run1 m"], 0)


@pytest.mark.requires_mongo
def test_what_the_server_refuses_is_told_once_and_kept(spool: Spool, mongo: Database) -> None:
    mongo.collection().create_index("nodeid", unique=True)
    sender = reporter(spool, {"MONGO_URI": mongo.uri})
    record(sender, result("run1"), result("run2"), result("run3", nodeid="models.json::n"))
    with pytest.raises(MadengineError, match=r"^models.json::m, row m was refused: .*duplicate key"):
        sender.finish()
    assert models(mongo) == ["run1 m", "run3 m"]
    assert (spool.count(), len(list(spool.parcels(refused=True)))) == (0, 1)


@pytest.mark.requires_mongo
def test_a_wrong_password_is_told_once_and_costs_no_result(spool: Spool, mongo_program: str, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with MongoServer(mongo_program, tmp_path / "server", login=True) as server:
        sender = reporter(spool, {**server.environ, "MONGO_PASSWORD": f"{PASSWORD}x"})
        record(sender, *(result(id=str(number)) for number in range(3)))
        with pytest.raises(MadengineError, match=r"^MongoDB at 127.0.0.1:\d+ does not let user [^\n]*$"):
            sender.finish()
        assert sender.waiting().startswith("MongoDB: 3 results wait")
        again = reporter(spool, server.environ)
        again.finish()
        assert spool.count() == 0


@pytest.fixture
def models_project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MODEL_DIR", raising=False)
    for name in ("MONGO_HOST", "MONGO_PORT", "MONGO_URI", "MONGO_USER", "MONGO_PASSWORD", "MONGO_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    return project(pytester.path, card("a"), card("b"))


RUN = (HOST, "--madengine-tags=all")


@pytest.mark.requires_mongo
@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_a_run_sends_each_row_once(
    pytester: pytest.Pytester, models_project: Path, mongo: Database, workers: list[str]
) -> None:
    outcome = run_bare(pytester, *RUN, *workers, f"--madengine-mongo={mongo.uri}")
    outcome.assert_outcomes(passed=2)
    outcome.stdout.no_fnmatch_line("*WARNING*")
    sent = mongo.documents()
    assert sorted((each["model"], each["performance"]) for each in sent) == [("a", 12.5), ("b", 12.5)]
    assert len({each["run"] for each in sent}) == 1
    assert list((models_project / ".madengine" / "spool").iterdir()) == []


@pytest.mark.requires_mongo
def test_the_record_of_a_run_adds_nothing_to_what_it_has_sent(
    pytester: pytest.Pytester, models_project: Path, mongo: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_madengine import cli

    monkeypatch.setenv("MONGO_URI", mongo.uri)
    pytester.runpytest(*RUN, "--madengine-mongo").assert_outcomes(passed=2)
    before = mongo.documents()
    (record_file,) = models_project.glob(".madengine/runs/2*/results.jsonl")
    assert cli.main(["database", "-f", str(record_file)]) == 0
    assert mongo.documents() == before


@pytest.mark.requires_mongo
def test_a_run_while_the_server_is_away_passes_and_the_next_one_sends(
    pytester: pytest.Pytester, models_project: Path, mongo: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGO_DATABASE", mongo.name)
    for name, value in {**AWAY, "MONGO_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    outcome = pytester.runpytest(*RUN, "--madengine-mongo")
    outcome.assert_outcomes(passed=2)
    assert outcome.ret == 0
    outcome.stdout.fnmatch_lines(["WARNING: MongoDB at 127.0.0.1:*: no answer*2 results wait in *"])
    assert len(rows(models_project / "perf.csv")) == 2
    pytester.runpytest(HOST, "--madengine-tags=a", f"--madengine-mongo={mongo.uri}").assert_outcomes(passed=1)
    assert sorted(each["model"] for each in mongo.documents()) == ["a", "a", "b"]


def test_a_server_that_never_answers_holds_nobody_up(pytester: pytest.Pytester, models_project: Path) -> None:
    with silent() as port:
        begun = time.monotonic()
        outcome = run_bare(
            pytester, *RUN, f"--madengine-mongo=mongodb://127.0.0.1:{port}", "--madengine-reporting-timeout=0.3"
        )
        assert time.monotonic() - begun < 60
    outcome.assert_outcomes(passed=2)
    given_up, waits = (
        "WARNING: MongoDB was given up with 3 left to do (*=0.3)",
        "WARNING: MongoDB*: 2 results wait in *",
    )
    outcome.stdout.fnmatch_lines([given_up, waits])
    assert len(rows(models_project / "perf.csv")) == 2
    assert len(list((models_project / ".madengine" / "spool").glob("*.json"))) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--madengine-mongo=db.example.com"], "--madengine-mongo: found 'db.example.com'; valid: mongodb://*"),
        (["--madengine-mongo=mongodb://h/?no=1"], "MongoDB's URI cannot be read: Unknown option*"),
        (["--madengine-reporting-timeout=-1"], "--madengine-reporting-timeout: found -1; valid: seconds, 0 or more"),
        (["--madengine-reporting-timeout=nan"], "--madengine-reporting-timeout: found nan; valid: seconds, 0 or more"),
    ],
)
def test_what_is_wrong_is_met_before_anything_runs(
    pytester: pytest.Pytester, models_project: Path, options: list[str], words: str
) -> None:
    outcome = pytester.runpytest(*RUN, *options)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines([f"*{words}"])
    assert not (models_project / "perf.csv").exists()


def test_a_password_is_shown_nowhere(
    pytester: pytest.Pytester, models_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent() as port:
        uri = f"mongodb://ann:planted-mongo-word@127.0.0.1:{port}/?serverSelectionTimeoutMS=100"
        outcome = pytester.runpytest(*RUN, f"--madengine-mongo={uri}", "-v", "--madengine-reporting-timeout=5")
    outcome.assert_outcomes(passed=2)
    outcome.stdout.fnmatch_lines(["WARNING: --madengine-mongo: every user of this machine sees a password*"])
    assert "planted-mongo-word" not in outcome.stdout.str() + outcome.stderr.str()
    for path in (each for each in models_project.rglob("*") if each.is_file()):
        assert b"planted-mongo-word" not in path.read_bytes(), path


SITE = """
import pytest

class Hanging:
    name = "hanging"
    remote = True
    def write(self, result):
        import threading
        threading.Event().wait()

class Broken:
    name = "broken"
    remote = True
    def write(self, result):
        raise ValueError("no such place")

@pytest.hookimpl
def pytest_madengine_reporters(config):
    return [Hanging(), Broken()]
"""


def test_reporters_of_a_site_that_hang_or_fail_cost_nobody_a_row(
    pytester: pytest.Pytester, models_project: Path
) -> None:
    pytester.makeconftest(SITE)
    outcome = run_bare(pytester, *RUN, "--madengine-reporting-timeout=0.2")
    outcome.assert_outcomes(passed=2)
    assert outcome.ret == pytest.ExitCode.OK
    outcome.stdout.fnmatch_lines_random(
        [
            "WARNING: hanging was given up with 2 left to do (--madengine-reporting-timeout=0.2)",
            "WARNING: broken could not write a row for models.json::a: no such place",
            "WARNING: broken could not write a row for models.json::b: no such place",
        ]
    )
    assert len(rows(models_project / "perf.csv")) == 2


def test_a_site_that_cannot_say_its_reporters_costs_nobody_a_row(
    pytester: pytest.Pytester, models_project: Path
) -> None:
    pytester.makeconftest("def pytest_madengine_reporters(config): raise RuntimeError('no licence')\n")
    outcome = pytester.runpytest(*RUN)
    outcome.assert_outcomes(passed=2)
    outcome.stdout.fnmatch_lines(["ERROR: the reporters of *conftest.py are left out: RuntimeError('no licence')"])
    assert len(rows(models_project / "perf.csv")) == 2
