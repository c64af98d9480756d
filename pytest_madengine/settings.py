"""What the options of a run ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.options import MODEL_FILES, OPTIONS

MANIFEST = Path("build_manifest.json")
FLAGS = {option.dest.removeprefix("madengine_"): option.flag for option in OPTIONS}
EXCLUSIVE = (
    ("batch_manifest", ("tags", "manifest", "use_image")),
    ("use_image", ("registry", "target_archs", "no_cache", "build_on_compute")),
    ("manifest", ("build_only", "use_image", "registry", "target_archs", "no_cache", "build_on_compute")),
    ("build_only", ("detach",)),
    ("dry_run", ("build_only", "detach", "preflight", "resume", "status")),
)
"""Options that contradict each other; those of builds as in the wiki's table."""
OF_BUILD_ONLY = ("manifest_output", "summary_output")


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        start: the folder where pytest was started: perf.csv and `.madengine/` go there.
        project: the folder of the model cards: MODEL_DIR, else `start`.
        target: None where the context is to decide.
        max_in_flight: None where the target is to decide.
        resume: whether the run directory is an earlier session's.
        target_archs: as given; `images/architecture` reads them.
        build_jobs: None where the machine is to decide.
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
    build_only: bool
    manifest: Path | None
    manifest_output: Path
    summary_output: Path | None
    batch_manifest: Path | None
    build_jobs: int | None
    no_cache: bool
    target_archs: tuple[str, ...]
    registry: str
    build_on_compute: bool
    use_image: str
    reservation: str
    dry_run: bool
    pack: int
    live_output: bool
    keep_alive: bool


def settings_of(config: pytest.Config, model_dir: str | None) -> Settings:
    """The settings of this run.

    Raises:
        pytest.UsageError: MODEL_DIR names no folder, a number is none of those that an option takes, or options
            contradict each other.
    """
    start = config.invocation_params.dir
    project = (start / model_dir).resolve() if model_dir else start
    if not project.is_dir():
        raise pytest.UsageError(f"MODEL_DIR: {project} is no folder; name the folder that holds models.json")
    given = config.option
    _refuse_contradictions(given, start)
    timeout = given.madengine_timeout
    if timeout is not None and not (timeout >= 0 or timeout == -1):
        raise pytest.UsageError(f"--madengine-timeout: found {timeout:g}; valid: seconds, 0 (no limit) or -1 (default)")
    return Settings(
        start=start,
        project=project,
        tags=tuple(given.madengine_tags),
        target=given.madengine_target,
        context=given.madengine_context,
        context_file=_path(start, given.madengine_context_file),
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
        build_only=given.madengine_build_only,
        manifest=_path(start, given.madengine_manifest),
        manifest_output=start / (given.madengine_manifest_output or MANIFEST),
        summary_output=_path(start, given.madengine_summary_output),
        batch_manifest=_path(start, given.madengine_batch_manifest),
        build_jobs=_at_least("build-jobs", given.madengine_build_jobs, 1),
        no_cache=given.madengine_no_cache,
        target_archs=tuple(given.madengine_target_archs),
        registry=given.madengine_registry or "",
        build_on_compute=given.madengine_build_on_compute,
        use_image=given.madengine_use_image or "",
        reservation=given.madengine_reservation or "",
        dry_run=given.madengine_dry_run,
        pack=_count("pack", given.madengine_pack),
        live_output=given.madengine_live_output,
        keep_alive=given.madengine_keep_alive,
    )


def _path(start: Path, given: Path | None) -> Path | None:
    return Path(os.path.normpath(start / given)) if given else None


def _refuse_contradictions(given: Any, start: Path) -> None:
    values = {option.dest.removeprefix("madengine_"): getattr(given, option.dest) for option in OPTIONS}
    for fault in (*_contradictions(values), *_without_build_only(values), *_outputs(values, start)):
        raise pytest.UsageError(fault)


def _contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    for one, others in EXCLUSIVE:
        for other in (name for name in others if values[one] and values[name]):
            yield f"{FLAGS[one]} and {FLAGS[other]} contradict each other: give one of them"
    for name in ("use_image", "registry", "reservation"):
        if values[name] == "":
            yield f"{FLAGS[name]}: is empty; leave it out or say which"
    if not (values["reservation"] or "").isprintable():
        yield f"{FLAGS['reservation']}: found {values['reservation']!r}; valid: one line of text"


def _without_build_only(values: Mapping[str, Any]) -> Iterator[str]:
    for name in OF_BUILD_ONLY:
        if values[name] and not values["build_only"]:
            yield f"{FLAGS[name]} belongs to --madengine-build-only, which is not given"


def _outputs(values: Mapping[str, Any], start: Path) -> Iterator[str]:
    """Files that are something else already."""
    manifest, summary = values["manifest_output"] or MANIFEST, values["summary_output"]
    for name in OF_BUILD_ONLY:
        if values[name] and values[name].name in MODEL_FILES:
            yield f"{FLAGS[name]}: {values[name]} is for model cards; give another file"
    if summary and (start / summary).resolve() == (start / manifest).resolve():
        yield f"{FLAGS['summary_output']}: {summary} is the manifest's own file; give another"


def _count(option: str, text: str | None) -> int:
    """The value of an option that may stand without one; 0 where it is not given."""
    if text is not None and not text.isdecimal():
        raise pytest.UsageError(f"--madengine-{option}: found {text!r}; valid: a whole number, 1 or more")
    return _at_least(option, int(text), 1) or 0 if text else 0


def _at_least(option: str, value: int | None, least: int) -> int | None:
    if value is not None and value < least:
        raise pytest.UsageError(f"--madengine-{option}: found {value}; valid: {least} or more")
    return value
