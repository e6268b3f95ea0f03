"""A collection of small generated images, and what a client puts into it."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from lookalike.bootstrap import load_encoder
from lookalike.collection import VECTORS, new_version_name, publish, staging_folder
from lookalike.manifest import FORMAT_VERSION, Counts, EncoderEntry, Manifest, StoreEntry
from lookalike.metadata import write_metadata
from lookalike.prepared_image import PreparedImage, prepare
from lookalike.query import unit_embedding
from lookalike.thumbnails import write_thumbnails
from lookalike.types import Float16
from tests.crash.model import ItemState

COLORS = ("red", "green", "blue", "grey")
_IMAGES = 300
_MAX_PIXELS = 1_000_000
_ENCODER = load_encoder("fake")


@lru_cache(None)
def image_file(number: int) -> bytes:
    """Return one of a few hundred image files; numbers beyond begin again."""
    pixels = np.random.default_rng(number % _IMAGES).integers(0, 256, (4, 5, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((40, 32), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


@lru_cache(None)
def _prepared(number: int) -> tuple[PreparedImage, Float16]:
    prepared = prepare(image_file(number), _ENCODER, _MAX_PIXELS)
    return prepared, _ENCODER.encode_images(prepared.pixels[None])[0].astype(np.float16)


def of_image(item_id: str, number: int, metadata: dict[str, Any]) -> ItemState:
    """Return what a put of an image file makes of an item."""
    prepared, vector = _prepared(number % _IMAGES)
    return ItemState({"id": item_id, **prepared.measured, **metadata}, vector, prepared.thumbnail)


def of_embedding(item_id: str, embedding: list[float], metadata: dict[str, Any]) -> ItemState:
    """Return what a put of an embedding makes of an item."""
    vector, _ = unit_embedding(embedding, _ENCODER.spec.dim, "embedding")
    return ItemState({"id": item_id, **metadata}, vector.astype(np.float16), None)


def random_embedding(random: Random) -> list[float]:
    """Return an embedding of unit norm."""
    vector = np.array([random.gauss(0, 1) for _ in range(_ENCODER.spec.dim)])
    return [float(each) for each in (vector / np.linalg.norm(vector)).astype(np.float32)]


def build_collection(root: Path, count: int) -> dict[str, ItemState]:
    """Publish a collection of generated images at `root`, and return its items by id."""
    numbers = range(count)
    files = [_prepared(number) for number in numbers]
    records = [
        {"id": f"source/{number}.png", "path": f"{number}.png", "color": COLORS[number % len(COLORS)]}
        | {"width": prepared.width, "height": prepared.height, "price": number}
        for number, (prepared, _) in zip(numbers, files, strict=True)
    ]
    version = new_version_name()
    folder = staging_folder(root, version)
    np.save(folder / VECTORS, np.stack([vector for _, vector in files]))
    types = {"id": pa.string(), "path": pa.string(), "color": pa.string()}
    types |= {"width": pa.int32(), "height": pa.int32(), "price": pa.int64()}
    table = pa.Table.from_pylist(records, pa.schema(list(types.items())))
    write_metadata(folder, table.schema, [table])
    write_thumbnails(folder, [pa.array([prepared.thumbnail for prepared, _ in files], pa.binary())])
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=root.name,
        version=version,
        created="2026-01-01T00:00:00Z",
        lookalike="0.1.0",
        encoder=EncoderEntry.of(_ENCODER.spec),
        store=StoreEntry(kind="exact"),
        counts=Counts(seen=count, indexed=count, rejected=0),
    )
    publish(root, folder, manifest)
    states = (ItemState(record, vector, each.thumbnail) for record, (each, vector) in zip(records, files, strict=True))
    return {str(state.record["id"]): state for state in states}
