"""What a job needs to have with it in pods, which see no folder of this machine, and what pods cannot do."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_madengine.backends import kubefiles, kubeoptions, kubepod
from pytest_madengine.context.context import Context
from pytest_madengine.context.kubernetes import Kubernetes
from pytest_madengine.jobs.job import Job
from pytest_madengine.launchers.base import Launcher
from pytest_madengine.models.model import Model, Source

COMMON = "scripts/common"
"""A project's folder for what scripts share."""
BESIDE = {"primus": "scripts/Primus"}
"""By launcher, the folder with what its models call."""
LEFT_OUT = frozenset([".git", ".madengine", "__pycache__"])
"""Folders of which nothing belongs to a model."""
OF_RUNS = ("perf.csv", "perf_", "credential.json", "common_info.json")
"""How the names of files begin that are no scripts where a project's first folder holds these."""


def files(model: Model, source: Source, context: Context, launcher: Launcher | None = None) -> tuple[str, ...]:
    """The files of the project that a model needs, by their paths from its root, in order.

    They are those of its scripts' folder, the scripts before and after it, `scripts/common` where one of these lies
    there, and what its launcher's models call. What is not there is left out.
    """
    around = [script.path for script in (*context.pre_scripts, *context.post_scripts)]
    common = [COMMON] if any(posixpath.normpath(path).startswith(f"{COMMON}/") for path in around) else []
    beside = [BESIDE[launcher.name]] if launcher and launcher.name in BESIDE else []
    wanted = (model.scripts_folder or ".", *around, *common, *beside)
    return tuple(sorted({found for path in wanted for found in _below(source.root, path)}))


def check(job: Job, stated: Kubernetes) -> None:
    """Meet what no pod could do.

    Raises:
        UserError: no node could pull the image; an option of the card has no meaning there; or the files are too many.
    """
    kubepod.image_of(job, stated)
    kubeoptions.read(job)
    kubefiles.require_fit(job.name, {path: (job.project / path).stat().st_size for path in job.files})


def _below(root: Path, path: str) -> Iterator[str]:
    if (root / path).is_file():
        yield posixpath.normpath(path)
        return
    for folder, folders, names in os.walk(root / path, followlinks=True):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not _leads_back(Path(folder, name), root)]
        inside = Path(os.path.relpath(folder, root))
        kept = _without_runs(names) if inside == Path() else names
        yield from ((inside / name).as_posix() for name in kept if Path(folder, name).is_file())


def _leads_back(folder: Path, root: Path) -> bool:
    """Whether a link leads to a folder on the way to it, so that there would be no end."""
    if not folder.is_symlink():
        return False
    way = [each for each in folder.parents if each.is_relative_to(root)]
    return any(each.resolve().is_relative_to(folder.resolve()) for each in way)


def _without_runs(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(OF_RUNS)]
