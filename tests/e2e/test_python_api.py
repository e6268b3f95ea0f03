"""The Python API gives what the command and the service give, on the sample gallery with the encoder lite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import indexing
import lookalike
from tests.e2e.commands import invoke, invoke_json, serving


@pytest.fixture(scope="module")
def photos(sample_collection: Path) -> Iterator[lookalike.SearchableCollection]:
    with lookalike.open_collection(sample_collection) as collection:
        yield collection


def rounded(hits: list[lookalike.Hit]) -> list[dict[str, object]]:
    return [
        {
            "id": hit.id,
            "score": round(hit.score, 6),
            "probability": None if hit.probability is None else round(hit.probability, 4),
            "metadata": dict(hit.metadata),
        }
        for hit in hits
    ]


def test_search_equals_the_command(photos: lookalike.SearchableCollection, gallery: Path) -> None:
    text = invoke_json("search", photos.path, "--text", "a cat", "--limit", "3")["results"]
    image = invoke_json("search", photos.path, "--image", gallery / "flower.jpg", "--limit", "3")["results"]
    assert rounded(photos.search(text="a cat", limit=3)) == text
    assert rounded(photos.search(image=gallery / "flower.jpg", limit=3)) == image
    assert text[0]["id"] == "chelsea.png"


def test_search_and_similarity_equal_the_service(photos: lookalike.SearchableCollection, gallery: Path) -> None:
    condition = {"must": [{"field": "width", "range": {"gte": 500}}]}
    left = (gallery / "motorcycle_left.png").read_bytes()
    with serving(photos.path) as address, httpx.Client(base_url=f"{address}/v1", timeout=30) as client:
        body = {"text": "a rocket", "limit": 5, "filter": condition}
        results = client.post("/search/text", json=body).json()["results"]
        pair = client.post("/similarity", files={"a": left}, data={"b_id": "motorcycle_right.png"}).json()
    hits = photos.search(text="a rocket", limit=5, filter=condition)
    assert [hit.id for hit in hits] == [result["id"] for result in results]
    assert [hit.score for hit in hits] == pytest.approx([result["score"] for result in results], abs=1e-3)
    similarity = photos.similarity({"image": left}, {"id": "motorcycle_right.png"})
    assert similarity.cosine == pytest.approx(pair["cosine"], abs=1e-3)
    assert (similarity.threshold, similarity.similar) == (pair["threshold"], pair["similar"])
    assert similarity.probability == pytest.approx(pair["probability"], abs=1e-3)


def test_combined_query_equals_the_service_and_the_command(
    photos: lookalike.SearchableCollection, gallery: Path
) -> None:
    query: list[Any] = [{"id": "coffee.png"}, {"text": "a flower"}, {"text": "a cat", "weight": -1}]
    with serving(photos.path) as address, httpx.Client(base_url=f"{address}/v1", timeout=30) as client:
        over_http = client.post("/search", json={"query": query, "limit": 3, "offset": 1}).json()
        batch = client.post("/search/batch", json={"queries": [{"query": query}, {"query": "a cat"}]}).json()
    arguments = ("--id", "coffee.png", "--and-text", "a flower", "--not", "a cat", "--limit", "3", "--offset", "1")
    in_shell = invoke_json("search", photos.path, *arguments)
    found = photos.search(query, limit=3, offset=1)
    assert found.no_match is None
    assert found[0].id == "flower.jpg"
    for body in (over_http, in_shell):
        assert [result["id"] for result in body["results"]] == [hit.id for hit in found]
        assert [result["score"] for result in body["results"]] == pytest.approx([hit.score for hit in found], abs=1e-3)
        assert (body["no_match"], body["results"][0]["probability"]) == (None, None)
    assert set(over_http) == set(in_shell)
    both = photos.search_batch([query, "a cat"])
    for results, response in zip(both, batch["responses"], strict=True):
        assert isinstance(results, lookalike.SearchResults)
        assert [hit.id for hit in results][:2] == [result["id"] for result in response["results"]][:2]
        assert results.no_match == response["no_match"]


def test_shell_reports_that_nothing_matches(photos: lookalike.SearchableCollection) -> None:
    done = invoke("search", photos.path, "--text", "a submarine", "--min-probability", "0.9")
    assert "note: nothing in this collection matches well" in done.stderr
    assert done.stdout.startswith("0 items")


def test_encoder_gives_the_scores_of_a_search(photos: lookalike.SearchableCollection, gallery: Path) -> None:
    encoder = lookalike.load_encoder("lite")
    hits = photos.search(text="a cup of coffee", limit=24)
    images = encoder.encode_images(gallery / hit.id for hit in hits)
    (text,) = encoder.encode_texts(["a cup of coffee"])
    assert (images.shape, images.dtype) == ((24, encoder.dim), np.float32)
    np.testing.assert_allclose(images @ text, [hit.score for hit in hits], atol=5e-3)


def test_kinds_of_images_agree_on_a_jpeg(gallery: Path) -> None:
    """A JPEG's bytes are decoded at a fraction of its size where that suffices; pixels are not."""
    path = gallery / "flower.jpg"
    opened = Image.open(path)
    vectors = lookalike.load_encoder("lite").encode_images([path, path.read_bytes(), opened, np.asarray(opened)])
    assert (vectors @ vectors[0]).min() > 0.999


def test_index_equals_the_command(gallery: Path, sample_collection: Path, tmp_path: Path) -> None:
    summary = indexing.index(gallery, tmp_path / "photos")
    assert (summary.encoder, summary.indexed, summary.store) == ("lite", 24, "exact")
    with lookalike.open_collection(tmp_path / "photos") as one, lookalike.open_collection(sample_collection) as other:
        assert list(one.items()) == list(other.items())
        assert [hit.id for hit in one.search(text="a cat")] == [hit.id for hit in other.search(text="a cat")]
