"""Two images in turn, on real engines."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_madengine.backends.slurmpack import WORKER
from pytest_madengine.engine.rundir import RECORD
from pytest_madengine.results.comparison import Judgement
from pytest_madengine.results.result import Result
from tests.cards import card, project, rows, run_bare

ALL = "--madengine-tags=all"
SCRIPT = """
echo "$SIDE" >>"$MADENGINE_PROJECT/turns"
n=$(wc -l <"$MADENGINE_PROJECT/turns")
[ "$SIDE" != "${FAILS:-}" ] || exit 3
[ "$SIDE" = a ] && echo "performance: 100.0$((n % 7)) samples/s" || echo "performance: $B.0$((n % 5)) samples/s"
"""


@pytest.fixture
def pair(docker_engine: str) -> Iterator[tuple[str, str]]:
    """Two images that differ in the variable SIDE."""
    name = f"ab-{secrets.token_hex(5)}"
    sides = (f"{name}:a", f"{name}:b")
    for side in sides:
        text = f"FROM {docker_engine}\nENV SIDE={side[-1]}\n"
        subprocess.run(["docker", "build", "-q", "-t", side, "-"], input=text.encode(), check=True, capture_output=True)
    yield sides
    subprocess.run(["docker", "rmi", "--force", *sides], check=True, capture_output=True)


def compared(folder: Path, b: int, **env: str) -> None:
    project(folder, card("llama", env_vars={"B": str(b), **env}), script=SCRIPT)


def turns(folder: Path) -> list[str]:
    return (folder / "turns").read_text().split()


def record(folder: Path) -> list[Result]:
    path = folder / ".madengine/runs/latest" / RECORD
    return [Result.from_json(line) for line in path.read_text().splitlines()]


@pytest.mark.requires_docker
class TestOnDocker:
    def test_they_take_turns_and_a_regression_fails_the_model(
        self, pytester: pytest.Pytester, pair: tuple[str, str]
    ) -> None:
        compared(pytester.path, 94)
        result = run_bare(pytester, ALL, f"--madengine-ab={','.join(pair)}", "--madengine-warmup=1")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [f"llama: performance 94.* samples/s is * % below 100.* (in {pair[0]}, changes beyond 2 % count)"]
        )
        assert turns(pytester.path) == ["a", "b"] * 6
        first, second = rows(pytester.path / "perf.csv")
        assert [first["docker_image"], second["docker_image"]] == list(pair)
        assert [first["relative_change"], second["relative_change"][:5]] == ["", "-0.06"]
        (kept,) = record(pytester.path)
        assert [len(metric.samples) for metric in kept.metrics] == [5, 5]
        result.stdout.fnmatch_lines([f"llama in {pair[0]} *SUCCESS *100.0*", f"llama in {pair[1]} *-6.0 % regression*"])
        (comparison,) = kept.comparisons
        assert comparison.judgement is Judgement.REGRESSION

    def test_equal_ones_pass(self, pytester: pytest.Pytester, pair: tuple[str, str]) -> None:
        compared(pytester.path, 100)
        result = run_bare(pytester, ALL, f"--madengine-ab={','.join(pair)}", "--madengine-max-in-flight=4")
        result.assert_outcomes(passed=1)
        assert turns(pytester.path) == ["a", "b"] * 5

    def test_one_that_fails_is_named(self, pytester: pytest.Pytester, pair: tuple[str, str]) -> None:
        compared(pytester.path, 100, FAILS="b")
        result = run_bare(pytester, ALL, f"--madengine-ab={','.join(pair)}")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines([f"llama: repeat 1 of 5 in {pair[1]}: exit code 3"])
        assert [(row["status"], row["docker_image"]) for row in rows(pytester.path / "perf.csv")] == [
            ("SUCCESS", pair[0]),
            ("FAILURE", pair[1]),
        ]

    def test_an_image_that_is_not_there(self, pytester: pytest.Pytester, pair: tuple[str, str]) -> None:
        compared(pytester.path, 100)
        result = run_bare(pytester, ALL, f"--madengine-ab={pair[0]},127.0.0.1:1/nothing:1")
        result.assert_outcomes(errors=1)
        assert len(rows(pytester.path / "perf.csv")) == 1


@pytest.mark.requires_slurm
@pytest.mark.requires_docker
def test_on_slurm_they_take_turns_in_one_allocation(pytester: pytest.Pytester, pair: tuple[str, str]) -> None:
    compared(pytester.path, 94)
    section = {"slurm": {"container_runtime": "docker", "exclusive": False, "time": "00:05:00", "gpus_per_node": 1}}
    context = f"--madengine-context={json.dumps(section)}"
    result = run_bare(pytester, ALL, "--target=slurm", context, f"--madengine-ab={','.join(pair)}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["llama: performance 94.* samples/s is * % below 100.*"])
    assert turns(pytester.path) == ["a", "b"] * 5
    allocations = [path.read_text() for path in pytester.path.glob(f".madengine/runs/latest/jobs/*/{WORKER}")]
    assert len(allocations) == 10
    assert len(set(allocations)) == 1
    first, second = rows(pytester.path / "perf.csv")
    assert (first["relative_change"], second["relative_change"][:5]) == ("", "-0.06")
