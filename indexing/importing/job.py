"""Another tool's embeddings -> a collection: vectors are taken as they are, and nothing is encoded again.

They are scaled to unit norm and kept as float16. Where a row's image is at hand it gets a thumbnail, and a few
images are encoded to see whether the vectors are this encoder's at all. m rows of a piece, d embedding width.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexing.build.budget import IndexBudget
from indexing.build.index_selection import candidates, require_possible
from indexing.build.tables import unified
from indexing.build.version import Content, Wish, build_version, rejected_codes
from indexing.durable_files import WORK, clean_up, exclusive
from indexing.identities import ContentIds, IdSet
from indexing.importing.embeddings import Embeddings, Piece
from indexing.importing.local_images import ImagesAtHand
from indexing.ingest.join import REJECTED_SCHEMA, Joined
from indexing.ingest.shards import SCHEMA
from indexing.progress import Progress
from lookalike.bootstrap import EngineOptions, load_encoder
from lookalike.collection import CURRENT
from lookalike.disk_errors import translated_disk_errors
from lookalike.errors import DuplicateId, EncoderMismatch, LookalikeError, SourceError, VectorInvalid
from lookalike.manifest import Manifest
from lookalike.metadata import id_hash
from lookalike.sources.columns import RESERVED_COLUMNS
from lookalike.sources.item import ColumnNames
from lookalike.sources.parquet import CAPTION_COLUMNS, ID_COLUMNS, PATH_COLUMNS
from lookalike.stores.registry import resolve_kind
from lookalike.types import Float32

_KEPT = "the collection is as it was, and images that were read are not read again"
_AGREEING = 0.9
"""Cosine of a stored vector and the image encoded again; engines and decoders differ by far less."""
_NAMES_OF_IDS = (*ID_COLUMNS, "image_path")


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """Every setting of an import.

    Attributes:
        source: a folder of embeddings, a `.npy` file or a FAISS index.
        out: the collection's folder.
        encoder: name of the encoder that made the vectors; queries are encoded by it.
        metadata: Parquet file or folder, where it does not lie beside the vectors.
        images: folder under which the images are looked for; None for the paths as they stand.
        columns: which columns play a part.
        store: a registered kind, or `auto`.
        budget: what the index may cost.
        workers: decode threads; None for one a core.
        engine_options: how the encoder runs.
        replace: whether a collection at `out` may be replaced.
        unchecked: take vectors that do not look like the encoder's.
    """

    source: Path
    out: Path
    encoder: str
    metadata: Path | None = None
    images: Path | None = None
    columns: ColumnNames = field(default_factory=ColumnNames)
    store: str = "auto"
    budget: IndexBudget = field(default_factory=IndexBudget)
    workers: int | None = None
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    replace: bool = False
    unchecked: bool = False


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import did.

    Attributes:
        collection: the folder.
        version: the new version's name.
        encoder: name of the encoder.
        store: kind of the store.
        seen: rows of the source; seen = indexed + rejected.
        indexed: rows of the version.
        rejected: rows in `rejected.parquet`.
        rejected_by_code: error code -> count.
        pictures: rows whose image was at hand, and that got a thumbnail.
        approximate: whether the vectors were guessed from an index's codes.
        checked: how many images were encoded again.
        agreement: median cosine of their vectors with those imported; None where none was at hand.
        seconds: of the whole run.
        recall: the manifest's report, without the parameters that were tried.
    """

    collection: str
    version: str
    encoder: str
    store: str
    seen: int
    indexed: int
    rejected: int
    rejected_by_code: dict[str, int]
    pictures: int
    approximate: bool
    checked: int
    agreement: float | None
    seconds: float
    recall: dict[str, Any]


def run_import(settings: ImportSettings, progress: Progress | None = None) -> ImportSummary:
    """Imports the embeddings as a new version of the collection.

    Raises:
        SourceError: the source can't be read, its counts disagree, no row could be taken, a collection is in the way,
            or the disk is full.
        EncoderMismatch: the encoder has another width, or its vectors of the images at hand are others.
        EncoderError: the encoder can't be loaded.
        CollectionBusy: another job writes to the collection.
    """
    begun = time.perf_counter()
    resolve_kind(settings.store, 0)
    embeddings = Embeddings(settings.source, settings.metadata)
    if (settings.out / CURRENT).exists() and not settings.replace:
        raise SourceError(
            f"{settings.out} holds a collection; name another --out, or --replace to put this in its place"
        )
    with (
        translated_disk_errors(settings.out, _KEPT),
        exclusive(settings.out),
        progress or Progress(quiet=True) as shown,
    ):
        encoder = load_encoder(settings.encoder, settings.engine_options)
        if encoder.spec.dim != embeddings.dim:
            raise EncoderMismatch(
                f"{settings.source} holds vectors of width {embeddings.dim}, encoder {settings.encoder!r} makes "
                f"{encoder.spec.dim}; name the encoder that made them"
            )
        if settings.budget.tight:
            presets = candidates(settings.store, embeddings.count)
            require_possible(presets, embeddings.count, embeddings.dim, settings.budget)
        with ThreadPoolExecutor(settings.workers or len(os.sched_getaffinity(0)), "decode") as pool:
            work = settings.out / WORK / "import"
            images = ImagesAtHand(embeddings.source, settings.images, work, encoder, pool)
            rows = _Rows(settings, embeddings, images, shown)
            shown.begin(embeddings.count)
            wish = Wish(settings.store, settings.budget, (str(settings.source),), "")
            content = Content(iter(rows), rows.schema, embeddings.count, _KEPT)
            manifest = build_version(settings.out, content, encoder, wish, shown.phase)
        clean_up(work)
        return _summary(settings, manifest, embeddings, rows, time.perf_counter() - begun)


class _Rows:
    """The source's pieces as the builder takes them; counts on the way."""

    def __init__(
        self, settings: ImportSettings, embeddings: Embeddings, images: ImagesAtHand, progress: Progress
    ) -> None:
        self._settings, self._embeddings, self._progress = settings, embeddings, progress
        self._columns = _Columns(embeddings.schema, settings.columns, embeddings.source, embeddings.described)
        self._seen = IdSet()
        self.at_hand = images
        self.schema = unified([self._columns.schema])
        self.images = 0

    def __iter__(self) -> Iterator[Joined]:
        for piece in self._embeddings:
            yield self._joined(piece)

    def _joined(self, piece: Piece) -> Joined:
        norms = np.sqrt(np.vecdot(piece.vectors, piece.vectors, dtype=np.float64))
        metadata = self._columns.renamed(piece)
        reasons = self._reasons(metadata.column("id").to_pylist(), norms)
        good = np.array([reason is None for reason in reasons])
        unit = (piece.vectors[good] / norms[good, None]).astype(np.float32)
        kept = metadata.filter(pa.array(good))
        paths = kept.column("path").to_pylist() if "path" in kept.column_names else [None] * len(kept)
        looked = self.at_hand.of(paths)
        self.images += len(looked) - looked.column("thumbnail").null_count
        if self.at_hand.compare(paths, looked, unit):
            self._require_agreement()
        self._progress.add(reused=int(good.sum()), rejected=int((~good).sum()))
        return Joined(_kept(kept, unit, looked), kept, _rejected(metadata, reasons))

    def _reasons(self, ids: Sequence[str | None], norms: Float32) -> list[LookalikeError | None]:
        reasons: list[LookalikeError | None] = []
        for item_id, norm in zip(ids, norms, strict=True):
            if not item_id:
                reasons.append(SourceError("the row has no id"))
            elif not (np.isfinite(norm) and norm > 0):
                reasons.append(VectorInvalid(f"the vector has norm {norm}; nothing can be compared with it"))
            elif not self._seen.add(id_hash(item_id)):
                reasons.append(DuplicateId(f"id {item_id!r} occurs twice"))
            else:
                reasons.append(None)
        return reasons

    def _require_agreement(self) -> None:
        agreement = self.at_hand.agreement
        if agreement is not None and agreement < _AGREEING and not self._settings.unchecked:
            raise EncoderMismatch(
                f"{len(self.at_hand.cosines)} images encoded with {self._settings.encoder!r} have a median cosine of "
                f"{agreement:.2f} with their vectors in {self._settings.source}: another encoder made those. Name it, "
                "or take them all the same by --unchecked"
            )


class _Columns:
    """Which of the source's columns become which of the collection's."""

    def __init__(self, schema: pa.Schema, named: ColumnNames, source: Path, described: bool) -> None:
        """`described`: whether there is metadata, and not only row numbers."""
        self._content = ContentIds()
        for option, name in (("id", named.id), ("image", named.image), ("caption", named.caption)):
            if name is not None and name not in schema.names:
                raise SourceError(
                    f"{source} has no column {name!r} (--{option}-column); it has {', '.join(schema.names)}"
                )
        texts = [
            field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        self._id = named.id or _first(_NAMES_OF_IDS, schema.names)
        if self._id is None and described:
            raise SourceError(f"{source}: no column holds ids; name one with --id-column of {', '.join(schema.names)}")
        self._path = named.image or _first(PATH_COLUMNS, texts)
        self._caption = named.caption or _first(CAPTION_COLUMNS, texts)
        own = {self._path: "path", self._caption: "caption"}
        measured = {name: name for name in ("width", "height")}
        self._names: dict[str, str] = {}
        for name in schema.names:
            if name == self._id and name not in own:
                continue
            fresh = own.get(name) or (
                f"source_{name.lstrip('_')}" if name in RESERVED_COLUMNS or name.startswith("_") else name
            )
            fresh = fresh or "unnamed"
            while fresh in {"id", *self._names.values()}:
                fresh += "_"
            self._names[name] = fresh if name not in measured else f"_{name}"
        kept = [
            pa.field(fresh, schema.field(name).type) for name, fresh in self._names.items() if not fresh.startswith("_")
        ]
        self.schema = pa.schema([pa.field("id", pa.string()), *kept])

    def renamed(self, piece: Piece) -> pa.Table:
        """`id` and the other columns under their new names; `_width` and `_height` where the source has them."""
        if self._id is None:
            return piece.metadata.add_column(0, "id", pa.array(self._content.of(piece.vectors), pa.string()))
        values = piece.metadata.column(self._id)
        ids = pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())
        rest = {fresh: piece.metadata.column(name) for name, fresh in self._names.items()}
        return pa.table({"id": ids, **rest})


def _first(wanted: Sequence[str], there: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in there), None)


def _kept(metadata: pa.Table, unit: Float32, looked: pa.Table) -> pa.Table:
    count = len(metadata)
    halves = unit.astype(np.float16)
    columns = {
        "id_hash": pa.array([id_hash(item_id) for item_id in metadata.column("id").to_pylist()], pa.uint64()),
        "fingerprint": pa.array(np.zeros(count, np.uint64)),
        "vector": pa.array([row.tobytes() for row in halves], pa.binary()),
        "thumbnail": looked.column("thumbnail"),
        **{name: pc.coalesce(looked.column(name), _said(name, metadata)) for name in ("width", "height")},
        "format": looked.column("format"),
        "code": pa.nulls(count, pa.string()),
        "message": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=SCHEMA)


def _said(name: str, metadata: pa.Table) -> pa.Array:
    """Width or height as the source has it."""
    said = metadata.column(f"_{name}").to_pylist() if f"_{name}" in metadata.column_names else [None] * len(metadata)
    whole = [int(value) if isinstance(value, int | float) and 0 < value < 2**31 else None for value in said]
    return pa.array(whole, pa.int32())


def _rejected(metadata: pa.Table, reasons: Sequence[LookalikeError | None]) -> pa.Table:
    paths = metadata.column("path").to_pylist() if "path" in metadata.column_names else [None] * len(metadata)
    listed = [
        {"id": item_id, "source": None, "path": path, "code": reason.code, "message": str(reason)}
        for item_id, path, reason in zip(metadata.column("id").to_pylist(), paths, reasons, strict=True)
        if reason is not None
    ]
    return pa.Table.from_pylist(listed, schema=REJECTED_SCHEMA)


def _summary(
    settings: ImportSettings, manifest: Manifest, embeddings: Embeddings, rows: _Rows, seconds: float
) -> ImportSummary:
    agreement = rows.at_hand.agreement
    return ImportSummary(
        collection=str(settings.out),
        version=manifest.version,
        encoder=manifest.encoder.name,
        store=manifest.store.kind,
        **manifest.counts.model_dump(),
        rejected_by_code=rejected_codes(settings.out, manifest.version),
        pictures=rows.images,
        approximate=embeddings.approximate,
        checked=len(rows.at_hand.cosines),
        agreement=None if agreement is None else round(agreement, 4),
        seconds=round(seconds, 3),
        recall={name: value for name, value in manifest.recall.items() if name != "sweep"},
    )
