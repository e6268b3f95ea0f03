"""Identity by content: images that were renamed, moved, copied, touched or restored are neither decoded nor encoded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.index import summary_text
from indexing import job as job_module
from indexing.arrow_files import read_table, write_table
from indexing.ingest.content_index import ContentIndex
from indexing.ingest.reusable_embeddings import KnownContent
from indexing.ingest.shards import EncodedRow, ShardPool, ShardWriter
from indexing.job import IndexSettings, IndexSummary, run_index
from indexing.row_stream import CONTENT_HASHES, ENCODED_SCHEMA
from indexing.work_folder import WORK
from lookalike import images, prepared_image
from lookalike.collection import VERSIONS, Collection, current_version, open_collection
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import ChecksumMismatch, EncoderError
from lookalike.manifest import MANIFEST_FILE
from lookalike.prepared_image import content_hash
from lookalike.types import Float32, UInt8
from tests.bad_images import encoded, make_image
from tests.unit.test_sources import write_parquet, write_tar

COUNT = 12


class CountingEncoder(FakeEncoder):
    """Counts the images that it encodes; fails once it has encoded `limit`."""

    def __init__(self) -> None:
        self.encoded = 0
        self.limit: int | None = None

    def encode_images(self, batch: UInt8) -> Float32:
        if self.limit is not None and self.encoded >= self.limit:
            raise RuntimeError("out of memory")
        self.encoded += len(batch)
        return super().encode_images(batch)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        return FakeEncoder().encode_texts(texts)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> CountingEncoder:
    counting = CountingEncoder()
    monkeypatch.setattr(job_module, "load_encoder", lambda *_: counting)
    return counting


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of the files that were decoded since the list was last cleared."""
    sizes: list[int] = []

    def decode(data: bytes, **options: Any) -> images.DecodedImage:
        sizes.append(len(data))
        return images.decode(data, **options)

    spy = type("Images", (), {**vars(images), "decode": staticmethod(decode)})
    monkeypatch.setattr(prepared_image, "images", spy)
    return iter([sizes])


def jpeg(seed: int) -> bytes:
    return encoded(make_image(seed=seed), "JPEG")


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    for i in range(COUNT):
        path = tmp_path / "gallery/old" / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i))
        path.with_suffix(".txt").write_text("red" if i % 2 else "blue")
    return tmp_path / "gallery"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "collection"


def index(out: Path, *sources: object, **settings: Any) -> IndexSummary:
    return run_index(IndexSettings(tuple(map(str, sources)), out, encoder="fake", batch_size=4, **settings))


def records(collection: Collection) -> list[dict[str, Any]]:
    return collection.metadata.records(range(len(collection)))


def edit(path: Path, data: bytes) -> None:
    """Replace a file's bytes by as many others, and keep its modification time."""
    status = path.stat()
    path.write_bytes(data.ljust(status.st_size, b"\0")[: status.st_size])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def same_size(*seeds: int) -> tuple[bytes, ...]:
    """Return intact JPEGs of equal size; bytes after the end of an image do no harm."""
    files = [jpeg(seed) for seed in seeds]
    size = max(map(len, files))
    return tuple(data.ljust(size, b"\0") for data in files)


class TestRecognised:
    def test_renamed_folder_is_not_decoded(
        self, gallery: Path, out: Path, encoder: CountingEncoder, decoded: Iterator[list[int]]
    ) -> None:
        index(out, gallery)
        before, old = open_collection(out), list(records(open_collection(out)))
        thumbnails = [before.thumbnails.get(row) for row in range(COUNT)]
        sizes = next(decoded)
        sizes.clear()
        (gallery / "old").rename(gallery / "new")
        summary = index(out, gallery)
        assert (encoder.encoded, sizes) == (COUNT, [])
        assert (summary.encoded, summary.reused, summary.recognised, summary.dropped) == (0, COUNT, COUNT, 0)
        after = open_collection(out)
        assert records(after) == [
            {**record, "id": f"new/{i:02}.jpg", "path": f"new/{i:02}.jpg"} for i, record in enumerate(old)
        ]
        np.testing.assert_array_equal(after.vectors, before.vectors)
        assert [after.thumbnails.get(row) for row in range(COUNT)] == thumbnails
        assert index(out, gallery).unchanged

    def test_text_summary_counts_recognised_images(self, gallery: Path, out: Path) -> None:
        assert "recognised" not in summary_text(index(out, gallery))
        (gallery / "old").rename(gallery / "new")
        text = summary_text(index(out, gallery))
        assert f"  {COUNT} reused, {COUNT} of them recognised by content" in text
        assert "removed" not in text

    def test_touched_images_are_recognised(self, gallery: Path, out: Path, encoder: CountingEncoder) -> None:
        index(out, gallery)
        for path in gallery.rglob("*.jpg"):
            os.utime(path, (1, 1))
        summary = index(out, gallery)
        assert (encoder.encoded, summary.recognised, summary.unchanged) == (COUNT, COUNT, False)
        assert index(out, gallery).unchanged

    def test_copy_is_a_second_item_with_own_metadata(self, gallery: Path, out: Path, encoder: CountingEncoder) -> None:
        index(out, gallery)
        shutil.copy(gallery / "old/03.jpg", gallery / "old/copy.jpg")
        (gallery / "old/copy.txt").write_text("a copy")
        summary = index(out, gallery)
        assert (encoder.encoded, summary.recognised, summary.indexed) == (COUNT, 1, COUNT + 1)
        collection = open_collection(out)
        assert (collection.vectors[3] == collection.vectors[COUNT]).all()
        assert [records(collection)[row]["caption"] for row in (3, COUNT)] == ["red", "a copy"]

    def test_image_replaced_by_another_known_one(self, gallery: Path, out: Path, encoder: CountingEncoder) -> None:
        index(out, gallery)
        shutil.copy(gallery / "old/03.jpg", gallery / "old/04.jpg")
        assert index(out, gallery).recognised == 1
        collection = open_collection(out)
        assert (collection.vectors[3] == collection.vectors[4]).all()
        assert encoder.encoded == COUNT

    @pytest.mark.parametrize("mtime", [None, 5])
    def test_restored_image_comes_from_older_version(
        self, gallery: Path, out: Path, tmp_path: Path, encoder: CountingEncoder, mtime: int | None
    ) -> None:
        index(out, gallery)
        vector = open_collection(out).vectors[3].copy()
        shutil.move(gallery / "old/03.jpg", tmp_path / "bin.jpg")
        assert index(out, gallery).dropped == 1
        shutil.move(tmp_path / "bin.jpg", gallery / "old/03.jpg")
        if mtime is not None:
            os.utime(gallery / "old/03.jpg", (mtime, mtime))
        summary = index(out, gallery)
        assert (encoder.encoded, summary.recognised, summary.indexed) == (COUNT, 1, COUNT)
        assert (open_collection(out).vectors[3] == vector).all()

    def test_damaged_older_version_is_not_reused(
        self, gallery: Path, out: Path, tmp_path: Path, encoder: CountingEncoder
    ) -> None:
        vectors = open_collection(out).folder / "vectors.npy" if index(out, gallery) else out
        shutil.move(gallery / "old/03.jpg", tmp_path / "bin.jpg")
        index(out, gallery)
        vectors.write_bytes(vectors.read_bytes()[:-1] + b"?")
        shutil.move(tmp_path / "bin.jpg", gallery / "old/03.jpg")
        assert index(out, gallery).encoded == 1

    def test_encoder_that_returns_finds_its_vectors(
        self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Other(FakeEncoder):
            spec = replace(FakeEncoder.spec, weights="1" * 64)

        index(out, gallery)
        with monkeypatch.context() as patch:
            patch.setattr(job_module, "load_encoder", lambda *_: Other())
            assert index(out, gallery).encoded == COUNT
        summary = index(out, gallery)
        assert (summary.encoded, summary.recognised) == (0, COUNT)

    @pytest.mark.parametrize("target", ["tar", "tar.gz", "parquet", "parquet of paths", "folder"])
    def test_images_move_between_kinds_of_source(
        self, gallery: Path, out: Path, tmp_path: Path, encoder: CountingEncoder, target: str
    ) -> None:
        index(out, gallery)
        data = {f"{i:02}": (gallery / f"old/{i:02}.jpg").read_bytes() for i in range(COUNT)}
        source = tmp_path / f"part.{target.split()[0]}"
        if target.startswith("tar"):
            members = {f"{key}.jpg": value for key, value in data.items()}
            write_tar(source, members, "w:gz" if target.endswith("gz") else "w")
        elif target == "parquet":
            write_parquet(source, {"id": list(data), "image": list(data.values())})
        elif target == "parquet of paths":
            write_parquet(source, {"id": list(data), "path": [f"gallery/old/{key}.jpg" for key in data]})
        else:
            shutil.copytree(gallery, source)
        summary = index(out, f"moved={source}")
        assert (encoder.encoded, summary.recognised, summary.indexed) == (COUNT, COUNT, COUNT)
        assert all(record["id"].startswith("moved/") for record in records(open_collection(out)))

    @pytest.mark.parametrize("kind", ["tar", "parquet"])
    def test_rewritten_file_is_not_encoded_again(
        self, out: Path, tmp_path: Path, encoder: CountingEncoder, kind: str
    ) -> None:
        def write(seeds: range) -> Path:
            names, data = [f"{seed:02}" for seed in seeds], [jpeg(seed) for seed in seeds]
            if kind == "tar":
                return write_tar(tmp_path / "x.tar", {f"{n}.jpg": d for n, d in zip(names, data, strict=True)})
            return write_parquet(tmp_path / "x.parquet", {"id": names, "image": data})

        index(out, write(range(4)))
        summary = index(out, write(range(6)))
        assert (encoder.encoded, summary.encoded, summary.recognised) == (6, 2, 4)

    def test_copies_in_one_run_have_equal_vectors(self, gallery: Path, out: Path) -> None:
        shutil.copy(gallery / "old/03.jpg", gallery / "old/copy.jpg")
        assert index(out, gallery).indexed == COUNT + 1
        collection = open_collection(out)
        assert (collection.vectors[3] == collection.vectors[COUNT]).all()

    def test_moved_images_replace_a_collection_unasked(self, gallery: Path, out: Path, tmp_path: Path) -> None:
        index(out, gallery)
        shutil.move(gallery / "old", tmp_path / "elsewhere")
        summary = index(out, f"x={tmp_path / 'elsewhere'}")
        assert (summary.dropped, summary.indexed) == (0, COUNT)

    def test_renaming_many_images_is_no_dropping(self, out: Path, tmp_path: Path) -> None:
        (tmp_path / "many/old").mkdir(parents=True)
        for i in range(25):
            (tmp_path / f"many/old/{i:02}.jpg").write_bytes(jpeg(i))
        index(out, tmp_path / "many")
        (tmp_path / "many/old").rename(tmp_path / "many/new")
        assert index(out, tmp_path / "many").recognised == 25

    def test_truncated_image_stays_marked(self, gallery: Path, out: Path, encoder: CountingEncoder) -> None:
        (gallery / "old/03.jpg").write_bytes(jpeg(3)[:-8])
        assert index(out, gallery).truncated == 1
        (gallery / "old").rename(gallery / "new")
        assert index(out, gallery).truncated == 1
        assert [record.get("truncated") for record in records(open_collection(out))][2:5] == [None, True, None]
        assert encoder.encoded == COUNT

    def test_deleted_copy_counts_as_dropped(self, gallery: Path, out: Path) -> None:
        shutil.copy(gallery / "old/03.jpg", gallery / "old/copy.jpg")
        index(out, gallery)
        (gallery / "old/copy.jpg").unlink()
        assert index(out, gallery).dropped == 1


class TestNotRecognised:
    def test_lowered_pixel_limit_rejects_renamed_images(self, gallery: Path, out: Path) -> None:
        (gallery / "old/large.png").write_bytes(encoded(make_image(100, 100), "PNG"))
        index(out, gallery)
        (gallery / "old").rename(gallery / "new")
        summary = index(out, gallery, max_pixels=5_000)
        assert summary.rejected_by_code == {"image_too_large": 1}
        assert (summary.encoded, summary.recognised) == (0, COUNT)
        raised = index(out, gallery)
        assert (raised.encoded, raised.recognised, raised.rejected) == (0, COUNT + 1, 0)

    def test_other_encoder_encodes_again(self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Other(FakeEncoder):
            spec = replace(FakeEncoder.spec, weights="1" * 64)

        index(out, gallery)
        (gallery / "old").rename(gallery / "new")
        monkeypatch.setattr(job_module, "load_encoder", lambda *_: Other())
        assert index(out, gallery).encoded == COUNT

    def test_other_decoder_version_encodes_again(
        self, gallery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index(out, gallery)
        (gallery / "old").rename(gallery / "new")
        monkeypatch.setattr(prepared_image, "DECODER_VERSION", prepared_image.DECODER_VERSION + 1)
        assert index(out, gallery).encoded == COUNT

    def test_version_without_hashes_still_opens(self, gallery: Path, out: Path) -> None:
        index(out, gallery)
        _remove_hashes(out)
        assert index(out, gallery).unchanged
        (gallery / "old").rename(gallery / "new")
        assert index(out, gallery).encoded == COUNT
        assert _hashes(out).any(axis=1).all()

    def test_rows_without_hash_keep_none(self, gallery: Path, out: Path) -> None:
        index(out, gallery)
        _remove_hashes(out)
        (gallery / "old/new.jpg").write_bytes(jpeg(50))
        assert index(out, gallery).encoded == 1
        assert _hashes(out).any(axis=1).tolist() == [False] * COUNT + [True]


class TestVerifyContent:
    def test_edit_with_same_size_and_time_is_found(self, out: Path, tmp_path: Path) -> None:
        first, second, third = same_size(1, 2, 3)
        folder = tmp_path / "same"
        folder.mkdir()
        (folder / "a.jpg").write_bytes(first)
        (folder / "b.jpg").write_bytes(second)
        index(out, folder)
        before = np.array(open_collection(out).vectors)
        edit(folder / "a.jpg", third)
        assert index(out, folder).unchanged
        summary = index(out, folder, verify_content=True)
        assert (summary.encoded, summary.reused, summary.verified, summary.edited) == (1, 1, 1, 1)
        assert "2 compared by content: 1 changed" in summary_text(summary)
        vectors = open_collection(out).vectors
        assert (vectors[0] != before[0]).any()
        assert (vectors[1] == before[1]).all()
        again = index(out, folder, verify_content=True)
        assert (again.unchanged, again.verified, again.edited) == (True, 2, 0)
        assert index(out, folder).unchanged

    def test_swapped_images_are_recognised(self, out: Path, tmp_path: Path, encoder: CountingEncoder) -> None:
        first, second = same_size(1, 2)
        folder = tmp_path / "same"
        folder.mkdir()
        for name, data in (("a", first), ("b", second)):
            (folder / f"{name}.jpg").write_bytes(data)
        index(out, folder)
        before = np.array(open_collection(out).vectors)
        edit(folder / "a.jpg", second)
        edit(folder / "b.jpg", first)
        summary = index(out, folder, verify_content=True)
        assert (encoder.encoded, summary.recognised, summary.edited) == (2, 2, 2)
        np.testing.assert_array_equal(open_collection(out).vectors, before[::-1])

    def test_damaged_file_is_rejected(self, gallery: Path, out: Path) -> None:
        index(out, gallery)
        edit(gallery / "old/03.jpg", b"\0")
        summary = index(out, gallery, verify_content=True)
        assert (summary.unchanged, summary.rejected, summary.verified, summary.edited) == (False, 1, COUNT - 1, 1)
        assert "old/03.jpg" not in {record["id"] for record in records(open_collection(out))}
        assert index(out, gallery).unchanged

    @pytest.mark.parametrize("kind", ["tar", "parquet"])
    def test_edit_within_a_file_is_found(self, out: Path, tmp_path: Path, kind: str) -> None:
        first, second, third = same_size(1, 2, 3)

        def write(*data: bytes) -> Path:
            if kind == "tar":
                return write_tar(tmp_path / "x.tar", {f"{i}.jpg": d for i, d in enumerate(data)})
            table = pa.table({"id": list("ab"), "image": list(data)})
            pq.write_table(table, tmp_path / "x.parquet", compression="none", use_dictionary=False)
            return tmp_path / "x.parquet"

        path = write(first, second)
        status = path.stat()
        index(out, path)
        write(first, third)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size == status.st_size
        assert index(out, path).unchanged
        summary = index(out, path, verify_content=True)
        assert (summary.encoded, summary.verified, summary.edited) == (1, 1, 1)

    def test_rows_without_hash_are_encoded_again(self, gallery: Path, out: Path) -> None:
        index(out, gallery)
        _remove_hashes(out)
        assert index(out, gallery, verify_content=True).encoded == COUNT
        assert index(out, gallery, verify_content=True).verified == COUNT

    def test_stopped_verification_keeps_its_findings(
        self, out: Path, tmp_path: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = same_size(1, 2)
        (tmp_path / "same").mkdir()
        (tmp_path / "same/a.jpg").write_bytes(first)
        index(out, tmp_path / "same")
        before = np.array(open_collection(out).vectors)
        edit(tmp_path / "same/a.jpg", second)
        with monkeypatch.context() as patch:
            patch.setattr(job_module, "build_version", _killed)
            with pytest.raises(KeyboardInterrupt):
                index(out, tmp_path / "same", verify_content=True)
        summary = index(out, tmp_path / "same")
        assert (encoder.encoded, summary.encoded, summary.unchanged) == (2, 0, False)
        assert (open_collection(out).vectors != before).any()


class TestInterruptedRuns:
    def test_recognised_rows_survive_a_kill(
        self, gallery: Path, out: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index(out, gallery)
        before = np.array(open_collection(out).vectors)
        (gallery / "old").rename(gallery / "new")
        with monkeypatch.context() as patch:
            patch.setattr(job_module, "build_version", _killed)
            with pytest.raises(KeyboardInterrupt):
                index(out, gallery)
        summary = index(out, gallery)
        assert (encoder.encoded, summary.reused, summary.recognised) == (COUNT, COUNT, 0)
        np.testing.assert_array_equal(open_collection(out).vectors, before)

    def test_rename_after_a_kill_is_recognised(self, gallery: Path, out: Path, encoder: CountingEncoder) -> None:
        encoder.limit = 8
        with pytest.raises(EncoderError, match="out of memory"):
            index(out, gallery)
        encoder.limit = None
        (gallery / "old").rename(gallery / "new")
        summary = index(out, gallery)
        assert (encoder.encoded, summary.encoded, summary.recognised) == (COUNT, COUNT - 8, 8)
        assert len(open_collection(out)) == COUNT

    def test_shards_of_an_earlier_release_are_read(self, gallery: Path, out: Path, encoder: CountingEncoder) -> None:
        encoder.limit = 8
        with pytest.raises(EncoderError, match="out of memory"):
            index(out, gallery)
        encoder.limit = None
        for path in out.glob(f"{WORK}/*/encoded-*.arrow"):
            write_table(path, read_table(path).drop_columns(["content_hash"]))
        summary = index(out, gallery)
        assert (encoder.encoded, summary.reused) == (COUNT, 8)
        assert _hashes(out).any(axis=1).sum() == COUNT - 8

    def test_newest_of_two_rows_wins(self, tmp_path: Path) -> None:
        for value in (1, 2):
            with ShardWriter(tmp_path, seconds=5) as writer:
                writer.add([EncodedRow(5, 7, np.full(4, value, np.float16).tobytes(), content_hash=bytes(16))])
        pool = ShardPool(tmp_path)
        found = pool.take(pool.find(np.array([5], np.uint64), np.array([7], np.uint64)))
        assert np.frombuffer(found.column("vector")[0].as_py(), np.float16)[0] == 2
        assert len(ShardPool(tmp_path, first=1)) == len(list(tmp_path.glob("encoded-*.arrow"))) - 1


class TestContentIndex:
    def test_earlier_place_and_row_win(self) -> None:
        index = ContentIndex([_Rows("", "ab"), _Rows("1", "bcb"), _Rows("2", "dc")])
        assert [index.find(_hash(name))["message"] for name in "abcd"] == ["0", "1", "11", "20"]  # type: ignore[index]

    def test_unknown_content_is_not_found(self) -> None:
        assert ContentIndex([]).find(_hash("a")) is None
        index = ContentIndex([_Rows("", "ab")])
        assert index.find(_hash("z")) is None
        assert index.find(bytes(16)) is None
        assert index.find(_hash("a")[:8] + _hash("b")[8:]) is None  # only half of the hash agrees

    def test_hashes_that_differ_in_one_bit_are_two(self) -> None:
        hashes = [(2**63 + bit).to_bytes(8, "little") + bytes(8) for bit in (1, 2)]
        index = ContentIndex([_Rows("", hashes)])
        assert [index.find(value)["message"] for value in hashes] == ["0", "1"]  # type: ignore[index]

    def test_damaged_place_has_nothing(self) -> None:
        assert ContentIndex([_Damaged("", "a")]).find(_hash("a")) is None


class _Rows(KnownContent):
    """Rows of one-letter contents, or of hashes; the message is the prefix and the row's number."""

    def __init__(self, prefix: str, contents: str | list[bytes]) -> None:
        self._prefix = prefix
        self._hashes = [_hash(content) if isinstance(content, str) else content for content in contents]

    def content_hashes(self) -> UInt8:
        return np.frombuffer(b"".join(self._hashes), np.uint8).reshape(-1, 16)

    def take(self, rows: Any) -> pa.Table:
        found = [{"content_hash": self._hashes[row], "message": f"{self._prefix}{row}"} for row in rows]
        return pa.Table.from_pylist(found, ENCODED_SCHEMA)


class _Damaged(_Rows):
    def take(self, rows: Any) -> pa.Table:
        raise ChecksumMismatch("a file is missing")


def _hash(name: str) -> bytes:
    return content_hash(name.encode())


def _hashes(out: Path) -> UInt8:
    hashes: UInt8 = np.load(open_collection(out).folder / CONTENT_HASHES)
    return hashes


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def _remove_hashes(out: Path) -> None:
    """Make the current version one of a release that had no content hashes."""
    folder = out / VERSIONS / current_version(out)
    (folder / CONTENT_HASHES).unlink()
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    del manifest["files"][CONTENT_HASHES]
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
