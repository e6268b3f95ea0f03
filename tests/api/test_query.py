"""POST /v1/search: queries of several parts, options of every search, and what is wrong with a query."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.api.schemas import SearchResponse
from lookalike.encoders.fake import DIM
from tests.api.small_collection import ITEMS, photograph

CAT, ROCKET = "animals/cat.png", "space/rocket.jpg"


def search(client: TestClient, query: Any, path: str = "/v1/search", **options: Any) -> Any:
    response = client.post(path, json={"query": query, **options})
    assert response.status_code == 200, response.text
    body = response.json()
    SearchResponse.model_validate(body, extra="forbid")
    return body


def problem(client: TestClient, body: dict[str, Any] | str, path: str = "/v1/search") -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    response = client.post(path, content=text, headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    return response.json()


def found(body: Any) -> list[tuple[str, float]]:
    return [(result["id"], result["score"]) for result in body["results"]]


def embeddings(client: TestClient) -> dict[str, np.ndarray]:
    results = search(client, "anything", limit=50, include=["embedding"])["results"]
    return {result["id"]: np.array(result["embedding"]) for result in results}


CAT_BASE64 = base64.b64encode(photograph(CAT)).decode()


@pytest.mark.parametrize(
    ("part", "path", "body"),
    [
        ({"text": "a cat"}, "/v1/search/text", {"text": "a cat"}),
        ({"image": CAT_BASE64}, "/v1/search/image", {"image": CAT_BASE64}),
        ({"id": ROCKET}, "/v1/search/item", {"id": ROCKET}),
    ],
)
def test_single_part_equals_the_short_form(client: TestClient, part: Any, path: str, body: Any) -> None:
    expected = client.post(path, json=body).json()
    for query in (part, [part], [{**part, "weight": 0.25}]):
        response = search(client, query)
        assert response["results"] == expected["results"]
        assert response["no_match"] == expected["no_match"]


def test_string_is_a_text(client: TestClient) -> None:
    assert search(client, "a cat")["results"] == search(client, {"text": "a cat"})["results"]


def test_named_collection_answers_the_same(client: TestClient) -> None:
    assert found(search(client, {"id": CAT}, "/v1/collections/photographs/search")) == found(
        search(client, {"id": CAT})
    )


def test_score_is_the_cosine_with_the_weighted_sum(client: TestClient) -> None:
    vectors = embeddings(client)
    body = search(client, [{"id": CAT}, {"id": ROCKET, "weight": -0.5}], limit=50)
    total = vectors[CAT] - 0.5 * vectors[ROCKET]
    total /= np.linalg.norm(total)
    assert {item_id: pytest.approx(total @ vector, abs=1e-4) for item_id, vector in vectors.items()} == dict(
        found(body)
    )
    assert body["no_match"] is None
    assert {result["probability"] for result in body["results"]} == {None}


def test_files_of_a_form_are_combined(client: TestClient) -> None:
    files = [("file", ("a.png", photograph(CAT))), ("file", ("b.jpg", photograph(ROCKET)))]
    response = client.post("/v1/search/image", files=files)
    assert response.status_code == 200, response.text
    images = [{"image": base64.b64encode(photograph(item_id)).decode()} for item_id in (CAT, ROCKET)]
    assert response.json()["results"] == search(client, images)["results"]


def test_negative_part_ranks_the_item_last(client: TestClient) -> None:
    assert search(client, {"id": CAT, "weight": -1}, limit=50)["results"][-1]["id"] == CAT


def test_embedding_of_an_item_finds_it(client: TestClient) -> None:
    vector = embeddings(client)[CAT].tolist()
    body = search(client, {"embedding": vector}, limit=1)
    assert found(body) == [(CAT, 1.0)]
    assert "warnings" not in body
    assert body["no_match"] is None


def test_embedding_of_another_norm_is_scaled_and_says_so(client: TestClient) -> None:
    vector = (3 * embeddings(client)[CAT]).tolist()
    body = search(client, [{"embedding": vector}], limit=1)
    assert found(body) == [(CAT, 1.0)]
    assert body["warnings"] == ["query.0.embedding has norm 3; it was scaled to 1"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"txt": "a cat"}, "query.0: unknown field 'txt'; did you mean 'text'?"),
        (
            {"text": "a cat", "id": CAT},
            "query.0: give exactly one of text, image, id, url, embedding; it has text and id",
        ),
        ([{"weight": 2}], "it has none"),
        ([], "query: a list of 0 parts; a query has 1 to 32 parts"),
        ([{"text": "a"}] * 33, "query: a list of 33 parts"),
        (5, "query: a query is a text, a part, or a list of parts"),
        ([{"text": "a", "weight": 0}, {"id": CAT, "weight": 0}], "all weights of the query are 0"),
        ({"text": "a", "weight": "heavy"}, "query.0.weight"),
        ([{"id": CAT}, {"id": CAT, "weight": -1}], "the parts of the query cancel each other out"),
        ({"embedding": [1.0, 0.0]}, f"query.0.embedding has 2 numbers; the encoder's embeddings have {DIM}"),
        ({"embedding": [0.0] * DIM}, "query.0.embedding has norm 0"),
        ({"embedding": ["a"] * DIM}, "query.0.embedding.0"),
        ("", "the text is empty"),
    ],
)
def test_unusable_queries_are_named(client: TestClient, query: Any, message: str) -> None:
    assert message in problem(client, {"query": query})["detail"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_must_be_finite(client: TestClient, number: str) -> None:
    for name, part in (
        ("embedding.0", '"embedding": [NUMBER, 0.5]'),
        ("weight", '"text": "a", "weight": NUMBER'),
    ):
        body = '{"query": {' + part.replace("NUMBER", number) + "}}"
        assert f"query.0.{name}: " in problem(client, body)["detail"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": -1}, "offset is -1"),
        ({"offset": 9_995}, "offset is 9995; it must be 0 or more, and at most 10,000 together with the limit, 10"),
        ({"min_score": 1.5}, "min_score is 1.5; it must be a cosine between -1 and 1"),
        ({"min_probability": 2}, "min_probability is 2.0; it must be between 0 and 1"),
        ({"group_by": "size"}, "group_by: unknown metadata column 'size'"),
        ({"group_size": 2}, "group_size is 2; it must be 1 or more, and needs group_by"),
        ({"group_by": "caption", "group_size": 0}, "group_size is 0"),
        ({"deduplicate": 1.5}, "deduplicate is 1.5; it must be a cosine above 0, and at most 1"),
        ({"deduplicate": 0}, "deduplicate is 0"),
        ({"include": ["vector"]}, "include.0"),
        ({"fields": ["size"]}, "fields: unknown metadata column 'size'"),
        ({"top_k": 3}, "unknown field 'top_k'"),
    ],
)
def test_options_out_of_range_are_named(client: TestClient, options: dict[str, Any], message: str) -> None:
    assert message in problem(client, {"query": "a cat", **options})["detail"]


def test_min_probability_needs_probabilities(client: TestClient) -> None:
    detail = problem(client, {"query": [{"text": "a"}, {"text": "b"}], "min_probability": 0.5})["detail"]
    assert detail == (
        "min_probability is 0.5, but there are no probabilities: the query is combined, negative or an embedding; "
        "use min_score"
    )


def test_pages_continue_each_other(client: TestClient) -> None:
    whole = found(search(client, {"id": CAT}, limit=50))
    pages = [found(search(client, {"id": CAT}, limit=2, offset=offset)) for offset in range(0, len(ITEMS) + 2, 2)]
    assert [result for page in pages for result in page] == whole
    assert pages[-1] == []


def test_min_score_of_a_result_keeps_it(client: TestClient) -> None:
    scores = [score for _, score in found(search(client, {"id": CAT}, limit=50))]
    for number in (1, 4):
        assert len(search(client, {"id": CAT}, min_score=scores[number - 1])["results"]) == number


@pytest.mark.parametrize("path", ["/v1/search/text", "/v1/search/image", "/v1/search/item"])
def test_short_forms_take_every_option_as_text(client: TestClient, path: str) -> None:
    query: dict[str, Any] = {
        "/v1/search/text": {"files": {"text": (None, "a cat")}},
        "/v1/search/image": {"files": {"file": ("cat.png", photograph(CAT))}},
        "/v1/search/item": {"files": {"id": (None, CAT)}},
    }[path]
    options = {
        "limit": "3",
        "offset": "1",
        "min_score": "-1",
        "include": "embedding",
        "group_by": "height",
        "group_size": "2",
        "deduplicate": "true",
        "fields": "",
    }
    in_query = client.post(path, params=options, **query)
    in_form = client.post(path, data=options, **query)
    assert in_query.status_code == in_form.status_code == 200, in_form.text
    assert in_query.json()["results"] == in_form.json()["results"]
    result = in_form.json()["results"][0]
    assert result.keys() == {
        "id", "score", "probability", "metadata", "thumbnail_url", "group", "duplicates", "embedding",
    }  # fmt: skip
    assert result["metadata"] == {}
    assert math.isclose(np.linalg.norm(result["embedding"]), 1.0, abs_tol=1e-5)


@pytest.mark.parametrize(
    ("name", "text"),
    [("min_score", "high"), ("deduplicate", "maybe"), ("include", "vector"), ("offset", "1.5"), ("group_size", "x")],
)
def test_options_as_text_are_named_if_invalid(client: TestClient, name: str, text: str) -> None:
    response = client.post(f"/v1/search/text?{name}={text}", json={"text": "a cat"})
    assert response.status_code == 422
    assert text in response.json()["detail"]


def test_near_identical_items_collapse(client: TestClient) -> None:
    """The two halves of a stereo photograph are the most similar items."""
    pair = dict(found(search(client, {"id": "left.png"}, limit=2)))["right.png"]
    body = search(client, {"id": "left.png"}, limit=50, deduplicate=pair - 1e-4)
    counts = {result["id"]: result["duplicates"] for result in body["results"]}
    assert counts["left.png"] >= 1
    assert "right.png" not in counts
    assert sum(counts.values()) + len(counts) == len(ITEMS)


def test_too_many_files_are_refused(client: TestClient) -> None:
    files = [("file", (f"{number}.png", b"x")) for number in range(33)]
    response = client.post("/v1/search/image", files=files)
    assert response.json()["detail"] == "the form has more than 32 files 'file'; send fewer"
