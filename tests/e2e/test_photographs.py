"""Indexing and search of 500 captioned photographs unseen in training; needs the shared data folder."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.e2e.commands import invoke_json

PHOTOGRAPHS = 500
CAPTIONS = json.loads((Path(__file__).parent / "captions.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def photographs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 500 photographs of val.tar with their captions, as a tar of their own."""
    target = tmp_path_factory.mktemp("photographs") / "some.tar"
    chosen: set[str] = set()
    with tarfile.open(shared_data / "flickr8k" / "val.tar") as source, tarfile.open(target, "w") as out:
        for member in source:
            key = member.name.rpartition(".")[0]
            if key in chosen or len(chosen) < PHOTOGRAPHS:
                chosen.add(key)
                content = source.extractfile(member)
                assert content is not None
                out.addfile(member, io.BytesIO(content.read()))
    return target


@pytest.fixture(scope="module")
def collection(photographs: Path) -> Path:
    out = photographs.parent / "collection"
    summary = invoke_json("index", photographs, "--out", out)
    assert (summary["seen"], summary["indexed"], summary["rejected"]) == (PHOTOGRAPHS, PHOTOGRAPHS, 0)
    return out


@pytest.mark.parametrize(("item", "caption"), CAPTIONS.items())
def test_caption_finds_its_photograph_in_first_ten(collection: Path, item: str, caption: str) -> None:
    response = invoke_json("search", collection, "--text", caption, "--limit", "10")
    assert item in [hit["id"] for hit in response["results"]]


def test_photograph_finds_itself_with_score_one(photographs: Path, collection: Path, tmp_path: Path) -> None:
    item = next(iter(CAPTIONS))
    image = tmp_path / "image.jpg"
    with tarfile.open(photographs) as tar:
        content = tar.extractfile(f"{item.partition('/')[2]}.jpg")
        assert content is not None
        image.write_bytes(content.read())
    first = invoke_json("search", collection, "--image", image, "--limit", "1")["results"][0]
    assert first["id"] == item
    assert first["score"] == pytest.approx(1.0, abs=1e-3)
