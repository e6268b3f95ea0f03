"""POST /v1/similarity: every pair of sides, in both forms."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api.schemas import SimilarityResponse
from tests.api.small_collection import photograph

LEFT = photograph("left.png")
SIDES: dict[str, dict[str, str]] = {
    "image": {"image": base64.b64encode(LEFT).decode()},
    "text": {"text": "a motorcycle"},
    "id": {"id": "right.png"},
}


def compare(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/similarity", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    SimilarityResponse.model_validate(found, extra="forbid")
    return found


@pytest.mark.parametrize(("a", "b"), list(itertools.product(SIDES, SIDES)))
def test_similarity_is_symmetric_and_consistent(client: TestClient, a: str, b: str) -> None:
    there, back = compare(client, a=SIDES[a], b=SIDES[b]), compare(client, a=SIDES[b], b=SIDES[a])
    assert there["cosine"] == pytest.approx(back["cosine"], abs=1e-6)
    assert there["distance"] == pytest.approx(1.0 - there["cosine"], abs=1e-6)
    assert there["similar"] == (there["distance"] <= there["threshold"])
    kinds = ["text" if side == "text" else "image" for side in (a, b)]
    assert there["kinds"] == kinds
    expected = {1: max(0.0, there["cosine"]), 2: (1 + there["cosine"]) / 2}[
        len(set(kinds))
    ]  # the fake encoder's curves
    assert there["probability"] == (None if a == b == "text" else pytest.approx(expected, abs=1e-4))
    if a == b:
        assert there["cosine"] == pytest.approx(1.0, abs=1e-5)
        assert there["similar"] is True


def test_form_and_json_give_the_same_similarity(client: TestClient) -> None:
    files = {"a": ("a.png", LEFT), "b": ("b.png", photograph("animals/cat.png"))}
    form = client.post("/v1/similarity", files=files, data={"threshold": "0.5"}).json()
    sides = {name: {"image": base64.b64encode(data).decode()} for name, (_, data) in files.items()}
    json = compare(client, **sides, threshold=0.5)
    assert [form[name] for name in ("cosine", "similar", "threshold")] == [
        json[name] for name in ("cosine", "similar", "threshold")
    ]


def test_form_may_mix_file_with_text_or_id(client: TestClient) -> None:
    file = {"a": ("a.png", LEFT)}
    with_id = client.post("/v1/similarity", files=file, data={"b_id": "left.png"}).json()
    assert with_id["cosine"] == pytest.approx(1.0, abs=1e-4)
    with_text = client.post("/v1/similarity", files=file, data={"b_text": "a motorcycle"}).json()
    assert with_text["kinds"] == ["image", "text"]


@pytest.mark.parametrize(("threshold", "similar"), [(0.0, False), (2.0, True)])
def test_given_threshold_decides(client: TestClient, threshold: float, similar: bool) -> None:
    found = compare(client, a={"id": "left.png"}, b={"id": "animals/cat.png"}, threshold=threshold)
    assert (found["threshold"], found["similar"]) == (threshold, similar)


@pytest.mark.parametrize(
    "body",
    [
        {"a": {"text": "x"}},
        {"a": {"text": "x"}, "b": {}},
        {"a": {"text": "x"}, "b": {"text": "y", "id": "left.png"}},
        {"a": {"text": "x"}, "b": {"text": "y"}, "threshold": 2.1},
        {"a": {"text": "x"}, "b": {"text": "y"}, "threshold": -0.1},
        {"a": {"text": "x"}, "b": {"text": "y"}, "treshold": 1},
        {"a": {"text": "x"}, "b": {"text": "y"}, "threshold": "0.5"},
        {"a": {"text": "x"}, "b": {"text": "y"}, "threshold": True},
        {"a": "x", "b": "y"},
        [],
    ],
)
def test_invalid_pair_is_rejected(client: TestClient, body: Any) -> None:
    response = client.post("/v1/similarity", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "request_invalid")


@pytest.mark.parametrize(
    ("files", "data"),
    [
        ({"a": LEFT}, {}),
        ({"a": LEFT, "b": LEFT}, {"b_id": "left.png"}),
        ({"a": LEFT, "b": LEFT}, {"threshold": "nan"}),
        ({"a": LEFT, "b": LEFT}, {"threshold": "much"}),
    ],
)
def test_invalid_pair_in_a_form_is_rejected(client: TestClient, files: Any, data: Any) -> None:
    response = client.post("/v1/similarity", files=files, data=data)
    assert (response.status_code, response.json()["code"]) == (422, "request_invalid")


def test_pair_error_names_the_field_and_the_fix(client: TestClient) -> None:
    as_text = client.post("/v1/similarity", files={"a": LEFT}, data={"b": "a motorcycle"}).json()
    assert as_text["detail"] == "the field 'b' is text; use b_text or b_id, or send a file"
    empty_side = client.post("/v1/similarity", json={"a": {"text": "x"}, "b": {}}).json()
    assert empty_side["detail"] == "b: give exactly one of image, text, id and url"


def test_unknown_id_is_named(client: TestClient) -> None:
    response = client.post("/v1/similarity", json={"a": {"id": "nobody.png"}, "b": {"text": "x"}})
    assert (response.status_code, response.json()["code"]) == (404, "unknown_item")
    assert "nobody.png" in response.json()["detail"]
