"""Many models in few allocations, on a real cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cards import PASSES, card, project, rows, run_bare, statuses
from tests.engines.cluster import Cluster

SECTION = {"container_runtime": "none", "exclusive": False, "time": "00:05:00", "gpus_per_node": 1}
TELLS = 'echo "allocation $SLURM_JOB_ID"\n'

pytestmark = pytest.mark.requires_slurm


def on(*arguments: str, **section: Any) -> list[str]:
    given = json.dumps({"slurm": {**SECTION, **section}})
    return ["--madengine-tags=all", "--target=slurm", f"--madengine-context={given}", *arguments]


def allocations(folder: Path) -> list[str]:
    """The allocation of each model, one for each."""
    found = folder.glob(".madengine/runs/latest/jobs/*/run.log")
    return [line for path in found for line in path.read_text().splitlines() if line.startswith("allocation ")]


def nothing_left(cluster: Cluster, folder: Path) -> bool:
    run = (folder / ".madengine/runs/latest").resolve().name
    return run not in cluster.text("squeue", "--noheader", "--format=%k")


def test_models_of_one_shape_share_an_allocation(pytester: pytest.Pytester, slurm_cluster: Cluster) -> None:
    project(pytester.path, *map(card, "abcdef"), script=TELLS + PASSES)
    run_bare(pytester, *on("--madengine-pack")).assert_outcomes(passed=6)
    assert len(allocations(pytester.path)) == 6
    assert len(set(allocations(pytester.path))) == 1
    assert statuses(pytester.path / "perf.csv") == dict.fromkeys("abcdef", "SUCCESS")
    assert nothing_left(slurm_cluster, pytester.path)


def test_models_of_other_shapes_and_other_secrets_have_their_own(pytester: pytest.Pytester) -> None:
    cards = [
        card("a"),
        card("b"),
        card("wide", slurm={"nodes": 2}),
        card("secretive", env_vars={"MY_TOKEN": "hunter2"}),
    ]
    shows = '[ "$MAD_MODEL_NAME" != secretive ] || [ "$MY_TOKEN" = hunter2 ] || exit 4\n'
    project(pytester.path, *cards, script=TELLS + shows + PASSES)
    run_bare(pytester, *on("--madengine-pack")).assert_outcomes(passed=4)
    assert len(set(allocations(pytester.path))) == 2
    files = [path for path in pytester.path.glob(".madengine/**/*") if path.is_file()]
    assert not any(b"hunter2" in path.read_bytes() for path in files)


def test_several_allocations_take_models_from_one_queue(pytester: pytest.Pytester) -> None:
    meets = 'touch "$MADENGINE_PROJECT/$MAD_MODEL_NAME.here"\n' + (
        'until [ -e "$MADENGINE_PROJECT/a.here" ] && [ -e "$MADENGINE_PROJECT/b.here" ]; do sleep 0.05; done\n'
    )
    project(pytester.path, *map(card, "abcd"), script=TELLS + meets + PASSES)
    run_bare(pytester, *on("--madengine-pack=2")).assert_outcomes(passed=4)
    assert len(set(allocations(pytester.path))) == 2


def test_a_failing_model_and_a_late_one_do_not_harm_the_next(pytester: pytest.Pytester, slurm_cluster: Cluster) -> None:
    scripts = {"bad": "exit 3\n", "slow": f"{TELLS}sleep 60\n", "good": TELLS + PASSES}
    project(pytester.path, card("bad"), card("slow", timeout=3), card("good"), **scripts)
    result = run_bare(pytester, *on("--madengine-pack", "--madengine-ordered"))
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*bad: exit code 3*", "*slow: time limit of 3 s exceeded*"])
    assert statuses(pytester.path / "perf.csv") == {"bad": "FAILURE", "slow": "FAILURE", "good": "SUCCESS"}
    assert len(set(allocations(pytester.path))) == 1
    assert nothing_left(slurm_cluster, pytester.path)


def test_an_allocation_that_is_cancelled_loses_what_ran_and_another_goes_on(pytester: pytest.Pytester) -> None:
    once = (
        '[ -e "$MADENGINE_PROJECT/once" ] || { touch "$MADENGINE_PROJECT/once"; scancel "$SLURM_JOB_ID"; sleep 60; }\n'
    )
    project(pytester.path, *map(card, "abc"), script=once + PASSES)
    run_bare(pytester, *on("--madengine-pack")).assert_outcomes(passed=2, errors=1)
    assert sorted(row["status"] for row in rows(pytester.path / "perf.csv")) == ["FAILURE", "SUCCESS", "SUCCESS"]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"partition": "nowhere"}, "*sbatch refused: *invalid partition specified: nowhere*"),
        ({"nodes": 9}, "*PartitionNodeLimit*"),
    ],
)
def test_a_request_that_cannot_be_fails_all_who_make_it(
    pytester: pytest.Pytester, slurm_cluster: Cluster, section: dict[str, Any], words: str
) -> None:
    project(pytester.path, card("a"), card("b"))
    result = run_bare(pytester, *on("--madengine-pack", **section))
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines([words])
    assert statuses(pytester.path / "perf.csv") == {"a": "FAILURE", "b": "FAILURE"}
    assert nothing_left(slurm_cluster, pytester.path)


def test_a_strange_number_is_a_usage_error(pytester: pytest.Pytester) -> None:
    project(pytester.path, card("a"))
    for strange in ("0", "-1", "many"):
        result = run_bare(pytester, *on(f"--madengine-pack={strange}"))
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: --madengine-pack: found *{strange}*; valid: *1 or more"])
    assert not (pytester.path / "perf.csv").exists()
