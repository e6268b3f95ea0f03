"""POST /v1/classify: softmax and probability of labels, prompt templates, and errors that name the input."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.api.classify_schemas import ClassifyResponse
from lookalike.bootstrap import load_encoder
from lookalike.encoders.fake import FakeEncoder
from tests.api.small_collection import photograph

PATH = "/v1/classify"
CAT = {"id": "animals/cat.png"}
IMAGE = {"image": base64.b64encode(photograph("left.png")).decode()}
LABELS = ["red", "blue", "green"]


def classify(client: TestClient, **body: Any) -> list[list[dict[str, Any]]]:
    response = client.post(PATH, json={"inputs": [CAT], "labels": LABELS, **body})
    assert response.status_code == 200, response.text
    found = response.json()
    ClassifyResponse.model_validate(found, extra="forbid")
    assert found["temperature"] == 0.1
    return [each["predictions"] for each in found["results"]]


def detail(client: TestClient, status: int, **body: Any) -> str:
    response = client.post(PATH, json={"inputs": [CAT], "labels": LABELS, **body})
    assert response.status_code == status, response.text
    return str(response.json()["detail"])


def test_labels_are_sorted_with_the_softmax_of_their_cosines(client: TestClient) -> None:
    for image, predictions in zip([CAT, IMAGE], classify(client, inputs=[CAT, IMAGE]), strict=True):
        pairs = {
            label: client.post("/v1/similarity", json={"a": image, "b": {"text": label}}).json() for label in LABELS
        }
        assert [each["label"] for each in predictions] == sorted(LABELS, key=lambda label: -pairs[label]["cosine"])
        weights = {label: np.exp(pair["cosine"] / 0.1) for label, pair in pairs.items()}
        for each in predictions:
            pair = pairs[each["label"]]
            assert each["cosine"] == pytest.approx(pair["cosine"], abs=1e-6)
            assert each["probability"] == pytest.approx(pair["probability"], abs=1e-4)
            assert each["softmax"] == pytest.approx(weights[each["label"]] / sum(weights.values()), abs=1e-4)
        assert sum(each["softmax"] for each in predictions) == pytest.approx(1, abs=1e-5)


def test_templates_surround_the_label(client: TestClient) -> None:
    plain = classify(client, template="{}")
    assert plain == classify(client) == classify(client, template=["{}"])
    templated = classify(client, template="a {} blue thing")
    spelled = classify(client, labels=[f"a {label} blue thing" for label in LABELS])
    assert templated[0][0]["label"] == spelled[0][0]["label"][2:-11]
    assert [each["cosine"] for each in templated[0]] == [each["cosine"] for each in spelled[0]]


def test_embeddings_of_templates_are_averaged(client: TestClient) -> None:
    templates = ["{} red", "{} blue green"]
    encoder = load_encoder("fake")
    assert isinstance(encoder, FakeEncoder)
    item = client.post("/v1/embeddings", json={"input": [IMAGE]}).json()["data"][0]["embedding"]
    for each in classify(client, inputs=[IMAGE], template=templates)[0]:
        prompts = encoder.encode_texts([template.replace("{}", each["label"]) for template in templates])
        mean = prompts.mean(axis=0)
        assert each["cosine"] == pytest.approx(float(mean @ item / np.linalg.norm(mean)), abs=1e-5)


def test_one_label_has_the_whole_softmax(client: TestClient) -> None:
    [[only]] = classify(client, labels=["red"])
    assert only["softmax"] == 1.0
    assert only["probability"] < 1.0


def test_both_paths_answer(client: TestClient) -> None:
    body = {"inputs": [CAT], "labels": LABELS}
    named = client.post("/v1/collections/photographs/classify", json=body).json()
    assert named["results"] == client.post(PATH, json=body).json()["results"]


def test_most_texts(client: TestClient) -> None:
    labels = [f"red {number}" for number in range(1000)]
    [predictions] = classify(client, labels=labels, template=["{}", "a {}"])
    assert {each["label"] for each in predictions} == set(labels)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": []}, "inputs: "),
        ({"labels": []}, "labels: "),
        ({"labels": None}, "labels: "),
        ({"labels": [""]}, "labels.0: "),
        ({"labels": ["red", " "]}, "labels.1: the text is empty"),
        ({"labels": ["red", "r" * 300]}, "labels.1: the text has 300 characters"),
        ({"labels": ["red", "blue", "red"]}, "the label 'red' is given more than once"),
        ({"labels": [str(number) for number in range(1001)]}, "labels: "),
        ({"inputs": [CAT, {"text": "a cat"}]}, "inputs.1 is a text; only images can be classified"),
        (
            {"inputs": [CAT] * 101, "labels": list("abcdefghij" * 10)},
            "101 by 100 are 10,100 pairs; send at most 10,000",
        ),
        ({"inputs": [CAT] * 257, "labels": ["red"]}, "inputs: "),
        ({"template": "a photo"}, "the template 'a photo' must have {} once"),
        ({"template": "{} {}"}, "the template '{} {}' must have {} once"),
        ({"labels": ["r" * 1001]}, "labels.0: "),
        ({"labels": ["r" * 1000], "template": "{}" * 50_000}, "template"),
        ({"template": []}, "template"),
        ({"labels": list("abcdefghijklmnopqrstu"), "template": ["{}"] * 100}, "21 labels in 100 templates"),
        ({"templates": "{}"}, "templates"),
    ],
)
def test_invalid_request_is_named(client: TestClient, body: dict[str, Any], message: str) -> None:
    assert message in detail(client, 422, **body)


def test_image_that_fails_is_named(client: TestClient) -> None:
    assert detail(client, 404, inputs=[CAT, {"id": "missing.png"}]).startswith("inputs.1: ")
    assert detail(client, 422, inputs=[{"image": "bm8gaW1hZ2U="}, CAT]).startswith("inputs.0: ")
