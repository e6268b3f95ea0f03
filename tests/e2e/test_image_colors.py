"""Profiles, transparency and deep samples: the same by folder, HTTP and Python, with the right thumbnails."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import skimage
import tifffile
from PIL import Image, ImageDraw
from starlette.testclient import TestClient

import lookalike
from app.main import create_app
from app.settings import Settings
from lookalike import images
from tests.api.conftest import wait_until_ready
from tests.bad_images import encoded
from tests.e2e.commands import invoke_json
from tests.icc_profiles import cmyk_profile, rgb_profile

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"


NAMES = (
    "prophoto.jpg",
    "p3-large.png",
    "adobe.heic",
    "ink.jpg",
    "12-bits.png",
    "float.tif",
    "circle.png",
    "triangle.webp",
)


def _photograph(name: str) -> Image.Image:
    with Image.open(PHOTOGRAPHS / name) as image:
        return image.convert("RGB")


def _heic(image: Image.Image, profile: bytes) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=90, icc_profile=profile)
    return buffer.getvalue()


def _tiff(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric="rgb", metadata=None)
    return buffer.getvalue()


def _white_logo(shape: str) -> Image.Image:
    logo = Image.new("RGBA", (300, 300))
    draw = ImageDraw.Draw(logo)
    if shape == "circle":
        draw.ellipse((30, 30, 270, 270), fill="white")
    else:
        draw.polygon([(150, 20), (280, 270), (20, 270)], fill="white")
    return logo


def _files() -> dict[str, bytes]:
    cat, rocket, coffee = _photograph("chelsea.png"), _photograph("rocket.jpg"), _photograph("coffee.png")
    grey = np.asarray(_photograph("camera.png").convert("L"), np.uint16) * 16
    large = coffee.resize((1200, 800))
    return {
        "prophoto.jpg": encoded(cat, "JPEG", quality=92, icc_profile=rgb_profile("ProPhoto RGB")),
        "p3-large.png": encoded(large, "PNG", compress_level=1, icc_profile=rgb_profile("Display P3")),
        "adobe.heic": _heic(rocket, rgb_profile("Adobe RGB")),
        "ink.jpg": encoded(rocket.convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
        "12-bits.png": encoded(Image.fromarray(grey), "PNG"),
        "float.tif": _tiff(np.asarray(_photograph("astronaut.png"), np.float32) / 255),
        "circle.png": encoded(_white_logo("circle"), "PNG"),
        "triangle.webp": encoded(_white_logo("triangle"), "WEBP"),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds") / "images"
    folder.mkdir()
    for name, data in _files().items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def collection(folder: Path) -> Path:
    out = folder.parent / "collection"
    summary = invoke_json("index", folder, "--out", out, "--encoder", "fake")
    assert (summary["indexed"], summary["rejected"]) == (len(NAMES), 0)
    return out


@pytest.fixture(scope="module")
def client(collection: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(collection=collection))) as opened:
        wait_until_ready(opened)
        yield opened


def _first(client: TestClient, data: bytes) -> dict[str, Any]:
    response = client.post("/v1/search/image", files={"file": ("image", data)})
    assert response.status_code == 200, response.text
    first: dict[str, Any] = response.json()["results"][0]
    return first


@pytest.mark.parametrize("name", NAMES)
def test_file_finds_itself_by_http_with_score_one(client: TestClient, folder: Path, name: str) -> None:
    first = _first(client, (folder / name).read_bytes())
    assert first["id"] == name
    assert first["score"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("name", ["prophoto.jpg", "p3-large.png", "ink.jpg", "12-bits.png", "circle.png"])
def test_pillow_image_finds_its_file_with_score_one(collection: Path, folder: Path, name: str) -> None:
    with lookalike.open_collection(collection) as opened, Image.open(folder / name) as image:
        first = opened.search(image=image, limit=1)[0]
    assert (first.id, first.score) == (name, pytest.approx(1.0, abs=2e-3))


@pytest.mark.parametrize("name", ["prophoto.jpg", "p3-large.png", "float.tif", "circle.png"])
def test_thumbnail_has_the_decoded_colors(client: TestClient, folder: Path, name: str) -> None:
    response = client.get(f"/v1/items/{name}/thumbnail")
    expected = images.decode((folder / name).read_bytes()).image
    with Image.open(io.BytesIO(response.content)) as thumbnail:
        difference = np.asarray(thumbnail, np.float64) - np.asarray(expected.resize(thumbnail.size), np.float64)
    assert np.abs(difference.mean(axis=(0, 1))).max() < 1.5  # of each channel; JPEG changes single pixels more
