"""Names -> objects: the top of the shared library, the only place that ties a manifest to an encoder and a store."""

from __future__ import annotations

from pathlib import Path

from retrieval.collection import open_collection
from retrieval.encoders.protocol import Encoder
from retrieval.encoders.registry import create_encoder
from retrieval.search import Limits, Searcher
from retrieval.stores.registry import open_store


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
    verify: bool = True,
    limits: Limits | None = None,
) -> Searcher:
    """A collection, its store and its encoder, checked against each other.

    Args:
        root: the collection's folder.
        encoder: a name that overrides the manifest's, for weights that moved; it must still be the same encoder.
        device: `auto`, `cpu` or `cuda`.
        engine: `auto`, `torch` or `openvino`.
        verify: whether checksums are computed first.
        limits: what a query may ask for.

    Raises:
        CollectionError: the folder is no sound collection, or the encoder is another one (names both).
        EncoderError: the encoder can't be loaded.
        StoreError: the store can't be opened.
    """
    collection = open_collection(root, verify=verify)
    loaded = load_encoder(encoder or collection.manifest.encoder.name, device=device, engine=engine)
    collection.require(loaded.spec)  # before the store is opened: the likelier mistake
    entry = collection.manifest.store
    store = open_store(entry.kind, collection.folder, collection.vectors, entry.params)
    return Searcher(collection, store, loaded, limits)
