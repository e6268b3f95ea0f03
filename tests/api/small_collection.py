"""A small collection of real photographs, built from the library's own pieces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import skimage

from lookalike import images
from lookalike.bootstrap import load_encoder
from lookalike.collection import VECTORS, new_version_name, publish, staging_folder
from lookalike.manifest import FORMAT_VERSION, Counts, EncoderEntry, Manifest, StoreEntry
from lookalike.metadata import write_metadata
from lookalike.thumbnails import write_thumbnails
from lookalike.types import EncoderSpec

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"

ITEMS = {
    "animals/cat.png": ("chelsea.png", "a cat"),
    "animals/höhe & breite?#100%.png": ("horse.png", "a horse, in silhouette"),
    "space/rocket.jpg": ("rocket.jpg", "a rocket on its pad"),
    "space/astronaut.png": ("astronaut.png", "an astronaut"),
    "cup/thumbnail": ("coffee.png", "a cup of coffee"),
    "cup": ("coins.png", None),
    "left.png": ("motorcycle_left.png", "a motorcycle"),
    "right.png": ("motorcycle_right.png", "the same motorcycle"),
    "no thumbnail": ("camera.png", "a man with a camera"),
}
"""Item id -> photograph and caption; the ids are as awkward as file names get."""

WITHOUT_THUMBNAIL = "no thumbnail"

AWKWARD_ITEMS = {
    "a/b.jpg": ("chelsea.png", "a cat"),
    "a b/ü.jpg": ("rocket.jpg", "a rocket"),
    "a//b.jpg": ("horse.png", "a horse"),
    "../x": ("coffee.png", "a cup"),
    "x/./y": ("astronaut.png", "an astronaut"),
    "cup/thumbnail": ("coins.png", "coins"),
    "a?b#c%2F.jpg": ("motorcycle_left.png", "a motorcycle"),
    "line\nbreak.jpg\n": ("motorcycle_right.png", "the same motorcycle"),
    "/back\\slash;/": ("camera.png", "a camera"),
}
"""Items like `ITEMS`, with ids that proxies change or refuse in a path."""


def photograph(item_id: str) -> bytes:
    """The file that an item was made of."""
    return (PHOTOGRAPHS / ITEMS[item_id][0]).read_bytes()


def build_collection(
    root: Path,
    made_by: EncoderSpec | None = None,
    *,
    tagged: bool = False,
    items: Mapping[str, tuple[str, str | None]] = ITEMS,
    columns: Mapping[str, Any] | None = None,
) -> Path:
    """Encodes `items` with the fake encoder and publishes them at `root`, on behalf of `made_by` if given.

    `tagged` puts the version's name in place of the captions; `columns` are added to the metadata.
    """
    encoder = load_encoder("fake")
    decoded = [images.decode((PHOTOGRAPHS / name).read_bytes()) for name, _ in items.values()]
    vectors = encoder.encode_images(np.stack([encoder.preprocess(each.image) for each in decoded]))
    version = new_version_name()
    folder = staging_folder(root, version)
    captions = [caption for _, caption in items.values()]
    if tagged:
        captions = [version] * len(items)
    np.save(folder / VECTORS, vectors.astype(np.float16))
    table = pa.table(
        {
            "id": pa.array(items, pa.string()),
            "path": pa.array(items, pa.string()),
            "caption": pa.array(captions, pa.string()),
            "width": pa.array([each.width for each in decoded], pa.int32()),
            "height": pa.array([each.height for each in decoded], pa.int32()),
            **(columns or {}),
        }
    )
    write_metadata(folder, table.schema, [table])
    thumbnails = [
        None if item_id == WITHOUT_THUMBNAIL else images.encode_thumbnail(each.image)
        for item_id, each in zip(items, decoded, strict=True)
    ]
    write_thumbnails(folder, [pa.array(thumbnails, pa.binary())])
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=root.name,
        version=version,
        created="2026-01-01T00:00:00Z",
        lookalike="0.1.0",
        encoder=EncoderEntry.of(made_by or encoder.spec),
        store=StoreEntry(kind="exact"),
        counts=Counts(seen=len(items), indexed=len(items), rejected=0),
    )
    publish(root, folder, manifest)
    return root
