"""The import of another tool's embeddings as a collection, without encoding any image.

Vectors are scaled to unit norm and stored as float16. Rows whose image is available locally get a thumbnail; a few of
these images are encoded, to check that this encoder made the vectors.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from indexing.build.budget import IndexBudget
from indexing.build.candidates import candidates, require_possible
from indexing.build.version import BuildSpec, build_version, rejected_codes
from indexing.importing.embeddings import Embeddings
from indexing.importing.local_images import LocalImages
from indexing.importing.rows import ImportedRows
from indexing.ingest.previous_version import open_previous
from indexing.progress import Progress
from indexing.row_stream import RowStream
from indexing.work_folder import WORK, exclusive, remove_work
from indexing.written_items import WrittenItems, exclusive_writes, with_written_items
from indexing.written_rows import opened_log, release_held
from lookalike.bootstrap import EngineOptions, load_encoder
from lookalike.collection import CURRENT, VERSIONS, Collection, current_manifest
from lookalike.cores import available_cores
from lookalike.disk_errors import translated_disk_errors
from lookalike.encoders.lite.editions import FIRST_EDITION_DIM
from lookalike.encoders.protocol import Encoder
from lookalike.errors import CollectionError, EncoderMismatch, SourceError
from lookalike.manifest import Manifest
from lookalike.paths import exists, is_unavailable
from lookalike.sources.item import ColumnNames, read_error
from lookalike.stores.registry import require_usable_store, resolve_kind
from lookalike.writes.log import WriteLog, has_log

_KEPT_ON_DISK_FULL = "the collection is unchanged, and images that were read are not read again"


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """Settings of an import.

    Attributes:
        source: a folder of embeddings, a `.npy` file or a FAISS index.
        out: the collection's folder.
        encoder: name of the encoder that made the vectors; queries are encoded by it.
        metadata: Parquet file or folder; None for the one beside the vectors.
        images: folder to look for the images in; None to take the paths as they are.
        columns: names of the columns.
        store: a registered kind, or `auto`.
        budget: limits of the index.
        workers: decode threads; None for one per core.
        engine_options: how the encoder runs.
        replace: whether a collection at `out` may be replaced.
        unchecked: accept vectors that another encoder seems to have made.
        number_rows: make the ids from the rows' numbers.
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
    number_rows: bool = False


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """Result of an import.

    Attributes:
        collection: the folder.
        version: the new version's name.
        encoder: name of the encoder.
        store: kind of the store.
        seen: rows of the source and items that writes made; seen = indexed + rejected.
        indexed: rows of the version.
        rejected: rows in `rejected.parquet`.
        rejected_by_code: error code -> count.
        repeated_ids: indexed rows whose id occurred before, so that a number was added to it.
        written: indexed items that writes made, which the source does not provide.
        left_out_written: rows of the source that are left out, since a write put or deleted them; they are not seen.
        pictures: rows whose image was available locally, and that have a thumbnail.
        approximate: whether the vectors were reconstructed from an index's codes.
        checked: number of images that were encoded.
        agreement: median cosine of their vectors with the imported ones; None if no image was available.
        seconds: of the whole run.
        recall: the manifest's report, without the sweep of parameters.
    """

    collection: str
    version: str
    encoder: str
    store: str
    seen: int
    indexed: int
    rejected: int
    rejected_by_code: dict[str, int]
    repeated_ids: int
    written: int
    left_out_written: int
    pictures: int
    approximate: bool
    checked: int
    agreement: float | None
    seconds: float
    recall: dict[str, Any]


def run_import(settings: ImportSettings, progress: Progress | None = None) -> ImportSummary:
    """Import the embeddings as a new version of the collection.

    Raises:
        SourceError: the source can't be read, its counts disagree, no row could be imported, a collection exists
            at `out`, or the disk is full.
        EncoderMismatch: the encoder's width differs, or its vectors of the local images do, or another encoder made the
            vectors of items that writes made.
        WritesDamaged: the log of writes does not fit the current version.
        EncoderError: the encoder can't be loaded.
        CollectionBusy: another job writes to the collection.
    """
    begun = time.perf_counter()
    resolve_kind(settings.store, 0)
    require_usable_store(settings.store, settings.out / VERSIONS)
    embeddings = Embeddings(settings.source, settings.metadata)
    if settings.images is not None:
        _require_entered(settings.images)
    if not settings.replace:
        _require_no_collection(settings.out)
    with (
        translated_disk_errors(settings.out, _KEPT_ON_DISK_FULL),
        exclusive(settings.out),
        progress or Progress(quiet=True) as reporter,
    ):
        previous = open_previous(settings.out) if has_log(settings.out) else None
        with opened_log(settings.out, _manifest(settings.out, previous)) as log:
            return _import_over(settings, embeddings, previous, log, reporter, begun)


def _manifest(root: Path, previous: Collection | None) -> Manifest | None:
    """Return the manifest of the current version; None if there is none, or it is damaged."""
    if previous is not None:
        return previous.manifest
    try:
        return current_manifest(root)
    except CollectionError:
        return None


def _import_over(
    settings: ImportSettings,
    embeddings: Embeddings,
    previous: Collection | None,
    log: WriteLog | None,
    reporter: Progress,
    begun: float,
) -> ImportSummary:
    """Import the embeddings over what was written to the collection."""
    encoder = load_encoder(settings.encoder, settings.engine_options)
    _check(settings, embeddings, encoder)
    with exclusive_writes(settings.out, previous, log, encoder.spec):
        work = settings.out / WORK / "import"
        with ThreadPoolExecutor(settings.workers or available_cores(), "decode") as pool:
            images = LocalImages(embeddings.source, settings.images, work, encoder, pool)
            rows = ImportedRows(
                embeddings,
                settings.columns,
                images,
                reporter,
                encoder=settings.encoder,
                unchecked=settings.unchecked,
                number_rows=settings.number_rows,
            )
            reporter.begin(embeddings.count)
            stream = RowStream(iter(rows), rows.schema, embeddings.count, _KEPT_ON_DISK_FULL)
            spec = BuildSpec(settings.store, settings.budget, (str(settings.source),), "")
            written: WrittenItems | None = None
            with ExitStack() as moment:
                if log is not None:
                    stream, written = with_written_items(stream, log, previous, moment)
                    spec = replace(spec, writes=written.number)
                manifest = build_version(settings.out, stream, encoder, spec, reporter.phase)
            if log is not None:
                release_held(settings.out, log, manifest.writes)
        remove_work(work)
        return _summary(settings, manifest, embeddings, rows, images, written, time.perf_counter() - begun)


def _require_entered(folder: Path) -> None:
    """Check that the files of a folder can be reached; without any, the import would go without thumbnails."""
    try:
        os.stat(os.path.join(folder, "."))
    except OSError as error:
        if is_unavailable(error):
            raise read_error(folder, error) from error


def _require_no_collection(out: Path) -> None:
    try:
        found = exists(out / CURRENT)
    except OSError as error:
        raise read_error(out / CURRENT, error) from error
    if found:
        raise SourceError(f"{out} holds a collection; name another --out, or --replace to put this in its place")


def _check(settings: ImportSettings, embeddings: Embeddings, encoder: Encoder) -> None:
    """Check the encoder's width, and that an index fits the memory."""
    if encoder.spec.dim != embeddings.dim:
        fix = "name the encoder that made them"
        if encoder.spec.name == "lite" and embeddings.dim == FIRST_EDITION_DIM:
            fix = "vectors of its first edition can't be imported: index the images"
        raise EncoderMismatch(
            f"{settings.source} holds vectors of width {embeddings.dim}, encoder {settings.encoder!r} makes "
            f"{encoder.spec.dim}; {fix}"
        )
    if settings.budget.needs_trials:
        presets = candidates(settings.store, embeddings.count)
        require_possible(presets, embeddings.count, embeddings.dim, settings.budget)


def _summary(
    settings: ImportSettings,
    manifest: Manifest,
    embeddings: Embeddings,
    rows: ImportedRows,
    images: LocalImages,
    written: WrittenItems | None,
    seconds: float,
) -> ImportSummary:
    agreement = images.agreement
    return ImportSummary(
        collection=str(settings.out),
        version=manifest.version,
        encoder=manifest.encoder.name,
        store=manifest.store.kind,
        **manifest.counts.model_dump(exclude={"skipped"}),  # an import reads no folder of images
        rejected_by_code=rejected_codes(settings.out, manifest.version),
        repeated_ids=rows.ids.repeated,
        written=written.count if written is not None else 0,
        left_out_written=written.left_out if written is not None else 0,
        pictures=rows.image_count,
        approximate=embeddings.approximate,
        checked=len(images.cosines),
        agreement=None if agreement is None else round(agreement, 4),
        seconds=round(seconds, 3),
        recall={name: value for name, value in manifest.recall.items() if name != "sweep"},
    )
