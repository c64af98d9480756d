from __future__ import annotations

from dataclasses import replace

from pytest_madengine.reporting import junit
from pytest_madengine.results.comparison import Judgement
from pytest_madengine.results.metric import Metric
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.results.result import FailureClass
from tests.reporting.told import compared, result, row


def test_a_models_value_unit_image_and_hosts_are_told() -> None:
    assert dict(junit.properties(result("m"))) == {
        "performance": "12.50",
        "metric": "tokens/s",
        "image": "ci-m:1",
        "image_digest": "sha256:abc",
        "hosts": "node1,node2",
        "log": "/run/m/run.log",
    }


def test_rows_and_their_metrics_are_told_apart_by_name() -> None:
    several = result("m", "SUCCESS", row("m_a", "SUCCESS", "1", "x"), row("m_b", "SUCCESS", "2", "y"))
    verdict = compared("m_b", Judgement.REGRESSION, -0.0612)
    told = dict(junit.properties(replace(several, comparisons=(verdict,), metrics=(Metric("m_a", "ttft", 3.5, "ms"),))))
    assert told["performance:m_a"] == "1"
    assert told["metric:m_b"] == "y"
    assert (told["value:ttft:m_a"], told["unit:ttft:m_a"]) == ("3.5", "ms")
    assert (told["verdict:m_b"], told["change:m_b"]) == ("regression", "-0.061200")
    assert "performance" not in told


def test_a_verdict_says_what_it_is_beside_and_why() -> None:
    told = dict(junit.properties(result("m", comparisons=(compared("m", Judgement.NONE),))))
    assert (told["verdict"], told["verdict_reason"]) == ("no verdict", "because")
    assert not told.keys() & {"change", "reference"}


def test_earlier_tries_are_told_with_their_reasons() -> None:
    failed = result("m", FAILURE, reason="node died", failure=FailureClass.INFRASTRUCTURE)
    told = junit.properties(result("m"), [failed, replace(failed, reason="no answer")])
    assert told[:3] == [("attempt:1", "node died"), ("attempt:2", "no answer"), ("attempts", "3")]


def test_a_failure_says_whose_fault_it_is() -> None:
    told = dict(junit.properties(result("m", FAILURE, reason="x", failure=FailureClass.BUILD)))
    assert told["failure"] == "build"
    assert "performance" not in told


class Writer:
    """A plugin that writes a JUnit file."""

    def __init__(self) -> None:
        self.given: list[tuple[str, str]] = []

    def add_global_property(self, name: str, value: str) -> None:
        self.given.append((name, value))


def test_the_suite_of_whoever_writes_junit_is_described() -> None:
    writer = Writer()
    junit.describe([object(), writer], [("madengine_run", "1"), ("madengine_target", "host")])
    assert writer.given == [("madengine_run", "1"), ("madengine_target", "host")]
