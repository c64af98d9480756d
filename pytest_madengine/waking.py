"""What the plugin does once models are asked for. Imports stay inside where they are heavy."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pytest_madengine import options, runid

if TYPE_CHECKING:
    from pytest_madengine.reporting.recorder import Recorder
    from pytest_madengine.results.result import Result

RECORDER = pytest.StashKey["Recorder"]()
WORKER_ERRORS = pytest.StashKey[list[str]]()
CRASHED = pytest.StashKey[list[str]]()
CRASH = "???"
"""xdist's `when` for an item whose worker died."""
DIED = "the worker process that ran this item died"


def configure(config: pytest.Config) -> None:
    """Check what can be checked before anything is collected, and prepare collection.

    Raises:
        pytest.UsageError: wrong options or context, or no cards.
    """
    from pytest_madengine import items, session
    from pytest_madengine.engine import rundir
    from pytest_madengine.errors import UserError
    from pytest_madengine.models import discovery
    from pytest_madengine.reporting import perfcsv

    ours = session.of(config)
    try:
        _ = ours.context, ours.target, ours.tags, ours.credentials
        if not config.option.collectonly:
            rundir.check(ours.settings.start)
            perfcsv.check(ours.settings.output)
        if ours.tags and config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args[:] = map(str, discovery.files(ours.settings.project))
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(items.Collection(), "madengine-collection")
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _on_terminate)
        config.add_cleanup(lambda: _restore(before))


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, treated as Ctrl-C: what is in flight is cancelled, what is done is written and shown."""


def _on_terminate(number: int, frame: object) -> None:
    del frame
    raise TerminatedError(signal.Signals(number).name)


def _restore(handler: Any) -> None:
    signal.signal(signal.SIGTERM, handler)


def fail_unrun(item: pytest.Item) -> None:
    """Fail a model's item that went by without a run, as when a conftest replaces its `result` fixture."""
    from pytest_madengine.errors import ModelFailedError
    from pytest_madengine.fixtures import attempt_of

    reason = "no model ran: a fixture of the same name stands in for `result` and does not ask for it"
    result = attempt_of(item).failed_by(ModelFailedError(reason))
    pytest.fail(result.explanation(), pytrace=False)


def header(config: pytest.Config) -> str:
    """One line for the head of the terminal output."""
    from pytest_madengine import session

    ours = session.of(config)
    return f"madengine: target {ours.target}, run {runid.folder(config)}"


def worker_ended(node: Any) -> None:
    """Keep the usage error that an xdist worker met."""
    error = getattr(node, "workeroutput", {}).get("madengine_usage_error")
    if error:
        errors = node.config.stash.setdefault(WORKER_ERRORS, [])
        if error not in errors:
            errors.append(error)


def recorder(config: pytest.Config) -> Recorder:
    """The session's recorder, made when the first result comes."""
    from pytest_madengine.reporting.recorder import Recorder

    if RECORDER not in config.stash:
        registered = reversed(config.hook.pytest_madengine_reporters(config=config))  # ours first
        config.stash[RECORDER] = Recorder([reporter for reporters in registered for reporter in reporters])
    return config.stash[RECORDER]


def record(config: pytest.Config, report: pytest.TestReport) -> None:
    """Take the result that a report carries; remember an item that died with its worker."""
    if report.when == CRASH:
        config.stash.setdefault(CRASHED, []).append(report.nodeid)
    else:
        recorder(config).record_report(report)


def finish(session: pytest.Session) -> None:
    """End what still runs, record what was not reported, and let the exit status tell of losses."""
    config = session.config
    if hasattr(config, "workerinput") or config.option.setuponly:
        return
    if config.stash.get(WORKER_ERRORS, None):
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
    if not _asked_for_models(config):
        return
    _clean_up(config)
    lost = _unreported(config)
    for result in lost:
        recorder(config).record(result)
    if session.exitstatus == pytest.ExitCode.OK and (
        recorder(config).problems or any(result.failed for result in lost)
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _asked_for_models(config: pytest.Config) -> bool:
    """Whether anything of this session, in whatever process, made the run directory."""
    module = sys.modules.get("pytest_madengine.session")
    here = module is not None and module.KEY in config.stash
    if not (here or options.awake(config) or RECORDER in config.stash or CRASHED in config.stash):
        return False
    return runid.folder(config).is_dir()


def _clean_up(config: pytest.Config) -> None:
    """End what a dead process left running; what cannot be ended is told, and costs no row."""
    from pytest_madengine import session
    from pytest_madengine.engine.run import cancel_leftovers
    from pytest_madengine.errors import InfrastructureError

    ours = session.of(config)
    try:
        cancel_leftovers(ours.backends, ours.directory)
    except InfrastructureError as error:
        recorder(config).problems.append(str(error))


def _unreported(config: pytest.Config) -> list[Result]:
    """What a dead or stopped process wrote down and never reported, and items of which nothing is known at all."""
    from pytest_madengine import session

    kept = list(session.of(config).directory.kept())
    known = {result.nodeid for result in kept}
    died = [nodeid for nodeid in config.stash.get(CRASHED, []) if nodeid not in known and options.names_model(nodeid)]
    reported = recorder(config).results
    return [result for result in (*kept, *map(_unknown, died)) if result.id not in reported]


def _unknown(nodeid: str) -> Result:
    """The Result of a model whose worker died before it began."""
    from pytest_madengine.results.judge import single
    from pytest_madengine.results.perf import FAILURE
    from pytest_madengine.results.result import FailureClass, Result

    name = nodeid.rpartition("::")[2]
    rows = single({"model": name}, FAILURE)
    return Result(nodeid, nodeid, name, FAILURE, rows, DIED, FailureClass.INFRASTRUCTURE)


def summary(terminal: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of models and everything that went wrong in recording."""
    for error in config.stash.get(WORKER_ERRORS, []):
        terminal.write_line(f"ERROR: {error}", red=True)
    records = config.stash.get(RECORDER, None)
    if records is None or not records.results:
        return
    from pytest_madengine.reporting.terminal import table

    terminal.ensure_newline()
    terminal.write_sep("=", "models")
    for line, good in table(records.results.values()):
        terminal.write_line(line, red=not good)
    for problem in records.problems:
        terminal.write_line(f"ERROR: {problem}", red=True)
