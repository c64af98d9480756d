"""What the plugin does once models are asked for. Imports stay inside where they are heavy."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_madengine.reporting.recorder import Recorder
    from pytest_madengine.results.result import Result

WORKER_RUN = "madengine_run"
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
    from pytest_madengine.errors import UserError
    from pytest_madengine.models import discovery
    from pytest_madengine.reporting import perfcsv

    run_id(config)
    ours = session.of(config)
    try:
        _ = ours.target, ours.tags, ours.credentials
        perfcsv.check(ours.settings.output)
        if ours.tags and config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args[:] = map(str, discovery.files(ours.settings.project))
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(items.Collection(), "madengine-collection")
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _on_terminate)
        config.add_cleanup(lambda: _restore(before))


def _on_terminate(number: int, frame: object) -> None:
    """SIGTERM ends a session as Ctrl-C does: what is in flight is cancelled, what is done is written."""
    del frame
    pytest.exit(f"ended by {signal.Signals(number).name}", returncode=128 + number)


def _restore(handler: Any) -> None:
    signal.signal(signal.SIGTERM, handler)


def run_id(config: pytest.Config) -> str:
    """The id of this session's run directory; xdist workers get their controller's."""
    from pytest_madengine import session
    from pytest_madengine.engine.rundir import new_run_id

    if session.RUN_ID not in config.stash:
        given: dict[str, str] = getattr(config, "workerinput", {})
        config.stash[session.RUN_ID] = given.get(WORKER_RUN) or new_run_id()
    return config.stash[session.RUN_ID]


def header(config: pytest.Config) -> str:
    """One line for the head of the terminal output."""
    from pytest_madengine import session

    ours = session.of(config)
    folder = ours.settings.start / ".madengine" / "runs" / run_id(config)
    return f"madengine: target {ours.target}, run {folder}"


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
        registered = config.hook.pytest_madengine_reporters(config=config)
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
    if hasattr(config, "workerinput"):
        return
    if config.stash.get(WORKER_ERRORS, None):
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
    from pytest_madengine import session as sessions

    ours = config.stash.get(sessions.KEY, None)
    if ours is None or ("directory" not in vars(ours) and not _started(config)):
        return
    _clean_up(config)
    _sweep(config)
    problems = recorder(config).problems
    unfinished = any(result.failed for result in recorder(config).results.values())
    if session.exitstatus == pytest.ExitCode.OK and (problems or unfinished):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _started(config: pytest.Config) -> bool:
    """Whether any process of this session made the run directory."""
    from pytest_madengine import session

    return (session.of(config).settings.start / ".madengine" / "runs" / run_id(config)).is_dir()


def _clean_up(config: pytest.Config) -> None:
    from pytest_madengine import session
    from pytest_madengine.engine.run import cancel_leftovers

    ours = session.of(config)
    cancel_leftovers(ours.backends, ours.directory)


def _sweep(config: pytest.Config) -> None:
    """Record what a dead or stopped process had written down, and items of which nothing is known at all."""
    from pytest_madengine import session

    ours, records = session.of(config), recorder(config)
    for result in ours.directory.kept():
        records.record(result)
    known = {result.nodeid for result in records.results.values()}
    for nodeid in config.stash.get(CRASHED, []):
        if (nodeid not in known and ".json::" in nodeid) or ".py::" not in nodeid:
            records.record(_unknown(nodeid))


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
    from pytest_madengine.reporting.terminal import table

    for error in config.stash.get(WORKER_ERRORS, []):
        terminal.write_line(f"ERROR: {error}", red=True)
    records = config.stash.get(RECORDER, None)
    if records is None or not records.results:
        return
    terminal.section("models")
    for line, good in table(records.results.values()):
        terminal.write_line(line, red=not good)
    for problem in records.problems:
        terminal.write_line(f"ERROR: {problem}", red=True)
