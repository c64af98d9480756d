"""What people are told of the checks of nodes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_madengine.backends.health import Facts, Node, Survey
from pytest_madengine.backends.preflight import Preflight
from pytest_madengine.nodecheck import told
from tests.backends.support import until
from tests.cards import run_bare
from tests.engines.cluster import Cluster


def asked(pytester: pytest.Pytester, *args: str, **slurm: object) -> pytest.RunResult:
    """A check of nodes from the command line."""
    given = json.dumps({"slurm": {"container_runtime": "none", "gpus_per_node": 1, **slurm}})
    return run_bare(pytester, "--madengine-preflight", f"--madengine-context={given}", *args)


@pytest.mark.requires_slurm
class TestTable:
    def test_of_nodes_that_are_well(self, pytester: pytest.Pytester) -> None:
        until(lambda: asked(pytester, "--target=slurm", partitions=["main", "debug"]).ret == 0)
        result = asked(pytester, "--target=slurm", partitions=["main", "debug"])
        result.stdout.re_match_lines([r"node +GPUs .* verdict", "node1 ", "node4 ", r"node +GPUs", "node1 ", "node2 "])
        assert not (pytester.path / ".madengine").exists()

    def test_of_one_that_is_drained_and_one_that_is_busy(
        self, pytester: pytest.Pytester, slurm_cluster: Cluster
    ) -> None:
        job = slurm_cluster.submit("sleep 60", pytester.path / "log", "--exclusive")
        slurm_cluster.until(job, "RUNNING")
        busy = slurm_cluster.fact(job, "NodeList")
        drained = "node4" if busy != "node4" else "node3"
        slurm_cluster.text("scontrol", "update", f"nodename={drained}", "state=drain", "reason=a fan | is broken")
        try:
            result = asked(pytester, "--target=slurm")
        finally:
            slurm_cluster.text("scontrol", "update", f"nodename={drained}", "state=resume")
        assert result.ret == 1
        lines = {line.split()[0]: line for line in result.outlines if line.startswith("node")}
        assert lines[busy].endswith("  busy, not checked")
        assert lines[drained].endswith(": a fan | is broken")
        assert " drain" in lines[drained]

    def test_of_a_partition_that_is_not_there(self, pytester: pytest.Pytester) -> None:
        result = asked(pytester, "--target=slurm", partition="nowhere")
        assert result.ret == 1
        result.stdout.fnmatch_lines(["nothing was checked: SLURM lists no node of this partition"])

    def test_without_accounts(self, pytester: pytest.Pytester, slurm_cluster: Cluster) -> None:
        assert not slurm_cluster.accounting
        until(lambda: asked(pytester, "--target=slurm", account="any", qos="any").ret == 0)

    @pytest.mark.requires_slurm(accounting=True)
    def test_with_an_account_and_a_quality_of_service(self, pytester: pytest.Pytester) -> None:
        until(lambda: asked(pytester, "--target=slurm", account="research", qos="urgent").ret == 0)
        result = asked(pytester, "--target=slurm", account="nobody")
        assert result.ret == 1
        result.stdout.fnmatch_lines(["nothing was checked: *Invalid account*"])


def test_another_target_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = asked(pytester, "--target=host")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --madengine-preflight: the target host has no nodes; valid: --target=slurm"])


def test_a_wrong_context_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = asked(pytester, "--target=slurm", partitoin="x")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *partitoin*did you mean 'partition'?"])


def test_a_machine_without_slurm_is_told(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = asked(pytester, "--target=slurm")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["sinfo: command not found"])


class Known(Preflight):
    """Has found something already."""

    def __init__(self, *surveys: Survey) -> None:
        super().__init__()
        self._known = list(surveys)

    def told(self) -> list[Survey]:
        return self._known


class TestAtTheEndOfARun:
    NODES = (Node("a", "idle"), Node("b", "idle"))
    BAD = Survey(NODES, {"a": Facts(over=True), "b": Facts()}, {"b": "x\ny"})

    @staticmethod
    def lines(*surveys: Survey) -> list[tuple[str, bool]]:
        ours: Any = SimpleNamespace(backends={"slurm": SimpleNamespace(preflight=Known(*surveys)), "host": object()})
        return list(told(ours))

    def test_bad_nodes_are_told_in_a_line_each(self) -> None:
        assert self.lines(self.BAD, Survey(self.NODES)) == [("madengine: node check: b is not clean: x y", True)]

    def test_all_of_it_is_shown_where_the_user_asked_for_that(self) -> None:
        verbose = Survey(self.NODES, self.BAD.facts, self.BAD.bad, verbose=True)
        assert [good for _, good in self.lines(verbose)] == [True, True, False, True]

    def test_nothing_is_said_where_nothing_was_checked(self) -> None:
        assert self.lines() == []
