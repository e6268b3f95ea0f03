"""Registry of vector stores by name. A new store is one file next to this one and one line in the table below."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lookalike.errors import DimensionMismatch, StoreUnavailable, StoreUnreachable, UnknownStore
from lookalike.stores.exact import ExactBuilder, ExactStore
from lookalike.stores.faiss.builder import FaissBuilder
from lookalike.stores.faiss.store import FaissStore
from lookalike.stores.milvus.location import is_location, parse_location
from lookalike.stores.presets import PRESETS
from lookalike.stores.protocol import VectorStore, VectorStoreBuilder
from lookalike.types import Float16, Int64

AUTO, EXACT, FAISS, TORCH_EXACT, MILVUS = "auto", "exact", "faiss", "torch-exact", "milvus"
logger = logging.getLogger(__name__)
EXACT_BELOW = 10_000
"""Below this many vectors `auto` means `exact`: brute force is then about as fast as an index."""


@dataclass(frozen=True, slots=True)
class StoreKind:
    """Constructors of one kind of store.

    Attributes:
        open: (folder, (n, d) float16 vectors, the manifest's parameters) -> store.
        builder: (n, d) -> builder.
    """

    open: Callable[[Path, Float16, Mapping[str, object]], VectorStore]
    builder: Callable[[int, int], VectorStoreBuilder]


def _open_torch(folder: Path, vectors: Float16, params: Mapping[str, object]) -> VectorStore:
    """Open a torch store on `params["device"]`, by default on CUDA if there is one; manifests never name a device."""
    from lookalike.stores.torch_exact import TorchStore  # importing torch takes seconds

    device = params.get("device")
    return TorchStore(vectors, None if device is None else str(device))


def _open_milvus(folder: Path, vectors: Float16, params: Mapping[str, object]) -> VectorStore:
    from lookalike.stores.milvus.store import MilvusStore  # importing pymilvus takes seconds

    return MilvusStore.open(folder, params, vectors)


def _milvus_builder(name: str, count: int, dim: int, folder: Path | None) -> VectorStoreBuilder:
    from lookalike.stores.milvus.builder import MilvusBuilder

    location = parse_location(name)
    return MilvusBuilder(location, location.preset_for(count, EXACT_BELOW), count, dim, folder)


def _no_builder(count: int, dim: int) -> VectorStoreBuilder:
    parse_location(MILVUS)  # raises: the name alone says no place
    raise AssertionError


_KINDS = {
    EXACT: StoreKind(lambda folder, vectors, params: ExactStore(vectors), lambda count, dim: ExactBuilder(dim)),
    FAISS: StoreKind(lambda folder, vectors, params: FaissStore.open(folder, params, vectors), FaissBuilder),
    TORCH_EXACT: StoreKind(_open_torch, lambda count, dim: ExactBuilder(dim)),
    MILVUS: StoreKind(_open_milvus, _no_builder),
}


def store_kinds() -> tuple[str, ...]:
    """Return the registered names."""
    return tuple(_KINDS)


def resolve_kind(name: str, count: int) -> str:
    """Return the registered kind for a kind, a preset, a place in Milvus, or `auto`.

    `auto` is exact below 10,000 vectors, else faiss.

    Raises:
        UnknownStore: no store has that name.
    """
    if name == AUTO:
        return EXACT if count < EXACT_BELOW else FAISS
    if is_location(name) or name == MILVUS:
        parse_location(name)
        return MILVUS
    if name not in _KINDS and name in PRESETS:
        return FAISS
    _lookup(name)
    return name


def store_names() -> tuple[str, ...]:
    """Return the accepted names: `auto`, the registered kinds, and the presets of `faiss`."""
    return (AUTO, *_KINDS, *(name for name in PRESETS if name not in _KINDS))


def open_store(
    kind: str, folder: Path, vectors: Float16, params: Mapping[str, object] | None = None, held_out: int = 0
) -> VectorStore:
    """Open the store in a builder's output folder.

    Args:
        kind: a registered name, from the manifest.
        folder: the collection version's folder.
        vectors: (n, d) float16, the collection's memory-mapped vectors.
        params: the manifest's parameters of the store.
        held_out: number of rows that were held out of it.

    Raises:
        UnknownStore: no store has that name.
        StoreUnavailable: its files are missing or corrupt, or their number of rows differs from that of the vectors.
        DimensionMismatch: its files hold vectors of another width.
    """
    store = _lookup(kind).open(folder, vectors, params or {})
    if store.dim != vectors.shape[1]:
        raise DimensionMismatch(f"the {kind} store in {folder} has width {store.dim}, the vectors {vectors.shape[1]}")
    if store.count + held_out != vectors.shape[0]:
        raise StoreUnavailable(
            f"the {kind} store in {folder} holds {store.count} rows for {vectors.shape[0]} vectors; "
            "index again or restore the folder from a copy"
        )
    return store


def create_builder(
    name: str, count: int, dim: int, held_out: Int64 | None = None, folder: Path | None = None
) -> VectorStoreBuilder:
    """Create a builder for `count` vectors of width `dim`.

    Args:
        name: a registered kind, a preset, or a place in Milvus.
        count: n.
        dim: d.
        held_out: rows to leave out of a graph until `add_held_out`.
        folder: the version folder being built, whose metadata Milvus filters by.

    Raises:
        UnknownStore: no store has that name.
        StoreUnavailable: the kind can't hold so few vectors.
    """
    if name not in _KINDS and name in PRESETS:
        return FaissBuilder(count, dim, PRESETS[name], held_out)
    if is_location(name):
        return _milvus_builder(name, count, dim, folder)
    return _lookup(name).builder(count, dim)


def require_usable_store(name: str, versions: Path) -> None:
    """Check that a store outside the collection's folder can be built.

    Args:
        name: as for `create_builder`.
        versions: the folder of the collection's versions.

    Raises:
        StoreUnreachable: Milvus does not answer.
        StoreUnavailable: its alias belongs to others.
    """
    if is_location(name):
        from lookalike.stores.milvus.builder import require_usable

        require_usable(parse_location(name), versions)


def is_lost(kind: str, folder: Path, vectors: Float16, params: Mapping[str, object]) -> bool:
    """Return whether what a store holds outside the version's folder is gone.

    Raises:
        StoreUnreachable: Milvus does not answer.
    """
    if kind != MILVUS:
        return False
    try:
        open_store(kind, folder, vectors, params)
    except StoreUnreachable:
        raise
    except StoreUnavailable as error:
        logger.warning("store_lost: %s", error)
        return True
    return False


def publish_store(kind: str, params: Mapping[str, object]) -> None:
    """Make a finished store the one that others find, just before its version becomes current: moves Milvus's alias.

    Raises:
        StoreUnavailable: Milvus raised an error.
    """
    if kind == MILVUS:
        from lookalike.stores.milvus.builder import publish

        publish(params)


def discard_store(kind: str, params: Mapping[str, object]) -> None:
    """Remove what a finished store holds outside its folder, if its version is not published."""
    if kind == MILVUS:
        from lookalike.stores.milvus.builder import discard

        discard(params)


def _lookup(kind: str) -> StoreKind:
    try:
        return _KINDS[kind]
    except KeyError:
        raise UnknownStore(f"unknown store {kind!r}; the stores are {', '.join(store_names())}") from None
