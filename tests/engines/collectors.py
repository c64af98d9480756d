"""A collector of OpenTelemetry spans on this machine, which keeps what it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What was sent.

    Attributes:
        endpoint: for OTEL_EXPORTER_OTLP_ENDPOINT.
        answer: the status that each request gets.
        headers: of each request.
    """

    endpoint: str = ""
    answer: HTTPStatus = HTTPStatus.OK
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """All of all requests, in the order in which they were sent."""
        scopes = (scope for each in self.requests for of in each.resource_spans for scope in of.scope_spans)
        return [span for scope in scopes for span in scope.spans]

    @property
    def resource(self) -> dict[str, Any]:
        """Who sent the first of them."""
        return attributes(self.requests[0].resource_spans[0].resource)

    def named(self, name: str) -> Span:
        """The only span of that name."""
        (span,) = [each for each in self.spans if each.name == name]
        return span

    def below(self, span: Span) -> list[str]:
        """The names of a span's children, by the time that they began."""
        found = [each for each in self.spans if each.parent_span_id == span.span_id]
        return [each.name for each in sorted(found, key=lambda each: each.start_time_unix_nano)]


def attributes(of: Any) -> dict[str, Any]:
    """Those of a span or a resource."""
    return {each.key: _value(each.value) for each in of.attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, str(kind))


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on a port of its own."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if collector.answer is HTTPStatus.OK and self.path == "/v1/traces":
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(collector.answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    collector.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
