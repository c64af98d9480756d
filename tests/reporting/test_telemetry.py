from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any

import pytest

from pytest_madengine.errors import UserError
from pytest_madengine.reporting import telemetry
from pytest_madengine.reporting.telemetry import Trace, exporter_names
from pytest_madengine.results.perf import FAILURE, SUCCESS
from pytest_madengine.results.result import FailureClass, Result
from pytest_madengine.secrets import Masker
from tests.engines.collectors import Collector, attributes, collecting
from tests.reporting.told import result, row, steps

RUN = {"run": "20260314-a", "target": "slurm"}
ERROR = 2
"""The protocol's number of a span's status that tells of an error."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5")
        yield collector


def told(
    *results: Result, exit_status: int = 0, mask: str = "unlikely", environ: Mapping[str, str] | None = None
) -> Trace:
    trace = Trace(RUN, environ or {}, Masker([mask]))
    trace.conclude(results, exit_status)
    return trace


def built() -> Result:
    known = row("m", SUCCESS, "12.5", "tokens/s", build_duration="30.000")
    return result("m", SUCCESS, known, steps=steps("clone", "model"))


def seconds(span: Any) -> tuple[float, float]:
    """When it began and how long it took; the job was submitted at 0."""
    submitted = datetime.fromisoformat("2026-03-14T15:09:00+00:00").timestamp()
    begin, end = span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9
    return round(begin - submitted, 3), round(end - begin, 3)


def test_a_run_is_one_trace_with_a_span_for_each_model_and_phase(collector: Collector) -> None:
    assert told(built()).waiting() == ""
    assert len({span.trace_id for span in collector.spans}) == 1
    run, model = collector.named("madengine run"), collector.named("m")
    assert run.parent_span_id == b""
    assert collector.below(run) == ["m"]
    assert collector.below(model) == ["image", "queue", "run"]
    assert collector.below(collector.named("run")) == ["clone", "model"]


def test_spans_last_as_long_as_what_they_tell_of(collector: Collector) -> None:
    told(built())
    times = {span.name: seconds(span) for span in collector.spans}
    assert times == {
        "madengine run": (-30, 90),
        "m": (-30, 90),
        "image": (-30, 30),
        "queue": (0, 20),
        "run": (20, 20),
        "clone": (20, 10),
        "model": (30, 10),
    }
    assert attributes(collector.named("image")) == {"madengine.approximate": True}


def test_what_was_measured_and_where_are_attributes(collector: Collector) -> None:
    told(built())
    known = attributes(collector.named("m"))
    assert known["madengine.performance.m"] == 12.5
    assert known["madengine.hosts"] == ["node1", "node2"]
    assert known["madengine.image.digest"] == "sha256:abc"
    assert "madengine.failure" not in known
    assert attributes(collector.named("madengine run"))["madengine.target"] == "slurm"
    assert collector.resource["service.name"] == "pytest-madengine"


def test_a_failure_is_an_errors_status(collector: Collector) -> None:
    told(result("m", FAILURE, reason="with hunter2", failure=FailureClass.MODEL), exit_status=1, mask="hunter2")
    assert (collector.named("m").status.code, collector.named("m").status.message) == (ERROR, "with ***")
    assert collector.named("madengine run").status.message == "exit status 1"
    assert "hunter2" not in str(collector.requests)


def test_each_try_has_its_span(collector: Collector) -> None:
    first = result("m", FAILURE, reason="node died", id="m-1")
    told(first, replace(result("m"), id="m-2", attempt=2))
    tries = [attributes(span)["madengine.attempt"] for span in collector.spans if span.name == "m"]
    assert sorted(tries) == [1, 2]


def test_a_step_that_was_cut_short_ends_with_its_job(collector: Collector) -> None:
    cut = (*steps("clone", "model")[:1], replace(steps("clone", "model")[1], ended=""))
    told(result("m", FAILURE, steps=cut))
    assert seconds(collector.named("model")) == (30, 30)


def test_a_model_that_never_began_has_a_span_without_length(collector: Collector) -> None:
    told(result("m", FAILURE, started="", reason="not built"))
    assert seconds(collector.named("m")) == (60, 0)
    assert collector.below(collector.named("m")) == []


def test_a_resumed_run_sends_the_same_spans_again(collector: Collector) -> None:
    told(built())
    told(built(), result("other"))
    ids = [(span.trace_id, span.span_id) for span in collector.spans]
    assert len(ids) == 7 + 9
    assert len(set(ids)) == 9


def test_a_run_within_something_traced_is_part_of_it(collector: Collector) -> None:
    told(built(), environ={"TRACEPARENT": f"00-{'ab' * 16}-{'cd' * 8}-01"})
    run = collector.named("madengine run")
    assert (run.trace_id.hex(), run.parent_span_id.hex()) == ("ab" * 16, "cd" * 8)


def test_many_spans_go_in_several_requests(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "AT_ONCE", 10)
    told(*(result(f"m{at}") for at in range(24)))
    assert (len(collector.requests), len(collector.spans)) == (5, 49)


def test_standard_variables_name_the_service_and_send_headers(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"OTEL_SERVICE_NAME": "nightly", "OTEL_EXPORTER_OTLP_HEADERS": "x-token=abc"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    told(built(), environ=given)
    assert collector.resource["service.name"] == "nightly"
    assert collector.headers[0]["x-token"] == "abc"


@pytest.mark.filterwarnings("ignore")  # the SDK's own, of threads and sockets
def test_a_trace_that_no_collector_takes_is_told_of(collector: Collector) -> None:
    collector.answer = HTTPStatus.BAD_REQUEST
    said = told(built()).waiting()
    assert said.startswith("--madengine-otel: otlp_proto_http could not send 7 of 7 spans: ")
    assert "--madengine-resume=20260314-a" in said


def test_nothing_is_sent_where_the_environment_wants_nothing(collector: Collector) -> None:
    told(built(), environ={"OTEL_TRACES_EXPORTER": "none"})
    assert collector.headers == []


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "none"}, []),
    ],
)
def test_exporters_are_chosen_by_the_standard_variables(environ: dict[str, str], names: list[str]) -> None:
    assert exporter_names(environ) == names


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkn"}, "no exporter zipkn is installed; valid: console"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json5"}, "found 'http/json5'; valid: http/protobuf, grpc"),
    ],
)
def test_an_exporter_that_is_not_there_is_told_of(environ: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match="--madengine-otel: ") as caught:
        exporter_names(environ)
    assert words in str(caught.value)
