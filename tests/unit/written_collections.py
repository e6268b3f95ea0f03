"""Small collections that are written to, and everything that a client can see of one, for comparison."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexing.job import IndexSettings, IndexSummary, run_index
from lookalike.bootstrap import open_collection_store
from lookalike.collection import Collection, open_collection
from lookalike.encoders.fake import DIM
from lookalike.filters import parse_filter
from lookalike.row_search import SearchOptions
from lookalike.search import VectorSearcher
from lookalike.stopwatch import Stopwatch
from lookalike.types import Float32
from lookalike.writes.etag import etag
from lookalike.writes.live_collection import LiveCollection
from lookalike.writes.operations import Delete, Operation, Patch, Put
from lookalike.writes.writer import Writer
from tests.bad_images import encoded, make_image

COLOURS = ("red", "green", "blue")
FILTERS = (
    {"must": [{"field": "colour", "equals": "red"}]},
    {"must": [{"field": "colour", "in": ["green", "violet"]}]},
    {"must_not": [{"field": "price", "range": {"gte": 5}}]},
    {"must": [{"field": "price", "range": {"gte": 2, "lt": 7}}]},
    {"must": [{"field": "tags", "equals": "a"}]},
    {"must": [{"field": "width", "range": {"gt": 0}}]},
    {"must": [{"field": "id", "in": ["0", "3", "new-1", "new-4"]}]},
)
SORTS = ("id", "price", "-price", "colour", "-width")


def write_images(folder: Path, count: int, *, start: int = 0) -> Path:
    """Write images `0.jpg`, ... with a JSON file of metadata each."""
    folder.mkdir(exist_ok=True)
    for i in range(start, start + count):
        (folder / f"{i}.jpg").write_bytes(encoded(make_image(seed=i), "JPEG"))
        metadata = {"colour": COLOURS[i % 3], "price": i, "size": {"w": i, "h": 2}, "tags": ["a", "b"][: i % 3]}
        (folder / f"{i}.json").write_text(json.dumps(metadata))
    return folder


def write_rows(path: Path, columns: Mapping[str, Any]) -> Path:
    """Write a table of images with columns."""
    count = len(next(iter(columns.values())))
    images = [encoded(make_image(seed=i), "JPEG") for i in range(count)]
    pq.write_table(pa.table({"id": list(map(str, range(count))), "image": images, **columns}), path)
    return path


def index(root: Path, *sources: Path, encoder: str | None = "fake", **settings: Any) -> IndexSummary:
    return run_index(IndexSettings(tuple(map(str, sources)), root, encoder=encoder, **settings))


def opened_writer(root: Path) -> Writer:
    return Writer(open_collection(root))


def vector(seed: int) -> Float32:
    """Return a (d,) vector of unit norm."""
    numbers = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return numbers / np.linalg.norm(numbers)


def put(item_id: str, seed: int = 0, **metadata: Any) -> Put:
    measured = {"width": 10 + seed % 5, "height": 20, "format": "PNG"}
    return Put(item_id, vector(seed), metadata, measured, b"thumbnail %d" % seed, seed.to_bytes(16, "big"))


def apply(writer: Writer, *operations: Operation) -> None:
    """Apply operations, all of which must succeed."""
    for outcome in writer.apply(operations):
        if isinstance(outcome, Exception):
            raise outcome


def random_operations(rng: random.Random, ids: Sequence[str], count: int) -> list[Operation]:
    """Return operations on items of the collection and on new ones, some of which fail."""
    return [_random_operation(rng, ids) for _ in range(count)]


def _random_operation(rng: random.Random, ids: Sequence[str]) -> Operation:
    item_id = rng.choice(ids) if rng.random() < 0.6 else f"new-{rng.randrange(8)}"
    kind = rng.random()
    if kind < 0.2:
        return Delete(item_id)
    return put(item_id, rng.randrange(1000), **_metadata(rng)) if kind < 0.6 else Patch(item_id, _metadata(rng))


def _metadata(rng: random.Random) -> dict[str, Any]:
    choices: dict[str, Any] = {
        "colour": rng.choice(["red", "violet", "Müller", None]),
        "price": rng.choice([rng.randrange(10), 2**40, None]),
        "size": rng.choice([{"w": 3}, {"w": None, "h": 1}, None]),
        "tags": rng.choice([["a", "c"], [], None]),
        "caption": rng.choice(["a red thing", "blue", None]),
        "stars": rng.choice([1, 2, 4.5, None]),
        "owner": rng.choice([{"name": "x", "age": 3}, None]),
        "seen": rng.choice([True, False, None]),
    }
    return {name: choices[name] for name in rng.sample(sorted(choices), rng.randrange(4))}


def searcher_of(collection: Collection) -> VectorSearcher:
    """Return a searcher of a version, or of one with what was written since."""
    if isinstance(collection, LiveCollection):
        version = collection.version
        return VectorSearcher(version, open_collection_store(version, "cpu")).over(collection)
    return VectorSearcher(collection, open_collection_store(collection, "cpu"))


def seen(collection: Collection) -> dict[str, Any]:
    """Return what clients can see of a collection, without the order of equals."""
    searcher = searcher_of(collection)
    table, metadata = searcher.table, collection.metadata
    rows = [int(row) for row in table.rows()]
    records = metadata.records(rows)
    vectors = collection.stored_vectors[rows]
    names = {record["id"]: row for record, row in zip(records, rows, strict=True)}
    filters = [parse_filter(json.dumps(each)) for each in FILTERS]
    known = [(i, each) for i, each in enumerate(filters) if _fits(each, metadata.columns)]
    return {
        "count": (len(collection), table.count()),
        "columns": [(name, metadata.column_type(name)) for name in metadata.columns],
        "records": {record["id"]: record for record in records},
        "rows": all(metadata.row_of(item_id) == row for item_id, row in names.items()),
        "tags": {record["id"]: etag(record, each) for record, each in zip(records, vectors, strict=True)},
        "thumbnails": {item_id: collection.thumbnails.get(row) for item_id, row in names.items()},
        "has thumbnail": {item_id: collection.thumbnails.has(row) for item_id, row in names.items()},
        "filters": {i: _ids(metadata, table.rows(each)) for i, each in known},
        "counts": {i: table.count(each) for i, each in known},
        "facets": table.facets(),
        "filtered facets": {i: table.facets(each) for i, each in known},
        "sorts": {sort: _sorted(metadata, table.rows(None, sort), sort) for sort in _sorts(metadata.columns)},
        "searches": {seed: _search(searcher, seed, known) for seed in range(3)},
    }


def _fits(condition: Any, columns: Sequence[str]) -> bool:
    return all(name in columns for name in _fields(condition.model_dump()))


def _fields(condition: Any) -> list[str]:
    if isinstance(condition, dict):
        own = [condition["field"]] if isinstance(condition.get("field"), str) else []
        return own + [name for value in condition.values() for name in _fields(value)]
    return [name for each in condition for name in _fields(each)] if isinstance(condition, list | tuple) else []


def _ids(metadata: Any, rows: Any) -> set[str]:
    return {record["id"] for record in metadata.records([int(row) for row in rows], ["id"])}


def _sorts(columns: Sequence[str]) -> list[str]:
    return [sort for sort in SORTS if sort.removeprefix("-") in columns]


def _sorted(metadata: Any, rows: Any, sort: str) -> list[Any]:
    """Return the sorted column."""
    return [record.get(sort.removeprefix("-")) for record in metadata.records([int(row) for row in rows])]


def _search(searcher: VectorSearcher, seed: int, filters: Sequence[tuple[int, Any]]) -> dict[str, Any]:
    found = {"all": _found(searcher, seed), "exact": _found(searcher, seed, exact=True)}
    for i, condition in filters:
        found[f"filter {i}"] = _found(searcher, seed, filter=condition)
    if "colour" in searcher.collection.metadata.columns:
        found["group"] = _found(searcher, seed, group_by="colour", group_size=2)
    found["deduplicate"] = len(_found(searcher, seed, deduplicate=0.99999))
    found["few"] = [score for _, score, *_ in _found(searcher, seed, limit=3)]
    return found


def _found(searcher: VectorSearcher, seed: int, limit: int = 500, **options: Any) -> Any:
    hits = searcher.search_vectors(vector(seed)[None], SearchOptions(limit=limit, **options), Stopwatch())[0].hits
    found = [(hit.id, round(hit.score, 5), hit.group, hit.duplicates, dict(hit.metadata)) for hit in hits]
    return sorted(found, key=lambda each: (-each[1], each[0]))
