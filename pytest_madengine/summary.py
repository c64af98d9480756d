"""What a session with models says at its end."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator

import pytest

from pytest_madengine import built, nodecheck, runid, session
from pytest_madengine.reporting.terminal import notes, table
from pytest_madengine.results.result import Result
from pytest_madengine.secrets import Masker
from pytest_madengine.waking import RECORDER, WORKER_ERRORS, WRITTEN


def show(terminal: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of models and everything that went wrong in recording."""
    for error in config.stash.get(WORKER_ERRORS, []):
        terminal.write_line(f"ERROR: {error}", red=True)
    records = config.stash.get(RECORDER, None)
    if _makes_only_images(config):
        _images(terminal, config)
    elif records and records.results:
        _models(terminal, records.results.values())
    for line in _image_counts(config):
        terminal.write_line(f"madengine: {line}")
    _node_checks(terminal, config)
    for warning in records.warnings if records else []:
        terminal.write_line(f"WARNING: {warning}", yellow=True)
    for problem in records.problems if records else []:
        terminal.write_line(f"ERROR: {problem}", red=True)
    for line in _unfinished(config):
        terminal.write_line(f"madengine: {line}")


def _models(terminal: pytest.TerminalReporter, results: Collection[Result]) -> None:
    """The table of models, and what else there is to know of them."""
    terminal.ensure_newline()
    terminal.write_sep("=", "models")
    for line, good in table(results):
        terminal.write_line(line, red=not good)
    for line in notes(results):
        terminal.write_line(f"note: {line}")


def _makes_only_images(config: pytest.Config) -> bool:

    return session.KEY in config.stash and session.of(config).settings.build_only


def _images(terminal: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of images, where they are all that was wanted."""
    if not runid.folder(config).is_dir():
        return
    terminal.ensure_newline()
    terminal.write_sep("=", "images")
    for line, good in built.table(session.of(config)):
        terminal.write_line(line, red=not good)


def _image_counts(config: pytest.Config) -> Iterator[str]:
    """How much building was to be done, and whether the manifest is a new one."""
    if session.KEY not in config.stash or not runid.folder(config).is_dir():
        return
    ours = session.of(config)
    yield from filter(None, [built.counts(ours.directory)])
    if WRITTEN in config.stash:
        state = "written" if config.stash[WRITTEN] else "unchanged"
        yield f"manifest: {ours.settings.manifest_output}, {state}"


def _node_checks(terminal: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What is to be said of the nodes that jobs went to."""
    if session.KEY in config.stash and session.of(config).opened:
        for line, good in nodecheck.told(session.of(config)):
            terminal.write_line(line, red=not good)


def _unfinished(config: pytest.Config) -> list[str]:
    """What became of models that this session did not see through."""
    if session.KEY not in config.stash:
        return []
    ours = session.of(config)
    lines = [f"cancelled: {', '.join(map(_title, ours.cancelled))}"] if ours.cancelled else []
    lines += [f"left running: {', '.join(map(_title, ours.detached))}", _come_back(config)] if ours.detached else []
    return lines + ([ours.journal.trouble] if ours.journal.trouble else [])


def _title(nodeid: str) -> str:
    return nodeid.rpartition("::")[2]


def _come_back(config: pytest.Config) -> str:
    """The command that takes a left run up again, without what is secret in it."""
    context = session.of(config).context
    given = [arg for arg in config.invocation_params.args if not str(arg).startswith("--madengine-detach")]
    command = shlex.join(["pytest", *map(str, given), f"--madengine-resume={runid.of(config)}"])
    mongo = session.of(config).settings.mongo
    return f"to come back: {Masker([*context.secrets.values(), *(mongo.mask.values if mongo else ())])(command)}"
