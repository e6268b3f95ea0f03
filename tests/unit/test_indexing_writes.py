"""`lookalike index` and `import` over a collection that is written to: the write wins, and nothing of it is lost."""

from __future__ import annotations

import json
import random
import shutil
import unicodedata
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.imports import summary_text as import_text
from cli.index import summary_text
from indexing import job as job_module
from indexing.compaction import run_compact
from indexing.importing.job import ImportSettings, ImportSummary, run_import
from indexing.ingest.decoding import content_hash
from indexing.job import IndexSummary
from lookalike.collection import CURRENT, VERSIONS, current_version, open_collection
from lookalike.encoders import registry
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import CollectionBusy, EncoderMismatch, SourceError, WritesDamaged
from lookalike.manifest import Manifest
from lookalike.writes.log import LOG_FILE, WriteLog
from lookalike.writes.operations import Delete, Patch
from tests.bad_images import encoded, make_image
from tests.permissions import refused
from tests.unit.written_collections import (
    apply,
    index,
    opened_writer,
    put,
    random_operations,
    seen,
    vector,
    write_images,
)

COUNT = 12
IDS = [f"{i}.jpg" for i in range(COUNT)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", COUNT)


@pytest.fixture
def root(images: Path, tmp_path: Path) -> Path:
    index(tmp_path / "collection", images)
    return tmp_path / "collection"


def write(root: Path, *operations: Any, compact: bool = False) -> None:
    with opened_writer(root) as writer:
        apply(writer, *operations)
    if compact:
        run_compact(root)


def ids(root: Path) -> set[str]:
    collection = open_collection(root)
    return {record["id"] for record in collection.metadata.records(range(len(collection)))}


def record(root: Path, item_id: str) -> dict[str, Any]:
    metadata = open_collection(root).metadata
    return metadata.records([metadata.row_of(item_id)])[0]


def add_image(folder: Path, name: str, seed: int = 99) -> None:
    (folder / name).write_bytes(encoded(make_image(seed=seed), "JPEG"))


def require_sum(summary: IndexSummary) -> None:
    assert summary.seen == summary.indexed + summary.rejected + summary.skipped
    assert summary.indexed == summary.encoded + summary.reused + summary.written


WRITES = (put("own", 1, colour="mine"), put("0.jpg", 2, price=70), Patch("1.jpg", {"price": 71}), Delete("2.jpg"))


@pytest.mark.parametrize("compact", [False, True])
def test_writes_win_over_the_sources(root: Path, images: Path, compact: bool) -> None:
    write(root, *WRITES, compact=compact)
    with opened_writer(root) as writer:
        before = seen(writer.view)
    add_image(images, "new.jpg")
    (images / "1.json").write_text('{"colour": "changed", "price": 1}')
    summary = index(root, images)
    require_sum(summary)
    assert (summary.encoded, summary.written, summary.left_out_written) == (1, 2, 2)
    assert (summary.indexed, summary.dropped, summary.reused) == (COUNT + 1, 0, COUNT - 2)
    after = seen(open_collection(root))
    assert after["records"].keys() == before["records"].keys() | {"new.jpg"}
    assert (after["records"]["1.jpg"]["price"], after["records"]["1.jpg"]["colour"]) == (71, "changed")
    for item_id in before["records"].keys() - {"1.jpg"}:
        assert after["tags"][item_id] == before["tags"][item_id]
        assert after["records"][item_id] == before["records"][item_id]
        assert after["thumbnails"][item_id] == before["thumbnails"][item_id]
    assert open_collection(root).manifest.writes == 4
    assert "  2 items that writes made; 2 images of the sources left out" in summary_text(summary)
    assert run_compact(root).unchanged
    assert index(root, images).unchanged


@pytest.mark.parametrize("seed", range(8))
def test_random_writes_and_runs_look_the_same(root: Path, images: Path, seed: int) -> None:
    """The sources do not change, so that a run must not change what is seen, whenever the writes were compacted."""
    rng = random.Random(seed)
    for step in range(4):
        with opened_writer(root) as writer:
            writer.apply(random_operations(rng, IDS, rng.randrange(1, 25)))
            before = seen(writer.view)
        if rng.random() < 0.4:
            run_compact(root)
        require_sum(index(root, images, store=["exact", "auto"][step % 2]))  # another store: never unchanged
        with opened_writer(root) as writer:
            assert writer.pending == 0
            for name, value in seen(writer.view).items():
                assert as_set(name, value) == as_set(name, before[name]), name


def as_set(name: str, value: Any) -> Any:
    """A column of which no item has a value any more may be gone."""
    if name == "columns":
        return None
    if name == "facets":
        return {facet.name: facet for facet in value if facet.count}
    if name == "filtered facets":
        return {i: {facet.name: facet for facet in each if facet.count} for i, each in value.items()}
    return value


def test_nothing_new_and_nothing_pending_writes_nothing(root: Path, images: Path) -> None:
    write(root, *WRITES, compact=True)
    version = current_version(root)
    summary = index(root, images)
    require_sum(summary)
    assert (summary.unchanged, summary.encoded, summary.written, summary.left_out_written) == (True, 0, 2, 2)
    assert current_version(root) == version


def test_pending_writes_stay_pending_while_sources_are_unchanged(root: Path, images: Path) -> None:
    write(root, *WRITES)
    summary = index(root, images)
    require_sum(summary)
    assert summary.unchanged
    with opened_writer(root) as writer:
        assert writer.pending == 4


def test_unchanged_images_are_not_encoded_after_a_compaction(root: Path, images: Path) -> None:
    write(root, Patch("1.jpg", {"price": 3}), Delete("2.jpg"), put("own", 1), compact=True)
    add_image(images, "new.jpg")
    summary = index(root, images)
    assert (summary.encoded, summary.reused) == (1, COUNT - 1)


def test_image_that_a_write_put_is_recognised_by_content(root: Path, images: Path) -> None:
    add_image(images, "twin.jpg", seed=50)
    data = (images / "twin.jpg").read_bytes()
    write(root, replace(put("own", 1), content_hash=content_hash(data)), compact=True)
    summary = index(root, images)
    assert (summary.encoded, summary.recognised) == (0, 1)


def test_written_items_are_never_dropped(tmp_path: Path) -> None:
    images = write_images(tmp_path / "many", 30)
    root = tmp_path / "collection"
    index(root, images)
    write(root, *(put(f"own-{i}", i) for i in range(40)), *(Delete(f"{i}.jpg") for i in range(25)), compact=True)
    add_image(images, "new.jpg")
    summary = index(root, images)
    assert (summary.dropped, summary.written, summary.left_out_written, summary.indexed) == (0, 40, 25, 46)
    write(root, *(put(f"more-{i}", i) for i in range(40)), *(Delete(f"own-{i}") for i in range(40)))
    add_image(images, "newer.jpg")
    assert index(root, images).dropped == 0


def test_dropped_images_are_still_counted(tmp_path: Path) -> None:
    images = write_images(tmp_path / "many", 40)
    root = tmp_path / "collection"
    index(root, images)
    write(root, *(put(f"own-{i}", i) for i in range(1_000)), compact=True)
    for i in range(25):
        (images / f"{i}.jpg").unlink()
    with pytest.raises(SourceError, match=r"25 of the 40 images in .* would be removed"):
        index(root, images)
    assert index(root, images, allow_dropping=True).dropped == 25


def test_replacing_the_sources_keeps_writes(root: Path, tmp_path: Path) -> None:
    write(root, *WRITES, compact=True)
    other = tmp_path / "other"
    other.mkdir()
    add_image(other, "x.jpg", 70)
    add_image(other, "2.jpg", 71)
    with pytest.raises(SourceError, match="holds 10 images from"):
        index(root, other)
    summary = index(root, other, replace=True)
    assert ids(root) == {"x.jpg", "own", "0.jpg"}
    assert (summary.dropped, summary.written, summary.left_out_written) == (10, 2, 1)


def test_new_put_gives_a_deleted_item_back(root: Path, images: Path) -> None:
    write(root, Delete("2.jpg"), compact=True)
    add_image(images, "new.jpg")
    index(root, images)
    assert "2.jpg" not in ids(root)
    write(root, put("2.jpg", 5, price=5))
    add_image(images, "newer.jpg")
    index(root, images)
    assert record(root, "2.jpg")["price"] == 5


def test_patch_comes_back_with_its_image(root: Path, images: Path) -> None:
    write(root, Patch("1.jpg", {"price": 71}), compact=True)
    (images / "1.jpg").rename(images.parent / "away.jpg")
    index(root, images)
    assert "1.jpg" not in ids(root)
    (images.parent / "away.jpg").rename(images / "1.jpg")
    index(root, images)
    assert record(root, "1.jpg")["price"] == 71


def test_all_images_of_the_sources_may_be_replaced_by_writes(tmp_path: Path) -> None:
    images = write_images(tmp_path / "few", 2)
    root = tmp_path / "collection"
    index(root, images)
    write(root, put("0.jpg", 1), Delete("1.jpg"))
    summary = index(root, images, store="exact")
    assert (summary.indexed, summary.written, summary.left_out_written) == (1, 1, 2)
    write(root, Delete("0.jpg"))
    with pytest.raises(SourceError, match="no rows"):
        index(root, images, store="auto")


def test_columns_of_other_types_become_text(root: Path, images: Path) -> None:
    write(root, put("own", 1, stars=4, price=1.0), Patch("3.jpg", {"stars": 5}))
    (images / "4.json").write_text('{"stars": "many", "price": 4}')
    index(root, images)
    assert [record(root, item_id)["stars"] for item_id in ("own", "3.jpg", "4.jpg")] == ["4", "5", "many"]
    with opened_writer(root) as writer:  # the log still has numbers
        apply(writer, Patch("own", {"stars": "more"}), put("next", 2, stars="text"))
    run_compact(root)
    assert record(root, "own")["stars"] == "more"
    add_image(images, "new.jpg")
    index(root, images)
    assert record(root, "3.jpg")["stars"] == "5"


def test_writes_during_a_run_are_kept(root: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = opened_writer(root)
    apply(writer, *WRITES)
    encode, build = job_module.encode_sources, job_module.build_version

    def encode_slowly(*arguments: Any) -> Any:
        found = encode(*arguments)
        apply(writer, put("3.jpg", 8, price=80), Delete("4.jpg"), Patch("5.jpg", {"price": 85}), Delete("own"))
        return found

    def build_slowly(*arguments: Any) -> Manifest:
        apply(writer, put("6.jpg", 8, price=86), Delete("7.jpg"), put("late", 9))
        return build(*arguments)

    monkeypatch.setattr(job_module, "encode_sources", encode_slowly)
    monkeypatch.setattr(job_module, "build_version", build_slowly)
    add_image(images, "new.jpg")
    summary = index(root, images)
    require_sum(summary)
    assert (summary.left_out_written, summary.written) == (4, 2)
    before = seen(writer.view)
    writer.rebase(open_collection(root))
    after = seen(writer.view)
    assert after["records"].pop("new.jpg")
    assert after["records"] == before["records"]
    assert writer.pending == 3
    writer.close()


def test_unreachable_folder_brings_no_written_item_back(root: Path, images: Path, tmp_path: Path) -> None:
    below = images / "below"
    write_images(below, 5, start=20)
    index(root, images)
    write(root, Delete("below/20.jpg"), put("below/21.jpg", 3, price=9), Patch("below/22.jpg", {"price": 9}))
    with refused(below):
        summary = index(root, images)
    require_sum(summary)
    assert (summary.kept, summary.written, summary.left_out_written) == (3, 1, 2)
    assert record(root, "below/22.jpg")["price"] == 9


def test_decomposed_id_of_an_older_collection_stays_deleted(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "\u00fcber.jpg")
    images = write_images(tmp_path / "images", 3)
    add_image(images, name)
    root = tmp_path / "collection"
    index(root, images)
    write(root, Delete(name))
    add_image(images, "new.jpg")
    assert index(root, images).left_out_written == 1
    assert ids(root) == {"0.jpg", "1.jpg", "2.jpg", "new.jpg"}


# Refused


class Other(FakeEncoder):
    spec = replace(FakeEncoder.spec, name="other", weights="1" * 64)


@pytest.fixture
def other_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = registry.EncoderKind("other", lambda name, options: Other())
    monkeypatch.setitem(registry._KINDS, "other", kind)


@pytest.mark.usefixtures("other_encoder")
@pytest.mark.parametrize("compact", [False, True])
def test_other_encoder_is_refused_while_items_are_written(
    root: Path, images: Path, compact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, *WRITES, compact=compact)
    monkeypatch.setattr(Other, "encode_images", None)
    version = current_version(root)
    with pytest.raises(EncoderMismatch, match=r"2 items of .* were made by writes, .*'other' can't"):
        index(root, images, encoder="other")
    assert current_version(root) == version


@pytest.mark.usefixtures("other_encoder")
def test_other_encoder_keeps_patches_and_deletions(root: Path, images: Path) -> None:
    write(root, Patch("1.jpg", {"price": 71}), Delete("2.jpg"))
    with opened_writer(root), pytest.raises(CollectionBusy):
        index(root, images, encoder="other")
    summary = index(root, images, encoder="other")
    assert (summary.encoded, summary.left_out_written) == (COUNT - 1, 1)
    assert record(root, "1.jpg")["price"] == 71
    with opened_writer(root) as writer:
        assert writer.pending == 0


def test_lost_log_is_refused(root: Path, images: Path) -> None:
    write(root, *WRITES, compact=True)
    (root / LOG_FILE).rename(root / "away")
    with pytest.raises(WritesDamaged, match=r"writes\.sqlite is missing"):
        index(root, images)
    with pytest.raises(WritesDamaged, match=r"writes\.sqlite is missing"):
        import_(root, embeddings(root.parent, "a"), replace=True)


def test_lost_version_of_written_items_is_refused(root: Path, images: Path) -> None:
    write(root, *WRITES)
    shutil.copytree(root, root.with_name("pending"))
    run_compact(root)
    vectors = root / VERSIONS / current_version(root) / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"x")
    with pytest.raises(WritesDamaged, match=r"2 items of .* the version that held them can't be opened"):
        index(root, images)
    (root.with_name("pending") / CURRENT).unlink()
    assert index(root.with_name("pending"), images).written == 2  # the log holds them


# Import


def embeddings(folder: Path, *names: str, **columns: Any) -> Path:
    out = folder / f"embeddings-{len(names)}"
    out.mkdir(exist_ok=True)
    np.save(out / "img_emb.npy", np.stack([vector(100 + i) for i in range(len(names))]))
    pq.write_table(pa.table({"key": list(names), "caption": ["imported"] * len(names), **columns}), out / "m.parquet")
    return out


def import_(root: Path, source: Path, **settings: Any) -> ImportSummary:
    return run_import(ImportSettings(source, root, "fake", **settings))


@pytest.mark.parametrize("compact", [False, True])
def test_import_keeps_writes(tmp_path: Path, compact: bool) -> None:
    root = tmp_path / "collection"
    names = [f"{i}.jpg" for i in range(6)]
    import_(root, embeddings(tmp_path, *names))
    write(root, *WRITES, compact=compact)
    summary = import_(root, embeddings(tmp_path, *names, "9.jpg"), replace=True)
    assert (summary.indexed, summary.written, summary.left_out_written, summary.seen) == (7, 2, 2, 7)
    assert ids(root) == {"own", "0.jpg", "1.jpg", "3.jpg", "4.jpg", "5.jpg", "9.jpg"}
    assert (record(root, "0.jpg")["price"], record(root, "1.jpg")["price"]) == (70, 71)
    assert record(root, "1.jpg")["caption"] == "imported"
    assert "  2 items that writes made; 2 images of the sources left out" in import_text(summary)
    assert json.loads(json.dumps(asdict(summary)))["written"] == 2
    with opened_writer(root) as writer:
        assert writer.pending == 0


@pytest.mark.usefixtures("other_encoder")
def test_import_with_another_encoder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "collection"
    import_(root, embeddings(tmp_path, "0.jpg", "1.jpg", "2.jpg"))
    write(root, *WRITES)
    with pytest.raises(EncoderMismatch, match="2 items"):
        run_import(ImportSettings(embeddings(tmp_path, "a"), root, "other", replace=True))


def test_log_is_released_after_a_run(root: Path, images: Path) -> None:
    write(root, *WRITES)
    add_image(images, "new.jpg")
    index(root, images)
    with WriteLog(root) as log:
        assert log.released() == 4
