"""Traces by OpenTelemetry, an extra: a span for each request, with the stages of its query as attributes.

`pip install '.[tracing]'`, `LOOKALIKE_TRACING=true`. OpenTelemetry's own variables say where spans go and how many
(`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, ...). A span continues the client's trace (W3C trace context).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from app.telemetry import Telemetry
from lookalike.errors import ConfigInvalid

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

# OpenTelemetry is imported in functions: it is an extra.

_URL_ATTRIBUTES = ("http.url", "http.target", "url.full", "url.query")
"""Attributes that hold a query string, by OpenTelemetry's older and newer conventions."""


def install(
    app: FastAPI, telemetry: Telemetry, untraced: Collection[str], provider: TracerProvider | None = None
) -> None:
    """Make a span of every request.

    Args:
        app: the application; its outermost middleware is added here.
        telemetry: observes the stages of every query.
        untraced: paths whose requests have no span.
        provider: by default it sends to an OTLP collector over HTTP.

    Raises:
        ConfigInvalid: the extra is not installed.
    """
    try:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    except ImportError as error:
        raise ConfigInvalid(
            f"LOOKALIKE_TRACING needs OpenTelemetry ({error}): pip install '.[tracing]' in Lookalike's source folder"
        ) from error
    telemetry.on_query, telemetry.trace_id = _annotate, _trace_id
    app.add_middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider or _to_collector(),
        server_request_hook=_drop_query_string,
        exclude_spans=["send", "receive"],
        excluded_urls=rf"^[^/]*//[^/]+({'|'.join(map(re.escape, untraced))})$",  # over the whole URL
    )


def _annotate(took_ms: Mapping[str, float]) -> None:
    from opentelemetry import trace

    span = trace.get_current_span()
    for stage, milliseconds in took_ms.items():
        span.set_attribute(f"lookalike.{stage}_ms", round(milliseconds, 3))


def _trace_id() -> str:
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def _drop_query_string(span: Span, scope: Mapping[str, Any]) -> None:
    """Remove query strings, which may hold filters: the logs have none either."""
    for name, value in dict(getattr(span, "attributes", None) or {}).items():
        if name in _URL_ATTRIBUTES and scope.get("query_string"):
            span.set_attribute(name, "" if name == "url.query" else str(value).partition("?")[0])


def _to_collector() -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource({SERVICE_NAME: "lookalike"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
