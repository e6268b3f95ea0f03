"""Maps of collections: their file, the places of items after writes, values to colour by, and the projection."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from evaluation import collection_map as projection
from evaluation.collection_map import MapSettings, make_map
from lookalike.collection import Collection, open_collection, store_map
from lookalike.collection_map import MAP_FILE, CollectionMap, map_bytes, map_stamp, read_map
from lookalike.errors import QueryError
from lookalike.item_map import column_values, item_map
from lookalike.metadata import Metadata, write_metadata
from lookalike.types import Float32, Int64, Neighbors
from lookalike.writes.operations import Delete, Patch
from tests.api.small_collection import build_collection
from tests.e2e.commands import invoke, invoke_json
from tests.unit.written_collections import apply, index, opened_writer, put, write_images


def made_map(version: str, count: int) -> CollectionMap:
    points = np.linspace(0, 1, 2 * count, dtype=np.float32).reshape(count, 2)
    return CollectionMap(version, points, "umap", {"seed": 0}, "2026-01-01T00:00:00Z")


def test_stored_map_is_read_back(tmp_path: Path) -> None:
    made = made_map(tmp_path.name, 4)
    made.points[2] = np.nan
    (tmp_path / f".{MAP_FILE}.0").touch()  # a killed run's
    store_map(tmp_path, made)
    found = read_map(tmp_path, 4)
    assert found is not None
    np.testing.assert_array_equal(found.points, made.points)
    assert replace(found, points=made.points) == replace(made, points=made.points)
    assert [path.name for path in tmp_path.iterdir()] == [MAP_FILE]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "no parquet", "rows", "version", "outside"])
def test_damaged_map_is_logged_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    made = made_map("other" if damage == "version" else tmp_path.name, 5 if damage == "rows" else 4)
    if damage == "outside":
        made.points[0, 0] = 1.5
    content = map_bytes(made)
    place = content.index(np.float32(made.points[1, 0]).tobytes())
    changed = {
        "flipped": content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
        "truncated": content[:-9],
        "empty": b"",
        "no parquet": b"PAR1 but not really PAR1",
    }
    (tmp_path / MAP_FILE).write_bytes(changed.get(damage, content))
    assert read_map(tmp_path, 4) is None
    assert "map_ignored" in caplog.text


def test_missing_map_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert (read_map(tmp_path, 4), map_stamp(tmp_path)) == (None, None)
    assert not caplog.text


def test_writes_keep_replaced_items_in_place(tmp_path: Path) -> None:
    index(tmp_path / "collection", write_images(tmp_path / "images", 5))
    with opened_writer(tmp_path / "collection") as writer:
        assert item_map(writer.view) is None
        store_map(writer.view.folder, made_map(writer.view.manifest.version, 5))
        before = item_map(writer.view)
        apply(writer, Delete("1.jpg"), put("new", 1), Patch("2.jpg", {"price": 9}), put("0.jpg", 3))
        view = writer.view
        after = item_map(view)
    assert before is not None
    assert after is not None
    assert (before.unmapped, after.unmapped) == (0, 1)
    ids = [record["id"] for record in view.metadata.records(after.rows.tolist(), ["id"])]
    assert ids == ["0.jpg", "2.jpg", "3.jpg", "4.jpg"]
    np.testing.assert_array_equal(after.points, before.points[[0, 2, 3, 4]])
    assert column_values("price", view.metadata, after.rows) == ("integer", [None, 9, 3, 4])


COLUMNS: dict[str, tuple[pa.Array, str, list[Any]]] = {
    "id": (pa.array(["a", "b", "c"]), "text", ["c", "a"]),
    "text": (pa.array(["x" * 500, None, "ü" * 201]), "text", ["ü" * 200, "x" * 200]),
    "short": (pa.array([0.1, None, np.nan], pa.float32()), "number", [None, 0.1]),
    "price": (pa.array([Decimal("1.50"), None, None]), "number", [None, 1.5]),
    "long": (pa.array([2**60, 1, 2], pa.int64()), "integer", ["2", str(2**60)]),
    "tags": (pa.array([["p", "q"], None, []]), "list of text", [None, "p"]),
    "deep": (pa.array([[[], [3]], [], [[4, 5], [6]]]), "list of list of integer", [4, None]),
    "kind": (pa.array(["k", "k", None]).dictionary_encode(), "text", [None, "k"]),
    "exif": (pa.array([{"iso": 100}, None, {"iso": 200}]), "record", []),
    "raw": (pa.array([b"1", b"2", b"3"]), "binary", []),
}


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Metadata:
    folder = tmp_path_factory.mktemp("metadata")
    table = pa.table({name: values for name, (values, _, _) in COLUMNS.items()})
    write_metadata(folder, table.schema, [table])
    return Metadata(folder)


@pytest.mark.parametrize("name", [name for name, (_, _, values) in COLUMNS.items() if values])
def test_columns_have_one_value_for_each_item(metadata: Metadata, name: str) -> None:
    assert column_values(name, metadata, np.array([2, 0])) == COLUMNS[name][1:]
    assert column_values(name, metadata, np.array([], np.int64))[1] == []


def test_fields_of_records_colour_items(metadata: Metadata) -> None:
    assert column_values("exif.iso", metadata, np.array([0, 1, 2])) == ("integer", [100, None, 200])


@pytest.mark.parametrize(
    ("name", "match"), [("exif", "'exif' holds record"), ("raw", "holds binary"), ("txet", "did you mean 'text'")]
)
def test_columns_without_values_are_refused(metadata: Metadata, name: str, match: str) -> None:
    with pytest.raises(QueryError, match=f"field: .*{match}"):
        column_values(name, metadata, np.array([0]))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_collection(tmp_path_factory.mktemp("map") / "photographs")


def resized(collection: Collection, vectors: Float32) -> Collection:
    return replace(collection, vectors=vectors.astype(np.float16))


def unit_vectors(count: int, dim: int = 12) -> Float32:
    vectors = np.random.default_rng(count).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_few_items_are_placed_without_neighbours(photographs: Path, count: int) -> None:
    made = make_map(resized(open_collection(photographs), unit_vectors(count)), MapSettings())
    assert (made.points.shape, made.method) == ((count, 2), "pca")
    assert len(np.unique(made.points, axis=0)) == count
    if count > 1:
        assert np.ptp(made.points, axis=0).max() == 1


@pytest.mark.parametrize("vector", [np.eye(12)[3], np.zeros(12), np.full(12, np.nan)])
def test_equal_or_unusable_vectors_have_places(photographs: Path, vector: Float32) -> None:
    vectors = np.tile(vector, (40, 1)).astype(np.float32)
    made = make_map(resized(open_collection(photographs), vectors), MapSettings("tsne", perplexity=5))
    assert made.method == "tsne"
    assert ((made.points >= 0) & (made.points <= 1)).all()


def test_tsne_keeps_groups_together(photographs: Path) -> None:
    centres, groups = unit_vectors(3), np.arange(60) % 3
    vectors = centres[groups] + 0.1 * unit_vectors(60)
    made = make_map(resized(open_collection(photographs), vectors), MapSettings("tsne", perplexity=5))
    distances = np.linalg.norm(made.points[:, None] - made.points[None], axis=2) + 9 * np.eye(60)
    assert (groups[distances.argmin(axis=1)] == groups).mean() > 0.9


class _ShortStore:
    """An index that finds two rows, the query's among them."""

    exact = True

    def search(self, queries: Float32, k: int) -> list[Neighbors]:
        return [Neighbors(np.arange(2), np.ones(2, np.float32)) for _ in queries]


def test_neighbors_equal_those_of_a_naive_loop() -> None:
    vectors = unit_vectors(30)
    vectors[5:20] = vectors[4]  # more copies than neighbours
    stored = vectors.astype(np.float16)
    rows, distances = projection._nearest(stored, _ShortStore(), 6, lambda _: None)  # type: ignore[arg-type]
    for row in range(30):
        cosines = {other: float(vectors[row] @ vectors[other]) for other in range(30) if other != row}
        best: Int64 = np.array(sorted(cosines.values(), reverse=True)[:6])
        np.testing.assert_allclose(1 - distances[row], best, atol=2e-3)
        assert row not in rows[row]


def test_command_makes_the_map_of_photographs(photographs: Path, tmp_path: Path) -> None:
    plot = tmp_path / "map.png"
    facts = invoke_json("map", photographs, "--plot", plot, "--neighbors", "4")
    opened = open_collection(photographs)
    made = read_map(opened.folder, len(opened))
    assert made is not None
    assert (facts["items"], facts["method"], facts["neighbors"]) == (9, "umap", 4)
    assert made.params == {"neighbors": 4, "min_dist": 0.1, "seed": 0}
    assert plot.read_bytes().startswith(b"\x89PNG")
    again = make_map(opened, MapSettings(neighbors=4))
    np.testing.assert_array_equal(again.points, made.points)
    assert len(np.unique(made.points, axis=0)) == 9


def test_missing_package_is_reported_with_its_extra(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "PACKAGES", ("umap", "no_such_package"))
    done = invoke("map", photographs)
    assert done.returncode == 1
    assert "a map needs no_such_package: pip install '.[train]'" in done.stderr
    assert done.stderr.rstrip().endswith("[extra_missing]")


def test_map_of_an_unwritable_plot_is_not_begun(photographs: Path, tmp_path: Path) -> None:
    done = invoke("map", photographs, "--plot", tmp_path / "none" / "map.png")
    assert (done.returncode, "can't be written" in done.stderr) == (1, True)
    assert json.loads(invoke("fields", photographs, "--json").stdout)["total"] == 9
