"""POST /v1/embeddings and GET /v1/models: OpenAI's form, Jina's objects, infinity's modality, and OpenAI's errors."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.api.embedding_schemas import EmbeddingsResponse, ModelResponse, ModelsResponse, OpenAIProblem
from app.main import create_app
from app.settings import Settings
from lookalike import images
from lookalike.bootstrap import load_encoder
from lookalike.encoders.fake import DIM
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import build_collection, photograph

CAT, ASTRONAUT = "animals/cat.png", "space/astronaut.png"
TEXTS = ["red", "blue green", "a man with a camera"]
KEY = "reader-0123456789abcdef"


def as_base64(item_id: str) -> str:
    return base64.b64encode(photograph(item_id)).decode()


def data_uri(item_id: str) -> str:
    return f"data:image/png;base64,{as_base64(item_id)}"


def embed(client: TestClient, value: Any, **options: Any) -> Any:
    response = client.post("/v1/embeddings", json={"input": value, **options})
    assert response.status_code == 200, response.text
    EmbeddingsResponse.model_validate(response.json())
    return response.json()


def vectors(body: Any) -> Any:
    assert [each["index"] for each in body["data"]] == list(range(len(body["data"])))
    return np.array([each["embedding"] for each in body["data"]], np.float32)


def problem(client: TestClient, status: int, **body: Any) -> Any:
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == status, response.text
    return checked(response)


def checked(response: Any) -> Any:
    document = response.json()
    OpenAIProblem.model_validate(document)
    assert response.headers["content-type"] == "application/problem+json"
    assert document["status"] == response.status_code
    error = document["error"]
    assert (error["message"], error["code"]) == (document["detail"], document["code"])
    return document


def encoded(*item_ids: str) -> Any:
    encoder = load_encoder("fake")
    decoded = [images.decode(photograph(item_id)).image for item_id in item_ids]
    return encoder.encode_images(np.stack([encoder.preprocess(each) for each in decoded]))


def test_texts_have_the_encoders_vectors(client: TestClient) -> None:
    body = embed(client, TEXTS)
    np.testing.assert_allclose(vectors(body), load_encoder("fake").encode_texts(TEXTS), atol=1e-6)  # type: ignore[attr-defined]
    assert (body["object"], body["model"]) == ("list", "fake")
    assert body["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    assert vectors(embed(client, "red")).tolist() == vectors(embed(client, {"text": "red"})).tolist()


def test_base64_is_little_endian_float32(client: TestClient) -> None:
    body = embed(client, TEXTS, encoding_format="base64")
    decoded = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in body["data"]]
    np.testing.assert_allclose(decoded, vectors(embed(client, TEXTS, encoding_format="float")), atol=1e-7)


def test_images_and_texts_may_be_mixed(client: TestClient) -> None:
    body = embed(client, [{"image": as_base64(CAT)}, {"text": "red"}, {"image": data_uri(ASTRONAUT)}, data_uri(CAT)])
    cat, astronaut = encoded(CAT, ASTRONAUT)
    np.testing.assert_allclose(vectors(body)[[0, 2, 3]], [cat, astronaut, cat], atol=1e-6)
    np.testing.assert_allclose(vectors(body)[1], vectors(embed(client, "red"))[0], atol=1e-6)
    assert body["usage"]["total_tokens"] == 1


def test_strings_are_images_with_that_modality(client: TestClient) -> None:
    body = embed(client, [as_base64(CAT), data_uri(ASTRONAUT)], modality="image")
    np.testing.assert_allclose(vectors(body), encoded(CAT, ASTRONAUT), atol=1e-6)
    assert body["usage"]["total_tokens"] == 0


def test_other_services_options_are_ignored(client: TestClient) -> None:
    ignored = {"user": "me", "task": "retrieval", "late_chunking": True, "encoding_type": "float"}
    assert embed(client, "red", **ignored, normalized=True, truncate=True) == embed(client, "red")
    assert embed(client, "red", dimensions=DIM, modality=None) == embed(client, "red")
    assert embed(client, "red", embedding_type="base64") == embed(client, "red", encoding_format="base64")


def test_as_many_inputs_as_are_allowed(client: TestClient) -> None:
    names = ["red", "blue", "green", "white"] * 512
    found = vectors(embed(client, names))
    assert found.shape == (2048, DIM)
    np.testing.assert_array_equal(found[:4], found[-4:])


@pytest.mark.parametrize(
    ("value", "message", "param"),
    [
        ([], "the list is empty; send 1 to 2,048 inputs", "input"),
        (["a"] * 2049, "2,049 inputs; send at most 2,048", "input"),
        ([1, 2, 3], "token arrays are not supported", "input"),
        ([[1, 2], [3]], "check_embedding_ctx_length=False", "input"),
        (7, "send a text", "input"),
        (None, "send a text", "input"),
        (["a", {"video": "b"}], "input.1: send a text", "input.1"),
        (["a", {"text": "b", "image": "c"}], "input.1: send a text", "input.1"),
        (["a", "red", " "], "input.2: the text is empty", "input.2"),
        (["a", "b" * 300], "input.1: the text has 300 characters", "input.1"),
        (["a", {"image": "?"}], "input.1: the image is not valid base64", "input.1"),
        (["a", {"image": "bm8gaW1hZ2U="}, "c"], "input.1: ", "input.1"),
        (["a", "b", {"image": "http://127.0.0.1/cat.jpg"}], "input.2: ", "input.2"),
    ],
)
def test_invalid_input_is_named(client: TestClient, value: Any, message: str, param: str) -> None:
    document = problem(client, 400, input=value)
    assert message in document["detail"]
    assert document["error"]["param"] == param
    assert document["error"]["type"] == "invalid_request_error"


def test_url_is_refused_where_urls_are_off(client: TestClient) -> None:
    document = problem(client, 400, input=["https://example.com/cat.jpg"], modality="image")
    assert document["code"] == "url_disabled"
    assert document["detail"].startswith("input.0: ")


def test_other_dimensions_are_refused(client: TestClient) -> None:
    document = problem(client, 400, input="red", dimensions=256)
    assert document["detail"] == "dimensions: it is 256; encoder 'fake' has 13, and embeddings can't be shortened"
    assert document["error"]["param"] == "dimensions"


@pytest.mark.parametrize(
    "body", [{}, {"input": "a", "inputs": "b"}, {"input": "a", "encoding_format": "int8"}, {"input": "a", "model": 3}]
)
def test_invalid_fields_are_400(client: TestClient, body: dict[str, Any]) -> None:
    assert problem(client, 400, **body)["errors"]


def test_model_is_a_collection_or_an_encoder(client: TestClient) -> None:
    for model in ("photographs", "fake"):
        body = embed(client, "red", model=model)
        assert body["model"] == model
        assert body["data"] == embed(client, "red")["data"]


def test_unknown_model_is_404_with_the_known_ones(client: TestClient) -> None:
    document = problem(client, 404, input="red", model="text-embedding-3-small")
    assert document["detail"] == "unknown model 'text-embedding-3-small'; the models are fake, photographs"
    assert (document["code"], document["error"]["param"]) == ("unknown_model", "model")
    assert checked(client.get("/v1/models/some/model"))["detail"].startswith("unknown model 'some/model'")


def test_models_are_listed(client: TestClient) -> None:
    body = client.get("/v1/models").json()
    ModelsResponse.model_validate(body)
    assert [each["id"] for each in body["data"]] == ["fake", "photographs"]
    for model in body["data"]:
        assert client.get(f"/v1/models/{model['id']}").json() == model
        ModelResponse.model_validate(model)
        assert (model["encoder"], model["dimensions"], model["modalities"]) == ("fake", DIM, ["image", "text"])
        assert model["created"] == 1767225600  # 2026-01-01


def test_collection_comes_before_the_encoder_of_its_name(tmp_path: Path, collection: Path) -> None:
    named = build_collection(tmp_path / "fake")
    with TestClient(create_app(Settings(collection=collection, collections=(named,)))) as opened:
        wait_until_ready(opened)
        embed(opened, "red", model="fake")
        assert [each["id"] for each in opened.get("/v1/models").json()["data"]] == ["fake", "photographs"]


def test_errors_of_access_and_size_have_openais_object(collection: Path) -> None:
    settings = Settings(
        collection=collection,
        keys=SecretStr(f"read:{KEY}"),
        max_body_bytes=2000,
        rate_limit="3/hour",
    )
    with TestClient(create_app(settings)) as opened:
        wait_until_ready(opened)
        path, headers = "/v1/embeddings", {"Authorization": f"Bearer {KEY}"}
        missing = checked(opened.post(path, json={"input": "red"}))
        assert (missing["status"], missing["error"]["type"]) == (401, "authentication_error")
        assert checked(opened.get("/v1/models", headers={"Authorization": "Bearer no"}))["status"] == 401
        assert checked(opened.post(path, json={"input": "r" * 3000}, headers=headers))["status"] == 413
        assert opened.post(path, json={"input": "red"}, headers=headers).status_code == 200
        limited = checked(opened.post(path, json={"input": ["red"] * 3}, headers=headers))
        assert (limited["status"], limited["error"]["type"]) == (429, "rate_limit_error")
        more = checked(opened.post(path, json={"input": ["red"] * 4}, headers=headers))
        assert (more["status"], more["detail"]) == (
            400,
            "4 queries at once are more than the limit of 3 per 1 hour; send fewer at once",
        )
        assert checked(opened.get(path, headers=headers))["status"] == 405


def test_service_that_is_not_ready_says_so(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with TestClient(create_app(Settings(collection=tmp_path / "nothing"))) as opened:
        for model in ({}, {"model": "lite"}):
            response = opened.post("/v1/embeddings", json={"input": "red", **model})
            document = checked(response)
            assert (document["status"], document["error"]["type"]) == (503, "server_error")
            assert int(response.headers["retry-after"]) >= 1


def test_other_paths_keep_their_problems(client: TestClient) -> None:
    response = client.post("/v1/search/text", json={"text": ""})
    assert response.status_code == 422
    assert "error" not in response.json()
