"""A year of nights: forty models, each of them 365 times."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_madengine.baselines import chosen, history
from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.history import Key
from pytest_madengine.results.judgements import with_past
from pytest_madengine.results.metric import metrics_of
from pytest_madengine.store.sidebyside import Pair, pairs
from pytest_madengine.store.store import Filter, Store
from tests.store.made import MODELS, NOISY, REGRESSED, RUNS, run_id, year

QUICK = 0.2
"""Seconds that an answer may take."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a year of runs, and the store that somebody asked before."""
    folder = tmp_path_factory.mktemp("year")
    year(folder)
    Store.open(folder).close()
    return folder


def quickest(ask: Callable[[], object]) -> float:
    """Seconds of the quickest of several tries: others may have this machine too."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return min(times)


def compared(project: Path, first: str, second: str) -> list[Pair]:
    with Store.open(project) as store:
        sides = [store.entries(Filter([store.run(name)], metric="performance")) for name in (first, second)]
    return pairs(*sides)


def values(project: Path, model: str) -> list[float | None]:
    with Store.open(project) as store:
        return [entry.value for entry in store.trend(model)]


def test_all_of_it_is_there(project: Path) -> None:
    with Store.open(project) as store:
        assert len(store.runs()) == RUNS
        assert {run.items for run in store.runs()} == {MODELS}
        assert len(store.entries()) == 2 * RUNS * MODELS


def test_two_runs_are_compared_at_once(project: Path) -> None:
    assert len(compared(project, "latest~1", "latest")) == MODELS
    assert quickest(lambda: compared(project, "latest~1", "latest")) < QUICK


def test_a_trend_is_told_at_once(project: Path) -> None:
    assert len(values(project, REGRESSED)) == RUNS
    assert quickest(lambda: values(project, REGRESSED)) < QUICK


def judged(project: Path, model: str) -> Comparison:
    """The last night's performance beside the nights before."""
    past = history("store", chosen("last:30"), project, run_id(RUNS - 1), project / "perf.csv")
    with Store.open(project) as store:
        (tonight,) = (each for each in store.results([store.run("latest")]) if each.model == model)
    return with_past(metrics_of(tonight.rows)[0], past.past(Key.of(tonight.rows[0].columns), "performance"))


def test_a_planted_regression_is_found(project: Path) -> None:
    comparison = judged(project, REGRESSED)
    assert comparison.judgement is Judgement.REGRESSION
    assert comparison.change == pytest.approx(-0.06, abs=0.03)


def test_of_a_noisy_metric_nothing_is_said(project: Path) -> None:
    comparison = judged(project, NOISY)
    assert comparison.judgement is Judgement.NONE
    assert "too noisy" in comparison.reason


def test_a_steady_model_passes(project: Path) -> None:
    assert judged(project, "model-00").judgement is Judgement.PASS
