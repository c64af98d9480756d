"""Results that tests of reporters tell of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.metric import Direction, Metric
from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SKIPPED, SUCCESS
from pytest_madengine.results.result import FailureClass, Result, Row, Step

EVIL = "<script>|`@all`\\|"
"""A name that is markup wherever it is not text."""


def row(model: str, status: str = SUCCESS, performance: str = "", metric: str = "", **more: str) -> Row:
    given = {"model": model, "status": status, "performance": performance, "metric": metric, **more}
    return Row({**dict.fromkeys(PERF_COLUMNS, ""), "gpu_architecture": "gfx942", "n_gpus": "8", **given})


def result(model: str, status: str = SUCCESS, *rows: Row, **more: Any) -> Result:
    """A Result of a job that ran for 12.5 s of a minute."""
    known: dict[str, Any] = {
        "id": f"madengine-20260314-{model}",
        "nodeid": f"models.json::{model}",
        "duration": 12.5,
        "run": "20260314",
        "started": "2026-03-14T15:09:00.000+00:00",
        "ended": "2026-03-14T15:10:00.000+00:00",
        "image": f"ci-{model}:1",
        "digest": "sha256:abc",
        "hosts": ("node1", "node2"),
        "log": f"/run/{model}/run.log",
        "source": "/project/models.json:12",
    }
    made = rows or (row(model, status, "12.50" if status == SUCCESS else "", "tokens/s" if status == SUCCESS else ""),)
    return Result(model=model, status=status, rows=made, **{**known, **more})


def compared(of: str, judgement: Judgement, change: float | None = None, *, name: str = "performance") -> Comparison:
    metric = Metric(of, name, 12.5, "tokens/s", Direction.HIGHER, (12.5,))
    expected = None if change is None else 12.5 / (1 + change)
    return Comparison(metric, judgement, gates=True, reference=expected, change=change, reason="because")


def steps(*names: str) -> tuple[Step, ...]:
    """Steps of ten seconds each, beginning twenty seconds after the job was submitted."""
    starts = [f"2026-03-14T15:09:{20 + 10 * at}.000+00:00" for at in range(len(names) + 1)]
    return tuple(Step(name, begin, end) for name, begin, end in zip(names, starts, starts[1:], strict=False))


def of_a_run() -> list[Result]:
    """What a run may give: a success, a regression, two rows, tries, failures, what was skipped, and an evil name."""
    slower = compared("slow", Judgement.REGRESSION, -0.061)
    first = result("flaky", FAILURE, reason="node died", failure=FailureClass.INFRASTRUCTURE, id="flaky-1")
    tail = ("Traceback (most recent call last):", "```", "RuntimeError: @all")
    return [
        replace(result("quick"), comparisons=(compared("quick", Judgement.PASS, 0.004),)),
        replace(result("slow"), comparisons=(slower,), metrics=(slower.metric, Metric("slow", "ttft", 3.25, "ms"))),
        first,
        result("multi", SUCCESS, row("multi_a", SUCCESS, "1.0", "x"), row("multi_b", SUCCESS, "2.0", "y")),
        replace(result("flaky"), id="flaky-2", attempt=2),
        result("bad", FAILURE, reason="exit code 1", failure=FailureClass.MODEL, tail=tail),
        result(EVIL, FAILURE, reason="100%, a:b\nnext line", failure=FailureClass.BUILD, source=""),
        result("elsewhere", SKIPPED, reason="skip_gpu_arch", started="", digest="", image=""),
    ]
