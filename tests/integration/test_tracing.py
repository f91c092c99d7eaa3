"""Traces reach a collector: a real one's protocol, over real HTTP."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app import tracing
from tests.service import running


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What a collector received."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv(tracing.ENDPOINT, f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setattr(tracing, "_tracer", None)
        yield bodies
        server.shutdown()
        thread.join()


def test_a_request_is_a_span_with_its_stages_within(
    tmp_path: Path, hopper: bytes, collected: list[bytes]
) -> None:
    with running(tmp_path) as client:
        client.get("/health/ready")
        client.post("/identify?gallery=secret", files={"image": hopper}).raise_for_status()
        client.get("/persons/secret")
        assert tracing._tracer is not None
        tracing._tracer.span_processor.force_flush()
    spans = [
        span
        for body in collected
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    requests = {span.name: span for span in spans if not span.parent_span_id}
    assert requests.keys() == {"POST /identify", "GET /persons/{person_id}"}
    request = requests["POST /identify"]
    stages = {span.name for span in spans if span.parent_span_id == request.span_id}
    assert stages >= {"decode", "detect", "align", "embed", "search"}
    assert not any(b"secret" in body for body in collected)
    for span in (span for span in spans if span.parent_span_id):
        assert request.start_time_unix_nano <= span.start_time_unix_nano + 10_000_000
        assert span.end_time_unix_nano <= request.end_time_unix_nano + 10_000_000


def test_without_a_collector_nothing_is_traced(tmp_path: Path) -> None:
    with running(tmp_path):
        assert tracing._tracer is None
