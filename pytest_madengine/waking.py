"""What the plugin does once models are asked for. Imports stay inside where they are heavy."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_madengine import options, runid

if TYPE_CHECKING:
    from pytest_madengine.reporting.recorder import Recorder
    from pytest_madengine.results.result import Result

RECORDER = pytest.StashKey["Recorder"]()
WRITTEN = pytest.StashKey[bool]()
"""Whether the manifest is another one than before."""
WORKER_ERRORS = pytest.StashKey[list[str]]()
CRASHED = pytest.StashKey[list[str]]()
OTHER_FAILURE, BUILD_FAILED, RUN_FAILED = 1, 2, 3
"""Exit codes of `--madengine-exit-codes`, beside 0 and pytest's 4 for wrong usage."""
CRASH = "???"
"""xdist's `when` for an item whose worker died."""
WHOLE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
"""Exit statuses of sessions that went through all their items."""
DIED = "the worker process that ran this item died"


def configure(config: pytest.Config) -> None:
    """Check what can be checked before anything is collected, and prepare collection.

    Raises:
        pytest.UsageError: wrong options or context, or no cards.
    """
    from pytest_madengine import checks, items, session
    from pytest_madengine.errors import UserError

    ours = session.of(config)
    checks.refuse_workers(ours)
    try:
        checks.check(ours)
        settings = ours.settings
        named = config.args_source is pytest.Config.ArgsSource.ARGS
        if (ours.tags or settings.manifest or settings.build_only or settings.dry_run) and not named:
            config.args[:] = map(str, ours.files)
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
    if ours.settings.dry_run:
        return f"madengine: target {ours.target}, dry run: nothing is built or submitted"
    return f"madengine: target {ours.target}, run {runid.folder(config)}"


def run(session: pytest.Session) -> object:
    """Run the session's items where models run ahead of them; None leaves that to pytest."""
    config = session.config
    failed = session.testsfailed and not config.option.continue_on_collection_errors
    if config.option.collectonly or failed:
        return None
    if config.option.madengine_dry_run:
        return _dry_run(session)
    if options.given(config, "setuponly"):
        return None
    from pytest_madengine import checks, loop, makers
    from pytest_madengine import session as sessions

    ours = sessions.of(config)
    if not (ours.settings.build_only or ours.is_worker):
        checks.check_items(session.items, ours)
    ours.open(loop.model_ids(session))
    if loop.wanted(session, ours):
        loop.Loop(session, ours).run()
        return True
    if loop.alone(session, ours) and ours.containers:
        makers.Makers(ours).make_all(loop.ahead(session))
    return None


def _dry_run(session: pytest.Session) -> bool:
    from pytest_madengine import dryrun
    from pytest_madengine import session as sessions

    dryrun.run(session, sessions.of(session.config))
    return True


def show_status(config: pytest.Config) -> int:
    """Print where a run stands."""
    import time

    from pytest_madengine.engine import journal, rundir
    from pytest_madengine.engine.board import Board
    from pytest_madengine.reporting.status import report
    from pytest_madengine.secrets import Masker, is_secret

    config._do_configure()  # noqa: SLF001  # as pytest's own --help and --markers do
    try:
        folder = runid.existing(config, config.option.madengine_status)
        writer = config.get_terminal_writer()
        board = Board.of(journal.read(folder))
        mask = Masker(value for name, value in os.environ.items() if is_secret(name))
        for line in report(board, time.time(), mask):
            writer.line(line)
        if "ended" not in board.run and not rundir.in_use(folder):
            writer.line("its process died: --madengine-resume goes on with it")
    finally:
        config._ensure_unconfigure()  # noqa: SLF001  # see above
    return pytest.ExitCode.OK


def worker_ended(node: Any) -> None:
    """Keep the usage error that an xdist worker met."""
    error = getattr(node, "workeroutput", {}).get("madengine_usage_error")
    if error:
        errors = node.config.stash.setdefault(WORKER_ERRORS, [])
        if error not in errors:
            errors.append(error)


def recorder(config: pytest.Config) -> Recorder:
    """The session's recorder, made when the first result comes."""
    from pytest_madengine import outputs, session
    from pytest_madengine.reporting import mongosettings
    from pytest_madengine.reporting.recorder import Recorder, registered

    if RECORDER not in config.stash:
        ours = session.of(config)
        reporters, problems = registered(config)
        made = Recorder(reporters, ours.journal, ours.past.jobs, ours.settings.reporting_timeout)
        made.problems += problems
        made.warnings += mongosettings.warnings(config.option.madengine_mongo or "")
        config.stash[RECORDER] = made
        outputs.describe(ours)
    return config.stash[RECORDER]


def record(config: pytest.Config, report: pytest.TestReport) -> None:
    """Take the result that a report carries; remember an item that died with its worker."""
    if report.when == CRASH:
        config.stash.setdefault(CRASHED, []).append(report.nodeid)
    else:
        recorder(config).record_report(report)
        _stop_if_hopeless(config)


def _stop_if_hopeless(config: pytest.Config) -> None:
    """Begin no more models where the user's limit of infrastructure failures is reached."""
    from pytest_madengine import session
    from pytest_madengine.results.result import FailureClass

    most = session.of(config).settings.max_infra_failures
    if most is None:
        return
    results = recorder(config).results.values()
    failed = {each.nodeid for each in results if each.failure is FailureClass.INFRASTRUCTURE}
    running: Any = config.pluginmanager.get_plugin("session")
    if len(failed) >= most and not running.shouldstop:
        running.shouldstop = f"{len(failed)} infrastructure failures (--madengine-max-infra-failures={most})"


def finish(session: pytest.Session) -> None:
    """End what still runs, record what was not reported, and let the exit status tell of losses."""
    config = session.config
    if hasattr(config, "workerinput") or options.given(config, "setuponly"):
        return
    if config.stash.get(WORKER_ERRORS, None):
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
    if not _asked_for_models(config):
        return
    if not _detached(config):
        _clean_up(config)
    lost = _unreported(config)
    for result in lost:
        recorder(config).record(result)
    recorder(config).finish()
    _write_manifest(session)
    if session.exitstatus == pytest.ExitCode.OK and (
        recorder(config).problems or any(result.failed for result in lost)
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if config.option.madengine_exit_codes or config.getini(options.INI_EXIT_CODES):
        session.exitstatus = _exit_code(session, recorder(config))
    _conclude(session)
    _close(config)


def _conclude(session: pytest.Session) -> None:
    """Let reporters tell of the whole run; what they could not tell fails it."""
    records = recorder(session.config)
    before = len(records.problems)
    records.conclude(int(session.exitstatus))
    if session.exitstatus == pytest.ExitCode.OK and len(records.problems) > before:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _exit_code(session: pytest.Session, records: Recorder) -> int:
    """The contract of the replaced tool, by what went wrong first on a model's way."""
    from pytest_madengine import session as sessions
    from pytest_madengine.results.result import FailureClass

    classes = {result.failure for result in records.results.values() if result.failed}
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.USAGE_ERROR):
        return int(session.exitstatus)
    if FailureClass.BUILD in classes or (classes and sessions.of(session.config).settings.build_only):
        return BUILD_FAILED
    return RUN_FAILED if classes else OTHER_FAILURE


def _write_manifest(session: pytest.Session) -> None:
    """Write what a session that only makes images is for; one that was cut short leaves the manifest as it is."""
    from pytest_madengine import built
    from pytest_madengine import session as sessions
    from pytest_madengine.errors import UserError

    config = session.config
    ours = sessions.of(config)
    if not (ours.settings.build_only and ours.opened) or session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        return
    if session.shouldstop or session.shouldfail or session.exitstatus not in WHOLE:
        recorder(config).problems.append(f"{ours.settings.manifest_output} was not written: the session ended early")
        return
    try:
        config.stash[WRITTEN] = built.write(ours, recorder(config).results.values())
    except UserError as error:
        recorder(config).problems.append(str(error))


def _close(config: pytest.Config) -> None:
    from pytest_madengine import session
    from pytest_madengine.engine import journal

    ours = session.of(config)
    ours.fleet.leave()
    ours.journal.write({"kind": journal.END})
    ours.journal.close()
    ours.release()


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
    from pytest_madengine.engine import journal, leftovers
    from pytest_madengine.engine.board import Board
    from pytest_madengine.errors import InfrastructureError

    ours = session.of(config)
    board = Board.of(journal.read(ours.directory.path))
    try:
        leftovers.cancel(board.in_flight(), ours.backends, ours.journal)
    except InfrastructureError as error:
        recorder(config).problems.append(str(error))


def _detached(config: pytest.Config) -> bool:
    from pytest_madengine import session

    return bool(session.of(config).detached)


def _unreported(config: pytest.Config) -> list[Result]:
    """What a dead or stopped process wrote down and never reported, and items of which nothing is known at all."""
    from pytest_madengine import session

    kept = list(session.of(config).directory.kept())
    known = {result.nodeid for result in kept}
    died = [each for each in config.stash.get(CRASHED, []) if each not in known and _of_model(config, each)]
    past = session.of(config).past.jobs
    known_of = recorder(config).results.keys() | {course.id for course in past.values() if course.recorded}
    return [result for result in (*kept, *map(_unknown, died)) if result.id not in known_of]


def _of_model(config: pytest.Config, nodeid: str) -> bool:
    """Whether an item that this process never saw was a model's."""
    from pytest_madengine import session

    file = os.path.normpath(config.rootpath / nodeid.partition("::")[0])  # outside the root an id begins with `..`
    return session.of(config).reads(Path(file))


def _unknown(nodeid: str) -> Result:
    """The Result of a model whose worker died before it began."""
    from pytest_madengine.results.judge import single
    from pytest_madengine.results.perf import FAILURE
    from pytest_madengine.results.result import FailureClass, Result

    name = nodeid.rpartition("::")[2]
    rows = single({"model": name}, FAILURE)
    return Result(nodeid, nodeid, name, FAILURE, rows, DIED, FailureClass.INFRASTRUCTURE)
