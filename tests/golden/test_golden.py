"""Collections of every format that was released are opened and searched for ever."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.bootstrap import open_searcher
from lookalike.collection import VECTORS
from lookalike.filters import parse_filter
from lookalike.images import decode
from lookalike.rerank import rerank
from lookalike.row_search import SearchOptions
from lookalike.stores.exact import ExactStore
from lookalike.stores.presets import PRESETS
from lookalike.stores.registry import open_store
from tests.bad_images import encoded
from tests.golden.make import COUNT, HERE, ROWS, WIDTH, pixels

GOLDEN = sorted(HERE.glob("format-*"))


def test_golden_collection_exists_for_each_store() -> None:
    assert {"format-1-exact", "format-1-faiss"} <= {path.name for path in GOLDEN}


@pytest.mark.parametrize(
    "folder", sorted(HERE.glob("indexes-*/*/")), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_golden_index_of_each_preset_opens(folder: Path) -> None:
    vectors = np.load(folder.parent / VECTORS, mmap_mode="r")
    params = json.loads((folder / "params.json").read_text())
    store = open_store("faiss", folder, vectors, params)
    assert store.defaults == {name: params[name] for name in store.defaults}
    everything = dict.fromkeys(store.defaults, ROWS)
    queries = np.random.default_rng(1).standard_normal((20, WIDTH)).astype(np.float32)
    mask = np.arange(ROWS) % 3 == 0
    for allowed in (None, mask):
        truth = ExactStore(vectors).search(queries, 10, mask=allowed)
        found = rerank(queries, store.search(queries, ROWS, everything, allowed), vectors, 10)
        for a, b in zip(found, truth, strict=True):
            np.testing.assert_array_equal(a.rows, b.rows)
    near = vectors[::50].astype(np.float32)
    nearest = rerank(near, store.search(near, store.defaults["candidates"]), vectors, 1)
    assert np.mean([found.rows[0] == 50 * i for i, found in enumerate(nearest)]) > 0.9


def test_golden_index_exists_for_each_preset() -> None:
    presets = {name for name, preset in PRESETS.items() if preset.has_index}
    assert {path.parent.name for path in HERE.glob("indexes-*/*/index.faiss")} == presets


@pytest.mark.parametrize("root", GOLDEN, ids=lambda path: path.name)
def test_golden_collection_opens_and_searches(root: Path) -> None:
    searcher = open_searcher(root)
    collection = searcher.collection
    assert collection.manifest.store.kind == root.name.rpartition("-")[2]
    assert (len(collection), collection.manifest.counts.rejected) == (COUNT, 1)
    for i in range(0, COUNT, 37):
        found = searcher.search_image(encoded(Image.fromarray(pixels(i)), "PNG"), SearchOptions(limit=3)).hits
        assert (found[0].id, found[0].score) == (f"p{i:03}", pytest.approx(1.0, abs=1e-3))
        assert (found[0].metadata["price"], found[0].metadata["caption"]) == (i / 4, f"picture {i}")
    even = parse_filter('{"must": [{"field": "tags", "equals": "even"}, {"field": "price", "range": {"lt": 2}}]}')
    hits = searcher.search_text("red blue", SearchOptions(limit=50, filter=even)).hits
    assert {hit.id for hit in hits} == {"p000", "p002", "p004", "p006"}
    thumbnail = collection.thumbnails.get(5)
    assert thumbnail is not None
    shown = np.asarray(decode(thumbnail).image, np.int16)
    assert np.abs(shown - pixels(5)).mean() < 40
