"""Names -> objects: the top of the shared library, the only place that ties a manifest to an encoder and a store."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lookalike.collection import Collection, open_collection
from lookalike.encoders.engines.selection import cuda_available
from lookalike.encoders.protocol import Encoder
from lookalike.encoders.registry import create_encoder
from lookalike.errors import StoreUnavailable
from lookalike.search import Limits, Searcher
from lookalike.stores.protocol import VectorStore
from lookalike.stores.registry import AUTO, EXACT, TORCH_EXACT, open_store
from lookalike.types import Identity

StoreDevice = Literal["auto", "cpu", "cuda"]

logger = logging.getLogger(__name__)


def load_encoder(
    name: str, *, device: str = "auto", engine: str = "auto", precision: str = "auto", threads: int | None = None
) -> Encoder:
    """An encoder by name; see `lookalike encoders` for the names.

    Args:
        name: `lite`, `open_clip:<model>/<pretrained>[@<precision>]`, ...
        device: `auto`, `cpu` or `cuda`.
        engine: `auto`, `torch` or `openvino`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        threads: CPU threads, None for all cores.

    Raises:
        EncoderError: unknown name, or weights that are missing or not what they should be.
    """
    return create_encoder(name, device=device, engine=engine, precision=precision, threads=threads)


def open_searcher(
    root: Path,
    *,
    encoder: str | None = None,
    device: str = "auto",
    engine: str = "auto",
    store_device: StoreDevice = "auto",
    verify: bool = True,
    limits: Limits | None = None,
) -> Searcher:
    """A collection, its store and its encoder, checked against each other.

    Args:
        root: the collection's folder.
        encoder: a name that overrides the manifest's, for weights that moved; it must still be the same encoder.
        device: `auto`, `cpu` or `cuda`.
        engine: `auto`, `torch` or `openvino`.
        store_device: as `open_collection_store` takes it; `auto` leaves CUDA alone where `device` is `cpu`.
        verify: whether checksums are computed first.
        limits: what a query may ask for.

    Raises:
        CollectionError: the folder is no sound collection, or the encoder is another one (names both).
        EncoderError: the encoder can't be loaded.
        StoreError: the store can't be opened.
    """
    return searcher_of(
        open_collection(root, verify=verify),
        encoder=encoder,
        device=device,
        engine=engine,
        store_device=store_device,
        limits=limits,
    )


def searcher_of(
    collection: Collection,
    *,
    encoder: str | None = None,
    device: str = "auto",
    engine: str = "auto",
    store_device: StoreDevice = "auto",
    limits: Limits | None = None,
    loaded: Mapping[tuple[str, Identity], Encoder] | None = None,
) -> Searcher:
    """As `open_searcher`, of a collection that is open.

    `loaded` are encoders that are loaded already, by name and identity; the collection's is taken where it is among
    them. Under another name equal weights may have another calibration.
    """
    name = encoder or collection.manifest.encoder.name
    at_hand = (loaded or {}).get((name, collection.manifest.encoder.identity))
    used = at_hand or load_encoder(name, device=device, engine=engine)
    collection.require(used.spec)  # before the store is opened: the likelier mistake
    searched_on: StoreDevice = "cpu" if store_device == "auto" and device == "cpu" else store_device
    return Searcher(collection, open_collection_store(collection, searched_on), used, limits)


def open_collection_store(collection: Collection, device: StoreDevice = "auto") -> VectorStore:
    """What a collection is searched with on this machine: its own store, or `torch-exact` on CUDA in its place.

    `exact` and `torch-exact` have no files and give the same answers, so each may take the other's place, and a
    collection stays portable. An inverted file gives way only where `auto` chose it, since then the choice is ours and
    exact search on a device is never less right; who asked for `faiss` gets it.

    Args:
        collection: as opened.
        device: `cuda` insists on it, whatever the collection's store; `auto` takes it where there is one, its memory
            holds the vectors and the store may give way; `cpu` never does.

    Raises:
        StoreError: the store can't be opened; with `cuda`, the device does not take the vectors.
    """
    entry = collection.manifest.store
    own = EXACT if entry.kind == TORCH_EXACT else entry.kind
    gives_way = own == EXACT or entry.params.get("asked") == AUTO
    if device == "cuda" or (device == "auto" and gives_way and cuda_available()):
        try:
            return open_store(TORCH_EXACT, collection.folder, collection.vectors, {"device": "cuda"})
        except StoreUnavailable as error:
            if device == "cuda":
                raise
            logger.warning("store_fallback kind=%s: %s", own, error)
    return open_store(own, collection.folder, collection.vectors, entry.params)
