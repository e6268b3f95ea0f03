"""POST /v1/similarity/matrix: each cell is what a pair gives, limits, and errors that name the input."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.api.matrix_schemas import MatrixResponse
from app.main import create_app
from app.settings import Settings
from lookalike import images
from lookalike.encoders.fake import FakeEncoder
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import photograph
from tests.bad_images import encoded, make_image

PATH = "/v1/similarity/matrix"
IMAGE = {"image": base64.b64encode(photograph("left.png")).decode()}
TEXT = {"text": "a red motorcycle"}
ITEM = {"id": "right.png"}
KEY = "reader-0123456789abcdef"


def matrix(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post(PATH, json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    MatrixResponse.model_validate(found, extra="forbid")
    return found


def detail(client: TestClient, status: int, **body: Any) -> str:
    response = client.post(PATH, json=body)
    assert response.status_code == status, response.text
    return str(response.json()["detail"])


def test_each_cell_is_the_similarity_of_its_pair(client: TestClient) -> None:
    a, b = [IMAGE, TEXT, ITEM], [ITEM, TEXT]
    found = matrix(client, a=a, b=b)
    assert found["kinds"] == [["image", "text", "image"], ["image", "text"]]
    for i, j in itertools.product(range(3), range(2)):
        pair = client.post("/v1/similarity", json={"a": a[i], "b": b[j]}).json()
        assert found["cosine"][i][j] == pytest.approx(pair["cosine"], abs=1e-6)
        assert found["probability"][i][j] == (
            None if pair["probability"] is None else pytest.approx(pair["probability"], abs=1e-4)
        )
    assert found["probability"][1][1] is None  # two texts
    assert (found["collection"], found["encoder"]) == ("photographs", "fake")
    assert found["took_ms"]["total"] >= found["took_ms"]["decode"] > 0


def test_columns_are_the_rows_by_default(client: TestClient) -> None:
    rows = [IMAGE, TEXT, ITEM]
    assert matrix(client, a=rows)["cosine"] == matrix(client, a=rows, b=rows)["cosine"]


def test_rows_are_encoded_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [encoded(make_image(seed=seed), "PNG") for seed in (1, 2)]
    rows = [FakeEncoder().preprocess(images.decode(file).image).tobytes() for file in files]
    seen: list[bytes] = []
    real = FakeEncoder.encode_images

    def recording(self: FakeEncoder, batch: Any) -> Any:
        seen.extend(pixels.tobytes() for pixels in batch)
        return real(self, batch)

    monkeypatch.setattr(FakeEncoder, "encode_images", recording)
    matrix(client, a=[{"image": base64.b64encode(file).decode()} for file in files])
    assert [seen.count(row) for row in rows] == [1, 1]  # probes of the service may be among the others


def test_texts_count_the_tokens_that_were_not_read(client: TestClient) -> None:
    long = {"text": "red " * 40}
    found = matrix(client, a=[IMAGE, long], b=[TEXT])["truncated_tokens"]
    alone = client.post("/v1/similarity", json={"a": long, "b": TEXT}).json()["truncated_tokens"]
    assert found == [[0, alone[0]], [alone[1]]]
    assert alone[0] > 0


def test_both_paths_answer(client: TestClient) -> None:
    body = {"a": [TEXT], "b": [ITEM]}
    named = client.post("/v1/collections/photographs/similarity/matrix", json=body)
    assert named.json()["cosine"] == matrix(client, **body)["cosine"]


def test_largest_matrix(client: TestClient) -> None:
    found = matrix(client, a=[TEXT] * 100, b=[{"text": "blue"}] * 100)
    assert [len(found["cosine"]), *{len(row) for row in found["cosine"]}] == [100, 100]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"a": []}, "a: "),
        ({"a": [TEXT], "b": []}, "b: "),
        ({}, "a: "),
        ({"a": [TEXT] * 101, "b": [TEXT] * 100}, "101 by 100 are 10,100 pairs; send at most 10,000"),
        ({"a": [TEXT] * 101}, "101 by 101 are 10,201 pairs; send at most 10,000"),
        ({"a": [TEXT] * 255, "b": [TEXT] * 2}, "257 inputs; send at most 256"),
        ({"a": [TEXT] * 257, "b": [TEXT]}, "a: "),
        ({"a": [TEXT], "c": [TEXT]}, "c"),
        ({"a": [{**TEXT, **ITEM}]}, "a.0"),
        ({"a": [TEXT, {}]}, "a.1"),
        ({"a": [TEXT, {"text": " "}]}, "a.1: the text is empty"),
        ({"a": [TEXT], "b": [TEXT, TEXT, {"text": "r" * 300}]}, "b.2: the text has 300 characters"),
    ],
)
def test_invalid_request_is_named(client: TestClient, body: dict[str, Any], message: str) -> None:
    assert message in detail(client, 422, **body)


def test_input_that_fails_is_named(client: TestClient) -> None:
    assert detail(client, 404, a=[TEXT, ITEM, {"id": "missing.png"}]).startswith("a.2: ")
    assert detail(client, 422, a=[TEXT], b=[ITEM, {"image": "bm8gaW1hZ2U="}]).startswith("b.1: ")
    assert detail(client, 422, a=[TEXT], b=[{"url": "https://example.com/cat.jpg"}]).startswith("b.0: ")


def test_inputs_count_for_the_rate_limit(settings: Settings) -> None:
    limited = settings.model_copy(update={"keys": SecretStr(f"read:{KEY}"), "rate_limit": "5/hour"})
    with TestClient(create_app(limited), headers={"Authorization": f"Bearer {KEY}"}) as client:
        wait_until_ready(client)
        matrix(client, a=[TEXT] * 2, b=[ITEM])
        assert client.post(PATH, json={"a": [TEXT] * 3}).status_code == 429
        assert client.post(PATH, json={"a": [TEXT]}).status_code == 200
