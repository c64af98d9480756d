"""Records and perf.csv files without runs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from pytest_madengine.reporting.record import line
from pytest_madengine.results.metric import metrics_of
from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SUCCESS
from pytest_madengine.results.result import Result, Row

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
RUNS, MODELS = 365, 40
SPREAD, DROP = 0.01, 0.06
REGRESSED, NOISY = "model-07", "model-13"
"""The model that the last run of a year finds slower, and the one whose values say nothing."""


def row(model: str, performance: str = "", multi: dict[str, str] | None = None, **columns: str) -> Row:
    """A row of an 8-GPU machine; one with a value succeeded."""
    own = {
        "model": model,
        "performance": performance,
        "metric": "tok/s" if performance else "",
        "status": SUCCESS if performance else FAILURE,
        "gpu_architecture": "gfx942",
        "n_gpus": "8",
        "nnodes": "1",
        "launcher": "docker",
        "docker_file": f"docker/{model}.Dockerfile",
    }
    return Row({**dict.fromkeys(PERF_COLUMNS, ""), **own, **columns}, multi)


def result(model: str, *rows: Row, run: str = "", attempt: int = 1, **more: Any) -> Result:
    """A Result of these rows, or of one with the value 100."""
    known = rows or (row(model, "100"),)
    made = Result(
        id=f"madengine-{run}-{model}-{attempt}",
        nodeid=f"models.json::{model}",
        model=model,
        status=known[0].columns["status"],
        rows=known,
        run=run,
        attempt=attempt,
        metrics=metrics_of(known),
    )
    return replace(made, **more)


def run_id(number: int) -> str:
    """The id of the run on that day."""
    return f"{START + timedelta(days=number):%Y%m%d}-030000000-{number:06x}"


def moment(day: int, second: int = 0) -> str:
    """When a result was recorded."""
    return (START + timedelta(days=day, seconds=second)).isoformat(timespec="microseconds")


def record(project: Path, day: int, results: Iterable[Result]) -> Path:
    """The record of that day's run; gives its path."""
    path = project / ".madengine" / "runs" / run_id(day) / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = [replace(each, run=run_id(day)) for each in results]
    path.write_bytes(b"".join(line(each, moment(day, second)) for second, each in enumerate(whole)))
    return path


def year(project: Path, runs: int = RUNS, models: int = MODELS) -> None:
    """A nightly run of many models for a year; on the last night one is 6 % slower, and one was never steady."""
    dice = random.Random(7)  # noqa: S311  # the same year each time
    for day in range(runs):
        record(project, day, _night(dice, models, last=day == runs - 1))


def _night(dice: random.Random, models: int, *, last: bool) -> Iterator[Result]:
    for number in range(models):
        name = f"model-{number:02}"
        spread = 20 * SPREAD if name == NOISY else SPREAD
        drop = DROP if last and name == REGRESSED else 0.0
        value = 1000 * (1 + number) * (1 - drop) * dice.gauss(1.0, spread)
        latency = f"{dice.gauss(5.0, 0.05):.4f}"
        yield result(name, row(name, f"{value:.3f}", {"latency_ms": latency}, tags="nightly"))
