from __future__ import annotations

import pytest

from pytest_madengine.results.failures import FailureRule, classified
from pytest_madengine.results.result import FailureClass

MODEL, INFRASTRUCTURE, BUILD = FailureClass.MODEL, FailureClass.INFRASTRUCTURE, FailureClass.BUILD


@pytest.mark.parametrize(
    ("reason", "line", "expected"),
    [
        ("exit code 1", "RuntimeError: shapes do not match", MODEL),
        ("exit code 1", "CUDA error: uncorrectable ECC error encountered", INFRASTRUCTURE),
        ("exit code 1", "OSError: [Errno 28] No space left on device", INFRASTRUCTURE),
        ("exit code 128 in git clone", "fatal: Could not resolve host: example.org", INFRASTRUCTURE),
        ("exit code 128 in git clone", "fatal: repository not found", MODEL),
        ("exit code 1", "Connection refused", MODEL),
    ],
)
def test_what_the_log_of_a_failed_run_tells_of_its_machine(reason: str, line: str, expected: FailureClass) -> None:
    assert classified(MODEL, reason, ["before", line], 1, ()) is expected


@pytest.mark.parametrize("given", [BUILD, INFRASTRUCTURE, FailureClass.NONE])
def test_only_a_models_failure_can_turn_out_to_be_another_s(given: FailureClass) -> None:
    assert classified(given, "x", ["No space left on device"], 1, [FailureRule(MODEL)]) is given


def test_all_that_a_rule_names_must_be_true() -> None:
    rule = FailureRule(INFRASTRUCTURE, reason="^exit", log="node", exit_codes=frozenset([7]))
    assert rule.fits("exit code 7", ["my node died"], 7)
    assert not rule.fits("no exit", ["my node died"], 7)
    assert not rule.fits("exit code 7", ["fine"], 7)
    assert not rule.fits("exit code 7", ["my node died"], None)


def test_a_sites_rules_go_first() -> None:
    rule = FailureRule(MODEL, log="No space left")
    assert classified(MODEL, "exit code 1", ["No space left on device"], 1, [rule]) is MODEL
