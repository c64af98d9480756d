"""What the installed plugin costs a pytest run that has nothing to do with models: milliseconds and modules."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

TESTS = "\n".join(f"def test_{number}(): pass" for number in range(20))
HEAVY = ("docker", "jinja2", "kubernetes", "pandas", "pydantic", "pymongo", "yaml")
CONFTEST = """
import os, sys
from pathlib import Path

def pytest_unconfigure():
    Path(f"{os.getpid()}.modules").write_text("\\n".join(sys.modules))
"""
WITHOUT = "-pno:madengine"


def others(*, keep: frozenset[str] = frozenset()) -> list[str]:
    """Options that leave out every other plugin: what those import would hide what ours imports."""
    names = {point.name for point in entry_points(group="pytest11")} - {"madengine"} - keep
    return [f"-pno:{name}" for name in sorted(names)]


@dataclass(frozen=True)
class Times:
    """Milliseconds of one run: by the clock, and of processor time."""

    clock: float
    processor: float


def processor_time() -> float:
    """Seconds that all processes started so far have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(folder: Path, options: list[str]) -> Times:
    """One run of the tests."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    command = [sys.executable, "-m", "pytest", "-q", *options]
    started, used = time.perf_counter(), processor_time()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return Times((time.perf_counter() - started) * 1000, (processor_time() - used) * 1000)


def modules(folder: Path, options: list[str]) -> set[str]:
    """The modules that any process of a run has imported at its end."""
    run(folder, options)
    files = list(folder.glob("*.modules"))
    imported = {name for file in files for name in file.read_text(encoding="utf-8").split()}
    for file in files:
        file.unlink()
    return imported


def measure(folder: Path, repeats: int) -> None:
    without, with_plugin = [WITHOUT, *others()], others()
    pairs = [(run(folder, without), run(folder, with_plugin)) for _ in range(repeats + 1)][1:]  # the first fills caches
    print(f"20 trivial tests, no other plugin, {repeats} runs each, in turns, milliseconds")
    print(f"  {'time':9}  {'median without':>14}  {'with':>6}  {'difference in pairs':>19}  {'of the fastest':>14}")
    for kind in ("clock", "processor"):
        before, after = ([getattr(each, kind) for each in way] for way in zip(*pairs, strict=True))
        in_pairs = statistics.median(b - a for a, b in zip(before, after, strict=True))
        medians = f"{statistics.median(before):14.1f}  {statistics.median(after):6.1f}"
        print(f"  {kind:9}  {medians}  {in_pairs:19.1f}  {min(after) - min(before):14.1f}")


def list_modules(folder: Path, kind: str, options: list[str]) -> None:
    imported = modules(folder, options)
    ours = sorted(name for name in imported if name.partition(".")[0] == "pytest_madengine")
    print(f"{kind}: heavy modules imported: {', '.join(sorted(imported & set(HEAVY))) or 'none'}")
    print(f"{kind}: modules of the plugin imported: {len(ours)} ({', '.join(ours[:10])}{' ...' * (len(ours) > 10)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=25)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_trivial.py").write_text(TESTS, encoding="utf-8")
        (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        measure(folder, repeats)
        list_modules(folder, "one process", others())
        list_modules(folder, "-n 2", ["-n2", *others(keep=frozenset(["xdist", "xdist.looponfail"]))])


if __name__ == "__main__":
    main()
