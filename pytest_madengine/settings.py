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
        max_in_flight: None where the target is to decide.
        resume: whether the run directory is an earlier session's.
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
    max_in_flight: int | None
    ordered: bool
    retries: int
    max_infra_failures: int | None
    resume: bool
    detach: bool
    detach_on_interrupt: bool


def settings_of(config: pytest.Config, model_dir: str | None) -> Settings:
    """The settings of this run.

    Raises:
        pytest.UsageError: MODEL_DIR names no folder, or a number is none of those that an option takes.
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
        max_in_flight=_at_least("max-in-flight", given.madengine_max_in_flight, 1),
        ordered=given.madengine_ordered,
        retries=_at_least("retries", given.madengine_retries, 0) or 0,
        max_infra_failures=_at_least("max-infra-failures", given.madengine_max_infra_failures, 1),
        resume=given.madengine_resume is not None,
        detach=given.madengine_detach,
        detach_on_interrupt=given.madengine_on_interrupt == "detach",
    )


def _at_least(option: str, value: int | None, least: int) -> int | None:
    if value is not None and value < least:
        raise pytest.UsageError(f"--madengine-{option}: found {value}; valid: {least} or more")
    return value
