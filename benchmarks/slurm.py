"""Many two-second models on a SLURM cluster, against a loop of sbatch and squeue in shell.

The models are bare and as many run at once as the cluster has GPUs for. The loop submits as many jobs, which sleep as
long, and looks every 0.2 s whether they are over. Both run in turns. Counted are the calls of squeue and how often the
backend was asked, by a program earlier on PATH and in a conftest. Needs `eval $(tests/engines/slurm.sh env)`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

LOOP = """
for number in $(seq {count}); do
  sbatch --parsable --job-name=loop-{mark} --output=/dev/null --gpus-per-node=1 --time=5 --wrap='sleep {nap}' >/dev/null
done
while [ -n "$(squeue --noheader --me --name=loop-{mark})" ]; do sleep 0.2; done
"""
CONFTEST = """
from pathlib import Path
from pytest_madengine.backends.slurm import SlurmBackend

class Counting(SlurmBackend):
    ticks = 0
    def states(self, handles):
        Counting.ticks += 1
        return super().states(handles)

def pytest_madengine_backends(config):
    return {"slurm": Counting(int(config.option.madengine_pack or 0))}

def pytest_sessionfinish(session):
    Path("ticks").write_text(str(Counting.ticks))
"""
COUNTING = """#!/bin/sh
echo "$*" >>{calls}
exec {real} "$@"
"""


@dataclass(frozen=True)
class Run:
    """One session: seconds from the first submission to the last row and of the whole command, and what it asked."""

    loop: float
    whole: float
    calls: int
    ticks: int


def project(folder: Path, count: int, nap: float) -> None:
    """Models that sleep."""
    cards = [{"name": f"m{number}", "scripts": "scripts/nap.sh", "n_gpus": "1"} for number in range(count)]
    (folder / "scripts").mkdir()
    (folder / "scripts/nap.sh").write_text(f"sleep {nap}\necho performance: 1 x\n", encoding="utf-8")
    (folder / "models.json").write_text(json.dumps(cards, indent=1), encoding="utf-8")
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")


def counting_squeue(folder: Path) -> Path:
    """A folder with a squeue that notes its calls."""
    place = folder / "bin"
    place.mkdir()
    text = COUNTING.format(calls=folder / "calls", real=shutil.which("squeue"))
    (place / "squeue").write_text(text, encoding="utf-8")
    (place / "squeue").chmod(0o755)
    return place


def session(count: int, nap: float, *options: str) -> Run:
    """One pytest session in a project of its own."""
    slurm = {"container_runtime": "none", "exclusive": False, "time": 5, "gpus_per_node": 1, "enable_node_check": False}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder, count, nap)
        path = f"{counting_squeue(folder)}:{os.environ['PATH']}"
        own = {"PATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_madengine.plugin"}
        given = ["--madengine-tags=all", "--target=slurm", f"--madengine-context={json.dumps({'slurm': slurm})}"]
        argv = [sys.executable, "-m", "pytest", "-q", *given, *options]
        started = time.perf_counter()
        subprocess.run(argv, cwd=folder, env={**os.environ, **own}, check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - started
        calls = len((folder / "calls").read_text(encoding="utf-8").splitlines())
        return Run(span(folder), whole, calls, int((folder / "ticks").read_text(encoding="utf-8")))


def span(folder: Path) -> float:
    """Seconds from the first submission to the last row."""
    paths = (folder / ".madengine/runs/latest").glob("journal*.jsonl")
    records = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    times = [record["time"] for record in records if record["kind"] in {"submitting", "recorded"}]
    return max(times) - min(times)


def shell_loop(count: int, nap: float) -> float:
    """Seconds of the loop."""
    started = time.perf_counter()
    text = LOOP.format(count=count, nap=nap, mark=time.time_ns())
    subprocess.run(["bash", "-c", text], check=True)
    return time.perf_counter() - started


def measure(count: int, nap: float, repeats: int, packs: list[int]) -> None:
    """Print what everything takes, in turns."""
    kinds = {"each a job": (), **{f"--madengine-pack={pack}": (f"--madengine-pack={pack}",) for pack in packs}}
    loops: list[float] = []
    runs: dict[str, list[Run]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        loops.append(shell_loop(count, nap))
        for kind, options in kinds.items():
            runs[kind].append(session(count, nap, *options))
    base = statistics.median(loops)
    print(f"{count} models of {nap:g} s, medians of {repeats}; the loop of sbatch: {base:.1f} s")
    for kind, each in runs.items():
        loop = statistics.median(run.loop for run in each)
        whole = statistics.median(run.whole for run in each)
        print(f"  {kind}: {loop:.1f} s ({loop / base:.2f}), the whole command {whole:.1f} s ({whole / base:.2f})")
        print(f"    squeue called {max(run.calls for run in each)} times in {max(run.ticks for run in each)} ticks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--nap", type=float, default=2.0, help="seconds that each model takes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--packs", nargs="*", type=int, default=[4, 32], help="how many allocations at a time")
    arguments = parser.parse_args()
    measure(arguments.count, arguments.nap, arguments.repeats, arguments.packs)


if __name__ == "__main__":
    main()
