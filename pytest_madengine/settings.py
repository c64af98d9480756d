"""What the options of a run ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        start: the folder where pytest was started: perf.csv and `.madengine/` go there.
        project: the folder of the model cards: MODEL_DIR, else `start`.
        target: None where the context is to decide.
    """

    start: Path
    project: Path
    tags: tuple[str, ...]
    target: str | None
    context: str | None
    context_file: Path | None
    timeout: float | None
    output: Path
    disable_skip_gpu_arch: bool


def settings_of(config: pytest.Config, model_dir: str | None) -> Settings:
    """The settings of this run.

    Raises:
        pytest.UsageError: MODEL_DIR names no folder, or the timeout is no time.
    """
    start = config.invocation_params.dir
    project = (start / model_dir).resolve() if model_dir else start
    if not project.is_dir():
        raise pytest.UsageError(f"MODEL_DIR: {project} is no folder; name the folder that holds models.json")
    given = config.option
    timeout = given.madengine_timeout
    if timeout is not None and not (timeout >= 0 or timeout == -1):
        raise pytest.UsageError(f"--madengine-timeout: found {timeout:g}; valid: seconds, 0 (no limit) or -1 (default)")
    return Settings(
        start=start,
        project=project,
        tags=tuple(given.madengine_tags),
        target=given.madengine_target,
        context=given.madengine_context,
        context_file=start / given.madengine_context_file if given.madengine_context_file else None,
        timeout=None if timeout == -1 else timeout,
        output=start / given.madengine_output,
        disable_skip_gpu_arch=given.madengine_disable_skip_gpu_arch,
    )
