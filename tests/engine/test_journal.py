from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine.engine import journal
from pytest_madengine.engine.journal import Journal


def kinds(folder: Path) -> list[str]:
    return [record["kind"] for record in journal.read(folder)]


def test_what_is_written_is_read_back_with_its_time(tmp_path: Path) -> None:
    Journal(tmp_path).write({"kind": "a", "n": 1}, {"kind": "b"})
    first, second = journal.read(tmp_path)
    assert (first["kind"], first["n"], second["kind"]) == ("a", 1, "b")
    assert first["time"] == second["time"] > 1e9


def test_processes_have_files_of_their_own_that_are_read_as_one(tmp_path: Path) -> None:
    controller, worker = Journal(tmp_path), Journal(tmp_path, "gw0")
    for number in range(3):
        controller.write({"kind": f"c{number}"})
        worker.write({"kind": f"w{number}"})
    assert kinds(tmp_path) == ["c0", "w0", "c1", "w1", "c2", "w2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal-gw0.jsonl", "journal.jsonl"]


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    records = Journal(tmp_path)
    threads = [threading.Thread(target=records.write, args=({"kind": "x" * 5000},)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kinds(tmp_path) == ["x" * 5000] * 20


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_a_crash_cut_costs_no_other(tmp_path: Path, cut: int) -> None:
    Journal(tmp_path).write({"kind": "a"}, {"kind": "b"})
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    Journal(tmp_path).write({"kind": "c"})
    assert kinds(tmp_path) == (["a", "b", "c"] if cut == 1 else ["a", "c"])


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary())
def test_junk_in_the_file_is_passed_over(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "journal.jsonl").write_bytes(junk)
    Journal(tmp_path).write({"kind": "good"})
    assert kinds(tmp_path)[-1] == "good"


FULL = """
import resource, signal, sys
from pathlib import Path
from pytest_madengine.engine.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
journal = Journal(Path(sys.argv[1]))
journal.write({"kind": "a"})
journal.write({"kind": "b" * 200})
print(journal.trouble)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.write({"kind": "c"})
"""


def test_a_full_disk_is_told_of_and_what_fits_later_is_written(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True)
    assert "File too large: a resumed run would not know all of this one" in done.stdout
    assert kinds(tmp_path) == ["a", "c"]


def test_what_is_written_outlives_a_killed_process(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom pytest_madengine.engine.journal import Journal\n"
        "Journal(Path(sys.argv[1])).write({'kind': 'a'}, sync=False)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert kinds(tmp_path) == ["a"]


def test_listeners_hear_each_record(tmp_path: Path) -> None:
    heard: list[journal.Record] = []
    records = Journal(tmp_path)
    records.listen(heard.append)
    records.write({"kind": "a"}, {"kind": "b"})
    records.write()
    assert [record["kind"] for record in heard] == ["a", "b"]
    assert heard == [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]


def test_after_closing_it_opens_again(tmp_path: Path) -> None:
    records = Journal(tmp_path)
    records.write({"kind": "a"})
    before = len(list(Path("/proc/self/fd").iterdir()))
    records.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    records.write({"kind": "b"})
    assert kinds(tmp_path) == ["a", "b"]
