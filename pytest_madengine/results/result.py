"""What one item gave: rows for perf.csv, a status and the reason for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any, TypeVar

from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.metric import Direction, Metric
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
class Usage:
    """What a sampler saw of one quantity while a model ran.

    Attributes:
        unit: of the values.
        minimum: the least.
        mean: over time.
        maximum: the most.
        file: the path of the samples over time; '' where they were not kept.
    """

    unit: str
    minimum: float
    mean: float
    maximum: float
    file: str = ""


@dataclass(frozen=True)
class Step:
    """A step of the job's script.

    Attributes:
        name: such as `clone`, `model`, `post_scripts`.
        started: ISO 8601 in UTC, by the clock of the node that it ran on.
        ended: the same; '' where it never ended.
    """

    name: str
    started: str
    ended: str = ""


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
        run: the run's id.
        attempt: which try at the item this is, from 1.
        started: when the job was submitted, ISO 8601 in UTC; '' where nothing was.
        ended: when this Result was made, ISO 8601 in UTC.
        image: the image's reference; '' without one.
        digest: the image's digest, or its id where it has none.
        versions: of what took part: `pytest-madengine`, `python`, `docker`, `slurm` …
        artifacts: paths of the files that the model left.
        metrics: all that was measured, `performance` of each row first.
        comparisons: of metrics with what was expected of them.
        usage: summaries of what a sampler saw, by name: `power`, `vram`.
        source: the file and line where the model's card stands: `/project/models.json:12`; '' where it is not known.
        steps: of the first node's script, in the order they began.
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
    run: str = ""
    attempt: int = 1
    started: str = ""
    ended: str = ""
    image: str = ""
    digest: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    usage: Mapping[str, Usage] = field(default_factory=dict)
    source: str = ""
    steps: tuple[Step, ...] = ()

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
        return cls.of(json.loads(text))

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Result:
        """The Result of plain data, which an earlier or a later version may have written."""
        return _result(data)


T = TypeVar("T")


def _made(kind: type[T], data: Mapping[str, Any], **changed: Any) -> T:
    """A value of plain data, in which a later version may have left out or added keys."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]  # each kind is a dataclass
    return kind(**{name: value for name, value in {**data, **changed}.items() if name in known})


def _result(data: Mapping[str, Any]) -> Result:
    listed = {name: tuple(data.get(name, ())) for name in ("tail", "notes", "hosts", "artifacts")}
    return _made(
        Result,
        data,
        rows=tuple(_made(Row, row) for row in data["rows"]),
        failure=FailureClass(data.get("failure", "")),
        metrics=tuple(map(_metric, data.get("metrics", ()))),
        comparisons=tuple(map(_comparison, data.get("comparisons", ()))),
        steps=tuple(_made(Step, step) for step in data.get("steps", ())),
        usage={name: _made(Usage, seen) for name, seen in data.get("usage", {}).items()},
        **listed,
    )


def _metric(data: Mapping[str, Any]) -> Metric:
    direction = Direction(data.get("direction", Direction.HIGHER))
    return _made(Metric, data, direction=direction, samples=tuple(data.get("samples", ())))


def _comparison(data: Mapping[str, Any]) -> Comparison:
    judgement = Judgement(data["judgement"])
    return _made(Comparison, data, metric=_metric(data["metric"]), judgement=judgement)
