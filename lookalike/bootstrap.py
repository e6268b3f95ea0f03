"""Opens a collection with its encoder and its store: the top of the library."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lookalike.collection import Collection, open_collection
from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.engines.selection import cuda_available
from lookalike.encoders.lite.editions import is_first_edition
from lookalike.encoders.protocol import Encoder
from lookalike.encoders.registry import load_encoder
from lookalike.errors import MAX_VALUE_CHARACTERS, EncoderMismatch, StoreUnavailable
from lookalike.search import Limits, Searcher
from lookalike.stores.protocol import VectorStore
from lookalike.stores.registry import AUTO, EXACT, TORCH_EXACT, open_store
from lookalike.types import Identity

StoreDevice = Literal["auto", "cpu", "cuda"]

__all__ = [
    "EngineOptions",
    "StoreDevice",
    "load_encoder",
    "open_collection_store",
    "open_searcher",
    "require_current_edition",
]

logger = logging.getLogger(__name__)


def open_searcher(
    collection: Collection | Path,
    *,
    encoder: str | None = None,
    engine_options: EngineOptions = EngineOptions(),
    store_device: StoreDevice = "auto",
    limits: Limits | None = None,
    loaded: Mapping[tuple[str, Identity], Encoder] | None = None,
) -> Searcher:
    """Return a searcher over a collection, its store and its encoder, checked against each other.

    Args:
        collection: an open collection, or its folder; the checksums of a folder are verified.
        encoder: name of an encoder instead of the manifest's, for weights that moved; it must have the same identity.
        engine_options: how the encoder runs.
        store_device: as in `open_collection_store`; `auto` avoids CUDA where the encoder's device is `cpu`.
        limits: bounds on queries.
        loaded: encoders to reuse, by name and identity. The name counts: a calibration is not part of the identity.

    Raises:
        CollectionError: the folder holds no valid collection, or another encoder made it (the message names both).
        EncoderError: the encoder can't be loaded.
        StoreError: the store can't be opened.
    """
    if isinstance(collection, Path):
        collection = open_collection(collection)
    require_current_edition(collection)
    entry = collection.manifest.encoder
    name = encoder or entry.name
    used = (loaded or {}).get((name, entry.identity)) or load_encoder(name, engine_options)
    collection.require_encoder(used.spec)  # before the store is opened: the likelier mistake
    if store_device == "auto" and engine_options.device == "cpu":
        store_device = "cpu"
    return Searcher(collection, open_collection_store(collection, store_device), used, limits)


def require_current_edition(collection: Collection) -> None:
    """Check that the encoder of a collection is not an edition of `lite` that this release no longer has.

    Raises:
        EncoderMismatch: it is; the message has the command that encodes the images again.
    """
    name, weights = collection.manifest.encoder.name, collection.manifest.encoder.weights
    if is_first_edition(weights):
        raise EncoderMismatch(
            f"collection {collection.root} was made by the first edition of {name!r}; this release has the second, "
            f"whose vectors can't be compared with those; encode the images again: {_index_command(collection)}"
        )


def _index_command(collection: Collection) -> str:
    """Return the command that encodes a collection's images again; SOURCE stands for sources that can't be named."""
    manifest = collection.manifest
    is_import = not manifest.inputs  # the sources of an import are embeddings
    sources = "SOURCE" if is_import else shlex.join(manifest.sources)
    if not 0 < len(sources) <= MAX_VALUE_CHARACTERS:
        sources = "SOURCE"
    replace = " --replace" if is_import else ""
    return f"`lookalike index {sources} --out {shlex.quote(str(collection.root))}{replace}`"


def open_collection_store(collection: Collection, device: StoreDevice = "auto") -> VectorStore:
    """Open the store that searches a collection on this machine: its own, or `torch-exact` on CUDA in its place.

    `exact` and `torch-exact` have no files and give the same results, so that each can replace the other, and a
    collection stays portable. A FAISS index is replaced only where `auto` chose it, since exact search on a device is
    never less accurate. A store that was requested by name is kept.

    Args:
        collection: as opened.
        device: `cuda` insists on it, whatever the collection's store; `auto` takes it where there is one, its memory
            holds the vectors and the store may be replaced; `cpu` keeps the store.

    Raises:
        StoreError: the store can't be opened; with `cuda`, the device can't hold the vectors.
    """
    entry = collection.manifest.store
    own = EXACT if entry.kind == TORCH_EXACT else entry.kind
    replaceable = own == EXACT or entry.params.get("asked") == AUTO
    if device == "cuda" or (device == "auto" and replaceable and cuda_available()):
        try:
            return open_store(TORCH_EXACT, collection.folder, collection.vectors, {"device": "cuda"})
        except StoreUnavailable as error:
            if device == "cuda":
                raise
            logger.warning("store_fallback kind=%s: %s", own, error)
    return open_store(own, collection.folder, collection.vectors, entry.params)
