"""What it costs to put a long perf.csv into MongoDB: rows per second, the first time and again.

The server is MONGO_URI's, else one of tests/engines/mongo.sh, which is made to be right rather than fast.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pytest_madengine.results.perf import PERF_COLUMNS  # noqa: E402  # found by the line above
from tests.engines.mongo import MongoServer  # noqa: E402  # the same

SCRIPT = ROOT / "tests" / "engines" / "mongo.sh"
ROW = {
    **dict.fromkeys(PERF_COLUMNS, ""),
    "n_gpus": "8",
    "nnodes": "1",
    "gpus_per_node": "8",
    "training_precision": "fp16",
    "machine_name": "node1",
    "docker_image": "registry.example.com/team/model:1",
    "git_commit": "0123456",
    "gpu_architecture": "gfx942",
    "metric": "samples_per_second",
    "status": "SUCCESS",
    "deployment_type": "slurm",
    "launcher": "torchrun",
}


def history(path: Path, count: int) -> Path:
    """A perf.csv of so many rows: forty models, run again and again."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, PERF_COLUMNS)
        writer.writeheader()
        for number in range(count):
            run, model = divmod(number, 40)
            value = f"{1000 + number * 7919 % 1000 / 10}"
            writer.writerow({**ROW, "model": f"model_{model}", "build_number": str(run), "performance": value})
    return path


@contextmanager
def server(folder: Path) -> Iterator[dict[str, str]]:
    """The variables by which some server is found."""
    if os.environ.get("MONGO_URI"):
        yield {}
        return
    subprocess.run([SCRIPT, "ensure"], check=True)
    said = subprocess.run([SCRIPT, "env"], capture_output=True, check=True, text=True).stdout
    with MongoServer(said.strip().partition("=")[2], folder) as running:
        yield running.environ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=100_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as place, server(Path(place)) as environ:
        path = history(Path(place) / "perf.csv", rows)
        base = [sys.executable, "-m", "pytest_madengine.cli", "database", "-f", str(path), "-c", "benchmark"]
        for name, options in (("dry run", ["--dry-run"]), ("first", []), ("again", ["--no-upsert"])):
            begun = time.monotonic()
            subprocess.run([*base, *options], check=True, env={**os.environ, **environ}, cwd=ROOT)
            seconds = time.monotonic() - begun
            print(f"{name:8} {rows} rows  {seconds:7.1f} s  {rows / seconds:9.0f} rows/s")


if __name__ == "__main__":
    main()
