"""Another process of the session: submits a job and waits to be killed, or runs one as a plain user.

`python -m tests.backends.elsewhere PLACE FOLDER RUN_ID hold|plain SCRIPT JOB_FOLDER`, from the repository's root.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from pytest_madengine.images import engine
from pytest_madengine.jobs.job import Job
from tests.backends.support import PLACES, SLURM, SOCKET, Bench

NOBODY = 65534
BARE = {"slurm": {**SLURM.context["slurm"], "container_runtime": "none"}}
"""On nodes, where nobody may use the engine."""


def main() -> None:
    """Do what the command line says; the answer is one line of JSON."""
    place, folder, run_id, mode, script, directory = sys.argv[1:]
    bench = Bench(PLACES[place], Path(folder), run_id=run_id)
    context = BARE if (place, mode) == ("slurm", "plain") else None
    job = bench.job(script, directory=Path(directory) if directory else None, context=context)
    answer = bench.submit(job).to_json() if mode == "hold" else _plain(bench, job)
    print(json.dumps(answer), flush=True)  # noqa: T201
    if mode == "hold":
        signal.pause()


def _plain(bench: Bench, job: Job) -> dict[str, object]:
    """Root reads all that is to be read, so that nobody need not reach this checkout; nobody runs."""
    bench.backend.plan(job)
    if "KUBECONFIG" in os.environ:
        _use_kubernetes(bench)
    elif bench.place.image:
        engine.client()
    if os.getuid() == 0:
        _become_nobody(bench.folder)
    outcome = bench.finish(bench.backend.submit(bench.backend.plan(job)))
    mine = [path for path in bench.folder.rglob("*") if path.lstat().st_uid == os.getuid()]
    return {
        "exit_code": outcome.exit_code,
        "artifacts": [name for name, path in outcome.artifacts.items() if path.read_bytes()],
        "foreign": [str(path) for path in bench.folder.rglob("*") if path not in mine],
        "left": [*bench.held(), *map(str, bench.folder.rglob("workspace"))],
    }


def _use_kubernetes(bench: Bench) -> None:
    """Load all of the client while it can be read, and have it keep its keys where nobody may read them."""
    importlib.import_module("kubernetes.stream")
    tempfile.tempdir = str(bench.folder)
    os.environ["KUBECONFIG"] = str(shutil.copy(os.environ["KUBECONFIG"], bench.folder))
    bench.held()


def _become_nobody(folder: Path) -> None:
    if "SLURM_CONF" in os.environ:
        _open_cluster(folder)
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, NOBODY, NOBODY)
    os.setgroups([SOCKET.stat().st_gid] if SOCKET.exists() else [])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def _open_cluster(folder: Path) -> None:
    """Let nobody use root's cluster: by a copy of its configuration, and a second name of the socket that it says."""
    text = Path(os.environ["SLURM_CONF"]).read_text(encoding="utf-8")
    (socket,) = re.findall(r"^AuthInfo=socket=(.*)$", text, re.MULTILINE)
    os.link(socket, folder / "munge.socket")
    (folder / "slurm.conf").write_text(text.replace(socket, str(folder / "munge.socket")), encoding="utf-8")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")


if __name__ == "__main__":
    main()
