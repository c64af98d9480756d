"""Appending a row to a short perf.csv against appending one to a long one: milliseconds and their ratio."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from pytest_madengine.reporting.perfcsv import append_csv
from pytest_madengine.results.perf import PERF_COLUMNS

ROW = {
    **dict.fromkeys(PERF_COLUMNS, ""),
    "model": "llama3-8b-train",
    "n_gpus": "8",
    "args": "--batch-size 4 --seq-len 4096",
    "tags": "llama3,training",
    "docker_image": "ci-llama3.ubuntu.amd:0123456789abcdef",
    "performance": "1234.5",
    "metric": "tokens_per_second",
    "status": "SUCCESS",
}


def filled(path: Path, rows: int) -> Path:
    """A perf.csv of so many rows."""
    append_csv(path, PERF_COLUMNS, [ROW])
    header, row = path.read_text(encoding="utf-8").splitlines(keepends=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(header)
        for _ in range(rows // 100):
            file.write(row * 100)
    return path


def milliseconds(path: Path) -> float:
    """One append, as it is done for each result."""
    started = time.perf_counter()
    append_csv(path, PERF_COLUMNS, [ROW])
    return (time.perf_counter() - started) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--rows", type=int, nargs=2, default=(100, 1_000_000), metavar="ROWS")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        files = {rows: filled(Path(name) / f"{rows}.csv", rows) for rows in arguments.rows}
        times: dict[int, list[float]] = {rows: [] for rows in files}
        for _ in range(arguments.repeats):
            for rows, path in files.items():
                times[rows].append(milliseconds(path))
        sizes = {rows: path.stat().st_size / 1e6 for rows, path in files.items()}
    medians = {rows: statistics.median(each) for rows, each in times.items()}
    print(f"one row appended, flushed to disk, median of {arguments.repeats}")
    for rows, median in medians.items():
        print(f"  {rows:>9} rows ({sizes[rows]:6.1f} MB): {median:.3f} ms")
    short, long = medians.values()
    print(f"  ratio {long / short:.2f}")


if __name__ == "__main__":
    main()
