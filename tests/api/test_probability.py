"""Probabilities and `no_match` of a collection that is calibrated for images and not for texts."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api.schemas import SearchResponse
from app.main import create_app
from app.settings import Settings
from lookalike.calibration import Calibration
from lookalike.collection import store_calibration
from lookalike.encoders.registry import load_encoder
from lookalike.match_calibration import MatchCalibration
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import ITEMS, build_collection, photograph

CAT = "animals/cat.png"
NEAR_ONE = MatchCalibration(intercept=-990.0, score=1_000.0)
"""Above one half from a cosine of 0.99."""


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    root = build_collection(tmp_path_factory.mktemp("calibrated") / "photographs")
    store_calibration(root, Calibration(image_search=NEAR_ONE), load_encoder("fake").spec)
    with TestClient(create_app(Settings(collection=Path(root)))) as client:
        wait_until_ready(client)
        yield client


def search(client: TestClient, query: Any, **options: Any) -> Any:
    response = client.post("/v1/search", json={"query": query, **options})
    assert response.status_code == 200, response.text
    SearchResponse.model_validate(response.json(), extra="forbid")
    return response.json()


def probabilities(body: Any) -> list[float | None]:
    return [result["probability"] for result in body["results"]]


@pytest.mark.parametrize("query", [{"id": CAT}, {"image": base64.b64encode(photograph(CAT)).decode()}])
def test_results_of_a_calibrated_query_have_probabilities(calibrated: TestClient, query: Any) -> None:
    body = search(calibrated, query, limit=50)
    first, *others = probabilities(body)
    assert first is not None
    assert first > 0.99
    assert others == sorted(others, reverse=True)  # type: ignore[type-var]
    assert others[-1] == 0.0
    assert body["no_match"] is False


def test_pages_and_thresholds_leave_no_match_as_it_is(calibrated: TestClient) -> None:
    for options in ({"offset": 3}, {"offset": 40}, {"min_score": 1.0}, {"min_probability": 1.0}):
        assert search(calibrated, {"id": CAT}, **options)["no_match"] is False


def test_filter_that_leaves_only_other_images_is_no_match(calibrated: TestClient) -> None:
    others = {"must": [{"field": "id", "prefix": "space/"}]}
    body = search(calibrated, {"id": CAT}, filter=others)
    assert len(body["results"]) == 2
    assert body["no_match"] is True
    assert search(calibrated, {"id": CAT}, filter={"must_not": [{"field": "id", "exists": True}]})["no_match"] is True


def test_min_probability_leaves_out_the_rest(calibrated: TestClient) -> None:
    assert 1 <= len(search(calibrated, {"id": CAT}, min_probability=0.5, limit=50)["results"]) < len(ITEMS)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("a cat", "encoder 'fake' is not calibrated for text queries"),
        ([{"id": CAT}, {"id": "cup"}], "the query is combined, negative or an embedding"),
        ({"id": CAT, "weight": -1}, "the query is combined, negative or an embedding"),
        ({"embedding": [1.0] * 13}, "the query is combined, negative or an embedding"),
    ],
)
def test_other_queries_have_no_probabilities(calibrated: TestClient, query: Any, reason: str) -> None:
    body = search(calibrated, query)
    assert body["no_match"] is None
    assert set(probabilities(body)) == {None}
    refused = calibrated.post("/v1/search", json={"query": query, "min_probability": 0.5})
    assert refused.status_code == 422
    assert reason in refused.json()["detail"]
