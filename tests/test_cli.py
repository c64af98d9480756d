from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_madengine import __version__, cli
from tests.store.made import record, result


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for module in cli.COMMANDS:
        assert f"\n    {module.__name__.rpartition('.')[2]}" in said


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"pytest-madengine {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["resultz"], ["results", "--format=xml"], ["trend"], ["trend", "m", "--last=0"]]
)
def test_wrong_usage_ends_with_2_and_says_what_is_valid(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: pytest-madengine" in capsys.readouterr().err


def test_an_error_is_one_line_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["results", f"--from={tmp_path / 'nowhere'}"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"pytest-madengine: {tmp_path / 'nowhere'}: it does not exist; valid: ")
    assert said.err.count("\n") == 1


def test_who_stops_reading_gets_no_traceback(tmp_path: Path) -> None:
    for day in range(40):
        record(tmp_path, day, [result(f"model-{number}") for number in range(40)])
    asked = f"{sys.executable} -m pytest_madengine.cli results --model '*' --format json | head -n 1"
    done = subprocess.run(["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[\n", "")
