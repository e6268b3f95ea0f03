"""Logs and traces."""

from __future__ import annotations

import io
import json
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from PIL import Image
from starlette.testclient import TestClient

from app import logs, tracing
from app.api import health
from app.main import create_app
from app.settings import Settings
from lookalike.images import decode
from tests.api.conftest import wait_until_ready
from tests.api.test_serve import serving

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
KEY = "read-0123456789abcdef"


def _filter(secret: str) -> str:
    """Return a filter for a query string that every item passes."""
    return json.dumps({"must_not": [{"field": "caption", "equals": secret}]})


def test_json_logs_hold_request_and_trace_and_no_secret(collection: Path) -> None:
    settings = {"LOOKALIKE_LOG_FORMAT": "json", "LOOKALIKE_ACCESS_LOG": "true", "LOOKALIKE_KEYS": f"read:{KEY}"}
    with serving(collection, **settings) as (process, client):
        headers = {"Authorization": f"Bearer {KEY}", "X-Request-ID": "abc-123", "traceparent": TRACEPARENT}
        for query in ({"text": "a secret wish"}, {"text": ""}):
            client.post("/v1/search/text", params={"filter": _filter(KEY)}, json=query, headers=headers)
        client.get("/v1/items/animals%09cat.png", headers=headers)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    records = [json.loads(line) for line in err.splitlines()]
    ours = [record for record in records if record["request_id"] == "abc-123"]
    assert [(record["status"], record["path"]) for record in ours] == [
        (200, "/v1/search/text"),
        (422, "/v1/search/text"),
        (404, "/v1/items/animals%09cat.png"),
    ]
    assert {record["trace_id"] for record in ours} == {TRACE}
    assert {record["caller"] for record in ours} == {"environment-1"}
    assert all(record["level"] == "INFO" and record["time"] and record["milliseconds"] >= 0 for record in ours)
    assert KEY not in err
    assert "wish" not in err
    assert "color_message" not in err


@pytest.mark.parametrize(
    "given",
    [
        "", TRACE, "00-" + "0" * 32 + f"-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}-0", f"00-{TRACE}\n-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
    ],
)  # fmt: skip
def test_invalid_traceparent_is_ignored(given: str) -> None:
    assert logs.parse_trace_id(given) == ""


def test_traceparent_of_later_version_is_parsed() -> None:
    assert logs.parse_trace_id(f"01-{TRACE}-{PARENT}-01-more") == TRACE


@pytest.fixture
def spans(collection: Path) -> Iterator[tuple[TestClient, InMemorySpanExporter]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app(Settings(collection=collection))
    tracing.install(app, app.state.service.telemetry, health.PATHS, provider)
    with TestClient(app) as client:
        wait_until_ready(client)
        yield client, exporter


def test_request_is_a_span_with_its_stages(
    spans: tuple[TestClient, InMemorySpanExporter],
) -> None:
    client, exporter = spans
    query = {"filter": _filter("secret")}
    client.post("/v1/search/text", params=query, json={"text": "a cat"}, headers={"traceparent": TRACEPARENT})
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert span.attributes is not None
    assert {"lookalike.encode_ms", "lookalike.search_ms"} <= set(span.attributes)
    assert any(str(value).endswith("/v1/search/text") for value in span.attributes.values())
    assert "secret" not in str(dict(span.attributes))  # no query string leaves the service


def test_own_trace_id_is_logged(
    spans: tuple[TestClient, InMemorySpanExporter], caplog: pytest.LogCaptureFixture
) -> None:
    client, exporter = spans
    logged: list[str] = []
    caplog.handler.addFilter(lambda _: logged.append(logs.trace_id.get()) or True)  # on the request's own task
    with caplog.at_level(logging.INFO, "app.telemetry"):
        client.get("/v1/items")
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" in logged


@pytest.mark.parametrize(
    "path", ["/v1/collections/metrics/items", "/v1/items/metrics", "/v1/items/a%2Flivez", "/v1/stats"]
)
def test_paths_that_resemble_health_checks_are_traced(
    spans: tuple[TestClient, InMemorySpanExporter], path: str
) -> None:
    client, exporter = spans
    for untraced in ("/livez", "/readyz", "/metrics"):
        client.get(untraced)
    assert not exporter.get_finished_spans()
    client.get(path)
    assert len(exporter.get_finished_spans()) == 1


def test_plain_logs_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.configure("warning", "text")
        logging.getLogger("app.somewhere").warning("it happened")
        logging.getLogger("app.somewhere").info("it did not matter")
        assert capsys.readouterr().err == "WARNING app.somewhere: it happened\n"
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_debug_log_holds_no_image_metadata(capsys: pytest.CaptureFixture[str]) -> None:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    level = root.level
    exif = Image.Exif()
    exif[0x013B] = "Jane Doe"
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "TIFF", tiffinfo=exif)
    try:
        logs.configure("debug", "text")
        logging.getLogger("app").debug("a word")
        decode(buffer.getvalue())
        written = capsys.readouterr().err
        assert "a word" in written
        assert "Jane" not in written
    finally:
        root.handlers[:] = before
        root.setLevel(level)
