"""The indexing job in one process, with the fake encoder: counts, order, reuse, and resuming after a failure."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cli.index import summary_text
from indexing import job as job_module
from indexing.arrow_files import write_table
from indexing.build.budget import IndexBudget
from indexing.ingest import shard_storage as storage_module
from indexing.ingest import shards as shards_module
from indexing.ingest.shards import ShardPool
from indexing.job import IndexSettings, IndexSummary, run_index
from indexing.work_folder import WORK
from lookalike.bootstrap import open_searcher
from lookalike.collection import REJECTED, Collection, current_version, open_collection
from lookalike.encoders.fake import FakeEncoder
from lookalike.encoders.lite import editions
from lookalike.encoders.lite.editions import FIRST_EDITION
from lookalike.errors import BudgetImpossible, DiskFull, EncoderError, SourceError, SourceNotFound
from lookalike.row_search import SearchOptions
from lookalike.sources import folder as folder_module
from lookalike.sources.item import ColumnNames
from lookalike.types import Float32, UInt8
from tests.bad_images import bad_images, encoded, make_image, odd_images
from tests.unit.test_sources import write_parquet, write_tar

COUNT = 30


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    folder = tmp_path / "gallery"
    folder.mkdir()
    for i in range(COUNT):
        (folder / f"{i:03}.jpg").write_bytes(encoded(make_image(seed=i), "JPEG"))
        (folder / f"{i:03}.txt").write_text("red green" if i % 2 else "blue")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "collection"


def index(out: Path, *sources: object, batch_size: int = 4, **settings: object) -> IndexSummary:
    return run_index(
        IndexSettings(tuple(map(str, sources)), out, encoder="fake", batch_size=batch_size, **settings)  # type: ignore[arg-type]
    )


def ids(collection: Collection) -> list[str]:
    return [record["id"] for record in collection.metadata.records(range(len(collection)))]


def work_pool(out: Path) -> ShardPool:
    (folder,) = (out / WORK).iterdir()
    return ShardPool(folder)


class Edition(FakeEncoder):
    """An edition of `lite` that gives all images one vector, which depends on its weights, for some batches."""

    def __init__(self, weights: str) -> None:
        self.spec = replace(FakeEncoder.spec, name="lite", weights=weights)
        self.vector = np.eye(self.spec.dim, dtype=np.float16)[int(weights[0], 16) % 10]
        self.batches_left = COUNT

    def encode_images(self, batch: UInt8) -> Float32:
        if not self.batches_left:
            raise EncoderError("stopped")
        self.batches_left -= 1
        return np.tile(self.vector.astype(np.float32), (len(batch), 1))


class TestFirstRun:
    def test_images_become_rows_in_source_order(self, gallery: Path, out: Path) -> None:
        summary = index(out, gallery, workers=7)
        assert (summary.seen, summary.indexed, summary.rejected) == (COUNT, COUNT, 0)
        assert (summary.encoded, summary.reused, summary.unchanged) == (COUNT, 0, False)
        collection = open_collection(out)
        assert ids(collection) == [f"{i:03}.jpg" for i in range(COUNT)]
        first = collection.metadata.records([0])[0]
        assert first == {
            "id": "000.jpg",
            "source": "gallery",
            "path": "000.jpg",
            "caption": "blue",
            "width": 64,
            "height": 48,
            "format": "JPEG",
        }
        assert not (out / WORK).exists()

    def test_row_vector_and_thumbnail_match(self, gallery: Path, out: Path) -> None:
        index(out, gallery)
        searcher = open_searcher(out)
        for row in range(COUNT):
            data = (gallery / f"{row:03}.jpg").read_bytes()
            best = searcher.search_image(data, SearchOptions(limit=1)).hits[0]
            assert best.id == f"{row:03}.jpg"
            assert best.score == pytest.approx(1.0, abs=1e-6)
            with Image.open(io.BytesIO(searcher.collection.thumbnails.get(row) or b"")) as thumbnail:
                shown = np.asarray(thumbnail, np.int16)
            assert np.abs(shown - np.asarray(make_image(seed=row), np.int16)).mean() < 4

    def test_report_has_image_and_text_recall(self, gallery: Path, out: Path) -> None:
        summary = index(out, gallery)
        assert summary.recall["image"] == {"queries": COUNT, "ann_recall_at_10": 1.0}
        assert summary.recall["text"] == {"queries": 2, "ann_recall_at_10": 1.0}  # two differ
        assert open_collection(out).manifest.recall["text"] == summary.recall["text"]

    def test_explain_compares_presets(self, gallery: Path, out: Path) -> None:
        summary = index(out, gallery, budget=IndexBudget(explain=True))
        plan = open_collection(out).manifest.recall["plan"]
        assert plan == summary.recall["plan"]
        assert {line["preset"] for line in plan["options"]} == {"exact", "ivf-sq8", "ivf-flat", "hnsw-sq8"}
        assert all(line["image"] == line["text"] == 1.0 for line in plan["options"])
        picked = [line for line in plan["options"] if line["preset"] == plan["chosen"]]
        assert [line["verdict"] for line in picked] == ["chosen"]
        assert open_searcher(out).search_text("blue").hits

    def test_changed_budget_rebuilds_without_encoding(self, gallery: Path, out: Path) -> None:
        index(out, gallery)
        again = index(out, gallery, budget=IndexBudget(latency=1_000.0))
        assert (again.encoded, again.reused, again.unchanged) == (0, COUNT, False)
        assert index(out, gallery, budget=IndexBudget(latency=1_000.0)).unchanged

    def test_impossible_memory_fails_before_encoding(self, gallery: Path, out: Path) -> None:
        with pytest.raises(BudgetImpossible, match=r"30 vectors.*give --memory"):
            index(out, gallery, budget=IndexBudget(memory=100))
        assert not list(out.rglob("*.arrow"))

    def test_prompts_replace_missing_captions(self, gallery: Path, out: Path) -> None:
        for path in gallery.glob("*.txt"):
            path.unlink()
        summary = index(out, gallery, store="ivf-flat")
        assert summary.recall["texts"] == "prompts"
        assert summary.recall["text"]["queries"] > 100
        assert (summary.store, summary.recall["met"]) == ("faiss", True)

    def test_prompts_complement_few_captions(self, gallery: Path, out: Path) -> None:
        summary = index(out, gallery, store="ivf-flat")
        assert summary.recall["texts"] == "captions and prompts"
        assert summary.recall["text"]["queries"] == 100

    def test_budget_for_store_without_presets_is_rejected(self, gallery: Path, out: Path) -> None:
        with pytest.raises(SourceError, match="leave them out with --store torch-exact"):
            index(out, gallery, store="torch-exact", budget=IndexBudget(latency=5.0))

    def test_bad_images_are_rejected_and_odd_ones_converted(self, tmp_path: Path, out: Path) -> None:
        folder = tmp_path / "odd"
        folder.mkdir()
        for odd in [*bad_images(), *odd_images()]:
            (folder / odd.name).write_bytes(odd.data)
        summary = index(out, folder)
        assert (summary.indexed, summary.rejected) == (len(odd_images()), len(bad_images()))
        collection = open_collection(out)
        rejected = pq.read_table(collection.folder / REJECTED).to_pylist()
        assert {row["id"]: row["code"] for row in rejected} == {bad.name: bad.code for bad in bad_images()}
        assert all(row["message"] and row["path"] == row["id"] and row["source"] == "odd" for row in rejected)
        sizes = {r["id"]: (r["width"], r["height"]) for r in collection.metadata.records(range(len(collection)))}
        assert sizes == {odd.name: odd.size for odd in odd_images()}
        assert summary.seen == summary.indexed + summary.rejected == sum(summary.rejected_by_code.values()) + len(sizes)

    def test_sources_of_all_kinds_share_a_collection(self, gallery: Path, tmp_path: Path, out: Path) -> None:
        jpeg = encoded(make_image(seed=99), "JPEG")
        tar = write_tar(tmp_path / "part.tar", {"a.jpg": jpeg, "a.json": b'{"label": "cat"}'})
        table = write_parquet(tmp_path / "x.parquet", {"id": ["p"], "image": [jpeg], "label": [5]})
        index(out, gallery, tar, table)
        first, a, p = open_collection(out).metadata.records([0, COUNT, COUNT + 1])
        assert "label" not in first
        assert (a["id"], a["source"], a["label"]) == ("part/a", "part.tar", "cat")
        assert (p["id"], p["source"], p["label"]) == ("p", "x.parquet", "5")

    def test_second_item_with_same_id_is_rejected(self, gallery: Path, tmp_path: Path, out: Path) -> None:
        twin = tmp_path / "twin"
        twin.mkdir()
        (twin / "000.jpg").write_bytes(encoded(make_image(seed=50), "JPEG"))
        summary = index(out, gallery, twin, twin)
        assert summary.indexed == COUNT + 1
        assert summary.rejected_by_code == {"duplicate_id": 1}
        rejected = pq.read_table(open_collection(out).folder / REJECTED).to_pylist()
        assert "NAME=PATH" in rejected[0]["message"]
        assert index(out, gallery, f"twin={twin}").indexed == COUNT + 1

    def test_empty_source_fails_without_version(self, tmp_path: Path, out: Path) -> None:
        (tmp_path / "bad").mkdir()
        with pytest.raises(SourceError, match=r"no images found in .*bad; is its drive mounted"):
            index(out, tmp_path / "bad")
        (tmp_path / "bad/x.jpg").write_bytes(b"")
        with pytest.raises(SourceError, match=r"1 image_undecodable.*zero bytes"):
            index(out, tmp_path / "bad")
        assert not (out / "CURRENT").exists()

    def test_pixel_limit_is_configurable(self, gallery: Path, out: Path) -> None:
        (gallery / "large.png").write_bytes(encoded(make_image(100, 100), "PNG"))
        assert index(out, gallery, max_pixels=5_000).rejected_by_code == {"image_too_large": 1}
        assert index(out, gallery).rejected == 0


class TestRerun:
    def test_unchanged_source_writes_no_version(self, gallery: Path, out: Path) -> None:
        first = index(out, gallery)
        again = index(out, gallery)
        assert (again.unchanged, again.encoded, again.reused) == (True, 0, COUNT)
        assert again.version == first.version == current_version(out)
        assert len(list((out / "versions").iterdir())) == 1

    def test_only_changes_are_encoded_and_missing_rows_dropped(self, gallery: Path, out: Path) -> None:
        index(out, gallery)
        before = open_collection(out)
        vectors = np.array(before.vectors)
        (gallery / "new.png").write_bytes(encoded(make_image(seed=77), "PNG"))
        (gallery / "005.jpg").write_bytes(encoded(Image.new("RGB", (9, 9), "red"), "JPEG"))
        (gallery / "010.jpg").unlink()
        summary = index(out, gallery)
        assert (summary.encoded, summary.reused, summary.indexed) == (2, COUNT - 2, COUNT)
        after = open_collection(out)
        assert ids(after) == [f"{i:03}.jpg" for i in range(COUNT) if i != 10] + ["new.png"]
        assert after.metadata.records([5])[0]["width"] == 9
        np.testing.assert_array_equal(after.vectors[:5], vectors[:5])
        np.testing.assert_array_equal(after.vectors[10:29], vectors[11:])
        assert after.thumbnails.get(10) == before.thumbnails.get(11)
        assert after.metadata.records([10]) == before.metadata.records([11])

    def test_same_file_name_in_two_sources_is_two_items(self, out: Path, tmp_path: Path) -> None:
        for seed, year in enumerate(("2024", "2025")):
            (tmp_path / year).mkdir()
            (tmp_path / year / "IMG_1.jpg").write_bytes(encoded(make_image(seed=seed), "JPEG"))
        assert index(out, tmp_path / "2024", tmp_path / "2025").rejected == 0
        assert ids(open_collection(out)) == ["IMG_1.jpg", "2025/IMG_1.jpg"]

    def test_changed_caption_is_updated_without_encoding(self, gallery: Path, out: Path) -> None:
        index(out, gallery)
        (gallery / "000.txt").write_text("a new caption")
        assert index(out, gallery).encoded == 0
        assert open_collection(out).metadata.records([0])[0]["caption"] == "a new caption"

    def test_dropped_rows_are_counted(self, gallery: Path, out: Path) -> None:
        assert index(out, gallery).dropped == 0
        for name in ("003.jpg", "004.jpg"):
            (gallery / name).unlink()
        assert index(out, gallery).dropped == 2

    def test_replacing_all_images_needs_replace(self, gallery: Path, out: Path, tmp_path: Path) -> None:
        version = index(out, gallery).version
        (tmp_path / "other").mkdir()
        (tmp_path / "other/new.png").write_bytes(encoded(make_image(seed=3), "PNG"))
        with pytest.raises(SourceError, match=rf"holds {COUNT} images from .*gallery.*--out.*--replace"):
            index(out, tmp_path / "other")
        assert current_version(out) == version
        summary = index(out, tmp_path / "other", replace=True)
        assert (summary.dropped, summary.indexed) == (COUNT, 1)

    def test_replaced_encoder_is_reported(self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert index(out, gallery).replaced_encoder is None

        class Other(FakeEncoder):
            spec = replace(FakeEncoder.spec, name="other", weights="1" * 64)

        monkeypatch.setattr(job_module, "load_encoder", lambda *_, **__: Other())
        summary = index(out, gallery)
        assert (summary.replaced_encoder, summary.encoded, summary.dropped) == ("fake", COUNT, 0)

    def test_later_edition_of_lite_encodes_everything(
        self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the first edition published, and what a job of it left behind half finished, is not reused."""
        first, second = Edition(FIRST_EDITION), Edition("2" * 64)
        monkeypatch.setattr(editions, "weights_digest", lambda: "2" * 64)
        monkeypatch.setattr(job_module, "load_encoder", lambda *_, **__: first)
        version = index(out, gallery).version
        for i in range(COUNT, COUNT + 5):
            (gallery / f"{i:03}.jpg").write_bytes(encoded(make_image(seed=i), "JPEG"))
        first.batches_left = 1
        with pytest.raises(EncoderError):
            index(out, gallery)
        assert len(work_pool(out)) == 4

        monkeypatch.setattr(job_module, "load_encoder", lambda *_, **__: second)
        second.batches_left = 2
        with pytest.raises(EncoderError):
            index(out, gallery)
        assert current_version(out) == version  # it serves until the new version is complete

        second.batches_left = COUNT
        resumed = index(out, gallery)
        assert (resumed.replaced_encoder, resumed.encoded, resumed.reused) == ("lite (first edition)", COUNT + 5 - 8, 8)
        assert {row.tobytes() for row in open_collection(out).vectors} == {second.vector.tobytes()}

    def test_summary_says_that_all_was_encoded_again(
        self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(editions, "weights_digest", lambda: "2" * 64)
        for weights in (FIRST_EDITION, "2" * 64):
            encoder = Edition(weights)
            monkeypatch.setattr(job_module, "load_encoder", lambda *_, encoder=encoder, **__: encoder)
            summary = index(out, gallery)
        assert summary.encoded == COUNT
        line = "the previous version was encoded with lite (first edition), so that all images were encoded again"
        assert line in summary_text(summary)

    def test_suggested_query_suits_the_encoder(self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class WithoutText(FakeEncoder):
            spec = replace(FakeEncoder.spec, text=False)

        monkeypatch.setattr(job_module, "load_encoder", lambda *_, **__: WithoutText())
        summary = index(out, gallery)
        assert "--image" in summary_text(summary)
        assert "--text" in summary_text(replace(summary, text=True))

    def test_changed_store_rebuilds_without_encoding(self, gallery: Path, out: Path) -> None:
        first = index(out, gallery)
        second = index(out, gallery, store="exact")
        assert second.version != first.version
        assert (second.encoded, second.reused) == (0, COUNT)

    def test_changed_columns_update_metadata_without_encoding(self, tmp_path: Path, out: Path) -> None:
        data = [encoded(make_image(seed=i), "JPEG") for i in range(2)]
        table = {"id": ["a", "b"], "image": data, "caption": ["red", "blue"], "title": ["one", "two"]}
        source = write_parquet(tmp_path / "x.parquet", table)
        index(out, source)
        summary = index(out, source, columns=ColumnNames(caption="title"))
        assert summary.encoded == 0
        assert open_collection(out).metadata.records([0])[0]["caption"] == "one"

    def test_damaged_version_is_not_reused(self, gallery: Path, out: Path) -> None:
        index(out, gallery)
        path = open_collection(out).folder / "vectors.npy"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        assert index(out, gallery).encoded == COUNT
        assert len(open_collection(out)) == COUNT

    def test_collection_encoder_is_the_default(self, gallery: Path, out: Path) -> None:
        index(out, gallery)
        assert run_index(IndexSettings((str(gallery),), out)).encoder == "fake"


def test_failed_image_is_retried(gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("lookalike.sources.folder.read_range", _no_disk)
        with pytest.raises(SourceError, match="source_not_found"):
            index(out, gallery)
    assert index(out, gallery).indexed == COUNT


def test_rejected_image_is_retried_without_changes(gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = folder_module.read_range
    with monkeypatch.context() as patch:
        fails = gallery / "003.jpg"
        patch.setattr(folder_module, "read_range", lambda p, *a, **k: _no_disk(p) if p == fails else read(p, *a, **k))
        assert index(out, gallery).rejected == 1
    again = index(out, gallery)
    assert (again.unchanged, again.encoded, again.rejected) == (False, 1, 0)
    assert ids(open_collection(out))[3] == "003.jpg"


def _no_disk(path: Path, offset: int = 0, size: int | None = None) -> bytes:
    if path.suffix == ".txt":
        return b"a caption"
    raise SourceNotFound(f"{path} can't be read: the share is away")


class FailingEncoder(FakeEncoder):
    """Fails at the third batch."""

    calls = 0

    def encode_images(self, batch: UInt8) -> Float32:
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("device lost")
        return super().encode_images(batch)


class SmallEncoder(FakeEncoder):
    """Runs out of memory on a batch of more than one image."""

    def encode_images(self, batch: UInt8) -> Float32:
        if len(batch) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return super().encode_images(batch)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        return FakeEncoder().encode_texts(texts)


class TestFailures:
    def test_batch_that_memory_does_not_hold_is_halved(
        self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = open_collection(Path(index(out, gallery).collection)).vectors
        with monkeypatch.context() as patch:
            patch.setattr(job_module, "load_encoder", lambda name, *_: SmallEncoder())
            small = out.parent / "small"
            assert index(small, gallery).encoded == COUNT
        np.testing.assert_array_equal(open_collection(small).vectors, expected)

    def test_crashed_encoder_keeps_encoded_images(
        self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(job_module, "load_encoder", lambda name, *_: FailingEncoder())
            with pytest.raises(EncoderError, match=r"device lost.*run the same command again"):
                index(out, gallery)
        assert len(work_pool(out)) == 8
        summary = index(out, gallery)
        assert (summary.encoded, summary.reused, summary.indexed) == (COUNT - 8, 8, COUNT)
        assert ids(open_collection(out)) == [f"{i:03}.jpg" for i in range(COUNT)]

    def test_full_disk_is_reported_and_resumed(self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        written: list[Path] = []

        def small_disk(path: Path, table: object) -> None:
            if path.name.startswith("encoded") and len(written) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write_table(path, table)
            written.append(path)

        with monkeypatch.context() as patch:
            patch.setattr(shards_module, "MAX_SHARD_ROWS", 4)
            patch.setattr(storage_module, "write_table", small_disk)
            with pytest.raises(DiskFull, match="free some space"):
                index(out, gallery)
        assert len(work_pool(out)) == 12
        assert index(out, gallery).encoded == COUNT - 12

    def test_failed_build_keeps_previous_version_and_work(
        self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index(out, gallery)
        version = current_version(out)
        (gallery / "new.png").write_bytes(encoded(make_image(seed=77), "PNG"))
        with monkeypatch.context() as patch:
            patch.setattr(
                "indexing.build.version.publish", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))
            )
            with pytest.raises(DiskFull):
                index(out, gallery)
        assert current_version(out) == version
        assert [path.name for path in (out / "versions").iterdir()] == [version]
        assert index(out, gallery).encoded == 0  # the new image lay in the work folder

    def test_non_finite_vector_rejects_one_image(
        self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Overflowing(FakeEncoder):
            def encode_images(self, batch: UInt8) -> Float32:
                vectors = super().encode_images(batch)
                vectors[batch.reshape(len(batch), -1).max(axis=1) == 0] = np.nan
                return vectors

        (gallery / "black.png").write_bytes(encoded(Image.new("RGB", (8, 8), "black"), "PNG"))
        monkeypatch.setattr(job_module, "load_encoder", lambda name, *_: Overflowing())
        assert index(out, gallery).rejected_by_code == {"encoder_error": 1}

    def test_failed_batch_is_retried_one_by_one(
        self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Strict(FakeEncoder):
            def encode_images(self, batch: UInt8) -> Float32:
                if (batch.reshape(len(batch), -1).max(axis=1) == 0).any():
                    raise EncoderError("not finite")
                return super().encode_images(batch)

        (gallery / "black.png").write_bytes(encoded(Image.new("RGB", (8, 8), "black"), "PNG"))
        monkeypatch.setattr(job_module, "load_encoder", lambda name, *_: Strict())
        summary = index(out, gallery)
        assert (summary.indexed, summary.rejected_by_code) == (COUNT, {"encoder_error": 1})
