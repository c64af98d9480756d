"""The HTML report of very many results: seconds to make it, its size, and how soon a browser shows it.

The browser is Chromium without a window, and `--slower 4` has it compute four times as slowly, as a phone does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from pytest_madengine.reporting import html
from pytest_madengine.reporting.htmlstory import Past, Point, Thing
from pytest_madengine.results.history import Key
from pytest_madengine.results.metric import Direction, Metric
from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SUCCESS
from pytest_madengine.results.result import Result, Row

DAYS = 365
PAINTED = """new Promise((done) => new PerformanceObserver((seen) => {
  const paint = seen.getEntriesByName("first-contentful-paint")[0];
  if (paint) done(paint.startTime);
}).observe({ type: "paint", buffered: true }))"""
COMPLETE = "performance.getEntriesByType('navigation')[0].domComplete"


def result(number: int) -> Result:
    """One of very many; one in twenty failed, with the end of its log."""
    name, failed = f"model-{number}", number % 20 == 0
    status = FAILURE if failed else SUCCESS
    columns = {
        **dict.fromkeys(PERF_COLUMNS, ""),
        "model": name,
        "n_gpus": "8",
        "args": f"--batch-size {number % 7} --seq-len 4096",
        "tags": "nightly,train",
        "docker_image": f"ci-{name}:{number:016x}",
        "gpu_architecture": ("gfx942", "gfx950")[number % 2],
        "launcher": ("torchrun", "vllm")[number % 2],
        "performance": "" if failed else f"{number + 0.25}",
        "metric": "" if failed else "tokens_per_second",
        "status": status,
    }
    samples = tuple(number + at / 7 for at in range(5))
    metrics = (
        () if failed else (Metric(name, "performance", number + 0.25, "tokens_per_second", Direction.HIGHER, samples),)
    )
    return Result(
        id=str(number),
        nodeid=f"models.json::{name}",
        model=name,
        status=status,
        rows=(Row(columns),),
        reason="exit code 1" if failed else "",
        duration=412.5,
        log=f"/project/.madengine/runs/20260314/jobs/{name}/run.log",
        tail=tuple(f'  File "/workspace/train.py", line {line}, in step_{number}' for line in range(20))
        if failed
        else (),
        hosts=(f"node{number % 16}",),
        machine={"vendor": "AMD", "driver": "6.8.5", "product": "Instinct MI300X"},
        run="20260314",
        started="2026-03-14T15:09:00+00:00",
        ended="2026-03-14T15:16:00+00:00",
        versions={"docker": "27.1", "python": "3.11"},
        metrics=metrics,
    )


def past(results: list[Result], runs: int) -> Past:
    """So many earlier values of each."""
    history: dict[Thing, list[Point]] = {}
    for each in results:
        thing = (Key.of(each.rows[0].columns), "performance")
        history[thing] = [
            Point(f"2025-{day // 31 + 1:02}-{day % 31 + 1:02}", f"run-{day}", 100.0 + day) for day in range(runs)
        ]
    return Past(history)


def shown(browser: Browser, path: Path, slower: float) -> tuple[float, float]:
    """Milliseconds until the first paint, and until all is there."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    page.goto(path.as_uri())
    times = page.evaluate(PAINTED), page.evaluate(COMPLETE)
    context.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser", default="chromium-headless-shell", help="a program, see tests/engines/browser.sh")
    parser.add_argument("--slower", type=float, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    program = next(found for each in os.environ["PATH"].split(":") if (found := Path(each, arguments.browser)).exists())
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=flags)
        for count, runs in ((10_000, 0), (10_000, 30), (40, DAYS)):
            results = [result(number) for number in range(count)]
            path, known = Path(folder, f"{count}-{runs}.html"), past(results, runs)
            started = time.perf_counter()
            html.write(path, results, {"run": "20260314"}, known)
            made = time.perf_counter() - started
            times = [shown(browser, path, arguments.slower) for _ in range(arguments.repeats)]
            painted, complete = (statistics.median(each) for each in zip(*times, strict=True))
            size = path.stat().st_size / 1e6
            print(f"{count} results, {runs} runs before: made in {made:.1f} s, {size:.2f} MB")
            print(f"  first paint after {painted:.0f} ms, complete after {complete:.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
