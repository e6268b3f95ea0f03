"""/metrics, /v1/stats and request ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.api import schemas
from app.execution.pipeline import QueryPipeline
from app.main import create_app
from app.settings import Settings
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import ITEMS, photograph

REPOSITORY = Path(__file__).resolve().parents[2]
METRIC = re.compile(r"\b(?:lookalike|process)_\w+")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(client: TestClient) -> Samples:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def test_requests_errors_and_stages_are_counted(client: TestClient) -> None:
    before = samples(client)
    client.post("/v1/search/text", json={"text": "a cat"})
    client.post("/v1/search/image", files={"file": photograph("cup")})
    client.post("/v1/search/text", json={"text": ""})
    client.get("/v1/items/animals%2Fcat.png")
    client.get("/nowhere/at-all")
    client.get("/v1/search/text")
    client.get("/v1/collections/photographs/search/item")
    client.get("/v1/collections/photographs")
    long = {"Content-Type": "application/json", "Content-Length": "99999999999"}
    client.post("/v1/collections/photographs/search/text", content=b"{}", headers=long)
    after = samples(client)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("lookalike_requests_total", route="/v1/search/text", method="POST", status="200") == 1
    assert grown("lookalike_requests_total", route="/v1/search/text", method="POST", status="422") == 1
    assert grown("lookalike_requests_total", route="/v1/items/{item_id:path}", method="GET", status="200") == 1
    named = "/v1/collections/{name}"
    assert grown("lookalike_requests_total", route="/v1/search/text", method="GET", status="405") == 1
    assert grown("lookalike_requests_total", route=f"{named}/search/item", method="GET", status="405") == 1
    assert grown("lookalike_requests_total", route=named, method="GET", status="200") == 1
    assert grown("lookalike_requests_total", route=f"{named}/search/text", method="POST", status="413") == 1
    assert grown("lookalike_requests_total", route="other", method="GET", status="404") == 1
    assert grown("lookalike_errors_total", code="text_empty") == 1
    assert grown("lookalike_errors_total", code="not_found") == 1
    assert grown("lookalike_stage_seconds_count", stage="decode") == 1
    assert grown("lookalike_stage_seconds_count", stage="search") == 2
    assert grown("lookalike_batch_size_count", kind="image") >= 1
    assert value(after, "lookalike_items", collection="photographs") == len(ITEMS)
    assert value(after, "lookalike_ready") == 1
    assert value(after, "lookalike_under_way", kind="text") == 0
    assert value(after, "lookalike_index_bytes", collection="photographs") > 1000
    assert value(after, "process_resident_memory_bytes") > 10_000_000


def test_clients_cannot_create_time_series(client: TestClient) -> None:
    client.request("BREW", "/v1/search/text")
    for path in ("/a", "/b", "/v1/items/c", "/v1/items/d", "/static/e.js"):
        client.get(path)
    names = {dict(labels).get("route") for name, labels in samples(client) if name == "lookalike_requests_total"}
    assert not names & {"/a", "/b", "/v1/items/c", "/v1/items/d", "/static/e.js"}
    methods = {dict(labels).get("method") for name, labels in samples(client) if name == "lookalike_requests_total"}
    assert "BREW" not in methods


def test_stats_are_served_as_json_and_text(client: TestClient) -> None:
    client.post("/v1/search/image", files={"file": photograph("cup")})
    found = client.get("/v1/stats").json()
    schemas.StatsResponse.model_validate(found)
    decode = found["stages"]["decode"]
    assert 0 < decode["p50"] <= decode["p90"] <= decode["p99"]
    assert client.get("/v1/stats", headers={"Accept": "application/json, text/plain, */*"}).json()["stages"]
    table = client.get("/v1/stats", headers={"Accept": "text/plain"}).text.splitlines()
    assert table[0].split() == ["stage,", "ms", "count", "p50", "p90", "p99", "mean"]
    assert [line.split()[0] for line in table[1:]] == list(found["stages"])


@pytest.mark.parametrize("given", ["abc-123", "00-4bf92f3577b34da6a3ce929d0e0e4736"])
def test_valid_request_id_is_kept(client: TestClient, given: str) -> None:
    assert client.get("/livez", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "line\\nbreak", "<script>"])
def test_invalid_request_id_is_replaced(client: TestClient, given: str) -> None:
    names = [client.get("/livez", headers={"X-Request-ID": given}).headers["x-request-id"] for _ in range(2)]
    assert given not in names
    assert names[0] != names[1]


def test_telemetry_requires_a_key(collection: Path) -> None:
    with TestClient(create_app(Settings(collection=collection, keys="read:0123456789abcdef"))) as client:
        wait_until_ready(client)
        for path in ("/metrics", "/v1/stats"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"X-API-Key": "0123456789abcdef"}).status_code == 200


def test_dashboard_queries_existing_metrics(client: TestClient) -> None:
    client.post("/v1/search/text", json={"text": "a cat"})
    client.post("/v1/search/text", json={"text": ""})
    exposed = {name for name, _ in samples(client)}
    panels = json.loads((REPOSITORY / "deploy/grafana/dashboards/lookalike.json").read_text())["panels"]
    queried = {name for panel in panels for target in panel["targets"] for name in METRIC.findall(target["expr"])}
    assert len(queried) > 10
    assert queried <= exposed


def test_metrics_page_lists_every_metric_and_event(client: TestClient) -> None:
    page = (REPOSITORY / "docs/reference/metrics.md").read_text()
    client.post("/v1/search/text", json={"text": "a cat"})
    families = text_string_to_metric_families(client.get("/metrics").text)
    served = {f"{each.name}_total" if each.type == "counter" else each.name for each in families}
    listed = set(re.findall(r"`((?:lookalike|process)_\w+)`", page))
    assert {name for name in served if not name.endswith("_created")} == listed
    sources = [path.read_text() for folder in ("app", "cli", "lookalike/encoders") for path in _modules(folder)]
    event = re.compile(r"\blog(?:ger)?\.(?:info|warning|error)\(\s*\"([a-z]+_[a-z_]+)[ :]")
    events = {name for source in sources for name in event.findall(source)} - {"bf16_measured"}
    assert len(events) > 15
    assert {name for name in events if f"`{name}`" not in page} == set()


def _modules(folder: str) -> list[Path]:
    return sorted((REPOSITORY / folder).rglob("*.py"))


def test_dashboard_is_valid_for_grafana() -> None:
    dashboard = json.loads((REPOSITORY / "deploy/grafana/dashboards/lookalike.json").read_text())
    register_default_plugins()
    parsed = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))  # which leaves out what it doesn't know
    assert list(_left_out(dashboard, parsed)) == []
    dashboard["panels"][0]["fieldConfig"]["defaults"]["unitt"] = "s"
    assert list(_left_out(dashboard, parsed)) == [".panels.0.fieldConfig.defaults.unitt"]


def _left_out(written: Any, parsed: Any, where: str = "") -> Iterator[str]:
    """Yield the places where the second document lacks what the first has."""
    if isinstance(written, dict) and isinstance(parsed, dict):
        for name, value in written.items():
            yield from _left_out(value, parsed.get(name), f"{where}.{name}")
    elif isinstance(written, list) and isinstance(parsed, list):
        for place, (one, other) in enumerate(zip_longest(written, parsed)):
            yield from _left_out(one, other, f"{where}.{place}")
    elif written != parsed:
        yield where


def test_internal_error_is_counted_with_its_request_id(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: QueryPipeline, *_: object) -> None:
        raise ZeroDivisionError

    with TestClient(create_app(Settings(collection=collection)), raise_server_exceptions=False) as own:
        wait_until_ready(own)
        monkeypatch.setattr(QueryPipeline, "item", broken)
        response = own.get("/v1/items/cup", headers={"X-Request-ID": "abc"})
        assert (response.status_code, response.headers["x-request-id"]) == (500, "abc")
        found = samples(own)
    assert value(found, "lookalike_errors_total", code="internal_error") == 1
    assert value(found, "lookalike_requests_total", route="/v1/items/{item_id:path}", method="GET", status="500") == 1
