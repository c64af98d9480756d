"""Many pretended jobs in flight from one pytest process, against the ideal and against `-n` workers.

Each job takes 1 to 2 s of the clock and none of the processor. Ideal is what a scheduler would need that fills each
slot at the moment it is free. Printed: seconds from the first submission to the last row, memory, questions to the
backend, and for comparison the same models with pytest-xdist, where each worker runs one job at a time.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFTEST = """
import atexit, resource
from pathlib import Path
from pytest_madengine.backends.fake import FakeBackend, Pretence

class Counting(FakeBackend):
    asked = 0
    def states(self, handles):
        Counting.asked += 1
        return super().states(handles)

def pretence(job):
    return Pretence(float(job.env["SECONDS"]))

def pytest_madengine_backends(config):
    place = Path(config.invocation_params.dir) / "cluster"
    return {"fake": Counting(place, pretend=pretence)}

def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        Path("asked").write_text(f"{Counting.asked} {peak}")
"""


def project(folder: Path, count: int) -> list[float]:
    """A project of pretended models; how long each takes."""
    numbers = random.Random(7)  # noqa: S311  # the same jobs each time
    seconds = [round(numbers.uniform(1, 2), 3) for _ in range(count)]
    cards = [
        {"name": f"m{n}", "scripts": "scripts/run.sh", "n_gpus": "0", "env_vars": {"SECONDS": str(each)}}
        for n, each in enumerate(seconds)
    ]
    (folder / "scripts").mkdir()
    (folder / "scripts/run.sh").write_text("exit 1\n", encoding="utf-8")
    (folder / "models.json").write_text(json.dumps(cards, indent=1), encoding="utf-8")
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    return seconds


def ideal(seconds: list[float], slots: int) -> float:
    """When the last job ends if each slot takes the next job at once."""
    free = [0.0] * slots
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def run(folder: Path, *options: str) -> tuple[float, float]:
    """Seconds from the first submission to the last row, and of the whole command."""
    command = [sys.executable, "-m", "pytest", "-q", "--madengine-tags=all", "--target=fake", *options]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_madengine.plugin"}
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    spent = time.perf_counter() - started
    paths = (folder / ".madengine/runs/latest").glob("journal*.jsonl")
    records = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    times = [record["time"] for record in records if record["kind"] in {"submitting", "recorded"}]
    return max(times) - min(times), spent


def measure(count: int, slots: int, workers: int) -> None:
    """One size, printed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = project(folder, count)
        best = ideal(seconds, slots)
        loop, whole = run(folder, f"--madengine-max-in-flight={slots}")
        asked, peak = (folder / "asked").read_text(encoding="utf-8").split()
        rows = len((folder / "perf.csv").read_text(encoding="utf-8").splitlines()) - 1
        print(f"{count} jobs, {slots} in flight: {rows} rows")
        print(f"  ideal {best:.2f} s, loop {loop:.2f} s ({loop / best:.2f}), command {whole:.2f} s, {peak} MB")
        print(f"  questions to the backend: {asked} ({int(asked) / loop:.0f} a second)")
        if workers:
            loop, whole = run(folder, "-p", "xdist.plugin", f"-n{workers}")
            usage = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
            best = ideal(seconds, workers)
            print(f"  with -n{workers}: ideal {best:.2f} s, loop {loop:.2f} s, command {whole:.2f} s")
            print(f"  memory of the largest worker: {usage} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=0, help="compare with so many xdist workers")
    parser.add_argument("sizes", nargs="*", default=["500:200", "5000:500"], help="jobs:in flight")
    arguments = parser.parse_args()
    for size in arguments.sizes:
        count, slots = map(int, size.split(":"))
        measure(count, slots, arguments.workers)


if __name__ == "__main__":
    main()
