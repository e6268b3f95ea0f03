"""Write side of the Milvus store: loads vectors and metadata under a new name, builds the index, and moves the alias.

Dimension letters: n rows of the collection, d embedding width, b rows of a batch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from typing_extensions import override

from lookalike.errors import DimensionMismatch, StoreError, StoreUnavailable
from lookalike.manifest import MANIFEST_FILE, read_manifest
from lookalike.metadata import ROWS_FILE, Metadata
from lookalike.stores.milvus.client import (
    LOAD_TIMEOUT,
    alias_target,
    connect,
    is_own,
    own_name,
    owner_digits,
    translated_errors,
)
from lookalike.stores.milvus.expressions import ROW
from lookalike.stores.milvus.fields import MilvusField, column_values, milvus_fields
from lookalike.stores.milvus.indexes import MilvusIndex
from lookalike.stores.milvus.location import MilvusLocation
from lookalike.stores.protocol import VectorStoreBuilder
from lookalike.types import Float32

VECTOR = "vector"
METRIC = "COSINE"
_MAX_INSERT_BYTES = 8 << 20  # of vectors; gRPC's limit of a message is 64 MB


class MilvusBuilder(VectorStoreBuilder):
    """Builder of a collection in Milvus. If it fails, the rows that were loaded are removed.

    Args:
        location: where.
        preset: name of the kind of index.
        count: n.
        dim: d.
        folder: the version folder being built; its metadata is loaded with the vectors.

    Attributes:
        sample_size: 0; Milvus draws its own sample.
    """

    sample_size = 0

    def __init__(self, location: MilvusLocation, preset: str, count: int, dim: int, folder: Path | None) -> None:
        self._location, self._count = location, count
        self._index = MilvusIndex(preset, count, dim)
        versions = folder.parent if folder is not None else None
        self._name = own_name(location.alias, owner_digits(versions))
        self._metadata = Metadata(folder) if folder is not None and (folder / ROWS_FILE).is_file() else None
        self._fields = milvus_fields(self._metadata) if self._metadata is not None else {}
        self._added = 0
        self._add_seconds = 0.0
        self._client = connect(location.uri)
        with translated_errors(location.uri, "the collection can't be made"):
            _require_free_alias(self._client, location, versions)
            _remove_leftovers(self._client, location, versions)
            self._create(dim)

    @override
    def train(self, sample: Float32) -> None:
        """Do nothing: Milvus trains when it builds the index."""

    @override
    def add(self, vectors: Float32) -> None:
        """Insert (b, d) float32 unit vectors in row order, starting with row 0, with the metadata of these rows.

        Raises:
            DimensionMismatch: another width than the builder's.
            StoreUnavailable: Milvus raised an error.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self._index.dim:
            raise DimensionMismatch(f"vectors of shape {vectors.shape} for an index of width {self._index.dim}")
        begun = time.perf_counter()
        step = max(1, _MAX_INSERT_BYTES // (4 * self._index.dim))
        with self._removed_on_failure(), translated_errors(self._location.uri, "loading failed"):
            for start in range(0, len(vectors), step):
                block = vectors[start : start + step]
                self._client.insert(self._name, self._rows(block), timeout=LOAD_TIMEOUT)
                self._added += len(block)
        self._add_seconds += time.perf_counter() - begun

    @override
    def finish(self, folder: Path) -> Mapping[str, object]:
        """Build and load the index.

        Returns:
            uri, alias, collection (its name in Milvus), preset, fields, the search parameters, count, bytes_per_vector
            (of the codes), add_seconds and index_seconds.

        Raises:
            StoreUnavailable: fewer or more rows were added than announced, or Milvus raised an error.
        """
        if self._added != self._count:
            self._remove()
            raise StoreUnavailable(f"{self._added} vectors were added where {self._count} were announced")
        begun = time.perf_counter()
        with self._removed_on_failure(), translated_errors(self._location.uri, "the index can't be built"):
            self._build_index()
        return {
            "uri": self._location.uri,
            "alias": self._location.alias,
            "collection": self._name,
            "preset": self._index.preset,
            "fields": {name: field.to_dict() for name, field in self._fields.items()},
            **self._index.initial_params(),
            "count": self._count,
            "add_seconds": round(self._add_seconds, 2),
            "index_seconds": round(time.perf_counter() - begun, 2),
        }

    def _rows(self, block: Float32) -> list[dict[str, Any]]:
        first = self._added
        rows = [{ROW: first + i, VECTOR: vector} for i, vector in enumerate(block)]
        if self._metadata is not None and self._fields:
            columns = column_values(self._metadata, self._fields, first, first + len(block))
            for row, values in zip(rows, columns, strict=True):
                row.update(values)
        return rows

    def _create(self, dim: int) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ROW, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
        for field in self._fields.values():
            _add_field(schema, field)
        self._client.create_collection(self._name, schema=schema, timeout=LOAD_TIMEOUT)

    def _build_index(self) -> None:
        kind, params = self._index.creation()
        index = self._client.prepare_index_params()
        index.add_index(VECTOR, index_type=kind, metric_type=METRIC, params=params)
        self._client.flush(self._name, timeout=LOAD_TIMEOUT)
        self._client.create_index(self._name, index, timeout=LOAD_TIMEOUT)
        self._client.load_collection(self._name, timeout=LOAD_TIMEOUT)

    def _removed_on_failure(self) -> _RemovedOnFailure:
        return _RemovedOnFailure(self)

    def _remove(self) -> None:
        with suppress(StoreError), translated_errors(self._location.uri, "removing failed"):
            self._client.drop_collection(self._name)


class _RemovedOnFailure:
    """Removes a builder's rows if the block fails, or is interrupted."""

    def __init__(self, builder: MilvusBuilder) -> None:
        self._builder = builder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None:
            self._builder._remove()


def require_usable(location: MilvusLocation, versions: Path) -> None:
    """Check before hours of encoding that a collection can be loaded.

    Args:
        location: where.
        versions: the folder of the collection's versions.

    Raises:
        StoreUnreachable: Milvus does not answer.
        StoreUnavailable: the alias belongs to others, or to another folder.
    """
    client = connect(location.uri)
    with translated_errors(location.uri, "the alias can't be looked up"):
        _require_free_alias(client, location, versions)


def publish(params: Mapping[str, object]) -> None:
    """Move the alias to a finished collection, atomically for the alias's clients.

    Raises:
        StoreUnavailable: Milvus raised an error.
    """
    uri, alias, name = (str(params[key]) for key in ("uri", "alias", "collection"))
    client = connect(uri)
    with translated_errors(uri, f"the alias {alias!r} can't be moved"):
        if alias_target(client, alias) is None:
            client.create_alias(name, alias)
        else:
            client.alter_alias(name, alias)


def discard(params: Mapping[str, object]) -> None:
    """Remove a finished collection whose version was not published; an error is ignored, the next build removes it."""
    with suppress(StoreError), translated_errors(str(params["uri"]), "removing failed"):
        connect(str(params["uri"])).drop_collection(str(params["collection"]))


def _add_field(schema: Any, field: MilvusField) -> None:
    from pymilvus import DataType

    kinds = {"int64": DataType.INT64, "double": DataType.DOUBLE, "bool": DataType.BOOL, "string": DataType.VARCHAR}
    text = {"max_length": max(1, field.width[0])} if field.kind == "string" else {}
    if field.repeated:
        elements = {"element_type": kinds[field.kind], "max_capacity": max(1, field.width[1])}
        schema.add_field(field.value, DataType.ARRAY, **elements, **text)
    else:
        schema.add_field(field.value, kinds[field.kind], **text)
    if field.state is not None:
        schema.add_field(field.state, DataType.INT8)


def _require_free_alias(client: Any, location: MilvusLocation, versions: Path | None) -> None:
    """Check that the alias does not exist, or names a collection of this kind and of this folder.

    Raises:
        StoreUnavailable: a collection has that name, or the alias names one that others or another folder made.
    """
    target = alias_target(client, location.alias)
    if target is None and client.has_collection(location.alias):
        raise StoreUnavailable(
            f"Milvus at {location.uri} has a collection named {location.alias!r}; an alias needs a name of its own: "
            "choose another name in --store"
        )
    if target is not None and not is_own(target, location.alias):
        raise StoreUnavailable(
            f"the alias {location.alias!r} of Milvus at {location.uri} names {target!r}, which Lookalike did not make; "
            "choose another name in --store"
        )
    if target is None or versions is None or target in _names_in(versions):
        return
    if not is_own(target, location.alias, owner_digits(versions)):
        raise StoreUnavailable(
            f"the alias {location.alias!r} of Milvus at {location.uri} belongs to another folder: it names {target!r}; "
            "choose another name in --store, or drop the alias if that folder is gone"
        )


def _remove_leftovers(client: Any, location: MilvusLocation, versions: Path | None) -> None:
    """Remove this folder's collections under this alias that neither the alias nor a version names."""
    if versions is None:
        return
    kept = {alias_target(client, location.alias), *_names_in(versions)}
    for name in client.list_collections():
        if is_own(name, location.alias, owner_digits(versions)) and name not in kept:
            client.drop_collection(name)


def _names_in(versions: Path) -> set[str]:
    """Return the names of the collections in Milvus that a folder's versions search."""
    manifests = versions.glob(f"*/{MANIFEST_FILE}")
    return {str(read_manifest(manifest.parent).store.params.get("collection")) for manifest in manifests}
