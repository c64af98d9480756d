"""Where jobs on a real SLURM cluster run and leave things, as the `slurm` section says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cards import PASSES, card, project, run_bare, statuses

SECTION = {"container_runtime": "none", "exclusive": False, "time": "00:05:00", "gpus_per_node": 0}

pytestmark = pytest.mark.requires_slurm


def on(**section: Any) -> list[str]:
    given = json.dumps({"slurm": {**SECTION, **section}})
    return ["--madengine-tags=all", "--target=slurm", f"--madengine-context={given}"]


@pytest.mark.parametrize("absolute", [False, True])
def test_output_dir_leads_to_the_logs_of_each_run(pytester: pytest.Pytester, tmp_path: Path, *, absolute: bool) -> None:
    place = tmp_path / "logs here" if absolute else Path("logs/of slurm")
    project(pytester.path, card("team/one"), script=PASSES)
    for _ in range(2):
        run_bare(pytester, *on(output_dir=str(place))).assert_outcomes(passed=1)
    logs = sorted((pytester.path / place).glob("*/run.log"))
    assert len(logs) == 2
    assert all("performance: 12.50" in log.read_text() for log in logs)


def test_an_output_dir_that_cannot_be_is_an_error_of_the_job(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"))
    (pytester.path / "file").touch()
    result = run_bare(pytester, *on(output_dir="file/logs"))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["m: not submitted: slurm.output_dir: *file/logs: Not a directory*"])
    assert statuses(pytester.path / "perf.csv") == {"m": "FAILURE"}


def test_models_run_in_the_shared_workspace_and_leave_nothing_there(pytester: pytest.Pytester, tmp_path: Path) -> None:
    shared = tmp_path / "it's shared"
    shared.mkdir()
    script = f'echo 1 > result.csv; case $PWD in "{shared}"/*) ;; *) exit 3 ;; esac\n'
    project(pytester.path, card("m", slurm={"nodes": 2}), script=script + PASSES)
    run_bare(pytester, *on(shared_workspace=str(shared))).assert_outcomes(passed=1)
    assert list(shared.iterdir()) == []
    assert len(list(pytester.path.glob(".madengine/runs/latest/jobs/m-*/ranks/*/artifacts/result.csv"))) == 2


def test_modules_prologue_and_epilogue_run_on_the_first_node_around_the_model(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"), script='echo "prologue said $SAID"\n' + PASSES)
    lines = ['export SAID="it\'s me"', "echo before"]
    run_bare(pytester, *on(prologue=lines, epilogue='echo "after: $status"')).assert_outcomes(passed=1)
    (folder,) = pytester.path.glob(".madengine/runs/latest/jobs/m-*")
    assert "prologue said it's me" in (folder / "run.log").read_text()
    assert (folder / "slurm.log").read_text().splitlines() == ["before", "after: 0"]


def test_a_module_that_is_not_there_is_an_error_with_its_name(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("m"))
    result = run_bare(pytester, *on(modules=["rocm/6.2"]))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["m: the job was lost: module load rocm/6.2 failed*"])
