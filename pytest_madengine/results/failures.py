"""Whose fault a failure is: rules as data, the first that fits decides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_madengine.results.result import FailureClass


@dataclass(frozen=True)
class FailureRule:
    """A failure of which all that is given here is true belongs to `failure`.

    Attributes:
        failure: the class.
        reason: regular expression that is searched in the reason.
        log: regular expression that is searched in each of the log's last lines.
        exit_codes: of the job's script.
    """

    failure: FailureClass
    reason: str = ""
    log: str = ""
    exit_codes: frozenset[int] = frozenset()

    def fits(self, reason: str, tail: Sequence[str], exit_code: int | None) -> bool:
        """Whether this rule speaks of such a failure."""
        return (
            (not self.reason or re.search(self.reason, reason) is not None)
            and (not self.log or any(re.search(self.log, line) for line in tail))
            and (not self.exit_codes or exit_code in self.exit_codes)
        )


RULES = (
    FailureRule(FailureClass.INFRASTRUCTURE, log=r"uncorrectable ECC error|GPU has fallen off the bus"),
    FailureRule(FailureClass.INFRASTRUCTURE, log=r"No space left on device|Stale file handle"),
    FailureRule(
        FailureClass.INFRASTRUCTURE,
        reason=r" in git clone$",
        log=r"Could not resolve host|Connection (refused|reset|timed out)|Failed to connect|early EOF",
    ),
)
"""What a model's failing run shows when its machine or network failed under it."""


def classified(
    given: FailureClass, reason: str, tail: Sequence[str], exit_code: int | None, rules: Iterable[FailureRule]
) -> FailureClass:
    """The class of a failure that was judged `given`; only a model's failure can turn out to be another's."""
    if given is not FailureClass.MODEL:
        return given
    return next((rule.failure for rule in (*rules, *RULES) if rule.fits(reason, tail, exit_code)), given)
