from __future__ import annotations

import functools
import http.server
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine import baselines
from pytest_madengine.baselines import Chosen
from pytest_madengine.errors import FaultsError, UserError
from pytest_madengine.results.history import History, Key
from pytest_madengine.results.perf import PERF_COLUMNS
from tests.cards import rows

KNOWN = dict.fromkeys(PERF_COLUMNS, "")
KEY = Key.of({"model": "llama"})


def csv_of(path: Path, *values: object, header: str = ",".join(PERF_COLUMNS)) -> Path:
    lines = [
        ",".join({**KNOWN, "model": "llama", "performance": str(value), "metric": "x", "status": "SUCCESS"}.values())
        for value in values
    ]
    path.write_text("\n".join([header, *lines, ""]))
    return path


def read(name: str, folder: Path, which: str = "last:20") -> History:
    return baselines.history(name, baselines.chosen(which), folder, "this", folder / "own.csv")


def values(history: History) -> tuple[float, ...]:
    return history.past(KEY, "performance").values


class TestChosen:
    @pytest.mark.parametrize(
        ("text", "kept", "single", "words"),
        [
            ("last:20", 20, False, "the last 20 runs in here"),
            ("last:10", 10, False, "the last 10 runs in here"),
            ("last:9", 9, True, "the last 9 runs in here"),
            ("last:1", 1, True, "the last run in here"),
            ("run:2026", 1, True, "run 2026 in here"),
            ("tag:good", 1, True, "the run tagged good in here"),
        ],
    )
    def test_what_it_means(self, text: str, kept: int, single: bool, words: str) -> None:  # noqa: FBT001  # cases
        which = baselines.chosen(text)
        assert (which.kept, which.single, which.words("here")) == (kept, single, words)

    @given(st.text())
    def test_any_other_text_is_a_fault_or_is_taken_whole(self, text: str) -> None:
        which: Chosen | None = None
        with suppress(FaultsError):
            which = baselines.chosen(text)
        assert which is None or ":".join(which) == text

    @pytest.mark.parametrize("text", ["last:", "last:-1", "last:x", "run:", "tag", ""])
    def test_what_it_does_not_mean(self, text: str) -> None:
        with pytest.raises(FaultsError, match="valid: last:N"):
            baselines.chosen(text)


class TestPerfCsv:
    def test_the_last_values_are_kept(self, tmp_path: Path) -> None:
        csv_of(tmp_path / "p.csv", *range(1, 31))
        assert values(read("p.csv", tmp_path)) == tuple(range(11, 31))

    def test_of_the_replaced_tool_with_further_columns_and_odd_rows(self, tmp_path: Path) -> None:
        header = ",".join([*PERF_COLUMNS, "extra"])
        path = csv_of(tmp_path / "p.csv", 1, "", "nan", 2, header=header)
        path.write_text(f"{path.read_text()}llama\n")
        assert values(read("p.csv", tmp_path)) == (1, 2)

    def test_it_is_left_as_it_is(self, tmp_path: Path) -> None:
        path = csv_of(tmp_path / "p.csv", 1)
        before = path.read_bytes()
        read("p.csv", tmp_path)
        assert path.read_bytes() == before
        assert len(rows(path)) == 1

    def test_an_empty_one_has_none(self, tmp_path: Path) -> None:
        (tmp_path / "p.csv").touch()
        assert values(read("p.csv", tmp_path)) == ()

    def test_the_sessions_own_need_not_be_there(self, tmp_path: Path) -> None:
        assert values(read("own.csv", tmp_path)) == ()
        with pytest.raises(UserError, match=r"other\.csv does not exist"):
            read("other.csv", tmp_path)

    def test_another_csv_is_refused(self, tmp_path: Path) -> None:
        csv_of(tmp_path / "p.csv", header="a,b")
        with pytest.raises(UserError, match="its header lacks model, performance, status"):
            read("p.csv", tmp_path)

    def test_what_is_no_text_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UserError, match=r"p\.csv"):
            read("p.csv", tmp_path)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves the test's folder."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


class TestServers:
    def test_a_file_of_one(self, tmp_path: Path, server: str) -> None:
        csv_of(tmp_path / "p.csv", 1, 2)
        assert values(read(f"{server}/p.csv", tmp_path)) == (1, 2)

    def test_a_file_that_it_lacks(self, tmp_path: Path, server: str) -> None:
        with pytest.raises(UserError, match=r"p\.csv cannot be read: HTTP Error 404"):
            read(f"{server}/p.csv", tmp_path)

    def test_one_that_does_not_answer(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="cannot be read"):
            read("http://127.0.0.1:9/p.csv", tmp_path)


def test_without_scipy_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    csv_of(tmp_path / "p.csv", 1)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UserError, match=r"pip install pytest-madengine\[stats\]"):
        read("p.csv", tmp_path)
    assert values(read("p.csv", tmp_path, "last:1")) == (1,)


def test_names_that_are_nearly_a_models() -> None:
    said = baselines.strange_names(Path("r.json"), ["llama", "lama", "zebra"], ["llama", "gpt"])
    assert said == ["r.json: references of 'lama', which is no model; did you mean 'llama'?"]
