"""`filter` and `params` of the three searches, in every form of request."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api.schemas import SearchResponse
from tests.api.small_collection import ITEMS, photograph

CAT = "animals/cat.png"
ANIMALS = {"must": [{"field": "path", "prefix": "animals/"}]}
NOT_THE_CAT = {**ANIMALS, "must_not": [{"field": "caption", "equals": "a cat"}]}
HORSE = "animals/höhe & breite?#100%.png"


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    SearchResponse.model_validate(response.json(), extra="forbid")
    return [result["id"] for result in response.json()["results"]]


def test_text_search_applies_the_filter(client: TestClient) -> None:
    response = client.post("/v1/search/text", json={"text": "a rocket", "filter": ANIMALS, "limit": 50})
    assert sorted(ids(response)) == sorted([CAT, HORSE])
    assert response.json()["took_ms"]["filter"] > 0


def test_item_search_may_filter_out_the_item(client: TestClient) -> None:
    assert ids(client.post("/v1/search/item", json={"id": CAT, "filter": NOT_THE_CAT})) == [HORSE]


def test_filter_applies_to_every_form_of_image(client: TestClient) -> None:
    data, text = photograph(CAT), json.dumps(NOT_THE_CAT)
    encoded = base64.b64encode(data).decode()
    responses = [
        client.post("/v1/search/image", files={"file": ("cat.png", data)}, data={"filter": text}),
        client.post("/v1/search/image", params={"filter": text}, files={"file": ("cat.png", data)}),
        client.post("/v1/search/image", params={"filter": text}, content=data, headers={"Content-Type": "image/png"}),
        client.post("/v1/search/image", json={"image": encoded, "filter": NOT_THE_CAT}),
    ]
    assert [ids(response) for response in responses] == [[HORSE]] * 4


def test_filter_without_matches_finds_nothing(client: TestClient) -> None:
    nothing = {"must": [{"field": "width", "range": {"gt": 10**6}}]}
    assert ids(client.post("/v1/search/text", json={"text": "a cat", "filter": nothing})) == []


@pytest.mark.parametrize(
    ("condition", "match"),
    [
        ({"must": [{"field": "widht", "equals": 3}]}, "did you mean 'width'?"),
        ({"must": [{"field": "width", "equals": "wide"}]}, "'width' holds int32; value 'wide'"),
        ({"must": [{"field": "width"}]}, "filter.must.0: give exactly one of equals"),
        ({"most": []}, "filter.most: "),
        ("width > 3", "filter: "),
    ],
)
def test_filter_error_names_the_problem(client: TestClient, condition: Any, match: str) -> None:
    by_json = client.post("/v1/search/text", json={"text": "a cat", "filter": condition})
    by_form = client.post(
        "/v1/search/image", files={"file": ("cat.png", photograph(CAT))}, data={"filter": json.dumps(condition)}
    )
    for response in (by_json, by_form):
        assert (response.status_code, response.json()["code"]) == (422, "filter_invalid"), response.text
        assert match in response.json()["detail"]


def test_params_are_accepted_within_limits(client: TestClient) -> None:
    body = {"text": "a cat", "limit": 50, "params": {"nprobe": 3, "candidates": 9, "exact": True}}
    assert len(ids(client.post("/v1/search/text", json=body))) == len(ITEMS)
    form = {"params": json.dumps({"exact": True})}
    assert ids(client.post("/v1/search/image", files={"file": ("x.png", photograph(CAT))}, data=form))[0] == CAT


@pytest.mark.parametrize(
    ("params", "code", "match"),
    [
        ({"candidates": 10_001}, "query_invalid", "at most 10,000"),
        ({"candidates": 0}, "request_invalid", "candidates"),
        ({"nprobe": "3"}, "request_invalid", "nprobe"),
        ({"exact": 1}, "request_invalid", "exact"),
        ({"efSearch": 10_001}, "query_invalid", "at most 10,000"),
        ({"efSearch": 0}, "request_invalid", "efSearch"),
        ({"breadth": 3}, "request_invalid", "breadth"),
        ("fast", "request_invalid", "params"),
    ],
)
def test_params_out_of_range_are_rejected(client: TestClient, params: Any, code: str, match: str) -> None:
    by_json = client.post("/v1/search/text", json={"text": "a cat", "params": params})
    by_form = client.post(
        "/v1/search/image", files={"file": ("cat.png", photograph(CAT))}, data={"params": json.dumps(params)}
    )
    for response in (by_json, by_form):
        assert (response.status_code, response.json()["code"]) == (422, code), response.text
        assert match in response.json()["detail"]
