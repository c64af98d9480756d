"""What one item gave: rows for perf.csv, a status and the reason for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from pytest_madengine.results.perf import FAILURE, SKIPPED, SUCCESS


class FailureClass(str, Enum):
    """Whose fault a failure is."""

    NONE = ""
    BUILD = "build"
    INFRASTRUCTURE = "infrastructure"
    MODEL = "model"


@dataclass(frozen=True)
class Row:
    """One line of perf.csv, with what only perf_super holds beside it."""

    columns: Mapping[str, str]
    multi_results: Mapping[str, str] | None = None
    configs: Any = None


@dataclass(frozen=True)
class Result:
    """One item's result.

    Attributes:
        id: unique; a result that reaches the recorder twice is written once.
        nodeid: the pytest item.
        model: the model's name.
        status: SUCCESS, FAILURE or SKIPPED, of the item as a whole.
        reason: why it is not SUCCESS.
        failure: whose fault that is.
        rows: one or more; a failed item has one too.
        duration: seconds that the model's script ran.
        log: path of the run's (or the failed build's) log, of several ranks that of one that failed; '' without one.
        tail: the last lines of that log.
        notes: what was decided without being asked for, and what else the user should know.
        hosts: the node of each rank, in their order; '' where it is not known.
        machine: what was found out on the first node: vendor, gpus, architecture, product, toolkit, driver.
    """

    id: str
    nodeid: str
    model: str
    status: str
    rows: tuple[Row, ...]
    reason: str = ""
    failure: FailureClass = FailureClass.NONE
    duration: float = 0.0
    log: str = ""
    tail: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    machine: Mapping[str, str] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether every row has its metric and nothing failed."""
        return self.status == SUCCESS

    @property
    def failed(self) -> bool:
        """Whether the status is FAILURE."""
        return self.status == FAILURE

    @property
    def skipped(self) -> bool:
        """Whether the model was not to run here."""
        return self.status == SKIPPED

    @property
    def title(self) -> str:
        """The model's name, with its variant in brackets."""
        item = self.nodeid.rpartition("::")[2]
        return item if item.startswith(f"{self.model}[") else self.model

    @property
    def performance(self) -> float | None:
        """The first row's value, or None."""
        text = self.rows[0].columns.get("performance", "")
        return float(text) if text else None

    @property
    def metric(self) -> str:
        """The first row's unit."""
        return self.rows[0].columns.get("metric", "")

    @property
    def performances(self) -> dict[str, float]:
        """Value by row name, for the rows that have one."""
        return {
            row.columns["model"]: float(row.columns["performance"]) for row in self.rows if row.columns["performance"]
        }

    def explanation(self) -> str:
        """The reason, the end of the log and where the log is, for people."""
        parts = [f"{self.title}: {self.reason}"]
        if self.tail:
            parts += ["", *(f"    {line}" for line in self.tail), ""]
        if self.log:
            parts.append(f"log: {self.log}")
        return "\n".join(parts)

    def to_json(self) -> str:
        """Text that travels between processes; see `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Result:
        """The Result that `to_json` wrote."""
        data = json.loads(text)
        data["rows"] = tuple(Row(**row) for row in data["rows"])
        data["failure"] = FailureClass(data["failure"])
        texts = {name: tuple(data.get(name, ())) for name in ("tail", "notes", "hosts")}
        return cls(**{**data, **texts})
