"""What README.md shows is true."""

from __future__ import annotations

import csv
import os
import re
import shutil
from pathlib import Path

import pytest

from pytest_madengine.options import OPTIONS, Option

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
QUICKSTART = ROOT / "examples" / "quickstart"
BEGIN, END = "<!-- options -->\n", "<!-- /options -->"


@pytest.fixture
def readme() -> str:
    return README.read_text(encoding="utf-8")


@pytest.fixture
def quickstart(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the quick start, and the working directory."""
    monkeypatch.delenv("MODEL_DIR", raising=False)
    left_by_runs = shutil.ignore_patterns(".madengine", ".pytest_cache", "__pycache__", "perf*")
    shutil.copytree(QUICKSTART, pytester.path, dirs_exist_ok=True, ignore=left_by_runs)
    return pytester.path


def test_the_options_table_is_the_table_of_options(readme: str) -> None:
    before, _, rest = readme.partition(BEGIN)
    shown, _, after = rest.partition(END)
    if shown != options_table() and os.environ.get("MADENGINE_RENEW_GOLDEN"):
        README.write_text(f"{before}{BEGIN}{options_table()}{END}{after}", encoding="utf-8")
        return
    how = "run this test with MADENGINE_RENEW_GOLDEN=1 in the environment to renew the table in README.md"
    assert shown == options_table(), how


def options_table() -> str:
    rows = [f"| `{written(option)}` | {option.help.replace('|', chr(92) + '|')} |\n" for option in OPTIONS]
    return "".join(["| option | meaning |\n", "|---|---|\n", *rows])


def written(option: Option) -> str:
    return f"{option.flag}={option.metavar}" if option.metavar else option.flag


def test_every_flag_of_ours_exists(readme: str) -> None:
    named = set(re.findall(r"--madengine[\w-]*|--target(?![\w-])", readme))
    assert named <= {option.flag for option in OPTIONS}


def test_command_one_and_two_stand_first(readme: str) -> None:
    one, two, *_ = blocks(readme, "sh")
    assert "pip install" in one
    assert "--target=host" in one
    assert two.strip() == "tests/run.sh"


def test_the_quick_start_measures_on_the_host(pytester: pytest.Pytester, quickstart: Path) -> None:
    result = pytester.runpytest_subprocess("--madengine-tags=all", "--target=host")
    assert result.ret == pytest.ExitCode.OK
    rows = perf_rows(quickstart)
    assert {row["status"] for row in rows} == {"SUCCESS"}
    assert len(rows) == 9
    assert all(float(row["performance"]) > 0 and row["metric"] for row in rows)


def test_the_quick_start_shows_a_test_of_a_model(pytester: pytest.Pytester, quickstart: Path) -> None:
    pytester.runpytest_subprocess("test_floor.py", "--target=host").assert_outcomes(passed=1)
    assert [row["model"] for row in perf_rows(quickstart)] == ["compress"]


@pytest.mark.requires_docker
def test_the_quick_start_measures_in_containers(pytester: pytest.Pytester, quickstart: Path) -> None:
    base = '--madengine-context={"docker_build_arg": {"BASE_DOCKER": "madengine-test-base:latest"}}'
    assert pytester.runpytest_subprocess("--madengine-tags=all", "--target=docker", base).ret == pytest.ExitCode.OK
    rows = perf_rows(quickstart)
    assert {row["status"] for row in rows} == {"SUCCESS"}
    assert len(rows) == 9
    assert len({row["docker_image"] for row in rows}) == 1


def test_the_python_examples_do_what_they_say(pytester: pytest.Pytester, quickstart: Path, readme: str) -> None:
    for block in blocks(readme, "python"):
        name = block.partition("\n")[0].removeprefix("# ")
        (quickstart / name).write_text(block, encoding="utf-8")
    models = ("models.json::matmul", "test_rates.py")
    pytester.runpytest_subprocess("--target=host", *models).assert_outcomes(passed=2)
    assert len((quickstart / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    scripts = (quickstart / ".madengine" / "runs" / "latest").glob("jobs/matmul-*/run.sh")
    assert "--repeats 1" in next(scripts).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of exactly this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def perf_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "perf.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
