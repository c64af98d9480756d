"""What SLURM's commands say of jobs, as they print it."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.backends import slurmqueue
from pytest_madengine.backends.slurmqueue import STATES, Accounts, Row
from tests.engines.cluster import Cluster

CELLS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|"), max_size=20)
REASONS = st.lists(CELLS.filter(bool), max_size=4).map(", ".join).filter(lambda reason: reason not in slurmqueue.SILENT)
COMMENTS = st.lists(CELLS, max_size=4).map("|".join)
ROWS = st.builds(Row, CELLS, st.sampled_from(sorted(STATES)) | CELLS, REASONS, CELLS, COMMENTS)
SAID = """\
37|RUNNING|None|node[1-2]|madengine-1-m-x
38|PENDING|ReqNodeNotAvail, UnavailableNodes:node4||madengine-1-n-x
39|COMPLETED|None|node3|(null)
78_3|FAILED|NonZeroExitCode|node3|what | others say
"""


class TestSqueue:
    def test_its_lines_become_rows(self) -> None:
        assert slurmqueue.read(SAID) == [
            Row("37", "RUNNING", "", "node[1-2]", "madengine-1-m-x"),
            Row("38", "PENDING", "ReqNodeNotAvail, UnavailableNodes:node4", "", "madengine-1-n-x"),
            Row("39", "COMPLETED", "", "node3", "(null)"),
            Row("78_3", "FAILED", "NonZeroExitCode", "node3", "what | others say"),
        ]

    @given(st.lists(ROWS))
    def test_whatever_reasons_and_comments_hold(self, rows: list[Row]) -> None:
        lines = ["|".join((row.number, row.word, row.reason, row.nodes, row.comment)) for row in rows]
        assert slurmqueue.read("\n".join(lines)) == rows

    @given(st.text())
    def test_what_is_no_row_is_passed_over(self, text: str) -> None:
        assert len(slurmqueue.read(text)) <= text.count("|")

    @pytest.mark.requires_slurm
    def test_each_of_its_states_is_one_of_ours(self) -> None:
        argv = ["squeue", "--states=nonsense"]
        said = subprocess.run(argv, capture_output=True, check=False, text=True).stderr
        (words,) = re.findall(r"Valid job states include: (\S+)", said)
        assert set(words.split(",")) <= STATES.keys()

    def test_a_state_that_nobody_knows_is_not_the_end(self) -> None:
        assert not Row("1", "EXPEDITING").state.over

    @pytest.mark.requires_slurm
    def test_a_request_that_was_refused_is_no_job(self, slurm_cluster: Cluster) -> None:
        comment = "madengine-test-refused"
        asked = ["sbatch", "--gpus-per-node=9", f"--comment={comment}", "--output=/dev/null", "--wrap=true"]
        assert subprocess.run(asked, capture_output=True, check=False).returncode
        assert comment in slurm_cluster.text("squeue", "--states=all", "--format=%k")
        assert comment not in {row.comment for row in slurmqueue.rows()}


class TestReasons:
    @pytest.mark.parametrize(
        "reason",
        [
            "PartitionTimeLimit",
            "PartitionDown",
            "InvalidQOS",
            "AssocMaxWallDurationPerJobLimit",
            "QOSMaxGRESPerJob",
            "QOSMaxCpuPerNode",
            "QOSMinGRES",
            "DependencyNeverSatisfied",
        ],
    )
    def test_that_no_waiting_helps(self, reason: str) -> None:
        assert Row("1", "PENDING", reason).hopeless

    @pytest.mark.parametrize(
        "reason",
        [
            "",
            "Priority",
            "BeginTime",
            "ReqNodeNotAvail, UnavailableNodes:node4",
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "AssocGrpCpuLimit",
            "QOSGrpGRES",
            "QOSMaxJobsPerUserLimit",
            "QOSMaxGRESPerUser",
            "JobHeldUser",
        ],
    )
    def test_that_pass(self, reason: str) -> None:
        assert not Row("1", "PENDING", reason).hopeless

    def test_of_a_job_that_does_not_wait(self) -> None:
        assert not Row("1", "FAILED", "NodeDown").hopeless


class TestSacct:
    SCRIPTS = {"4": "/jobs/a b/job.sh", "5": "/jobs/c/job.sh"}  # noqa: RUF012  # nobody changes it

    @pytest.mark.parametrize(
        ("lines", "words"),
        [
            ("4|COMPLETED|sbatch --parsable /jobs/a b/job.sh\n", {"4": "COMPLETED"}),
            ("5|CANCELLED by 0|sbatch --parsable /jobs/c/job.sh\n", {"5": "CANCELLED"}),
            (
                "4|FAILED|sbatch --parsable /jobs/a b/job.sh\n5|TIMEOUT|sbatch /jobs/c/job.sh",
                {"4": "FAILED", "5": "TIMEOUT"},
            ),
            ("4|RUNNING|sbatch --parsable /jobs/a b/job.sh\n", {}),
            ("4|COMPLETED|sbatch --parsable /jobs/c/job.sh\n", {}),
            ("4|COMPLETED|\n", {}),
            ("4.batch|COMPLETED|sbatch --parsable /jobs/a b/job.sh\n", {}),
            ("6|COMPLETED|sbatch --parsable /jobs/c/job.sh\n", {}),
            ("sacct: error: slurmdbd does not answer\n\n", {}),
        ],
    )
    def test_tells_ends_of_jobs_that_are_ours(self, lines: str, words: dict[str, str]) -> None:
        assert slurmqueue.recorded(lines, self.SCRIPTS) == words

    @given(st.text())
    def test_whatever_it_says(self, text: str) -> None:
        assert slurmqueue.recorded(text, self.SCRIPTS) == {}

    @pytest.mark.requires_slurm
    def test_where_no_accounts_are_kept_nothing_is_known(self) -> None:
        assert Accounts().words(self.SCRIPTS) == {}


def test_refusals_are_told_without_the_name_of_the_command() -> None:
    said = """\
sbatch: error: invalid partition specified: nowhere
sbatch: error: Batch job submission failed: Invalid partition name specified
"""
    assert slurmqueue.brief(said) == (
        "invalid partition specified: nowhere; Batch job submission failed: Invalid partition name specified"
    )
