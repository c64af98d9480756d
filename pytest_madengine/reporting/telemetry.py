"""A run as one OpenTelemetry trace; the only module that knows the SDK.

The ids of trace and spans follow from those of run and jobs: a resumed run sends the same spans again, not others.
Exporters are those that are installed; the standard `OTEL_*` variables choose among them and configure them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any

from pytest_madengine.errors import UserError
from pytest_madengine.reporting.base import AtTheEnd
from pytest_madengine.results.result import Result, Step
from pytest_madengine.secrets import NO_SECRETS, Masker

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

NEEDS = "opentelemetry.sdk"
"""The package that must be there."""
GROUP = "opentelemetry_traces_exporter"
"""Where exporters register themselves."""
PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
AT_ONCE = 512
"""Spans of one request."""
SERVICE = "pytest-madengine"
Attributes = Mapping[str, Any]
NOTED: Mapping[str, Attributes] = {"image": {"madengine.approximate": True}}
"""Of an image it is known how long it took, not when: it is shown as made right before its model."""
Times = tuple[int, int]
"""Begin and end in nanoseconds since 1970."""


def exporter_names(environ: Mapping[str, str]) -> list[str]:
    """The registered names of the exporters that the environment asks for; none where it wants none.

    Raises:
        UserError: one of them, or a protocol, is not known here.
    """
    asked = [name.strip() for name in environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    names = [_of_protocol(environ) if name == "otlp" else name for name in asked if name not in ("", "none")]
    known = sorted(point.name for point in metadata.entry_points(group=GROUP))
    if lost := [name for name in names if name not in known]:
        raise UserError(f"--madengine-otel: no exporter {', '.join(lost)} is installed; valid: {', '.join(known)}")
    return names


def _of_protocol(environ: Mapping[str, str]) -> str:
    keys = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next(filter(None, map(environ.get, keys)), "http/protobuf")
    if protocol not in PROTOCOLS:
        raise UserError(f"--madengine-otel: {keys[1]}: found {protocol!r}; valid: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]


class Trace(AtTheEnd):
    """The trace of `--madengine-otel`, sent when the run ends."""

    name = "--madengine-otel"
    remote = True

    def __init__(self, run: Mapping[str, str], environ: Mapping[str, str], mask: Masker = NO_SECRETS) -> None:
        self._run = run
        self._environ = environ
        self._mask = mask
        self._unsent: list[str] = []

    def keep(self, _: Result, /) -> None:
        """See `Keeping`: all that spans tell stands in the run's folder already."""

    def conclude(self, results: Sequence[Result], exit_status: int, /) -> None:
        """See `Concluding`."""
        spans = Spans(self._run, self._environ, self._mask).of(results, exit_status)
        for name in exporter_names(self._environ):
            (point,) = metadata.entry_points(group=GROUP, name=name)
            if left := _unsent(point.load()(), spans):
                self._unsent.append(f"{name} could not send {left} of {len(spans)} spans")

    def waiting(self) -> str:
        """See `Keeping`: a trace that no collector took fails no run."""
        if not self._unsent:
            return ""
        resume = f"--madengine-resume={self._run.get('run', '')}"
        where = "is a collector where OTEL_EXPORTER_OTLP_ENDPOINT says, or else on this machine?"
        return f"{self.name}: {', '.join(self._unsent)}: {where} {resume} sends them again"


def _unsent(exporter: SpanExporter, spans: Sequence[ReadableSpan]) -> int:
    """Send the spans; gives how many were not taken."""
    from opentelemetry.sdk.trace.export import SpanExportResult

    try:
        for first in range(0, len(spans), AT_ONCE):
            if exporter.export(spans[first : first + AT_ONCE]) is not SpanExportResult.SUCCESS:
                return len(spans) - first
        return 0
    finally:
        exporter.shutdown()


class Spans:
    """Makes the spans of a run.

    Args:
        run: what is known of the run, such as its `run` (the id) and `target`.
        environ: has OTEL_* and, where the run is a step of something traced, TRACEPARENT.
        mask: hides secrets in what spans say.
    """

    def __init__(self, run: Mapping[str, str], environ: Mapping[str, str], mask: Masker = NO_SECRETS) -> None:
        self._run = run
        self._environ = environ
        self._mask = mask
        self._ids = _ids(run.get("run", ""))
        self._ended: list[ReadableSpan] = []
        self._tracer = _provider(environ, self._ids, self._ended).get_tracer(SERVICE)

    def of(self, results: Iterable[Result], exit_status: int) -> list[ReadableSpan]:
        """One span for the run, below it one for each try at a model, below that its phases."""
        now = time.time_ns()
        timed = [(each, _times(each, now)) for each in results]
        begin = min((times[0] for _, times in timed), default=now)
        end = max((times[1] for _, times in timed), default=now)
        known = {f"madengine.{name}": value for name, value in self._run.items()}
        with self._span("run", "madengine run", (begin, end), _parent(self._environ), known) as (run, below):
            run.set_attribute("madengine.exit_status", exit_status)
            self._judge(run, "" if exit_status == 0 else f"exit status {exit_status}")
            for result, times in timed:
                self._model(result, times, below)
        return self._ended

    def _model(self, result: Result, times: Times, parent: Context) -> None:
        with self._span(result.id, result.title, times, parent, _attributes(result)) as (span, below):
            self._judge(span, result.reason if result.failed else "")
            for name, phase in _phases(result):
                with self._span(f"{result.id}/{name}", name, phase, below, NOTED.get(name, {})) as (_, inside):
                    if name == "run":
                        self._steps(result, inside)

    def _judge(self, span: Span, reason: str) -> None:
        from opentelemetry.trace import StatusCode

        if reason:
            span.set_status(StatusCode.ERROR, self._mask(reason))

    def _steps(self, result: Result, parent: Context) -> None:
        for step in result.steps:
            times = (_ns(step.started), _end(step, result))
            with self._span(f"{result.id}/step/{step.name}", step.name, times, parent, {}):
                pass

    @contextmanager
    def _span(
        self, seed: str, name: str, times: Times, parent: Context | None, attributes: Attributes
    ) -> Iterator[tuple[Span, Context]]:
        from opentelemetry.trace import set_span_in_context

        self._ids.seed = seed
        masked = {key: self._mask(value) if isinstance(value, str) else value for key, value in attributes.items()}
        span = self._tracer.start_span(name, parent, attributes=masked, start_time=times[0])
        yield span, set_span_in_context(span, parent)
        span.end(max(times))


def _attributes(result: Result) -> Attributes:
    said = {
        "madengine.model": result.model,
        "madengine.item": result.nodeid,
        "madengine.status": result.status,
        "madengine.attempt": result.attempt,
        "madengine.failure": result.failure.value,
        "madengine.image": result.image,
        "madengine.image.digest": result.digest,
        "madengine.hosts": list(result.hosts),
        "madengine.log": result.log,
        "madengine.duration": result.duration,
    }
    measured = {f"madengine.performance.{row}": value for row, value in result.performances.items()}
    return {name: value for name, value in (said | measured).items() if value not in ("", [])}


def _times(result: Result, now: int) -> Times:
    end = _ns(result.ended) if result.ended else now
    return min([end, *(begin for _, (begin, _) in _phases(result))]), end


def _phases(result: Result) -> Iterator[tuple[str, Times]]:
    """What is known of the way of a model."""
    submitted = _ns(result.started) if result.started else 0
    built = float(result.rows[0].columns.get("build_duration") or 0)
    if submitted and built:
        yield "image", (submitted - round(built * 1e9), submitted)
    began = min((_ns(step.started) for step in result.steps), default=0)
    if submitted:
        yield "queue", (submitted, max(submitted, began or _ns(result.ended or result.started)))
    if began:
        yield "run", (began, max(_end(step, result) for step in result.steps))


def _end(step: Step, result: Result) -> int:
    """A step that was cut short ended with its job."""
    return _ns(step.ended or result.ended or step.started)


def _ns(text: str) -> int:
    """Nanoseconds since 1970 of a moment in ISO 8601."""
    since = datetime.fromisoformat(text.replace("Z", "+00:00")) - datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return since // timedelta(microseconds=1) * 1000


def _ids(run: str) -> Any:  # an IdGenerator, which only the SDK can name
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Ids(IdGenerator):
        """Ids that follow from the run and from the seed that is set before each span begins."""

        seed = ""

        def generate_trace_id(self) -> int:
            return _hashed(run, 16)

        def generate_span_id(self) -> int:
            return _hashed(f"{run} {self.seed}", 8)

    return Ids()


def _hashed(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size], "big")


def _provider(environ: Mapping[str, str], ids: Any, ended: list[ReadableSpan]) -> TracerProvider:
    """A provider of its own, beside whatever else this process traces; spans that have ended go to `ended`."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    class Collected(SpanProcessor):
        """Keeps spans until they are sent together."""

        def on_end(self, span: ReadableSpan) -> None:
            ended.append(span)

    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(
        resource=Resource.create({} if named else {"service.name": SERVICE}), id_generator=ids, shutdown_on_exit=False
    )
    provider.add_span_processor(Collected())
    return provider


def _parent(environ: Mapping[str, str]) -> Context:
    """What TRACEPARENT names; else the trace is one of its own."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name: environ.get(name.upper(), "") for name in ("traceparent", "tracestate")}
    return TraceContextTextMapPropagator().extract(carrier, Context())
