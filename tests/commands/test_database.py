from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pytest_madengine import cli
from pytest_madengine.reporting.perfcsv import PerfCsv, PerfEntry
from pytest_madengine.reporting.spool import Spool
from pytest_madengine.results.documents import of_result
from pytest_madengine.results.perf import PERF_COLUMNS
from tests.engines.mongo import PASSWORD, Database, MongoServer, free_port, silent
from tests.results.test_documents import result


class Done(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of this machine counts, and relative paths are below the test's folder."""
    for name in [name for name in os.environ if name.startswith("MONGO_") and name != "MONGO_TEST_URI"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> Done:
        status = cli.main(["database", *arguments])
        return Done(status, *capsys.readouterr())

    return call


@pytest.fixture
def upload(run: Run, mongo: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command with a server that is there."""
    monkeypatch.setenv("MONGO_URI", mongo.uri)
    return run


@pytest.fixture
def nowhere(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command with nobody to speak to."""
    monkeypatch.setenv("MONGO_PORT", str(free_port()))
    monkeypatch.setenv("MONGO_HOST", "127.0.0.1")
    monkeypatch.setenv("MONGO_TIMEOUT_MS", "100")
    return run


def perf(path: Path, *changed: dict[str, Any]) -> Path:
    """A perf.csv with a row for each change of a plain one."""
    plain = {**dict.fromkeys(PERF_COLUMNS, ""), "model": "m", "n_gpus": "8", "performance": "1.5", "status": "SUCCESS"}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, PERF_COLUMNS)
        writer.writeheader()
        writer.writerows({**plain, **each} for each in changed)
    return path


@pytest.mark.requires_mongo
def test_every_row_of_a_file_becomes_a_document_once(tmp_path: Path, upload: Run, mongo: Database) -> None:
    path = perf(tmp_path / "perf.csv", {}, {"git_commit": "0123456"}, {}, {"model": "n", "performance": ""})
    done = upload("-f", str(path), "-c", "runs")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{path}: 4 rows to {mongo.name}.runs of MongoDB at ")
    assert done.out.endswith(": 4 new, 0 changed, 0 there already, 0 refused\n")
    sent = mongo.documents("runs")
    assert sorted(each["model"] for each in sent) == ["m", "m", "m", "n"]
    (row,) = (each for each in sent if each["git_commit"])
    assert (row["git_commit"], row["performance"], row["n_gpus"], row["metric"]) == ("0123456", 1.5, 8, None)
    assert {"_meta_uploaded_at", "created_date"} <= row.keys()
    assert upload("--csv-file", str(path), "-c", "runs").out.endswith(
        ": 0 new, 0 changed, 4 there already, 0 refused\n"
    )
    assert mongo.documents("runs") == sent


@pytest.mark.requires_mongo
def test_the_spellings_of_the_replaced_tool_are_known(tmp_path: Path, upload: Run, mongo: Database) -> None:
    path = perf(tmp_path / "perf.csv", {})
    for names in (("--db", "-c"), ("--database", "--collection"), ("--database-name", "--collection-name")):
        assert upload("--csv-file", str(path), names[0], mongo.name, names[1], "runs").status == 0
    assert len(mongo.documents("runs")) == 1


@pytest.mark.requires_mongo
def test_a_file_that_grows_keeps_the_history_of_its_models(tmp_path: Path, upload: Run, mongo: Database) -> None:
    path = perf(tmp_path / "perf.csv", {"performance": "1.5"})
    upload("-f", str(path))
    perf(path, {"performance": "1.5"}, {"performance": "1.4"})
    assert ": 1 new, 0 changed, 1 there already" in upload("-f", str(path)).out
    assert sorted(each["performance"] for each in mongo.documents()) == [1.4, 1.5]


@pytest.mark.requires_mongo
def test_lists_in_json_are_no_obstacle(tmp_path: Path, upload: Run, mongo: Database) -> None:
    path = tmp_path / "perf_entry_super.json"
    path.write_text('[{"model": "m", "configs": [{"a": 1}], "x": NaN, "p99.ms": 3, "big": 99999999999999999999}]')
    assert upload("-f", str(path)).status == 0
    (sent,) = mongo.documents()
    shown = {name: sent[name] for name in ("configs", "x", "p99_ms", "big")}
    assert shown == {"configs": [{"a": 1}], "x": None, "p99_ms": 3, "big": "99999999999999999999"}


@pytest.mark.requires_mongo
def test_what_runs_write_can_be_sent(tmp_path: Path, upload: Run) -> None:
    PerfCsv(tmp_path / "perf.csv").write(result())
    PerfEntry(tmp_path).write(result())
    for path in tmp_path.glob("perf*"):
        assert upload("-f", str(path)).status == 0


@pytest.mark.requires_mongo
def test_a_unique_key_finds_documents_by_fields(tmp_path: Path, upload: Run, mongo: Database) -> None:
    path = perf(tmp_path / "perf.csv", {"performance": "1"}, {"performance": "2"}, {"model": "n"})
    done = upload("-f", str(path), "-k", "model,metric")
    assert (done.status, "nothing stands in 'metric'" in done.err, mongo.documents()) == (1, True, [])
    done = upload("-f", str(path), "-k", "model, n_gpus")
    assert (done.status, "3 rows make 2 documents: the others are equal in model, n_gpus" in done.out) == (0, True)
    assert sorted((each["model"], each["performance"]) for each in mongo.documents()) == [("m", 2), ("n", 1.5)]
    names = [list(each["key"]) for each in mongo.collection().list_indexes()]
    assert names == [["_id"], ["model", "n_gpus"]]


@pytest.mark.requires_mongo
def test_without_an_index_or_upserts_if_wanted(tmp_path: Path, upload: Run, mongo: Database) -> None:
    path = perf(tmp_path / "perf.csv", {"performance": "1"})
    upload("-f", str(path), "-k", "model", "--no-index")
    perf(path, {"performance": "2"}, {"model": "n"})
    assert (
        ": 1 new, 0 changed, 1 there already" in upload("-f", str(path), "-k", "model", "--no-index", "--no-upsert").out
    )
    assert sorted((each["model"], each["performance"]) for each in mongo.documents()) == [("m", 1), ("n", 1.5)]
    assert [list(each["key"]) for each in mongo.collection().list_indexes()] == [["_id"]]


@pytest.mark.requires_mongo
def test_a_part_that_is_refused_is_a_failure_that_says_which(tmp_path: Path, upload: Run, mongo: Database) -> None:
    mongo.collection().create_index("build_number", unique=True)
    path = perf(tmp_path / "perf.csv", *({"build_number": str(number)} for number in (1, 2, 2, 3)))
    done = upload("-f", str(path), "-v", "--batch-size", "2")
    assert done.status == 1
    assert done.out.splitlines()[0] == "batch 1: 2 new, 0 changed, 0 there already, 0 refused"
    assert "3 new, 0 changed, 0 there already, 1 refused" in done.out
    assert done.err.startswith(f"pytest-madengine: {path}:4 was refused: ")
    assert "duplicate key" in done.err
    assert sorted(each["build_number"] for each in mongo.documents()) == [1, 2, 3]


@pytest.mark.requires_mongo
def test_many_refusals_are_counted(tmp_path: Path, upload: Run, mongo: Database) -> None:
    mongo.collection().create_index("n_gpus", unique=True)
    done = upload("-f", str(perf(tmp_path / "perf.csv", *({"build_number": str(each)} for each in range(101)))))
    assert (done.status, len(done.err.splitlines())) == (1, 21)
    assert done.err.endswith("pytest-madengine: 80 more\n")


@pytest.mark.requires_mongo
def test_what_waits_is_sent(tmp_path: Path, upload: Run, mongo: Database) -> None:
    spool, place = Spool(tmp_path), (mongo.name, "results")
    for name in "ab":
        spool.put(name, place, of_result(result(name), ""))
    (tmp_path / "elsewhere").mkdir()
    assert "dry run: 2 of " in upload("--spooled", "--dry-run").out
    assert upload("--spooled=elsewhere").out.startswith("elsewhere/.madengine/spool: 0 sent")
    done = upload("--spooled")
    assert (done.status, done.out.split(" sent to")[0]) == (0, ".madengine/spool: 2")
    assert (spool.count(), [each["run"] for each in mongo.documents()]) == (0, ["a", "b"])


@pytest.mark.requires_mongo
def test_what_was_refused_before_is_tried_again_and_told(tmp_path: Path, upload: Run, mongo: Database) -> None:
    spool = Spool(tmp_path)
    spool.put("a", (mongo.name, "results"), of_result(result(), ""))
    spool.put("b", (mongo.name, "results"), of_result(result("run2"), ""))
    (spool.folder / "damaged.json").write_text("{")
    mongo.collection().create_index("model", unique=True)
    done = upload("--spooled")
    assert done.status == 1
    assert "models.json::m, row m was refused: " in done.err
    assert "pytest-madengine: 1 in .madengine/spool cannot be read" in done.err
    mongo.collection().drop_indexes()
    assert " 1 sent to" in upload("--spooled").out
    assert len(mongo.documents()) == 2


def test_a_dry_run_contacts_nobody(tmp_path: Path, nowhere: Run) -> None:
    path = perf(tmp_path / "perf.csv", {}, {"model": "n"})
    done = nowhere("-f", str(path), "--db", "d", "-c", "c", "--dry-run", "-v", "-k", "model")
    assert (done.status, done.err) == (0, "")
    *each, last = done.out.splitlines()
    assert each == [f"{path}:2: model=m", f"{path}:3: model=n"]
    assert last.startswith(f"dry run: 2 rows of {path} would go to d.c of MongoDB at 127.0.0.1:")


def test_where_nobody_answers_it_fails_and_says_what_is_there(tmp_path: Path, nowhere: Run) -> None:
    path = perf(tmp_path / "perf.csv", {}, {})
    done = nowhere("-f", str(path))
    assert (done.status, done.out) == (1, "")
    first, second = done.err.splitlines()
    assert first.startswith("pytest-madengine: MongoDB at 127.0.0.1:")
    assert second == f"0 of 2 rows of {path} are in madengine.results; to send the file again adds the others"
    Spool(tmp_path).put("a", ("d", "c"), of_result(result(), ""))
    done = nowhere("--spooled")
    assert (done.status, "1 result waits in .madengine/spool" in done.err) == (1, True)


def test_somebody_who_never_answers_is_not_waited_for_longer(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent() as port:
        monkeypatch.setenv(
            "MONGO_URI", f"mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=100&connectTimeoutMS=100"
        )
        assert "no answer" in run("-f", str(perf(tmp_path / "perf.csv", {}))).err


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"MONGO_PORT": "x", "MONGO_TLS": "?"}, ["MONGO_PORT: found 'x'", "MONGO_TLS: found '?'"]),
        ({"MONGO_URI": "mongodb://ann:hunter22/@h"}, ["MongoDB's URI cannot be read"]),
    ],
)
def test_what_is_wrong_in_the_environment_is_said_at_once(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], words: list[str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = run("-f", str(perf(tmp_path / "perf.csv", {})))
    assert done.status == 1
    assert all(each in done.err for each in words)
    assert "hunter22" not in done.err


def test_what_is_wrong_in_a_file_is_said_before_anything_is_sent(tmp_path: Path, nowhere: Run) -> None:
    path = tmp_path / "a.csv"
    path.write_text("model,x\nm\nn,1,2\n")
    done = nowhere("-f", str(path))
    assert (done.status, len(done.err.splitlines()), "no answer" in done.err) == (1, 2, False)
    assert "no such file" in nowhere("-f", "none.csv").err.lower()
    assert nowhere("-f", str(perf(path, {})), "-k", ",").err.startswith("pytest-madengine: --unique-key: found ','")


@pytest.mark.parametrize("wrong", [[], ["-f", "a", "--spooled"], ["-f", "a", "--batch-size=0"]])
def test_wrong_usage_is_told_with_the_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["database", *wrong])
    assert caught.value.code == 2
    assert "usage: pytest-madengine database" in capsys.readouterr().err


@pytest.mark.requires_mongo
def test_a_server_that_is_killed_in_the_middle_loses_nothing_and_nothing_is_there_twice(
    mongo_program: str, tmp_path: Path
) -> None:
    path = perf(tmp_path / "perf.csv", *({"build_number": str(number)} for number in range(3000)))
    (tmp_path / "server").mkdir()
    with MongoServer(mongo_program, tmp_path / "server", login=True) as server:
        argv = [sys.executable, "-m", "pytest_madengine.cli", "database", "-f", str(path), "--batch-size", "10", "-v"]
        environ = {**os.environ, **server.environ, "MONGO_TIMEOUT_MS": "500"}
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, text=True) as process:
            assert process.stdout
            assert process.stdout.readline().startswith("batch 1: 10 new")
            server.kill()
            out, err = process.communicate()
        assert process.returncode == 1
        assert "to send the file again adds the others" in err
        assert PASSWORD not in out + err
        server.start()
        done = subprocess.run(
            [*argv[:-3], "--batch-size", "1000"],
            capture_output=True,
            check=False,
            text=True,
            env={**environ, "MONGO_TIMEOUT_MS": "10000"},
        )
        assert done.returncode == 0, done.stderr
        with server.client() as client:
            there = [each["build_number"] for each in client.madengine.results.find()]
    assert sorted(there) == list(range(3000))
    assert _told(err) <= 3000


def _told(text: str) -> int:
    return int(text.splitlines()[-1].split(" of ")[0].rpartition(" ")[2])
