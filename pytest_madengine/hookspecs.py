"""Everything that a site can add from a conftest or a plugin of its own. The built-ins register the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_madengine.backends.base import Backend
    from pytest_madengine.engine.lane import Pace
    from pytest_madengine.jobs.job import Job
    from pytest_madengine.launchers.base import Launcher
    from pytest_madengine.reporting.base import Reporter
    from pytest_madengine.results.failures import FailureRule
    from pytest_madengine.results.result import Result


@pytest.hookspec
def pytest_madengine_backends(config: pytest.Config) -> Mapping[str, Backend]:  # type: ignore[empty-body]
    """Backends by the name that `--target` takes."""


@pytest.hookspec
def pytest_madengine_launchers(config: pytest.Config) -> Sequence[Launcher]:  # type: ignore[empty-body]
    """Launchers that `distributed.launcher` can name."""


@pytest.hookspec
def pytest_madengine_reporters(config: pytest.Config) -> Sequence[Reporter]:  # type: ignore[empty-body]
    """Writers of results; asked once, in the controller."""


@pytest.hookspec
def pytest_madengine_failure_rules(config: pytest.Config) -> Sequence[FailureRule]:  # type: ignore[empty-body]
    """What tells a failure of a machine from one of a model; goes before the built-in rules."""


@pytest.hookspec(firstresult=True)
def pytest_madengine_pace(config: pytest.Config) -> Pace | None:
    """How often backends are asked, and how long they may keep silent."""


@pytest.hookspec(firstresult=True)
def pytest_madengine_job(item: pytest.Item, job: Job) -> Job | None:
    """Change a job before it is planned: the Job returned is run in its place."""


@pytest.hookspec
def pytest_madengine_result(item: pytest.Item, result: Result) -> None:
    """Look at a result before it is reported."""
