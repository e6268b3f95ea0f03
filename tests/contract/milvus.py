"""Checks of a Milvus store against the other stores, for Milvus Lite and for a server."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

import lookalike
from indexing.importing.job import ImportSettings, run_import
from lookalike.collection import open_collection
from lookalike.filters import filter_mask, parse_filter
from lookalike.stores.milvus.client import connect
from lookalike.stores.milvus.expressions import ROW, Translator
from lookalike.stores.milvus.fields import MilvusField

N, D = 300, 13

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("brand", pa.string()),
        ("price", pa.int32()),
        ("size", pa.int64()),
        ("weight", pa.float64()),
        ("ratio", pa.float32()),
        ("new", pa.bool_()),
        ("day", pa.date32()),
        ("seen", pa.timestamp("us", "UTC")),
        ("tags", pa.list_(pa.string())),
        ("codes", pa.list_(pa.int16())),
        ("exif", pa.struct([("iso", pa.int64()), ("lens", pa.string())])),
        ("cost", pa.decimal128(8, 2)),
        ("extreme", pa.float64()),
    ]
)
BRANDS = ["acme", "acme corp", "a_b", "a%c", 'a"q', "a\\x", "ab\nc", "日本", "é", "e\u0301", "", None]
UNTRANSLATABLE = {"cost", "extreme"}


def rows() -> list[dict[str, Any]]:
    """Rows of every type, with and without values."""
    rng = np.random.default_rng(7)
    made = []
    for i in range(N):
        record: dict[str, Any] = {
            "id": f"item-{i}",
            "brand": BRANDS[int(rng.integers(len(BRANDS)))],
            "price": int(rng.integers(-3, 10)),
            "size": int(rng.integers(-(2**40), 2**40)),
            "weight": [1.5, -2.0, 0.0, -0.0, 0.1, math.nan, None][int(rng.integers(7))],
            "ratio": [0.1, 0.5, 3.0, None][int(rng.integers(4))],
            "new": [True, False, None][int(rng.integers(3))],
            "day": date(2024, 1, 1 + int(rng.integers(28))),
            "seen": datetime(2024, 1, 1 + int(rng.integers(28)), 12, tzinfo=UTC),
            "tags": [["red", "small"], ["blue"], [], None][int(rng.integers(4))],
            "codes": [[1, 2], [3], [], None][int(rng.integers(4))],
            "exif": [{"iso": int(rng.integers(1, 9)) * 100, "lens": "x"}, {"iso": None, "lens": "y"}, None][i % 3],
            "cost": None,
            "extreme": [math.inf, 1.0][i % 2],
        }
        if i % 5 == 0:
            record["price"] = record["brand"] = None
        made.append(record)
    return made


def write_embeddings(folder: Path) -> None:
    """Write clustered vectors with metadata, as `lookalike import` reads them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((20, D)) + 0.5
    vectors = centres[rng.integers(0, 20, N)] + 0.5 * rng.standard_normal((N, D))
    vectors[N // 2] = vectors[0]  # a tie
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(folder / "vectors.npy", vectors.astype(np.float32))
    pq.write_table(pa.Table.from_pylist(rows(), SCHEMA), folder / "metadata.parquet")


def import_into(folder: Path, out: Path, store: str) -> None:
    """Import the embeddings into a collection, with the store that `--store` names."""
    settings = ImportSettings(
        source=folder / "vectors.npy",
        metadata=folder / "metadata.parquet",
        out=out,
        encoder="fake",
        store=store,
        unchecked=True,
        replace=True,
    )
    run_import(settings)


def alias() -> str:
    """Return a name that no other test uses."""
    return f"test_{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Pair:
    """The same rows in two collections: exact search on this machine, and Milvus."""

    exact: Path
    milvus: Path


SEARCHES: list[dict[str, Any]] = [
    {},
    {"limit": 1},
    {"limit": 40, "offset": 15},
    {"limit": 400},
    {"min_score": 0.3},
    {"exact": True},
    {"filter": {"must": [{"field": "new", "equals": True}]}},
    {"filter": {"must_not": [{"field": "brand", "exists": False}]}, "limit": 50, "offset": 10},
    {"filter": {"must": [{"field": "tags", "equals": "red"}, {"field": "price", "range": {"gte": 2, "lt": 8}}]}},
    {"filter": {"should": [{"field": "exif.iso", "range": {"gt": 300}}, {"field": "brand", "prefix": "a"}]}},
    {"filter": {"must": [{"field": "extreme", "range": {"gt": 0}}]}},
    {"filter": {"must": [{"field": "price", "equals": 99}]}},
    {"group_by": "brand", "limit": 5},
    {"deduplicate": 0.99, "limit": 30},
    {"deduplicate": 0.99, "filter": {"must": [{"field": "new", "equals": True}]}},
]
"""Options of searches; each is compared between the two collections."""


def assert_congruent(pair: Pair, options: dict[str, Any]) -> None:
    """Check that both collections return the same items with the same scores, by text and by item."""
    milvus_options = dict(options) if options.get("exact") else {**options, "params": {"candidates": N}}
    with lookalike.open_collection(pair.exact) as exact, lookalike.open_collection(pair.milvus) as milvus:
        for query in ({"text": "a red square"}, {"id": "item-0"}, {"id": "item-7"}):
            expected = exact.search(**query, **options)
            found = milvus.search(**query, **milvus_options)
            assert [hit.id for hit in found] == [hit.id for hit in expected]
            assert [hit.score for hit in found] == [hit.score for hit in expected]
            assert [hit.metadata for hit in found] == [hit.metadata for hit in expected]


def _condition(field: str, tests: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda test: {"field": field, **test}, tests)


def _among(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda v: {"equals": v}, values) | st.builds(lambda v: {"in": v}, st.lists(values, max_size=3))


def _ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), values, min_size=1, max_size=2)
    return st.builds(lambda bound: {"range": bound}, bounds)


_NAMES = [name for name in SCHEMA.names if name != "id"] + ["exif.iso", "exif.lens"]
_EXISTS = st.builds(lambda f, e: {"field": f, "exists": e}, st.sampled_from(_NAMES), st.booleans())
_FLOATS = st.sampled_from([-2.0, -1e-300, 0.0, 0.1, 0.5, 1.5, 3, 1e300, "0.1", "1e390", "-1e390"])
_DAYS = st.sampled_from(["2023-12-31", "2024-01-05", "2024-01-28", "2025-01-01"])
_MOMENTS = st.sampled_from(["2024-01-05T12:00:00Z", "2024-01-05T12:00:00.5+01:00", "2024-01-20"])
_TEXTS = st.sampled_from([brand for brand in BRANDS if brand is not None] + ["zz", "日", "a", "\U0010ffff", "a%"])
CONDITIONS = st.one_of(
    _EXISTS,
    _condition(
        "price", _among(st.integers(-5, 11)) | _ranges(st.integers(-5, 11) | st.sampled_from([1.5, "2.5", 2**40]))
    ),
    _condition("size", _ranges(st.integers(-(2**63), 2**63) | st.integers(-(2**40), 2**40))),
    _condition("weight", _among(_FLOATS) | _ranges(_FLOATS)),
    _condition("ratio", _among(_FLOATS) | _ranges(_FLOATS)),
    _condition("new", _among(st.booleans())),
    _condition("brand", _among(_TEXTS) | st.builds(lambda v: {"prefix": v}, _TEXTS)),
    _condition("day", _among(_DAYS) | _ranges(_DAYS)),
    _condition("seen", _among(_MOMENTS) | _ranges(_MOMENTS)),
    _condition("tags", _among(st.sampled_from(["red", "blue", "x"]))),
    _condition("codes", _among(st.integers(0, 4))),
    _condition("exif.iso", _among(st.integers(1, 9).map(lambda v: 100 * v)) | _ranges(st.integers(0, 1000))),
    _condition("exif.lens", _among(st.sampled_from(["x", "y", "z"]))),
)
_PARTS = st.lists(CONDITIONS, max_size=3)
_FLAT = st.builds(lambda a, b, c: {"must": a, "should": b, "must_not": c}, _PARTS, _PARTS, _PARTS)
FILTERS = st.builds(lambda a, b, c: {"must": [*a, b], "must_not": [c]}, _PARTS, _FLAT, _FLAT) | _FLAT


def assert_expression_selects(collection: Path, document: dict[str, Any]) -> bool:
    """Check that Milvus selects the rows that the filter's mask has; return whether there was an expression."""
    opened = open_collection(collection, verify=False)
    params = opened.manifest.store.params
    fields = {name: MilvusField.from_dict(field) for name, field in params["fields"].items()}
    condition = parse_filter(json.dumps(document))
    expression = Translator(opened.metadata, fields).expression(condition)
    if expression is None:
        return False
    found = connect(params["uri"]).query(
        params["collection"], filter=expression, output_fields=[ROW], limit=N, consistency_level="Strong"
    )
    expected = np.flatnonzero(filter_mask(condition, opened.metadata)).tolist()
    assert sorted(row[ROW] for row in found) == expected, expression
    return True
