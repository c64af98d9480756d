"""What the options of a run ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.errors import UserError
from pytest_madengine.options import ENVIRONMENT, MODEL_FILES, OPTIONS
from pytest_madengine.reporting import mongosettings
from pytest_madengine.reporting.mongosettings import Server
from pytest_madengine.results.series import Leg, legs

MANIFEST = Path("build_manifest.json")
FLAGS = {option.dest.removeprefix("madengine_"): option.flag for option in OPTIONS}
EXCLUSIVE = (
    ("batch_manifest", ("tags", "manifest", "use_image")),
    ("use_image", ("registry", "target_archs", "no_cache", "build_on_compute")),
    ("manifest", ("build_only", "use_image", "registry", "target_archs", "no_cache", "build_on_compute")),
    ("build_only", ("detach", "ab")),
    ("ab", ("use_image", "manifest", "batch_manifest", "registry", "target_archs", "no_cache", "build_on_compute")),
    ("dry_run", ("build_only", "detach", "preflight", "resume", "status")),
)
"""Options that contradict each other; those of builds as in the wiki's table."""
SIDES, AB_REPEATS = 2, 5
"""Of `--madengine-ab`: how many images, and how often each runs unless the user says otherwise."""
OF_BUILD_ONLY = ("manifest_output", "summary_output")
OF_RUNS = ("html", "markdown", "summary", "prometheus", "otel", "mongo")
"""Options that tell of models that ran."""
WRITTEN_WHOLE = ("html", "markdown", "summary", "prometheus")
"""Options that name files which a run replaces."""


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
        baseline: where earlier runs are to be found, and
        baseline_of: which of them count; as given, `baselines` reads them.
        gate: what fails a model: fail, regressions or watch.
        repeat: how often each model (with `ab`: in each image) runs and counts.
        warmup: how often it runs before that.
        ab: the two images to compare; empty where none are.
        mongo: where results are sent to; None where they are not.
        reporting_timeout: seconds that reporters over the network get at the end.
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
    html: Path | None
    markdown: Path | None
    summary: Path | None
    prometheus: Path | None
    otel: bool
    references: Path | None
    baseline: str
    baseline_of: str
    gate: str
    repeat: int
    warmup: int
    ab: tuple[str, ...]
    mongo: Server | None
    reporting_timeout: float

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The jobs of each item, in their order."""
        return legs(self.repeat, self.warmup, self.ab)


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
        html=_path(start, given.madengine_html),
        markdown=_path(start, given.madengine_markdown),
        summary=_path(start, given.madengine_summary),
        prometheus=_path(start, given.madengine_prometheus),
        otel=given.madengine_otel,
        references=_path(start, given.madengine_references),
        baseline=given.madengine_baseline or "",
        baseline_of=given.madengine_baseline_of or "",
        gate=given.madengine_gate,
        repeat=_at_least("repeat", given.madengine_repeat, 1) or (AB_REPEATS if given.madengine_ab else 1),
        warmup=_at_least("warmup", given.madengine_warmup, 0) or 0,
        ab=_pair(given.madengine_ab),
        mongo=_mongo(given.madengine_mongo),
        reporting_timeout=_seconds("reporting-timeout", given.madengine_reporting_timeout),
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
    for name in ("use_image", "registry", "reservation", "baseline", "baseline_of"):
        if values[name] == "":
            yield f"{FLAGS[name]}: is empty; leave it out or say which"
    if values["baseline_of"] and not values["baseline"]:
        yield f"{FLAGS['baseline_of']} says which runs of {FLAGS['baseline']} count, which is not given"
    if not (values["reservation"] or "").isprintable():
        yield f"{FLAGS['reservation']}: found {values['reservation']!r}; valid: one line of text"


def _without_build_only(values: Mapping[str, Any]) -> Iterator[str]:
    for name in OF_BUILD_ONLY:
        if values[name] and not values["build_only"]:
            other = f"; of a run tells {FLAGS['summary']}" if name == "summary_output" else ""
            yield f"{FLAGS[name]} belongs to --madengine-build-only, which is not given{other}"
    for name in OF_RUNS if values["build_only"] else ():
        if values[name]:
            other = f"; of builds tells {FLAGS['summary_output']}" if name == "summary" else ""
            yield f"{FLAGS[name]} tells of models that ran, and --madengine-build-only runs none{other}"


def _outputs(values: Mapping[str, Any], start: Path) -> Iterator[str]:
    """Files that are something else already."""
    manifest, summary = values["manifest_output"] or MANIFEST, values["summary_output"]
    files = [name for name in (*OF_BUILD_ONLY, *WRITTEN_WHOLE) if values[name]]
    for name in files:
        if values[name].name in MODEL_FILES:
            yield f"{FLAGS[name]}: {values[name]} is for model cards; give another file"
    yield from _same({name: (start / values[name]).resolve() for name in ("output", *WRITTEN_WHOLE) if values[name]})
    if summary and (start / summary).resolve() == (start / manifest).resolve():
        yield f"{FLAGS['summary_output']}: {summary} is the manifest's own file; give another"


def _same(files: Mapping[str, Path]) -> Iterator[str]:
    """Options that name one file."""
    names: dict[Path, str] = {}
    for name, path in files.items():
        if names.setdefault(path, name) != name:
            yield f"{FLAGS[name]}: {path} is the file of {FLAGS[names[path]]}; give another"


def _mongo(given: str | None) -> Server | None:
    """The server of `--madengine-mongo`; None without the option."""
    if given is None:
        return None
    from pytest_madengine.reporting import mongodb

    try:
        server = mongosettings.of_environment(os.environ, "" if given == ENVIRONMENT else given)
        mongodb.check(server)
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    return server


def _seconds(option: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise pytest.UsageError(f"--madengine-{option}: found {value:g}; valid: seconds, 0 or more")
    return value


def _pair(text: str | None) -> tuple[str, ...]:
    """The two images of `--madengine-ab`; none where it is not given."""
    images = tuple(image.strip() for image in text.split(",")) if text is not None else ()
    if images and (len(set(images)) != SIDES or not all(images)):
        raise pytest.UsageError(f"--madengine-ab: found {text!r}; valid: two images, IMAGE_A,IMAGE_B")
    return images


def _count(option: str, text: str | None) -> int:
    """The value of an option that may stand without one; 0 where it is not given."""
    if text is not None and not text.isdecimal():
        raise pytest.UsageError(f"--madengine-{option}: found {text!r}; valid: a whole number, 1 or more")
    return _at_least(option, int(text), 1) or 0 if text else 0


def _at_least(option: str, value: int | None, least: int) -> int | None:
    if value is not None and value < least:
        raise pytest.UsageError(f"--madengine-{option}: found {value}; valid: {least} or more")
    return value
