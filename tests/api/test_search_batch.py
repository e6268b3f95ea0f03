"""POST /v1/search/batch: each query has its own response or problem, and counts as a query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api.schemas import BatchResponse
from app.main import create_app
from app.settings import Settings
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import ITEMS


def batch(client: TestClient, queries: Any) -> Any:
    response = client.post("/v1/search/batch", json={"queries": queries})
    assert response.status_code == 200, response.text
    BatchResponse.model_validate(response.json())
    return response.json()["responses"]


def test_each_query_has_the_response_that_it_gets_alone(client: TestClient) -> None:
    queries: list[dict[str, Any]] = [{"query": {"id": item_id}, "limit": 3} for item_id in ITEMS]
    queries += [{"query": "a cat", "offset": 1}, {"query": [{"id": "cup"}, {"text": "red", "weight": -1}]}]
    responses = batch(client, queries)
    for query, response in zip(queries, responses, strict=True):
        alone = client.post("/v1/search", json=query).json()
        assert response["results"] == alone["results"]


@pytest.mark.parametrize(
    ("invalid", "code"),
    [
        ({"query": {"id": "nothing"}}, "unknown_item"),
        ({"query": "a cat", "limit": 0}, "invalid_limit"),
        ({"query": {"text": "a", "id": "b"}}, "request_invalid"),
        ({"query": "a", "filter": {"must": [{"field": "nothing", "equals": 1}]}}, "filter_invalid"),
        ({"query": {"image": "bm8gaW1hZ2U="}}, "image_unsupported"),
        ({"query": {"url": "http://127.0.0.1/cat.jpg"}}, "url_disabled"),
        ({"text": "a cat"}, "request_invalid"),
        ("a cat", "request_invalid"),
    ],
)
def test_failing_query_costs_no_other(client: TestClient, invalid: Any, code: str) -> None:
    first, failed, last = batch(client, [{"query": "a cat"}, invalid, {"query": "a rocket"}])
    assert failed["code"] == code
    assert failed["instance"] == "/v1/search/batch"
    assert first["results"]
    assert last["results"]


@pytest.mark.parametrize(
    ("queries", "message"),
    [([], "0 queries; a batch has 1 to 100"), ([{"query": "a"}] * 101, "101 queries; a batch has 1 to 100")],
)
def test_size_of_a_batch_is_limited(client: TestClient, queries: Any, message: str) -> None:
    response = client.post("/v1/search/batch", json={"queries": queries})
    assert response.status_code == 422
    assert message in response.json()["detail"]


def test_batch_counts_as_its_queries_for_the_rate_limit(collection: Path) -> None:
    with TestClient(create_app(Settings(collection=collection, rate_limit="10/hour"))) as limited:
        wait_until_ready(limited)
        batch(limited, [{"query": "a cat"}] * 8)
        response = limited.post("/v1/search/batch", json={"queries": [{"query": "a cat"}] * 3})
        assert response.status_code == 429
        too_many = limited.post("/v1/search/batch", json={"queries": [{"query": "a cat"}] * 12})
        assert too_many.status_code == 422
        assert "12 queries at once are more than the limit of 10 per 1 hour" in too_many.json()["detail"]


def test_errors_of_a_batch_are_counted(client: TestClient) -> None:
    def count() -> float:
        start = 'lookalike_errors_total{code="unknown_item"}'
        return sum(
            float(line.removeprefix(start)) for line in client.get("/metrics").text.splitlines() if start in line
        )

    before = count()
    batch(client, [{"query": {"id": "nothing"}}] * 3)
    assert count() == before + 3
