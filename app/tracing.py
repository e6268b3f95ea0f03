"""Traces by OpenTelemetry, an extra: each request a span under its client's (W3C trace context), stages as attributes.

`pip install '.[tracing]'`, `LOOKALIKE_TRACING=true`; where to and how much is OpenTelemetry's own affair, by its
variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, ...).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from app.telemetry import Telemetry
from lookalike.errors import ConfigInvalid

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_UNTRACED = r"^[^/]*//[^/]+/(livez|readyz|metrics)$"
"""An expression over the whole URL."""
_URLS = ("http.url", "http.target", "url.full", "url.query")
"""Attributes that hold a query string, by OpenTelemetry's older and newer conventions."""


def install(app: FastAPI, telemetry: Telemetry, provider: TracerProvider | None = None) -> None:
    """Makes a span of every request.

    Args:
        app: the application; its outermost middleware is added here.
        telemetry: tells of every query's stages.
        provider: sends to an OTLP collector over HTTP by default.

    Raises:
        ConfigInvalid: the extra is not installed.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    except ImportError as error:
        raise ConfigInvalid(
            f"LOOKALIKE_TRACING needs OpenTelemetry ({error}): pip install '.[tracing]' where Lookalike's source is"
        ) from error

    def annotate(took_ms: Mapping[str, float]) -> None:
        span = trace.get_current_span()
        for stage, milliseconds in took_ms.items():
            span.set_attribute(f"lookalike.{stage}_ms", round(milliseconds, 3))

    def without_query(span: trace.Span, scope: Mapping[str, Any]) -> None:
        """Filters may stand in a query string, and no log of ours holds them either."""
        for name, value in dict(getattr(span, "attributes", None) or {}).items():
            if name in _URLS and scope.get("query_string"):
                span.set_attribute(name, "" if name == "url.query" else str(value).partition("?")[0])

    def trace_id() -> str:
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else ""

    telemetry.on_query, telemetry.trace_id = annotate, trace_id
    app.add_middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider or _to_collector(),
        server_request_hook=without_query,
        exclude_spans=["send", "receive"],
        excluded_urls=_UNTRACED,
    )


def _to_collector() -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource({SERVICE_NAME: "lookalike"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
