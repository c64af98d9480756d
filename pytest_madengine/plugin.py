"""The plugin's hooks; what they do stands elsewhere and is imported only when models are asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_madengine import options, runid
from pytest_madengine.fixtures import (
    AHEAD,
    ATTEMPT,
    PROPERTY,
    VARIANT,
    backend,
    image,
    job,
    madengine_context,
    model,
    result,
)

if TYPE_CHECKING:
    from pytest_madengine.backends.base import Backend
    from pytest_madengine.launchers.base import Launcher
    from pytest_madengine.reporting.base import Reporter

__all__ = ["backend", "image", "job", "madengine_context", "model", "result"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks that sites implement."""
    from pytest_madengine import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Stay asleep unless models are asked for."""
    config.addinivalue_line("markers", 'madengine("name"): run this model once and give its `result` to the test')
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Controller(config), "madengine-controller")
    if options.awake(config):
        from pytest_madengine import waking

        waking.configure(config)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Where models run and where their files go."""
    if not options.awake(config):
        return None
    from pytest_madengine import waking

    return waking.header(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let xdist workers share the controller's run."""
    node.workerinput[runid.WORKER_KEY] = runid.of(node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn what a worker could not raise."""
    if _concerned():
        from pytest_madengine import waking

        waking.worker_ended(node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the report carry the Result."""
    report = yield
    if item.stash.get(ATTEMPT, None) or VARIANT in item.stash:
        from pytest_madengine.reporting import reports

        reports.complete(item, call, report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A rerun is an attempt of its own."""
    item.stash[ATTEMPT] = item.stash.get(AHEAD, None)
    item.stash[AHEAD] = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """A test that passed although its model failed, or a model's item although no model ran, does not pass."""
    yield
    attempt = item.stash.get(ATTEMPT, None)
    if VARIANT in item.stash and not (attempt and attempt.settled):
        from pytest_madengine import waking

        waking.fail_unrun(item)
    if attempt and attempt.result and attempt.result.failed:
        pytest.fail(attempt.result.explanation(), pytrace=False)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Show where a run stands, or how nodes are, if that is what was asked for."""
    if config.option.madengine_preflight:
        from pytest_madengine import nodecheck

        return nodecheck.show(config)
    if config.option.madengine_status is None:
        return None
    from pytest_madengine import waking

    return waking.show_status(config)


class Controller:
    """The hooks of the process that reports: the controller of xdist, or the only process."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> object:
        """Run models ahead of their items where several may be in flight."""
        if not options.awake(self.config):
            return None
        from pytest_madengine import waking

        return waking.run(session)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record what the report carries."""
        crashed = str(report.when) == "???"
        if crashed or any(name == PROPERTY for name, _ in report.user_properties):
            from pytest_madengine import waking

            waking.record(self.config, report)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave nothing running and no result unrecorded."""
    if _concerned():
        from pytest_madengine import waking

        waking.finish(session)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Close with the table of models."""
    if _concerned():
        from pytest_madengine import summary

        summary.show(terminalreporter, config)


def _concerned() -> bool:
    """Whether anything in this process has had to do with models."""
    return not sys.modules.keys().isdisjoint(("pytest_madengine.waking", "pytest_madengine.session"))


def pytest_madengine_backends(config: pytest.Config) -> Mapping[str, Backend]:
    """The built-in backends."""
    from pytest_madengine import session
    from pytest_madengine.backends.docker import DockerBackend
    from pytest_madengine.backends.host import HostBackend
    from pytest_madengine.backends.kubernetes import KubernetesBackend
    from pytest_madengine.backends.slurm import SlurmBackend
    from pytest_madengine.backends.slurmsteps import StepsBackend, inside

    ours = session.of(config)
    slurm = ours.context.slurm
    steps = inside(os.environ) and (slurm is None or slurm.in_allocation == "steps")
    on_slurm = StepsBackend(os.environ) if steps else SlurmBackend(ours.settings.pack or bool(ours.settings.ab))
    return {each.name: each for each in (DockerBackend(), HostBackend(), on_slurm, KubernetesBackend())}


def pytest_madengine_launchers() -> Sequence[Launcher]:
    """The built-in launchers."""
    from pytest_madengine.launchers import deepspeed, primus, sglang, slurm_multi, torchrun, vllm

    modules = (torchrun, deepspeed, vllm, sglang, primus, slurm_multi)
    return [launcher for module in modules for launcher in module.LAUNCHERS]


def pytest_madengine_reporters(config: pytest.Config) -> Sequence[Reporter]:
    """The built-in reporters."""
    from pytest_madengine import outputs, session
    from pytest_madengine.reporting.perfcsv import PerfCsv, PerfEntry, PerfSuper
    from pytest_madengine.reporting.record import RunRecord

    settings = session.of(config).settings
    if settings.build_only:
        return outputs.of_builds(session.of(config))
    more = outputs.reporters(session.of(config))
    record = RunRecord(session.of(config).directory.record)
    return [record, PerfCsv(settings.output), PerfSuper(settings.start), PerfEntry(settings.start), *more]
