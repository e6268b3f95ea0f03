"""Indexing, search and the service on the sample gallery, which needs no other data."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.e2e.commands import invoke_json, lookalike, serving


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a cat", "chelsea.png"),
        ("a rocket launch", "rocket.jpg"),
        ("a cup of coffee", "coffee.png"),
        ("a flower", "flower.jpg"),
        ("a motorcycle", "motorcycle_left.png|motorcycle_right.png"),
    ],
)
def test_text_finds_its_photograph_first(sample_collection: Path, text: str, first: str) -> None:
    response = invoke_json("search", sample_collection, "--text", text, "--limit", "3")
    assert response["results"][0]["id"] in first.split("|")


def test_search_parameter_is_name_and_number(sample_collection: Path) -> None:
    arguments = ("search", sample_collection, "--text", "a cat", "--limit", "1")
    assert invoke_json(*arguments, "--param", "nprobe=4")["results"][0]["id"] == "chelsea.png"  # an exact store
    rejected = lookalike(*arguments, "--param", "nprobe")
    assert rejected.returncode == 2
    assert "NAME=NUMBER" in rejected.stderr
    assert "nprobe=64" in rejected.stderr


def test_image_finds_itself_then_its_stereo_twin(gallery: Path, sample_collection: Path) -> None:
    response = invoke_json("search", sample_collection, "--image", gallery / "motorcycle_left.png")
    first, second = response["results"][:2]
    assert (first["id"], second["id"]) == ("motorcycle_left.png", "motorcycle_right.png")
    assert first["score"] == pytest.approx(1.0, abs=1e-3)


def test_service_answers_all_kinds_of_query(gallery: Path, sample_collection: Path) -> None:
    left, right = (gallery / f"motorcycle_{side}.png" for side in ("left", "right"))
    with serving(sample_collection) as address, httpx.Client(base_url=address, timeout=30) as client:
        text = client.post("/v1/search/text", json={"text": "a cat", "limit": 2}).json()
        image = client.post("/v1/search/image", files={"file": left.read_bytes()}).json()
        pair = client.post("/v1/similarity", files={"a": left.read_bytes(), "b": right.read_bytes()}).json()
        other = client.post("/v1/similarity", json={"a": {"id": left.name}, "b": {"id": "chelsea.png"}}).json()
        thumbnail = client.get(image["results"][0]["thumbnail_url"])
    assert text["results"][0]["id"] == "chelsea.png"
    assert image["results"][0]["id"] == left.name
    assert pair["similar"] is True
    assert other["similar"] is False
    assert pair["cosine"] == pytest.approx(1.0 - pair["distance"])
    assert pair["cosine"] > other["cosine"]
    assert thumbnail.headers["content-type"] in {"image/webp", "image/jpeg", "image/png"}


def test_indexing_again_encodes_nothing(gallery: Path, sample_collection: Path) -> None:
    before = (sample_collection / "CURRENT").read_text()
    summary = invoke_json("index", gallery, "--out", sample_collection)
    assert summary["encoded"] == 0
    assert (sample_collection / "CURRENT").read_text() == before


def test_errors_are_one_line_with_a_fix(tmp_path: Path) -> None:
    done = lookalike("search", tmp_path / "nowhere", "--text", "a cat")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "lookalike index" in done.stderr
    assert "[collection_not_found]" in done.stderr
