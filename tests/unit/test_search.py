"""The use case itself, over a collection of three rows whose vectors a reader can check in the head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lookalike.calibration import Calibration, PairCalibration
from lookalike.collection import Collection, new_version_name, open_collection, publish, staging_folder
from lookalike.encoders.fake import FakeEncoder
from lookalike.encoders.registry import load_encoder
from lookalike.errors import EncoderMismatch, InvalidLimit, QueryError, TextEmpty, TextTooLong, UnknownItem
from lookalike.images import encode_thumbnail
from lookalike.manifest import Counts, EncoderEntry, Manifest, StoreEntry
from lookalike.metadata import write_metadata
from lookalike.row_search import SearchOptions
from lookalike.search import Embedding, Limits, Searcher, compare
from lookalike.stopwatch import Stopwatch
from lookalike.stores.registry import open_store
from lookalike.thumbnails import write_thumbnails
from lookalike.types import Thresholds

COLOURS = ("red", "green", "blue")


def _publish(root: Path, vectors: np.ndarray) -> Collection:
    staging = staging_folder(root, version := new_version_name())
    np.save(staging / "vectors.npy", vectors.astype(np.float16))
    table = pa.table({"id": [f"{colour}.png" for colour in COLOURS], "caption": list(COLOURS)})
    write_metadata(staging, table.schema, [table])
    write_thumbnails(staging, [pa.array([encode_thumbnail(Image.new("RGB", (8, 8), c)) for c in COLOURS])])
    manifest = Manifest(
        format_version=1,
        name=root.name,
        version=version,
        created="2026-01-01T00:00:00Z",
        lookalike="0",
        encoder=EncoderEntry.of(load_encoder("fake").spec),
        store=StoreEntry(kind="exact"),
        counts=Counts(seen=3, indexed=3, rejected=0),
    )
    publish(root, staging, manifest)
    return open_collection(root)


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    encoder = load_encoder("fake")
    assert hasattr(encoder, "encode_texts")
    collection = _publish(tmp_path / "colours", encoder.encode_texts(list(COLOURS)))
    store = open_store("exact", collection.folder, collection.vectors, {})
    return Searcher(collection, store, encoder, Limits(results=5, text=20))


@pytest.mark.parametrize("colour", COLOURS)
def test_a_text_finds_its_own_item_with_score_one(searcher: Searcher, colour: str) -> None:
    result = searcher.search_text(f"  {colour} ", SearchOptions(limit=2))
    assert [hit.id for hit in result.hits][:1] == [f"{colour}.png"]
    assert result.hits[0].score == pytest.approx(1.0, abs=1e-3)
    assert result.hits[0].metadata == {"caption": colour}
    assert len(result.hits) == 2


def test_text_is_normalized_before_it_is_encoded(searcher: Searcher) -> None:
    assert searcher.prepare_text("\ufeff\uff52\uff45\uff44\u200b  shoe\x00") == "red shoe"
    for invisible in ("", " \t", "\u200b\ufeff", "\x00"):
        with pytest.raises(TextEmpty):
            searcher.prepare_text(invisible)


def test_search_reports_truncated_tokens(searcher: Searcher) -> None:
    patient = Searcher(searcher.collection, searcher.store, searcher.encoder, Limits(text=500))
    assert patient.search_text("red " * 40).truncated_tokens == 8
    assert patient.search_text("red").truncated_tokens == 0
    assert patient.search_item("red.png").truncated_tokens == 0


def test_results_have_the_chosen_fields(searcher: Searcher) -> None:
    def metadata(*fields: str) -> list[dict[str, object]]:
        return [dict(hit.metadata) for hit in searcher.search_text("red", SearchOptions(1, fields=fields)).hits]

    assert metadata() == metadata("id") == [{}]
    assert metadata("caption", "id", "caption") == [{"caption": "red"}]
    with pytest.raises(QueryError, match="'captoin'; did you mean 'caption'"):
        metadata("captoin")


def test_item_finds_itself_and_unknown_item_fails(searcher: Searcher) -> None:
    assert searcher.search_item("blue.png", SearchOptions(limit=1)).hits[0].id == "blue.png"
    with pytest.raises(UnknownItem, match=r"grey\.png"):
        searcher.search_item("grey.png")


def test_an_image_is_searched_by_its_bytes(searcher: Searcher) -> None:
    result = searcher.search_image(encode_thumbnail(Image.new("RGB", (40, 30), "red")), SearchOptions(limit=1))
    assert result.hits[0].id == "red.png"
    assert {"decode", "preprocess", "encode", "search", "metadata"} <= set(result.took_ms)


def test_large_limit_returns_all_items(searcher: Searcher) -> None:
    assert len(searcher.search_text("red", SearchOptions(limit=5)).hits) == 3


@pytest.mark.parametrize("limit", [0, -1, 6])
def test_limit_out_of_range_is_rejected(searcher: Searcher, limit: int) -> None:
    with pytest.raises(InvalidLimit, match=f"{limit}; it must be between 1 and 5"):
        searcher.search_text("red", SearchOptions(limit=limit))


def test_empty_and_overlong_texts_are_rejected(searcher: Searcher) -> None:
    with pytest.raises(TextEmpty):
        searcher.search_text(" \n\t ")
    with pytest.raises(TextTooLong, match="21 characters; the limit is 20"):
        searcher.search_text("x" * 21)


def test_other_encoder_is_rejected_naming_both(searcher: Searcher, tmp_path: Path) -> None:
    collection = searcher.collection
    entry = collection.manifest.encoder.model_copy(update={"name": "another", "weights": "f" * 64})
    manifest = collection.manifest.model_copy(update={"encoder": entry})
    other = replace(collection, manifest=manifest)
    with pytest.raises(EncoderMismatch, match=r"'another'.*'fake'"):
        Searcher(other, searcher.store, searcher.encoder)


def test_batch_equals_single_queries(searcher: Searcher) -> None:
    vectors = searcher.encode_texts(["blue", "red"], Stopwatch())
    together = searcher.search_vectors(vectors, SearchOptions(limit=3), Stopwatch())
    alone = [searcher.search_vectors(vector[None], SearchOptions(limit=3), Stopwatch())[0] for vector in vectors]
    assert [[hit.id for hit in each.hits] for each in together] == [[hit.id for hit in each.hits] for each in alone]


def test_compare_uses_threshold_of_the_kinds() -> None:
    a, b = (np.array(v, np.float32) for v in ([1.0, 0.0], [0.6, 0.8]))
    spec = replace(FakeEncoder.spec, calibration=None, thresholds=Thresholds(0.3, image_text=0.5, text_text=0.1))
    images = compare(Embedding(a, "image"), Embedding(b, "image"), spec)
    assert (images.cosine, images.distance, images.threshold, images.similar) == pytest.approx((0.6, 0.4, 0.3, False))
    assert compare(Embedding(a, "image"), Embedding(b, "text"), spec).similar
    assert compare(Embedding(a, "text"), Embedding(b, "text"), spec).threshold == 0.1
    assert compare(Embedding(a, "image"), Embedding(b, "image"), spec, threshold=0.41).similar
    assert compare(Embedding(a, "image"), Embedding(a, "image"), spec, threshold=0.0).similar


def test_compare_uses_the_calibration() -> None:
    a, b = (np.array(v, np.float32) for v in ([1.0, 0.0], [0.6, 0.8]))
    images = PairCalibration(0.35, (0.5, 0.7), (0.2, 0.8))
    spec = replace(FakeEncoder.spec, calibration=Calibration(image_image=images), thresholds=Thresholds())
    found = compare(Embedding(a, "image"), Embedding(b, "image"), spec)
    assert (found.threshold, found.similar, found.probability) == pytest.approx((0.35, False, 0.5))
    overridden = compare(Embedding(a, "image"), Embedding(b, "image"), spec, threshold=0.5)
    assert (overridden.similar, overridden.probability) == (True, pytest.approx(0.5))
    for kinds in (("image", "text"), ("text", "image"), ("text", "text")):
        other = compare(Embedding(a, kinds[0]), Embedding(b, kinds[1]), spec)
        assert other.probability is None
        assert other.threshold == (0.3 if kinds[0] == kinds[1] else 0.75)
