from __future__ import annotations

import csv
import io
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.errors import FaultsError
from pytest_madengine.models.model import Model
from pytest_madengine.results import multiple, selfmanaged
from pytest_madengine.results.multiple import Table
from pytest_madengine.results.perf import PERF_COLUMNS
from pytest_madengine.results.selfmanaged import failure, failures, joined, places, row_name, words

DOCUMENTED = (
    "/shared_inference/${USER}/${SLURM_JOB_ID}/perf.csv",
    "/shared_inference/${USER}/model_blog_logs/${SLURM_JOB_ID}/perf.csv",
    "slurm_output/perf_csv/${SLURM_JOB_ID}[!0-9]*csv",
    "slurm_output/perf_csv/*[!0-9]${SLURM_JOB_ID}[!0-9]*csv",
    "perf*.csv",
)
JOB = {"USER": "me", "HOME": "/home/me", "SLURM_JOB_ID": "12"}


def card(**fields: Any) -> Model:
    return Model.model_validate({"name": "m", "scripts": "scripts/serve/run.sh", **fields})


def on_cluster(results_dir: str | None = None, **fields: Any) -> tuple[str, ...]:
    return places(card(**fields), results_dir, on_cluster=True)


def expanded(place: str, folder: Path, variables: Mapping[str, str] = JOB) -> list[str]:
    """What a shell makes of a place's words; what matches nothing stays as it is."""
    folders = {name: str(folder / name) for name in ("run_dir", "MADENGINE_WORKSPACE", "MADENGINE_PROJECT")}
    script = "set -u; printf '%s\\n' " + " ".join(words(place))
    done = subprocess.run(
        ["bash", "-c", script], env={**variables, **folders}, capture_output=True, check=True, text=True
    )
    return done.stdout.splitlines()


def row(model: str = "m", performance: str = "1", metric: str = "x", **more: str) -> dict[str, str]:
    return {"model": model, "performance": performance, "metric": metric, **more}


class TestPlaces:
    """Where results may stand."""

    def test_the_documented_ones_are_looked_at_in_their_order(self) -> None:
        assert on_cluster() == DOCUMENTED

    def test_without_a_number_only_the_scripts_own_folder_is_no_other_jobs(self) -> None:
        assert places(card(), None, on_cluster=False) == ("perf*.csv",)

    def test_a_stated_folder_comes_first_and_the_cards_file_before_it(self) -> None:
        found = on_cluster("out/%j", multiple_results="a/perf_x.csv")
        assert found == ("a/perf_x.csv", "out/${SLURM_JOB_ID}/perf_x.csv", "out/${SLURM_JOB_ID}/perf*.csv", *DOCUMENTED)

    @pytest.mark.parametrize(
        ("stated", "folder"),
        [
            ("/r/$USER/$SLURM_JOB_ID", "/r/${USER}/${SLURM_JOB_ID}"),
            ("/r/%u/job-%jx", "/r/${USER}/job-${SLURM_JOB_ID}x"),
            ("~/r/${SLURM_JOBID}/", "${HOME}/r/${SLURM_JOB_ID}"),
            ("${HOME}/a~b/$SLURM_JOB_ID", "${HOME}/a~b/${SLURM_JOB_ID}"),
        ],
    )
    def test_a_stated_folder_may_name_user_and_job(self, stated: str, folder: str) -> None:
        assert on_cluster(stated)[0] == f"{folder}/perf*.csv"

    @pytest.mark.parametrize(
        ("stated", "place"),
        [("scripts/serve", "perf*.csv"), ("./scripts/serve/out/", "out/perf*.csv")],
    )
    def test_one_inside_the_scripts_folder_is_the_jobs_own_copy_of_it(self, stated: str, place: str) -> None:
        assert on_cluster(stated)[0] == place

    @pytest.mark.parametrize("stated", ["out", "/r/$USER", "~/r", "scripts", "scripts/other", "../scripts/serve"])
    def test_one_that_is_the_same_for_every_job_is_refused(self, stated: str) -> None:
        words = f"m: slurm.results_dir: {stated!r} is the same for every job; valid: the job's number in it, as in '"
        with pytest.raises(FaultsError, match=re.escape(f"{words}{stated}/%j'")):
            on_cluster(stated)

    @pytest.mark.parametrize(
        ("stated", "word", "close"), [("/r/$SLURM_JOBIDD", "$SLURM_JOBIDD", "$SLURM_JOBID"), ("/r/%J/%x", "%J", "%j")]
    )
    def test_a_word_that_no_job_knows_is_refused(self, stated: str, word: str, close: str) -> None:
        said = f"m: slurm.results_dir: {word!r} in {stated!r}; valid: %j, $SLURM_JOB_ID, "
        with pytest.raises(FaultsError, match=f"^{re.escape(said)}.*; did you mean '{re.escape(close)}'"):
            on_cluster(stated)


class TestWords:
    """What the job's shell makes of a place."""

    def test_relative_places_start_from_the_script_and_with_a_number_from_the_project_too(self, tmp_path: Path) -> None:
        assert expanded("a/perf*.csv", tmp_path) == [
            f"{tmp_path}/run_dir/a/perf*.csv",
            f"{tmp_path}/MADENGINE_WORKSPACE/a/perf*.csv",
        ]
        assert expanded("a/${SLURM_JOB_ID}/x", tmp_path)[2] == f"{tmp_path}/MADENGINE_PROJECT/a/12/x"

    @pytest.mark.parametrize("place", ["/r/${USER}/x y.csv", "${HOME}/x"])
    def test_absolute_places_stand_for_themselves(self, place: str, tmp_path: Path) -> None:
        assert expanded(place, tmp_path) == [place.replace("${USER}", "me").replace("${HOME}", "/home/me")]

    def test_a_number_is_no_part_of_another(self, tmp_path: Path) -> None:
        names = ["12.csv", "12_perf.csv", "perf-12.csv", "x_12_y.csv", "112.csv", "perf_120.csv", "x12y.csv", "12.txt"]
        folder = tmp_path / "run_dir/slurm_output/perf_csv"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
        found = [path for place in on_cluster()[2:4] for path in expanded(place, tmp_path)]
        assert {Path(path).name for path in found if Path(path).is_file()} == {
            "12.csv",
            "12_perf.csv",
            "perf-12.csv",
            "x_12_y.csv",
            "x12y.csv",
        }

    @given(st.text(st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="*[/"), min_size=1))
    @settings(deadline=None, max_examples=30)
    def test_nothing_else_is_evaluated(self, text: str) -> None:
        place = f"/r/{text}/$(echo pwned)`echo pwned`"
        known = "".join(text.replace("${USER}", "me").replace("${HOME}", "/home/me").replace("${SLURM_JOB_ID}", "12"))
        assert expanded(place, Path("/")) == [place.replace(text, known)]


class TestRows:
    """What the files say."""

    @pytest.mark.parametrize(
        ("status", "said"),
        [("SUCCESS", ""), ("success", ""), ("", ""), ("FAILURE", "FAILURE"), ("Skipped", "SKIPPED"), ("ok?", "OK?")],
    )
    def test_every_status_but_success_is_a_failure(self, status: str, said: str) -> None:
        assert failure(row(status=status)) == said
        assert failure(row()) == ""

    def test_failed_rows_are_told_by_their_metric(self) -> None:
        table = Table((row(status="SUCCESS"), row(metric="tok/s (con=64)", status="FAILURE")))
        assert failures(table) == "in its results, status of m tok/s (con=64) FAILURE"
        assert failures(Table((row(status="SUCCESS"), row()))) == ""

    def test_a_row_is_called_after_the_card(self) -> None:
        assert [row_name("card", row(name)) for name in ("card", "", "served")] == ["card", "card", "card_served"]

    def test_copies_count_once(self) -> None:
        first = Table((row(), row(), row("n")))
        copied = Table((row(configs="{}"), row("n"), row("o")))
        assert joined([first, copied]).rows == (row(), row(), row("n"), row("o"))

    def test_rows_that_differ_are_all_kept(self) -> None:
        assert joined([Table((row(),)), Table((row(performance="2"),))]).rows == (row(), row(performance="2"))

    def test_one_file_that_cannot_be_used_spoils_all(self) -> None:
        assert joined([Table((row(),)), Table(problem="x is empty")]) == Table(problem="x is empty")

    @settings(deadline=None, max_examples=40)
    @given(st.lists(st.lists(st.text('ab1\n",', max_size=3), min_size=29, max_size=29), min_size=1, max_size=4))
    def test_a_perf_csv_is_read_as_it_was_written(self, cells: list[list[str]]) -> None:
        buffer = io.StringIO(newline="")
        csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([PERF_COLUMNS, *(["m", *each[1:]] for each in cells)])
        table = multiple.read(io.StringIO(buffer.getvalue(), newline=""), "perf.csv")
        plain = [["m", *(" ".join(cell.split("\n")).strip() for cell in each[1:])] for each in cells]
        assert [list(each.values()) for each in joined([table, table]).rows] == [
            [re.sub(" +", " ", cell) for cell in each] for each in plain
        ]

    @settings(deadline=None, max_examples=40)
    @given(st.lists(st.text('model,performance,metric,status\n"1x SUCCESS\0')))
    def test_any_files_are_rows_or_a_problem(self, texts: list[str]) -> None:
        table = joined([multiple.read(io.StringIO(text, newline=""), "perf.csv") for text in texts])
        assert bool(table.problem) != (bool(table.rows) or not texts)
        assert isinstance(failures(table), str)


def test_only_a_job_whose_script_starts_containers_has_places() -> None:
    class Job:
        self_managed = False

    assert selfmanaged.of_job(card(), Job()) == ()  # type: ignore[arg-type]
