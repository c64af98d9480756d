"""What is told of a run beside its rows: the reporters that options and the environment ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from pytest_madengine import __version__, built, runid
from pytest_madengine.errors import UserError
from pytest_madengine.images import manifestfile
from pytest_madengine.reporting import github, htmlpast, junit, prometheus, telemetry
from pytest_madengine.reporting.base import Reporter
from pytest_madengine.reporting.html import HtmlReport
from pytest_madengine.reporting.markdown import Markdown
from pytest_madengine.reporting.mongoreporter import MongoReporter
from pytest_madengine.reporting.spool import Spool
from pytest_madengine.reporting.summaryfile import Summary
from pytest_madengine.secrets import Masker
from pytest_madengine.session import Session

FILES = ("html", "markdown", "prometheus", "summary")
"""Settings that name files which are written when the run ends."""
STALE = ("html", "markdown", "summary")
"""Those of which none is better than an old one; a collector of Prometheus goes on with the old one."""
EXTRAS = {"otel": telemetry.NEEDS, "prometheus": prometheus.NEEDS}
"""The package that a setting needs; the extra is named like the setting."""
SUFFIX = ".prom"


def check(ours: Session) -> None:
    """Meet outputs that could not be written, before anything runs.

    Raises:
        UserError: a package is missing, a file cannot be written, or no collector would look at it.
    """
    settings = ours.settings
    for extra in (name for name in EXTRAS if getattr(settings, name)):
        _require(extra)
    if settings.otel:
        telemetry.exporter_names(os.environ)
    for name in FILES:
        if path := getattr(settings, name):
            manifestfile.check(_flag(name), path)
    if settings.prometheus and settings.prometheus.suffix != SUFFIX:
        raise UserError(
            f"{_flag('prometheus')}: found {settings.prometheus.name}; valid: a name that ends in {SUFFIX}, as the "
            "textfile collector reads no others"
        )


def clear(ours: Session) -> None:
    """Take away what an earlier run told, so that nobody takes it for this one's."""
    for path in filter(None, (getattr(ours.settings, name) for name in STALE)):
        path.unlink(missing_ok=True)


def reporters(ours: Session) -> list[Reporter]:
    """Those that are wanted; the summary comes last, as its exit status is to hold for all before."""
    return [*_for_github(ours), *_of_options(ours)]


def describe(ours: Session) -> None:
    """Say in JUnit's file what is true of the whole run."""
    pairs = [(f"madengine_{name}", value) for name, value in {**_run(ours), "version": __version__}.items()]
    junit.describe(ours.config.pluginmanager.get_plugins(), pairs)


def of_builds(ours: Session) -> list[Reporter]:
    """Those that tell of images that could not be made, where no model runs."""
    return list(_annotations(ours))


def _annotations(ours: Session) -> Iterator[Reporter]:
    say = _terminal(ours.config) if github.here(os.environ) else None
    if say:
        yield github.Annotations(say, os.environ.get(github.WORKSPACE, ""), _mask(ours))


def _for_github(ours: Session) -> Iterator[Reporter]:
    yield from _annotations(ours)
    page = os.environ.get(github.STEP_SUMMARY) if github.here(os.environ) else None
    if page:
        yield github.StepSummary(Path(page), runid.of(ours.config), _mask(ours))


def _of_options(ours: Session) -> Iterator[Reporter]:
    settings, run = ours.settings, _run(ours)
    if settings.html:
        yield HtmlReport(settings.html, run, _mask(ours), htmlpast.reader(ours.directory.path))
    if settings.markdown:
        yield Markdown(settings.markdown, run["run"], _mask(ours))
    if settings.prometheus:
        yield prometheus.Textfile(settings.prometheus, run)
    if settings.otel:
        yield telemetry.Trace(run, os.environ, _mask(ours))
    if settings.mongo:
        yield MongoReporter(settings.mongo, Spool(settings.start), run["run"], _mask(ours))
    if settings.summary:
        yield Summary(settings.summary, run, _mask(ours))


def _run(ours: Session) -> Mapping[str, str]:
    return {"run": runid.of(ours.config), "target": ours.target}


def _mask(ours: Session) -> Masker:
    return Masker(built.secrets(ours))


def _terminal(config: pytest.Config) -> Callable[[str], None] | None:
    """Writes lines below all that pytest has written; a workflow command counts only where a line begins."""
    if not config.pluginmanager.has_plugin("terminalreporter"):
        return None
    writer = config.get_terminal_writer()

    def say(line: str) -> None:
        if writer.width_of_current_line:
            writer.line()
        writer.line(line)

    return say


def _require(extra: str) -> None:
    package = EXTRAS[extra]
    try:
        found = find_spec(package)
    except ModuleNotFoundError:  # what it lies in is not there either
        found = None
    if found is None:
        raise UserError(f"{_flag(extra)}: {package} is not installed; valid: pip install 'pytest-madengine[{extra}]'")


def _flag(name: str) -> str:
    return f"--madengine-{name}"
