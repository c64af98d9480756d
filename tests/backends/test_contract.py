"""Every backend keeps the contract."""

from __future__ import annotations

import pytest

from tests.backends import contract
from tests.backends.support import EACH, K8S, Place


@pytest.fixture(params=EACH)
def place(request: pytest.FixtureRequest) -> Place:
    place: Place = request.param
    return place


class TestOutcomes(contract.Outcomes):
    pass


class TestLogs(contract.Logs):
    pass


class TestEnvironments(contract.Environments):
    pass


class TestScripts(contract.Scripts):
    pass


class TestResults(contract.Results):
    pass


class TestCancelling(contract.Cancelling):
    pass


class TestSubmitting(contract.Submitting):
    pass


class TestFinding(contract.Finding):
    pass


class TestStatuses(contract.Statuses):
    pass


class TestHandles(contract.Handles):
    pass


class TestWaking(contract.Waking):
    pass


class TestRepositories(contract.Repositories):
    pass


class TestPrivateRepositories(contract.PrivateRepositories):
    @pytest.fixture(params=[each for each in EACH if each.id != K8S.name])  # pods have a loopback of their own
    def place(self, request: pytest.FixtureRequest) -> Place:
        place: Place = request.param
        return place
