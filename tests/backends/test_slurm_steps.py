"""Jobs as steps of an allocation that pytest runs in, on a real cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.backends.support import LONG, until
from tests.cards import BARE, PASSES, UNLOADED, card, project, rows, statuses
from tests.engines.cluster import Cluster

SECTION = {"container_runtime": "none", "gpus_per_node": 1}
TELLS = 'echo "$(uname -n) of $NODE_LIST, allocation $SLURM_JOB_ID"\n'
MEETS = """touch "$MADENGINE_PROJECT/$MAD_MODEL_NAME.here"
until [ -e "$MADENGINE_PROJECT/a.here" ] && [ -e "$MADENGINE_PROJECT/b.here" ]; do sleep 0.05; done
"""

pytestmark = pytest.mark.requires_slurm


@pytest.fixture
def allocation(pytester: pytest.Pytester, slurm_cluster: Cluster) -> Any:
    """Runs pytest inside `salloc`."""

    def run(nodes: int, *arguments: str, code: int = 0, **section: Any) -> pytest.RunResult:
        given = json.dumps({"slurm": {**SECTION, **section}})
        inner = [sys.executable, "-m", "pytest", *BARE, "--madengine-tags=all", "--target=slurm"]
        salloc = ["salloc", "--quiet", f"--nodes={nodes}", "--gpus-per-node=1", "--time=5"]
        with pytest.MonkeyPatch.context() as environment:
            for name, value in {**UNLOADED, "PLANTED": "in the shell"}.items():
                environment.setenv(name, value)
            result = pytester.run(*salloc, *inner, f"--madengine-context={given}", *arguments, timeout=LONG)
        assert result.ret == code
        return result

    return run


def logs(folder: Path, model: str) -> list[str]:
    """What a model printed on each of its nodes."""
    found = folder.glob(f".madengine/runs/latest/jobs/{model}-*/**/run.log")
    return [text for path in sorted(found) if (text := path.read_text())]


class TestModels:
    def test_run_side_by_side_on_nodes_of_their_own(self, pytester: pytest.Pytester, allocation: Any) -> None:
        project(pytester.path, card("a"), card("b"), script=TELLS + MEETS + "env | grep -c PLANTED\n" + PASSES)
        allocation(2).assert_outcomes(passed=2)
        assert statuses(pytester.path / "perf.csv") == {"a": "SUCCESS", "b": "SUCCESS"}
        (one,), (other,) = logs(pytester.path, "a"), logs(pytester.path, "b")
        assert one.splitlines()[1].split()[2] != other.splitlines()[1].split()[2]
        assert "\n0\nperformance" in one
        assert {row["deployment_type"] for row in rows(pytester.path / "perf.csv")} == {"slurm"}

    def test_run_one_after_another_where_nodes_are_few(self, pytester: pytest.Pytester, allocation: Any) -> None:
        script = '[ ! -e "$MADENGINE_PROJECT/busy" ] && touch "$MADENGINE_PROJECT/busy" && sleep 0.5 || exit 9\n'
        both = [card(name, slurm={"nodes": 2}) for name in "ab"]
        exclusive = 'if [ "$NODE_RANK" = 0 ]; then ' + script.replace("\n", "; ") + "fi\n"
        ends = '[ "$NODE_RANK" != 0 ] || rm "$MADENGINE_PROJECT/busy"\n'
        project(pytester.path, *both, script=TELLS + exclusive + ends + PASSES)
        allocation(2).assert_outcomes(passed=2)
        assert len(logs(pytester.path, "a")) == 2

    def test_that_need_more_nodes_than_there_are_fail_at_once(self, pytester: pytest.Pytester, allocation: Any) -> None:
        project(pytester.path, card("wide", slurm={"nodes": 3}), card("fine"))
        result = allocation(2, code=1)
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["wide: not submitted: wide needs 3 nodes, the allocation * has 2*"])

    def test_are_submitted_where_the_context_says_so(self, pytester: pytest.Pytester, allocation: Any) -> None:
        project(pytester.path, card("m"), script=TELLS + PASSES)
        allocation(1, in_allocation="submit").assert_outcomes(passed=1)
        assert list(pytester.path.glob(".madengine/runs/latest/jobs/m-*/submitted"))

    def test_that_start_their_own_steps_use_their_own_nodes(self, pytester: pytest.Pytester, allocation: Any) -> None:
        launcher = {"launcher": "slurm_multi"}
        model = card(
            "m", distributed=launcher, slurm={"nodes": 2}, env_vars={"DOCKER_IMAGE_NAME": "registry.example/x:1"}
        )
        project(pytester.path, model, script='echo "on $(srun uname -n | sort | paste -sd,)"\n' + PASSES)
        allocation(3).assert_outcomes(passed=1)
        (text,) = logs(pytester.path, "m")
        assert "on node1,node2\n" in text


class TestEnds:
    def test_by_the_time_limit_leave_the_allocation_alone(self, pytester: pytest.Pytester, allocation: Any) -> None:
        ends = "trap 'echo told; exit 3' TERM; sleep 60 & wait\n"
        project(pytester.path, card("slow"), card("quick"), slow=f"echo begun\n{ends}", quick=PASSES)
        result = allocation(1, "--madengine-timeout=2", "--madengine-ordered", code=1)
        result.assert_outcomes(passed=1, failed=1)
        assert statuses(pytester.path / "perf.csv") == {"slow": "FAILURE", "quick": "SUCCESS"}
        (text,) = logs(pytester.path, "slow")
        assert "told" in text

    def test_by_an_interruption_leave_nothing_running(self, pytester: pytest.Pytester) -> None:
        nap = "7203.25"
        project(pytester.path, card("m"), script=f'touch "$MADENGINE_PROJECT/begun"; sleep {nap}\n')
        inner = f"{sys.executable} -m pytest {' '.join(BARE)} --madengine-tags=all --target=slurm"
        context = json.dumps({"slurm": SECTION})
        script = f"{inner} --madengine-context='{context}' & p=$!\n" + (
            "until [ -e begun ]; do sleep 0.05; done; kill -TERM $p; wait $p; echo ended $?\n"
            "squeue --noheader --steps --jobs=$SLURM_JOB_ID --format='steps: %i %j' | grep madengine\n"
            "squeue --noheader --jobs=$SLURM_JOB_ID --format='allocation: %T'\n"
        )
        salloc = ["salloc", "--quiet", "--nodes=1", "--gpus-per-node=1", "--time=5", "bash", "-c", script]
        with pytest.MonkeyPatch.context() as environment:
            for name, value in UNLOADED.items():
                environment.setenv(name, value)
            result = pytester.run(*salloc, timeout=LONG)
        result.stdout.fnmatch_lines(["ended 2", "allocation: RUNNING"])
        result.stdout.no_fnmatch_line("steps: *")
        until(lambda: subprocess.run(["pgrep", "-f", f"sleep {nap}"], check=False, capture_output=True).returncode == 1)
