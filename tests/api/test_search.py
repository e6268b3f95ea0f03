"""The three searches and their responses, in every form of request."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.api.schemas import SearchResponse
from lookalike.stopwatch import STAGES
from tests.api.small_collection import ITEMS, WITHOUT_THUMBNAIL, photograph
from tests.bad_images import encoded, heic

CAT = "animals/cat.png"
KINDS = {"image/webp", "image/jpeg", "image/png"}
Send = Callable[[TestClient, bytes, int], Any]


def as_form(client: TestClient, data: bytes, limit: int) -> Any:
    return client.post("/v1/search/image", files={"file": ("cat.png", data)}, data={"limit": str(limit)})


def as_form_with_query_parameter(client: TestClient, data: bytes, limit: int) -> Any:
    return client.post(f"/v1/search/image?limit={limit}", files={"file": ("cat.png", data)})


def as_raw_body(client: TestClient, data: bytes, limit: int) -> Any:
    return client.post(f"/v1/search/image?limit={limit}", content=data, headers={"Content-Type": "image/png"})


def as_base64(client: TestClient, data: bytes, limit: int) -> Any:
    return client.post("/v1/search/image", json={"image": base64.b64encode(data).decode(), "limit": limit})


def as_wrapped_base64(client: TestClient, data: bytes, limit: int) -> Any:
    return client.post("/v1/search/image", json={"image": base64.encodebytes(data).decode(), "limit": limit})


def as_data_uri(client: TestClient, data: bytes, limit: int) -> Any:
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return client.post("/v1/search/image", json={"image": uri, "limit": limit})


@pytest.mark.parametrize("send", [as_form, as_raw_body, as_base64])
@pytest.mark.parametrize("encode", [heic, lambda image: encoded(image, "AVIF"), lambda image: encoded(image, "JXL")])
def test_formats_of_phones_find_their_photograph(
    client: TestClient, send: Send, encode: Callable[[Image.Image], bytes]
) -> None:
    with Image.open(io.BytesIO(photograph(CAT))) as image:
        response = send(client, encode(image.convert("RGB")), 1)
    assert response.status_code == 200, response.text
    assert response.json()["results"][0]["id"] == CAT


@pytest.mark.parametrize(
    "send", [as_form, as_form_with_query_parameter, as_raw_body, as_base64, as_wrapped_base64, as_data_uri]
)
def test_image_finds_itself_in_every_form(client: TestClient, send: Send) -> None:
    response = send(client, photograph(CAT), 3)
    assert response.status_code == 200, response.text
    found = SearchResponse.model_validate(response.json(), extra="forbid")
    assert len(found.results) == 3
    assert (found.results[0].id, found.results[0].score) == (CAT, pytest.approx(1.0, abs=1e-4))
    assert found.took_ms.decode > 0
    assert found.took_ms.encode > 0
    assert (found.collection, found.encoder) == ("photographs", "fake")


def test_two_views_of_the_motorcycle_find_each_other(client: TestClient) -> None:
    response = as_form(client, photograph("left.png"), 2).json()
    assert [result["id"] for result in response["results"]] == ["left.png", "right.png"]


def test_text_search_is_sorted_with_every_stage_timed(client: TestClient) -> None:
    response = client.post("/v1/search/text", json={"text": "a cat", "limit": 50})
    assert response.status_code == 200, response.text
    body = response.json()
    SearchResponse.model_validate(body, extra="forbid")
    scores = [result["score"] for result in body["results"]]
    assert {result["id"] for result in body["results"]} == set(ITEMS)
    assert scores == sorted(scores, reverse=True)
    assert set(body["took_ms"]) == {*STAGES, "total"}
    assert body["took_ms"]["decode"] == 0.0
    assert body["took_ms"]["total"] >= body["took_ms"]["encode"] > 0


def test_default_limit_is_ten(client: TestClient) -> None:
    assert len(client.post("/v1/search/text", json={"text": "a cat"}).json()["results"]) == min(10, len(ITEMS))


@pytest.mark.parametrize("item_id", ITEMS)
def test_item_finds_itself_first(client: TestClient, item_id: str) -> None:
    response = client.post("/v1/search/item", json={"id": item_id, "limit": 2})
    assert response.status_code == 200, response.text
    first = response.json()["results"][0]
    assert (first["id"], first["score"]) == (item_id, pytest.approx(1.0, abs=1e-6))


def test_results_have_metadata_and_a_thumbnail_url(client: TestClient) -> None:
    results = client.post("/v1/search/text", json={"text": "anything", "limit": 50}).json()["results"]
    for result in results:
        name, caption = ITEMS[result["id"]]
        assert result["metadata"].get("caption") == caption, name
        assert ("caption" in result["metadata"]) == (caption is not None)
        if result["id"] == WITHOUT_THUMBNAIL:
            assert result["thumbnail_url"] is None
        else:
            thumbnail = client.get(result["thumbnail_url"])
            assert thumbnail.status_code == 200
            assert thumbnail.headers["content-type"] in KINDS


def test_text_is_normalized(client: TestClient) -> None:
    odd = client.post("/v1/search/text", json={"text": " \ufeff\uff52\uff45\uff44\u200b\t\x00blue "}).json()
    assert odd["results"] == client.post("/v1/search/text", json={"text": "red blue"}).json()["results"]
    response = client.post("/v1/search/text", json={"text": "\u200b\u0000"})
    assert (response.status_code, response.json()["code"]) == (422, "text_empty")


def test_truncated_tokens_are_reported(client: TestClient) -> None:
    long = "red " * 40
    assert client.post("/v1/search/text", json={"text": long}).json()["truncated_tokens"] == 8
    assert client.post("/v1/search/text", json={"text": "red"}).json()["truncated_tokens"] == 0
    assert client.post("/v1/search/item", json={"id": CAT}).json()["truncated_tokens"] == 0
    pair = client.post("/v1/similarity", json={"a": {"id": CAT}, "b": {"text": long}}).json()
    assert pair["truncated_tokens"] == [0, 8]
