"""Collects every result of a session, once, and feeds the reporters; lives in the controller alone."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytest

from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Course
from pytest_madengine.engine.journal import Journal
from pytest_madengine.errors import InfrastructureError, MadengineError
from pytest_madengine.fixtures import PROPERTY
from pytest_madengine.reporting.base import Appending, Concluding, Finishing, Keeping, Reporter
from pytest_madengine.reporting.outbox import Errand, Outbox
from pytest_madengine.results.result import Result

PATIENCE = 10.0
"""Seconds that remote reporters get when there are no further results, and again when the session ends."""


class Recorder:
    """What was recorded, and what could not be written.

    Files of this machine are written first and in the calling thread, for remote reporters others write.

    Args:
        reporters: in the order in which they get each result.
        records: where it is noted what was recorded.
        past: what an earlier session of this run noted.
        patience: seconds that remote reporters get, see `PATIENCE`.

    Attributes:
        results: by id, those of an earlier session of this run included.
        problems: what was lost, to be told at the end; the session fails for them.
        warnings: what else is to be told then, such as that a network or a server failed.
    """

    def __init__(
        self,
        reporters: Sequence[Reporter],
        records: Journal,
        past: Mapping[str, Course],
        patience: float = PATIENCE,
    ) -> None:
        self._local = [each for each in reporters if not _is_remote(each)]
        self._remote = [Remote(each) for each in reporters if _is_remote(each)]
        self._journal = records
        self._past = past
        self._patience = patience
        self.results: dict[str, Result] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def record(self, result: Result) -> None:
        """Feed the reporters; a result that was recorded before is not recorded again."""
        if result.id in self.results:
            return
        self.results[result.id] = result
        past = self._past.get(result.id)
        if past and past.recorded:
            return
        sizes = past.marks if past else None
        if sizes is None:
            self._journal.write({"kind": journal.RECORDING, "job": result.id, "marks": self._sizes()})
        for reporter in self._local:
            self._write(reporter, result, sizes)
        for remote in self._remote:
            self._hand_over(remote, result)
        self._journal.write({"kind": journal.RECORDED, "job": result.id}, sync=False)

    def finish(self) -> None:
        """There are no further results."""
        for reporter in self._local:
            if isinstance(reporter, Finishing):
                self._do(reporter, Errand(reporter.finish, "its files"))
        for remote in self._remote:
            if isinstance(remote.reporter, Finishing):
                remote.outbox.put(Errand(remote.reporter.finish, "what was left"))
        self._wait()

    def conclude(self, exit_status: int) -> None:
        """The session ends."""
        results = tuple(self.results.values())
        for reporter in self._local:
            if isinstance(reporter, Concluding):
                self._do(reporter, _conclusion(reporter, results, exit_status))
        for remote in self._remote:
            if isinstance(remote.reporter, Concluding):
                remote.outbox.put(_conclusion(remote.reporter, results, exit_status))
        self._wait()
        for remote in self._remote:
            remote.outbox.close()
        kept = (each.reporter.waiting() for each in self._remote if isinstance(each.reporter, Keeping))
        self.warnings += filter(None, kept)

    def _sizes(self) -> dict[str, int]:
        return {
            path: size
            for reporter in self._local
            if isinstance(reporter, Appending)
            for path, size in reporter.sizes().items()
        }

    def _write(self, reporter: Reporter, result: Result, sizes: Mapping[str, int] | None) -> None:
        if sizes is not None and isinstance(reporter, Appending):
            write = functools.partial(reporter.write_missing, result, sizes)
        else:
            write = functools.partial(reporter.write, result)
        self._do(reporter, Errand(write, _row(result)))

    def _hand_over(self, remote: Remote, result: Result) -> None:
        if isinstance(remote.reporter, Keeping):
            self._do(remote.reporter, Errand(functools.partial(remote.reporter.keep, result), _row(result)))
        remote.outbox.put(Errand(functools.partial(remote.reporter.write, result), _row(result)))

    def _do(self, reporter: Reporter, errand: Errand) -> None:
        try:
            errand.act()
        except Exception as error:  # noqa: BLE001  # a site's reporter must not cost the others their rows
            self.problems.append(_told(reporter, errand, error))

    def _wait(self) -> None:
        """Give remote reporters their time, all together; who interrupts this waits no longer."""
        until = time.monotonic() + self._patience
        for remote in self._remote:
            try:
                left = remote.outbox.wait(until)
            except KeyboardInterrupt:
                until = time.monotonic()
                left = remote.outbox.wait(until)
            for text, error in remote.failures():
                (self.problems if _is_to_mend(error) else self.warnings).append(text)
            if left:
                self.warnings.append(self._given_up(remote.reporter, left))

    def _given_up(self, reporter: Reporter, left: int) -> str:
        return f"{reporter.name} was given up with {left} left to do (--madengine-reporting-timeout={self._patience:g})"

    def record_report(self, report: pytest.TestReport) -> None:
        """The result that a report carries, if any."""
        for text in carried(report):
            self.record(Result.from_json(text))


class Remote:
    """A reporter with the thread that calls it."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.outbox = Outbox(reporter.name, self._failed)
        self._failures: deque[tuple[str, Exception]] = deque()

    def _failed(self, errand: Errand, error: Exception) -> None:
        self._failures.append((_told(self.reporter, errand, error), error))

    def failures(self) -> Iterator[tuple[str, Exception]]:
        """What has failed since this was last asked, in words, and why."""
        while self._failures:
            yield self._failures.popleft()


def registered(config: pytest.Config) -> tuple[list[Reporter], list[str]]:
    """Every plugin's reporters, ours first, and what went wrong in asking for them."""
    manager, hook = config.pluginmanager, config.hook.pytest_madengine_reporters
    plugins = [each.plugin for each in hook.get_hookimpls()]
    reporters: list[Reporter] = []
    problems: list[str] = []
    for plugin in plugins:
        others = [each for each in plugins if each is not plugin]
        try:
            found = manager.subset_hook_caller(hook.name, others)(config=config)
            reporters += [reporter for several in found for reporter in several]
        except Exception as error:  # noqa: BLE001  # a site's plugin must not cost anybody else's reporters a row
            problems.append(f"the reporters of {manager.get_name(plugin)} are left out: {_words(error)}")
    return reporters, problems


def _is_remote(reporter: Reporter) -> bool:
    return bool(getattr(reporter, "remote", False))


def _is_to_mend(error: Exception) -> bool:
    """Whether a remote reporter failed for something that the user has to mend, and not for a network or a server."""
    return isinstance(error, MadengineError) and not isinstance(error, InfrastructureError)


def _row(result: Result) -> str:
    return f"a row for {result.nodeid}"


def _conclusion(reporter: Concluding, results: Sequence[Result], exit_status: int) -> Errand:
    return Errand(functools.partial(reporter.conclude, results, exit_status), "what the run came to")


def _told(reporter: Reporter, errand: Errand, error: Exception) -> str:
    return f"{reporter.name} could not write {errand.what}: {_words(error)}"


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, OSError | ValueError | MadengineError) else repr(error)


def carried(report: pytest.TestReport) -> Iterable[str]:
    """The JSON texts of results on a report."""
    return [str(value) for name, value in report.user_properties if name == PROPERTY]


def attach(report: pytest.TestReport, result: Result) -> None:
    """Let a report carry a result to the controller."""
    report.user_properties.append((PROPERTY, result.to_json()))
