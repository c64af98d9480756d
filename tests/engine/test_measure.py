from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pytest_madengine.backends.base import Outcome, Phase, State
from pytest_madengine.context.context import Context
from pytest_madengine.engine.measure import LONGEST, measure
from pytest_madengine.models.model import Model, Source
from pytest_madengine.results.judge import Measured
from pytest_madengine.results.multiple import Table
from pytest_madengine.results.performance import Performance

FIVE = "performance: 5 x\n"


def rank(folder: Path, log: str, *, before: str = "", host: str = "", **artifacts: str) -> Path:
    """A rank's folder as a job's script leaves it; `before` is what other steps printed ahead of the model."""
    (folder / "artifacts").mkdir(parents=True)
    (folder / "started").touch()
    (folder / "run.log").write_text(before + log, encoding="utf-8")
    begins, ends = (len(text.encode()) for text in (before, before + log))
    (folder / "phases").write_text(f"model 1 2 0 {begins} {ends}\n", encoding="utf-8")
    (folder / "host").write_text(f"{host}\n", encoding="utf-8")
    for name, text in artifacts.items():
        (folder / "artifacts" / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path


def card(**more: Any) -> Model:
    return Model.model_validate({"name": "m", **more})


def of(base: Path, outcome: Outcome, model: Model | None = None) -> Measured:
    return measure(model or card(), Source(base / "models.json", 1, base), Context(), outcome)


def of_ranks(base: Path, folders: Iterable[Path], model: Model | None = None, **more: Any) -> Measured:
    outcome = Outcome(State.EXITED, 0, base / "run.log", folders=dict(enumerate(folders)), **more)
    return of(base, outcome, model)


def test_a_job_of_one_rank_is_read_from_its_own_log(base: Path) -> None:
    rank(base / "job", f"{FIVE}RuntimeError: x\n", r="model,performance,metric\na,1,x\n")
    log, table = base / "job/run.log", base / "job/artifacts/r.csv"
    outcome = Outcome(State.EXITED, 0, log, {"r.csv": table}, (Phase("model", 1, 2, 0, 0, -1),))
    found = of(base, outcome, card(multiple_results="out/r.csv", args="--config none.json"))
    assert found == Measured(
        performance=Performance("5", "x"),
        error="'RuntimeError: x' (pattern 'RuntimeError:')",
        table=Table(({"model": "a", "performance": "1", "metric": "x"},)),
    )


def test_every_ranks_own_log_is_read(base: Path) -> None:
    folders = [
        rank(base / "0", FIVE, before="performance: 9 y\n", host="n1"),
        rank(base / "1", f"performance: 7 x\nFAILED\n{FIVE}", before="FAILED\n", host="n2"),
    ]
    found = of_ranks(base, folders, card(aggregate="sum"))
    assert (found.performance, found.problem, found.notes) == (Performance("12", "x"), "", ())
    assert found.error == "rank 1 on n2: 'FAILED' (pattern 'FAILED')"
    assert found.hosts == {0: "n1", 1: "n2"}


@pytest.mark.parametrize(
    "line",
    [
        "performance: 5 x [mean]\n",
        "step 1\rperformance: 5 x [mean]\rperformance: 6 x [sum]\n",
        "performance: nan x [sum]\nmy_performance: 5 x [max]\nperformance: 5 x [mean]\n",
        f"{'y' * 2 * LONGEST}\n{'=' * LONGEST} performance: 5 x [mean]{'z' * 2 * LONGEST}",
        "größe\nperformance: 5 x [mean]",
    ],
)
def test_the_line_that_states_the_value_says_how_values_become_one(base: Path, line: str) -> None:
    folders = [rank(base / str(n), line, before="performance: 5 x [max]\n") for n in range(2)]
    found = of_ranks(base, folders)
    assert (found.performance, found.problem, found.notes) == (Performance("5", "x"), "", ())


def test_a_word_behind_the_models_part_of_the_log_is_not_the_models(base: Path) -> None:
    folders = [rank(base / str(n), "performance: 5 ms\n") for n in range(2)]
    for folder in folders:
        with (folder / "run.log").open("a", encoding="utf-8") as log:
            log.write("performance: 5 ms [sum]\n")
    assert of_ranks(base, folders).performance == Performance("5", "ms")
    assert of_ranks(base, folders).notes


def test_what_a_trainer_prints_counts_for_a_rank_too(base: Path) -> None:
    folders = [rank(base / "0", "train_samples_per_second = 4\n"), rank(base / "1", "nothing\n")]
    assert of_ranks(base, folders).performance == Performance("4", "samples_per_second")


def test_a_rank_that_left_nothing_is_silent(base: Path) -> None:
    (base / "1").mkdir()
    lost = base / "2"
    lost.mkdir()
    (lost / "phases").write_text("model 1 - - 0 -\n", encoding="utf-8")
    folders = [rank(base / "0", FIVE), base / "1", lost, base / "never made"]
    found = of_ranks(base, folders, card(aggregate="sum"), ranks=dict.fromkeys(range(5)))
    assert found.problem == "rank 1, 2, 3, 4 states no performance, rank 0 does (aggregate: sum)"
    assert found.performance == Performance("5", "x")


def test_the_steps_of_each_rank_are_known(base: Path) -> None:
    folders = [rank(base / "0", FIVE), rank(base / "1", "")]
    (folders[1] / "phases").write_text("clone 1 2 128 0 0\n", encoding="utf-8")
    found = of_ranks(base, folders)
    assert {number: [(each.name, each.code) for each in steps] for number, steps in found.phases.items()} == {
        0: [("model", 0)],
        1: [("clone", 128)],
    }


@pytest.mark.parametrize(
    ("logs", "telling"),
    [((FIVE, "", FIVE), 1), ((FIVE, "", "FAILED\n"), 2), ((FIVE, FIVE, FIVE), 0), ((), 0)],
)
def test_the_rank_whose_log_tells_has_an_error_or_else_no_value(
    base: Path, logs: tuple[str, ...], telling: int
) -> None:
    assert of_ranks(base, [rank(base / str(n), log) for n, log in enumerate(logs)]).telling == telling


@pytest.mark.parametrize(
    ("machines", "notes"),
    [
        (("vendor=AMD\narchitecture=gfx942\n", "architecture=gfx942\n"), ()),
        (("", ""), ()),
        (
            ("architecture=gfx942\n", "architecture=NVIDIA H100\n", "", "architecture=gfx942\n"),
            (
                "the ranks had different GPUs: gfx942 (rank 0 on n0, 3 on n3), NVIDIA H100 (rank 1 on n1), "
                "no known GPU (rank 2 on n2)",
            ),
        ),
    ],
)
def test_ranks_on_unlike_nodes_are_noted(base: Path, machines: tuple[str, ...], notes: tuple[str, ...]) -> None:
    folders = [rank(base / str(n), FIVE, host=f"n{n}") for n in range(len(machines))]
    for folder, text in zip(folders, machines, strict=True):
        (folder / "machine").write_text(text, encoding="utf-8")
    assert of_ranks(base, folders, card(aggregate="sum")).notes == notes


def test_an_empty_log_states_nothing(base: Path) -> None:
    found = of_ranks(base, [rank(base / "0", ""), rank(base / "1", "")])
    assert (found.performance, found.error, found.problem) == (None, "", "")


def test_the_results_file_of_any_rank_is_found(base: Path) -> None:
    text = "model,performance,metric\na,1.50,x\n"
    folders = [rank(base / "0", FIVE), rank(base / "1", FIVE, r=text)]
    model = card(multiple_results="out/r.csv")
    assert of_ranks(base, folders, model).table == Table(({"model": "a", "performance": "1.50", "metric": "x"},))
    assert of_ranks(base, folders[:1], model).table == Table(problem="the model wrote no out/r.csv (multiple_results)")


def test_ranks_that_only_serve_measure_nothing(base: Path) -> None:
    folders = [rank(base / "0", FIVE, host="n1"), rank(base / "1", "", host="n2"), rank(base / "2", "FAILED\n")]
    outcome = Outcome(State.EXITED, 0, base / "run.log", folders=dict(enumerate(folders)), ranks={0: 0, 1: 0, 2: 0})
    found = measure(card(aggregate="sum"), Source(base / "models.json", 1, base), Context(), outcome, measuring=(0,))
    assert (found.performance, found.problem, found.error) == (Performance("5", "x"), "", "")
    assert (found.hosts, found.telling, set(found.phases)) == ({0: "n1", 1: "n2"}, 0, {0, 1, 2})


def test_the_configuration_is_the_jobs(base: Path) -> None:
    (base / "scripts").mkdir()
    (base / "scripts/c.json").write_text('{"a": 1}', encoding="utf-8")
    found = of_ranks(base, [rank(base / "0", FIVE)], card(args="--config c.json", scripts="scripts"))
    assert found.configs == {"a": 1}


def test_a_cards_aggregate_is_one_of_those_that_there_are() -> None:
    assert card().aggregate is None
    assert card(aggregate=None).aggregate is None
    with pytest.raises(ValidationError, match="'sum', 'mean', 'max', 'min' or 'rank0'"):
        card(aggregate="average")


class TestOwnResults:
    """Of models that start their own containers."""

    PLACES = ("a/perf.csv", "perf*.csv")
    HEADER = "model,performance,metric,status\n"

    def measured(self, base: Path, log: str, files: dict[str, str], **fields: Any) -> Measured:
        folder = rank(base / "job", log, **files)
        artifacts = {path.name: path for path in sorted((folder / "artifacts").iterdir())}
        outcome = Outcome(State.EXITED, 0, folder / "run.log", artifacts, (Phase("model", 1, 2, 0, 0, -1),))
        return measure(card(**fields), Source(base / "models.json", 1, base), Context(), outcome, self.PLACES)

    def test_what_was_found_counts_more_than_the_log(self, base: Path) -> None:
        files = {"selfmanaged-1": f"{self.HEADER}m,1,x,SUCCESS\n", "selfmanaged-2": f"{self.HEADER}m,2,y,FAILURE\n"}
        found = self.measured(base, FIVE, {**files, "perf": "no table"})
        assert found.own
        assert found.table
        assert [(row["performance"], row["status"]) for row in found.table.rows] == [("1", "SUCCESS"), ("2", "FAILURE")]

    def test_the_log_counts_where_no_file_is(self, base: Path) -> None:
        found = self.measured(base, FIVE, {"perf": f"{self.HEADER}m,1,x,SUCCESS\n"})
        assert (found.table, found.performance, found.places) == (None, Performance("5", "x"), self.PLACES)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [("", " is empty"), ("model\nm\n", " lacks the column performance, metric; it has model")],
    )
    def test_a_file_that_cannot_be_used_is_no_result(self, base: Path, text: str, problem: str) -> None:
        found = self.measured(base, FIVE, {"selfmanaged-1": text})
        assert found.table == Table(problem=f"artifacts/selfmanaged-1.csv{problem}")

    def test_a_file_that_the_card_names_must_be_there(self, base: Path) -> None:
        found = self.measured(base, FIVE, {}, multiple_results="r.csv")
        assert found.table == Table(
            problem="the model wrote no r.csv (multiple_results), nor results in a/perf.csv, perf*.csv"
        )
