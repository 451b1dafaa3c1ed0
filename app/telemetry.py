"""Traces by OpenTelemetry: a request, the conversion that it asked for, and the stages of that, as one trace.

Nothing is traced unless OTEL_EXPORTER_OTLP_ENDPOINT says where to send it, which takes the extra `otel`. A queue entry
carries the trace on to the worker; a conversion's own process knows nothing of it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CARRIED = ("traceparent", "tracestate")
"""Members of a queue entry's arguments (W3C Trace Context)."""

log = structlog.get_logger("recast.telemetry")
tracer = trace.get_tracer("recast")


def configure_traces(part: str, version: str) -> None:
    """Send the traces of this process, the ``part`` of the service, to where the environment says, if it does."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.error("traces_not_sent", error=str(error), hint="pip install recast-service[otel]")
        return
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", f"recast-{part}"), "service.version": version}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def carried_on() -> dict[str, str]:
    """What a queue entry carries of the trace that this code runs in; nothing outside of one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {name: carrier[name] for name in CARRIED if name in carrier}


@contextmanager
def continued(arguments: Mapping[str, Any], name: str, attributes: Mapping[str, str | int | float]) -> Iterator[Span]:
    """A span of that name in the trace that a queue entry carried on."""
    context = propagate.extract({name: str(arguments[name]) for name in CARRIED if name in arguments})
    with tracer.start_as_current_span(name, context, kind=SpanKind.CONSUMER, attributes=attributes) as span:
        yield span


def tell_end(state: str, verdict: str | None, code: str | None) -> None:
    """How the conversion of the current span ended."""
    span = trace.get_current_span()
    span.set_attribute("recast.state", state)
    if verdict is not None:
        span.set_attribute("recast.verdict", verdict)
    if code is not None:
        span.set_attribute("recast.code", code)
        span.set_status(Status(StatusCode.ERROR, code))
