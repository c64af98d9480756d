from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.reporting import htmlsamples
from pytest_madengine.reporting.htmlstory import Samples
from pytest_madengine.results.result import Usage
from tests.reporting.told import result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "power.csv"


def test_a_column_of_seconds_and_columns_of_numbers(file: Path) -> None:
    file.write_text("GPU 0,Time,GPU 1\n100,5,90\n110,6.5,\n120,7,n/a\n")
    assert htmlsamples.read(file, 100) == Samples(
        (0.0, 1.5, 2.0), {"GPU 0": (100.0, 110.0, 120.0), "GPU 1": (90.0, None, None)}
    )


def test_moments_become_seconds_since_the_first(file: Path) -> None:
    file.write_text("timestamp,W\n2026-03-14T15:09:01Z,2\n2026-03-14T15:09:00+00:00,1\n2026-03-14T15:09:03,3\n")
    assert htmlsamples.read(file, 100) == Samples((0.0, 1.0, 3.0), {"W": (1.0, 2.0, 3.0)})


def test_without_a_name_for_time_it_is_the_first_column(file: Path) -> None:
    file.write_text("x,W\n0,1\n1,2\n")
    assert htmlsamples.read(file, 100) == Samples((0.0, 1.0), {"W": (1.0, 2.0)})


def test_many_samples_are_thinned_out_and_the_last_one_stays(file: Path) -> None:
    file.write_text("time,W\n" + "".join(f"{at},{at}\n" for at in range(1001)))
    samples = htmlsamples.read(file, 100)
    assert samples
    assert 50 < len(samples.seconds) <= 100
    assert samples.series["W"][-1] == 1000


@pytest.mark.parametrize("text", ["", "time,W\n", "time,W\nnever,1\n", "time,name\n1,abc\n", "a\n1\n", "\x00\xff"])
def test_a_file_without_samples_has_none(file: Path, text: str) -> None:
    file.write_text(text, encoding="latin-1")
    assert htmlsamples.read(file, 100) is None


def test_a_file_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert htmlsamples.read(tmp_path / "no.csv", 100) is None
    assert htmlsamples.read(tmp_path, 100) is None


@given(st.binary())
def test_whatever_stands_in_a_file_nothing_is_raised(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(b"time,W\n1,2\n" + content)
    htmlsamples.read(file, 100)


def test_each_file_that_a_usage_names_is_read(file: Path) -> None:
    file.write_text("time,W\n0,1\n1,2\n")
    usage = {
        "power": Usage("W", 1, 1, 2, str(file)),
        "lost": Usage("W", 1, 1, 2, "/no/such"),
        "none": Usage("W", 1, 1, 2),
    }
    assert set(htmlsamples.of([result("m", usage=usage), result("n")])) == {str(file)}
