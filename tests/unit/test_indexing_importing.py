"""Import of other tools' embeddings: layouts, mismatches and local images."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.imports import summary_text
from indexing.importing import content_ids, embeddings, unique_ids
from indexing.importing import job as job_module
from indexing.importing.embeddings import Embeddings
from indexing.importing.job import ImportSettings, run_import
from lookalike import bootstrap
from lookalike.bootstrap import load_encoder, open_searcher
from lookalike.collection import REJECTED, open_collection
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import EncoderMismatch, SourceError, SourceNotFound, StoreUnavailable
from lookalike.images import decode
from lookalike.metadata import id_hash
from lookalike.row_search import SearchOptions
from lookalike.sources.item import ColumnNames
from lookalike.types import Float32, UInt8
from tests.bad_images import encoded, make_image
from tests.unit_vectors import unit

COUNT = 12


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "content" / "catalog"
    folder.mkdir(parents=True)
    for i in range(COUNT):
        (folder / f"{i:02}.png").write_bytes(encoded(make_image(seed=i), "PNG"))
    return folder


@pytest.fixture(scope="module")
def vectors(gallery: Path) -> Float32:
    encoder = load_encoder("fake")
    images = [decode(path.read_bytes()).image for path in sorted(gallery.iterdir())]
    return encoder.encode_images(np.stack([encoder.preprocess(image) for image in images]))


def table(start: int, stop: int, **more: Any) -> pa.Table:
    rows = range(start, stop)
    columns = {"image_path": [f"/content/catalog/{i:02}.png" for i in rows], "caption": [f"image {i}" for i in rows]}
    return pa.table({**columns, "width": [40] * len(rows), "_x": list(rows), **more})


def clip_retrieval(folder: Path, vectors: Float32, dtype: str = "float16") -> Path:
    """Two pairs of files, numbered so that text order is not number order."""
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number, (start, stop) in {2: (0, 5), 10: (5, COUNT)}.items():
        np.save(folder / f"img_emb/img_emb_{number}.npy", (7 * vectors[start:stop]).astype(dtype))
        pq.write_table(table(start, stop), folder / f"metadata/metadata_{number}.parquet")
    return folder


def flat_folder(folder: Path, vectors: Float32) -> Path:
    folder.mkdir()
    np.save(folder / "a.npy", vectors[:4])
    np.save(folder / "b.npy", vectors[4:])
    pq.write_table(table(0, COUNT), folder / "everything.parquet")
    return folder


def one_index(folder: Path, vectors: Float32) -> Path:
    (folder / "metadata").mkdir(parents=True)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / "image.index"))
    pq.write_table(table(0, COUNT), folder / "metadata/metadata_0.parquet")
    return folder / "image.index"


def imported(source: Path, out: Path, **more: Any) -> Any:
    return run_import(ImportSettings(source, out, "fake", **more))


@pytest.mark.parametrize("layout", [clip_retrieval, flat_folder, one_index])
def test_every_layout_gives_same_rows_in_order(
    layout: Callable[[Path, Float32], Path], vectors: Float32, tmp_path: Path
) -> None:
    summary = imported(layout(tmp_path / "source", vectors), tmp_path / "mine")
    assert (summary.seen, summary.indexed, summary.rejected, summary.pictures) == (COUNT, COUNT, 0, 0)
    collection = open_collection(tmp_path / "mine")
    np.testing.assert_allclose(np.asarray(collection.vectors, np.float32), vectors, atol=2e-3)
    record = collection.metadata.records([7])[0]
    path = "/content/catalog/07.png"
    assert record == {"id": path, "path": path, "caption": "image 7", "width": 40, "source_x": 7}
    assert collection.thumbnails.get(7) is None
    searcher = open_searcher(tmp_path / "mine")
    hit = searcher.search_item(path, SearchOptions(limit=1)).hits[0]
    assert (hit.id, hit.score) == (path, pytest.approx(1.0, abs=1e-3))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f2", ">f4"])
def test_vectors_of_any_norm_and_dtype_are_normalised(dtype: str, vectors: Float32, tmp_path: Path) -> None:
    imported(clip_retrieval(tmp_path / "source", vectors, dtype), tmp_path / "mine")
    norms = np.linalg.norm(np.asarray(open_collection(tmp_path / "mine").vectors, np.float32), axis=1)
    np.testing.assert_allclose(norms, 1.0, atol=1e-3)


def test_local_images_give_thumbnails_and_check_encoder(gallery: Path, vectors: Float32, tmp_path: Path) -> None:
    source = clip_retrieval(tmp_path / "source", vectors)
    summary = imported(source, tmp_path / "mine", images=gallery.parent)
    assert (summary.pictures, summary.checked) == (COUNT, COUNT)
    assert summary.agreement > 0.999
    collection = open_collection(tmp_path / "mine")
    thumbnail = collection.thumbnails.get(3)
    assert thumbnail is not None
    assert decode(thumbnail).width > 1
    assert collection.metadata.records([3])[0]["format"] == "PNG"


def test_vectors_of_another_encoder_are_rejected(gallery: Path, vectors: Float32, tmp_path: Path) -> None:
    source = clip_retrieval(tmp_path / "source", vectors[::-1] * np.float32(-1))
    with pytest.raises(EncoderMismatch, match="another encoder made those"):
        imported(source, tmp_path / "mine", images=gallery)
    assert not (tmp_path / "mine/CURRENT").exists()
    assert imported(source, tmp_path / "mine", images=gallery, unchecked=True).indexed == COUNT
    wide = tmp_path / "wide.npy"
    np.save(wide, np.ones((3, 512), np.float32))
    with pytest.raises(EncoderMismatch, match="width 512, encoder 'fake' makes 13"):
        imported(wide, tmp_path / "other")


def test_vectors_of_the_first_edition_of_lite_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lite(FakeEncoder):
        spec = replace(FakeEncoder.spec, name="lite")

    monkeypatch.setattr(job_module, "load_encoder", lambda *_, **__: Lite())
    np.save(tmp_path / "old.npy", np.ones((3, 640), np.float32))
    with pytest.raises(EncoderMismatch, match=r"first edition can't be imported: index the images$"):
        imported(tmp_path / "old.npy", tmp_path / "mine")
    assert not (tmp_path / "mine/CURRENT").exists()


def test_invalid_rows_are_listed_as_rejected(vectors: Float32, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    spoilt = vectors.copy()
    spoilt[2], spoilt[5, 3], spoilt[6, 0] = 0, np.nan, np.inf
    np.save(source / "v.npy", spoilt)
    ids = ["a", "b", "c", "d", "a", "f", "g", None, "", "j", "k", "l"]
    pq.write_table(pa.table({"id": ids, "path": ids}), source / "m.parquet")
    summary = imported(source, tmp_path / "mine")
    assert summary.rejected_by_code == {"vector_invalid": 3, "source_invalid": 2}
    assert (summary.indexed, summary.repeated_ids) == (COUNT - 5, 1)  # the second "a" is a row like any other
    rejected = pq.read_table(open_collection(tmp_path / "mine").folder / REJECTED).to_pylist()
    assert {(row["id"], row["code"]) for row in rejected} >= {("c", "vector_invalid"), (None, "source_invalid")}


def test_vectors_without_metadata_get_content_ids(vectors: Float32, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", vectors)
    imported(tmp_path / "v.npy", tmp_path / "one")
    np.save(tmp_path / "v.npy", vectors[::-1])
    imported(tmp_path / "v.npy", tmp_path / "two")
    first, second = (
        [record["id"] for record in open_collection(tmp_path / name).metadata.records(range(COUNT))]
        for name in ("one", "two")
    )
    assert first == second[::-1]


def test_equal_vectors_without_metadata_get_numbered_ids(vectors: Float32, tmp_path: Path) -> None:
    repeated = vectors[[0, 1, 0, 2, 0, 1]]
    repeated[3] = 0
    np.save(tmp_path / "v.npy", repeated)
    summary = imported(tmp_path / "v.npy", tmp_path / "out")
    assert (summary.seen, summary.indexed, summary.rejected_by_code) == (6, 5, {"vector_invalid": 1})
    records = open_collection(tmp_path / "out").metadata.records(range(5))
    first, second = records[0]["id"], records[1]["id"]
    assert [record["id"] for record in records] == [first, second, f"{first}-2", f"{first}-3", f"{second}-2"]
    assert [record["row"] for record in records] == [0, 1, 2, 4, 5]


def test_columns_can_be_named(vectors: Float32, tmp_path: Path) -> None:
    source = flat_folder(tmp_path / "source", vectors)
    more = {"sku": [f"s{i}" for i in range(COUNT)], "title": ["x"] * COUNT}
    pq.write_table(table(0, COUNT, **more), source / "everything.parquet")
    imported(source, tmp_path / "mine", columns=ColumnNames("sku", None, "title"))
    record = open_collection(tmp_path / "mine").metadata.records([1])[0]
    assert (record["id"], record["caption"], record["source_caption"]) == ("s1", "x", "image 1")
    with pytest.raises(SourceError, match=r"no column 'skuu' \(--id-column\)"):
        imported(source, tmp_path / "other", columns=ColumnNames("skuu"))


def _drop_a_row(source: Path) -> None:
    path = source / "metadata/metadata_2.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)


def _narrow(source: Path) -> None:
    np.save(source / "img_emb/img_emb_2.npy", np.ones((5, 12), np.float16))


def _cut(source: Path) -> None:
    path = source / "img_emb/img_emb_10.npy"
    path.write_bytes(path.read_bytes()[:-9])


def _cut_table(source: Path) -> None:
    path = source / "metadata/metadata_10.parquet"
    path.write_bytes(path.read_bytes()[:-9])


def _one_row(source: Path) -> None:
    np.save(source / "img_emb/img_emb_2.npy", np.ones(13, np.float16))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_drop_a_row, r"img_emb_2\.npy holds 5 vectors, metadata_2\.parquet 4 rows"),
        (_narrow, "img_emb_10.npy has width 13, img_emb_2.npy 12"),
        (_cut, r"img_emb_10\.npy is not a readable"),
        (_cut_table, r"metadata_10\.parquet can't be read"),
        (_one_row, r"img_emb_2\.npy holds float16 \(13,\)"),
    ],
)
def test_mismatched_files_are_reported_before_writing(
    damage: Callable[[Path], None], match: str, vectors: Float32, tmp_path: Path
) -> None:
    source = clip_retrieval(tmp_path / "source", vectors)
    damage(source)
    with pytest.raises(SourceError, match=match):
        imported(source, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_missing_or_damaged_source_is_reported(vectors: Float32, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="does not exist"):
        Embeddings(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"holds no \.npy file"):
        Embeddings(tmp_path)
    (tmp_path / "x.index").write_bytes(b"no index")
    with pytest.raises(StoreUnavailable, match=r"x\.index can't be read"):
        Embeddings(tmp_path)


def test_collection_is_replaced_only_with_replace(vectors: Float32, tmp_path: Path) -> None:
    source = flat_folder(tmp_path / "source", vectors)
    first = imported(source, tmp_path / "mine")
    with pytest.raises(SourceError, match="--replace"):
        imported(source, tmp_path / "mine")
    assert imported(source, tmp_path / "mine", replace=True).version != first.version


def test_index_of_codes_is_reported_as_approximate(vectors: Float32, tmp_path: Path) -> None:
    many = np.repeat(vectors, 30, axis=0) + np.random.default_rng(0).normal(0, 0.01, (30 * COUNT, 13)).astype(
        np.float32
    )
    index = faiss.index_factory(13, "IVF4,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(many)
    index.add(many)
    faiss.write_index(index, str(tmp_path / "v.index"))
    assert imported(tmp_path / "v.index", tmp_path / "mine").approximate


class _Wide(FakeEncoder):
    """As wide as ViT-B/32, whose weights are not in the tests; encodes every image alike."""

    spec = replace(FakeEncoder.spec, name="wide", dim=512)

    def encode_images(self, batch: UInt8) -> Float32:
        return np.tile(np.eye(1, 512, dtype=np.float32), (len(batch), 1))


def test_clip_retrieval_output_keeps_its_neighbours(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (bootstrap, job_module):
        monkeypatch.setattr(module, "load_encoder", lambda *_: _Wide())
    source = shared_data / "clip-retrieval-output"
    run_import(ImportSettings(source / "embeddings", tmp_path / "mine", "wide"))
    theirs = faiss.read_index(str(source / "index/image.index"))
    collection, searcher = open_collection(tmp_path / "mine"), open_searcher(tmp_path / "mine")
    ids = [record["id"] for record in collection.metadata.records(range(9))]
    scores, rows = theirs.search(theirs.reconstruct_n(0, 9), 9)
    for item_id, expected, cosines in zip(ids, rows, scores, strict=True):
        hits = searcher.search_item(item_id, SearchOptions(limit=9)).hits
        expected_scores = {ids[row]: float(cosine) for row, cosine in zip(expected, cosines, strict=True)}
        assert [hit.score for hit in hits] == pytest.approx([expected_scores[hit.id] for hit in hits], abs=2e-3)
        ordered = [expected_scores[hit.id] for hit in hits]  # their vectors are not quite of unit norm
        assert ordered == pytest.approx(sorted(ordered, reverse=True), abs=1e-3)
    with pytest.raises(EncoderMismatch, match="another encoder"):
        run_import(ImportSettings(source / "embeddings", tmp_path / "x", "wide", images=source / "catalog"))
    run_import(ImportSettings(source / "index", tmp_path / "index", "wide"))
    np.testing.assert_array_equal(open_collection(tmp_path / "index").vectors, collection.vectors)


@pytest.mark.parametrize("factor", [1e300, 1e-300, 1.0])
def test_float64_vectors_of_any_norm_keep_direction(tmp_path: Path, factor: float) -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 8))
    np.save(tmp_path / "v.npy", vectors * factor)
    (piece,) = Embeddings(tmp_path / "v.npy")
    cosines = np.vecdot(unit(piece.vectors), unit(vectors))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


def test_shards_are_paired_by_number(tmp_path: Path) -> None:
    vectors = np.eye(4, dtype=np.float32)
    for vector_shard, table_shard in ((0, 0), (2, 1)):  # img_emb_1 and metadata_2 are missing
        np.save(tmp_path / f"img_emb_{vector_shard}.npy", vectors)
        pq.write_table(table(0, 4), tmp_path / f"metadata_{table_shard}.parquet")
    with pytest.raises(SourceError, match=r"img_emb_2\.npy would go with metadata_1\.parquet"):
        Embeddings(tmp_path)


def test_shards_are_paired_despite_other_numbers(tmp_path: Path) -> None:
    for number in range(2):
        np.save(tmp_path / f"b32_{number}_of_2.npy", np.eye(4, dtype=np.float32))
        pq.write_table(table(0, 4), tmp_path / f"rows_{number}.parquet")
    assert Embeddings(tmp_path).count == 8


def test_unnamed_and_conflicting_columns_are_kept(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    np.save(tmp_path / "shards/a.npy", np.eye(load_encoder("fake").spec.dim, dtype=np.float32)[:2])
    rows = pa.table([["a", "b"], ["e", "f"], [1, 2], [3, 4]], names=["id", "", "_x", "source_x"])
    pq.write_table(rows, tmp_path / "shards/a.parquet")
    run_import(ImportSettings(tmp_path / "shards", tmp_path / "out", encoder="fake", unchecked=True))
    columns = open_collection(tmp_path / "out").metadata.columns
    assert {"unnamed", "source_x", "source_x_"} <= set(columns)


def test_invalid_utf8_text_is_replaced(tmp_path: Path) -> None:
    texts = pa.array([b"x\xff", b"fine", None], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": ["a", "b", "c"], "caption": texts}), tmp_path / "v.parquet")
    np.save(tmp_path / "v.npy", np.eye(3, dtype=np.float32))
    (piece,) = Embeddings(tmp_path)
    assert piece.metadata.column("caption").to_pylist() == ["x\ufffd", "fine", None]


def test_empty_source_is_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.empty((0, 13), np.float32))
    with pytest.raises(SourceError, match="holds no rows"):
        imported(tmp_path / "v.npy", tmp_path / "mine")


def test_shards_may_have_different_columns(tmp_path: Path) -> None:
    pieces = (
        pa.table({"id": ["a", "b"], "size": [1, 2], "only": ["x", "y"]}),
        pa.table({"id": ["c", "d"], "size": ["large", "small"]}),
    )
    for number, piece in enumerate(pieces):
        np.save(tmp_path / f"img_emb_{number}.npy", np.eye(2, dtype=np.float32))
        pq.write_table(piece, tmp_path / f"metadata_{number}.parquet")
    whole = pa.concat_tables([piece.metadata for piece in Embeddings(tmp_path)])
    assert whole.column("size").to_pylist() == ["1", "2", "large", "small"]
    assert whole.column("only").to_pylist() == ["x", "y", None, None]


def shards(folder: Path, *tables: pa.Table) -> Path:
    """One file of vectors and one of metadata for each table."""
    for number, rows in enumerate(tables):
        folder.mkdir(exist_ok=True)
        np.save(folder / f"img_emb_{number}.npy", np.eye(13, dtype=np.float32)[: len(rows)] + number)
        pq.write_table(rows, folder / f"metadata_{number}.parquet")
    return folder


def records(collection: Path) -> list[dict[str, Any]]:
    metadata = open_collection(collection).metadata
    return metadata.records(range(len(metadata)))


def test_repeated_keys_of_shards_are_kept_with_a_number(tmp_path: Path) -> None:
    keys = ["000", "001", "000"]
    source = shards(tmp_path / "source", pa.table({"key": keys}), pa.table({"key": ["001", "000#2", "000"]}))
    summary = imported(source, tmp_path / "out")
    assert (summary.indexed, summary.rejected, summary.repeated_ids) == (6, 0, 4)
    assert "4 rows repeat an id: #2, #3 and so on stand after theirs; --number-rows" in summary_text(summary)
    assert [row["id"] for row in records(tmp_path / "out")] == ["000", "001", "000#2", "001#2", "000#2#2", "000#3"]


def test_number_of_a_repeated_id_takes_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = unique_ids.UniqueIds()
    for _ in range(5_000):
        last = ids.add("x")
    assert last == "x#5000"
    hashed: list[str] = []

    def counted(item_id: str) -> int:
        hashed.append(item_id)
        return id_hash(item_id)

    monkeypatch.setattr(unique_ids, "id_hash", counted)
    assert ids.add("x") == "x#5001"
    assert len(hashed) < 40


def test_row_numbers_as_ids_count_across_files(tmp_path: Path) -> None:
    rows = pa.table({"key": ["a", "b"], "id": [7, 7]})
    source = shards(tmp_path / "source", rows, rows)
    assert imported(source, tmp_path / "out", number_rows=True).rejected == 0
    found = records(tmp_path / "out")
    assert [row["id"] for row in found] == ["0", "1", "2", "3"]
    assert [row["key"] for row in found] == ["a", "b", "a", "b"]
    assert [row["source_id"] for row in found] == [7, 7, 7, 7]


def test_row_numbers_need_no_id_column(tmp_path: Path) -> None:
    source = shards(tmp_path / "source", pa.table({"label": ["a", "b"]}))
    with pytest.raises(SourceError, match="number the rows with --number-rows"):
        imported(source, tmp_path / "out")
    imported(source, tmp_path / "out", number_rows=True)
    assert [row["id"] for row in records(tmp_path / "out")] == ["0", "1"]


def test_row_numbers_of_vectors_without_metadata(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(13, dtype=np.float32)[[0, 1, 0]])
    imported(tmp_path / "v.npy", tmp_path / "out", number_rows=True)
    assert [(row["id"], row["row"]) for row in records(tmp_path / "out")] == [("0", 0), ("1", 1), ("2", 2)]


def test_row_numbers_and_id_column_are_refused_together(tmp_path: Path) -> None:
    source = shards(tmp_path / "source", pa.table({"key": ["a", "b"]}))
    with pytest.raises(SourceError, match="--id-column 'key' and --number-rows"):
        imported(source, tmp_path / "out", columns=ColumnNames("key"), number_rows=True)


def test_repeated_column_names_are_numbered(tmp_path: Path) -> None:
    values = [["a", "b"], ["c", "d"], [1, 2], ["e", "f"]]
    twice = pa.table(values, names=["id", "x", "x", "id"])
    source = shards(tmp_path / "source", twice, pa.table({"id": ["g"], "x": ["h"]}))
    assert imported(source, tmp_path / "out").indexed == 3
    assert [{key: row.get(key) for key in ("id", "x", "x_2", "id_2")} for row in records(tmp_path / "out")] == [
        {"id": "a", "x": "c", "x_2": 1, "id_2": "e"},
        {"id": "b", "x": "d", "x_2": 2, "id_2": "f"},
        {"id": "g", "x": "h", "x_2": None, "id_2": None},
    ]


@pytest.mark.parametrize(
    "kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string()], ids=str
)
def test_texts_of_any_arrow_type_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    columns = {"key": ["k1", "k2"], "caption": ["a cat", None], "path": ["x.jpg", "y.jpg"], "tag": ["s", "t"]}
    rows = pa.table({name: pa.array(texts, pa.string()) for name, texts in columns.items()})
    if pa.types.is_dictionary(kind):
        rows = pa.table({name: column.dictionary_encode() for name, column in zip(columns, rows.columns, strict=True)})
    else:
        rows = rows.cast(pa.schema([(name, kind) for name in columns]))
    imported(shards(tmp_path / "source", rows, rows.slice(1)), tmp_path / "out")
    first = records(tmp_path / "out")[0]
    assert {key: first[key] for key in ("id", "caption", "path", "tag")} == {
        "id": "k1",
        "caption": "a cat",
        "path": "x.jpg",
        "tag": "s",
    }


def test_imported_ids_are_composed(tmp_path: Path) -> None:
    source = shards(tmp_path / "source", pa.table({"path": ["Cafe\u0301.jpg", "Café.jpg"]}))
    imported(source, tmp_path / "out")
    assert [row["id"] for row in records(tmp_path / "out")] == ["Café.jpg", "Café.jpg#2"]


def test_composed_path_finds_decomposed_image(tmp_path: Path) -> None:
    (tmp_path / "Cafe\u0301.jpg").write_bytes(encoded(make_image(), "JPEG"))
    source = shards(tmp_path / "source", pa.table({"path": ["Café.jpg"]}))
    assert imported(source, tmp_path / "out", images=tmp_path, unchecked=True).pictures == 1


def test_docstring_examples_hold() -> None:
    for module in (content_ids, embeddings, unique_ids):
        assert doctest.testmod(module).failed == 0
