"""OpenTelemetry traces, where `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector.

One span for each request, and one within it for each stage of its work. All else is set by
OpenTelemetry's own variables, such as `OTEL_TRACES_SAMPLER`. No span holds an image, an embedding,
or who is asked about.
"""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import FastAPI

from app.errors import InvalidSettings

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_ADDRESSES = {"http.url", "http.target", "url.full", "url.path", "url.query"}
_NOT_TRACED = "/health/live,/health/ready,/metrics"

_tracer: "Tracer | None" = None


class Stage(NamedTuple):
    """A part of the work on one request; times in nanoseconds since 1970."""

    name: str
    start: int
    end: int


def install(app: FastAPI) -> None:
    """Trace the requests of an application, if a collector is named.

    Raises:
        InvalidSettings: one is named, but OpenTelemetry is not installed.
    """
    if not os.environ.get(ENDPOINT):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidSettings(
            f"{ENDPOINT} is set, but {error.name} is not installed; "
            "pip install -e '.[tracing]' in the project's folder brings it."
        ) from None
    global _tracer
    name = os.environ.get("OTEL_SERVICE_NAME", "faceid")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("faceid")
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=_NOT_TRACED,
        exclude_spans=["receive", "send"],
        server_request_hook=_forget_identifiers,
    )


def _forget_identifiers(span: "Span", _: Mapping[str, Any]) -> None:
    """Addresses name persons and galleries; the route says as much as a trace needs."""
    known: Mapping[str, Any] = getattr(span, "attributes", None) or {}  # None: not sampled
    for name in _ADDRESSES & known.keys():
        span.set_attribute(name, "")


def record(stages: Iterable[Stage]) -> None:
    """Put the stages under the request that is being answered."""
    if _tracer is None:
        return
    for stage in stages:
        _tracer.start_span(stage.name, start_time=stage.start).end(stage.end)
