"""The indexing job: encodes new images of the sources, then builds and publishes a version of the collection.

A job that fails keeps its encoded images in the work folder and its version unpublished; the next run resumes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from indexing.build.budget import IndexBudget
from indexing.build.candidates import candidates, require_possible
from indexing.build.version import BuildSpec, build_version, rejected_codes, truncated_count
from indexing.dropping import count_newly_rejected, require_few_dropped
from indexing.ingest.content_index import ContentIndex
from indexing.ingest.decoding import Decoder
from indexing.ingest.encoding import EncodeOptions, EncodeRunner, EncodeStats, LocalRunner, encode_sources, engine_of
from indexing.ingest.join import join_plan
from indexing.ingest.kept_items import KeptItems
from indexing.ingest.left_out import LeftOutItems
from indexing.ingest.previous_version import count_dropped, older_versions, open_previous, reusable_version
from indexing.ingest.ray_runner.cluster import ClusterSettings, connected
from indexing.ingest.reusable_embeddings import ReusableEmbeddings
from indexing.ingest.shard_storage import ShardStorage, shard_storage
from indexing.ingest.shards import ShardPool, ShardWriter
from indexing.plan import Plan, PlanWriter
from indexing.progress import Progress
from indexing.row_stream import RowStream
from indexing.work_folder import UNFINISHED_SOURCES, WORK, exclusive, remove_work
from indexing.written_items import (
    WrittenItems,
    exclusive_writes,
    left_out_items,
    source_items,
    with_written_items,
)
from indexing.written_rows import opened_log, release_held
from lookalike.bootstrap import EngineOptions, load_encoder
from lookalike.collection import VERSIONS, Collection, open_version, replace_text
from lookalike.disk_errors import translated_disk_errors
from lookalike.encoders.lite.editions import is_first_edition
from lookalike.encoders.protocol import Encoder
from lookalike.errors import SourceError
from lookalike.images import DEFAULT_MAX_PIXELS
from lookalike.manifest import FORMAT_VERSION, Manifest
from lookalike.object_storage import is_object_url
from lookalike.source_places import SOURCES_FILE, source_places_text
from lookalike.sources.item import ColumnNames, Source
from lookalike.sources.registry import open_sources
from lookalike.sources.scan_report import ScanReport, no_images
from lookalike.stores.registry import EXACT_BELOW, is_lost, require_usable_store, resolve_kind
from lookalike.writes.log import WriteLog

DEFAULT_ENCODER = "lite"
_MIN_BUCKET_WORKERS = 16
"""Threads that read from a bucket: they wait for its server most of the time."""
_MIN_READABLE_SHARE = 0.8
"""Assumed share of readable images among those that the sources list."""


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Settings of the job.

    Attributes:
        sources: folders, tars, Parquet files, or patterns of them, on a local disk or as `s3://BUCKET/KEY`; `NAME=PATH`
            prefixes the ids with `NAME/`.
        out: the collection's folder.
        encoder: its name; None for the collection's own, or DEFAULT_ENCODER for a new one.
        store: a registered kind, a preset of `faiss`, or `auto`.
        batch_size: images per call of the encoder; None for 32 on a CPU, 256 on a GPU.
        workers: threads that read and decode; None for one per core, from a bucket at least 16.
        columns: names of a table's columns.
        max_pixels: width x height above which an image is rejected.
        engine_options: how the encoder runs.
        budget: limits of the index.
        replace: whether to replace the collection even if the sources hold none of its images.
        verify_content: whether to read all files, and encode those whose content is not what was encoded.
        allow_dropping: whether more than a tenth of the collection's images may be removed.
        exclude: patterns of files and folders to leave out of folders, in gitignore syntax.
        shards: `s3://BUCKET/PATH` of the encoded images until the version is published; None for the collection's work
            folder.
        cluster: the Ray cluster that encodes; None to encode in this process.
    """

    sources: tuple[str, ...]
    out: Path
    encoder: str | None = None
    store: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    columns: ColumnNames = field(default_factory=ColumnNames)
    max_pixels: int = DEFAULT_MAX_PIXELS
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    budget: IndexBudget = field(default_factory=IndexBudget)
    replace: bool = False
    verify_content: bool = False
    allow_dropping: bool = False
    exclude: tuple[str, ...] = ()
    shards: str | None = None
    cluster: ClusterSettings | None = None


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """Result of the job.

    Attributes:
        collection: the folder.
        version: the current version's name.
        unchanged: True if nothing changed, so that no version was written.
        encoder: name of the encoder.
        text: whether the encoder takes texts.
        replaced_encoder: name of the previous version's encoder, and its edition where this release has a later one, if
            it was another encoder; else None.
        engine: engine, precision and device of the encoder; on a cluster, of all its encoders.
        images_by_machine: how many images each machine of the cluster has encoded; empty without a cluster.
        store: kind of the store.
        seen: items and skipped files of the sources; seen = indexed + rejected + skipped.
        indexed: rows of the version.
        rejected: items in `rejected.parquet`.
        rejected_by_code: error code -> count.
        truncated: indexed images whose end is missing, which were read as far as they go.
        skipped: files in folders that are no images.
        skipped_by_extension: extension in lower case -> count; `""` for files without a usual extension.
        excluded: files and folders that a pattern excluded; they are not seen, nor is what is below such a folder.
        excluded_by_pattern: pattern -> count.
        left_out_columns: column of a table that is no metadata, such as a second image -> what it holds.
        unlisted_folders: folders that can't be listed or entered.
        unread_files: tars and Parquet files that can't be read now; damaged ones are rejected items instead.
        kept: indexed images of the previous version whose file, folder, tar or table can't be reached now.
        encoded: images encoded in this run.
        reused: indexed images that were encoded before.
        recognised: reused images that had another name, source or time before, or came back.
        verified: images whose content was compared and is what was encoded.
        edited: images whose content was compared and is another.
        dropped: rows of the previous version whose images are no longer in the sources, under another name neither.
        written: indexed items that writes made, which no source provides; they are neither encoded nor reused.
        left_out_written: items of the sources that are left out, since a write put or deleted them; they are not seen.
        seconds: of the whole run.
        encode_seconds: of decoding and encoding.
        images_per_second: decoded and encoded, after the first batch, in which the model is compiled.
        encoder_waited_seconds: seconds of encode_seconds in which the encoder had no batch.
        recall: the manifest's report, without the sweep of parameters.
    """

    collection: str
    version: str
    unchanged: bool
    encoder: str
    text: bool
    replaced_encoder: str | None
    engine: str
    images_by_machine: dict[str, int]
    store: str
    seen: int
    indexed: int
    rejected: int
    rejected_by_code: dict[str, int]
    truncated: int
    skipped: int
    skipped_by_extension: dict[str, int]
    excluded: int
    excluded_by_pattern: dict[str, int]
    left_out_columns: dict[str, str]
    unlisted_folders: list[str]
    unread_files: list[str]
    kept: int
    encoded: int
    reused: int
    recognised: int
    verified: int
    edited: int
    dropped: int
    written: int
    left_out_written: int
    seconds: float
    encode_seconds: float
    images_per_second: float
    encoder_waited_seconds: float
    recall: dict[str, Any]


def run_index(settings: IndexSettings, progress: Progress | None = None) -> IndexSummary:
    """Index the sources into the collection, unless nothing has changed.

    Raises:
        SourceError: a source can't be read at all, nothing could be indexed, too many of the collection's images would
            be removed, a pattern is invalid, or the disk is full.
        BucketUnavailable: a bucket can't be reached; what was encoded is kept.
        CollectionBusy: another job writes to the collection.
        EncoderMismatch: another encoder made the vectors of items that writes made.
        WritesDamaged: the log of writes does not fit the current version.
        EncoderError: the encoder can't be loaded, or failed; what was encoded is kept.
        StoreError: the store can't be built, or no index fits the budget.
        ClusterUnavailable: the cluster can't be used.
        ExtraMissing: a package for buckets or clusters is not installed.
    """
    begun = time.perf_counter()
    _check_store(settings)
    with connected(settings.cluster) if settings.cluster else nullcontext():
        return _index(settings, progress, begun)


def _index(settings: IndexSettings, progress: Progress | None, begun: float) -> IndexSummary:
    sources = open_sources(settings.sources, settings.columns, settings.exclude)
    with translated_disk_errors(settings.out), exclusive(settings.out), progress or Progress(quiet=True) as reporter:
        previous = open_previous(settings.out)
        with opened_log(settings.out, previous.manifest if previous else None) as log:
            return _index_over(settings, sources, previous, log, reporter, begun)


def _index_over(
    settings: IndexSettings,
    sources: Sequence[Source],
    previous: Collection | None,
    log: WriteLog | None,
    reporter: Progress,
    begun: float,
) -> IndexSummary:
    """Index the sources over the previous version and what was written to it."""
    encoder = load_encoder(_encoder_name(settings, previous), _engine_options(settings))
    with exclusive_writes(settings.out, previous, log, encoder.spec):
        work = settings.out / WORK / _digest(encoder.spec.identity)
        storage = shard_storage(work, settings.shards)
        run = _encode(settings, sources, encoder, previous, log, work, storage, reporter)
        plan, stats = run.plan, run.stats
        inputs = _digest(FORMAT_VERSION, plan.digest, encoder.spec.identity, _version_settings(settings))
        embeddings = [run.shards(), *run.reusable]
        change = _change(previous, run, embeddings, encoder)
        written: WrittenItems | None = None
        # An image that could not be read last time may have been encoded now, although the inputs are the same.
        if previous is not None and previous.manifest.inputs == inputs and not stats.changed and not _is_lost(previous):
            _record_places(settings, sources)
            manifest, unchanged = previous.manifest, True
        else:
            _check_dropping(settings, previous, change.dropped, run)
            _record_places(settings, sources)  # before the version, which a service may open at once
            reporter.phase("building the store")
            rows = RowStream(join_plan(plan, embeddings), plan.schema, plan.count, skipped=run.report.skipped.total())
            spec = BuildSpec(settings.store, settings.budget, settings.sources, inputs)
            with ExitStack() as moment:
                if log is not None:
                    rows, written = with_written_items(rows, log, previous, moment)
                    spec = replace(spec, writes=written.number)
                manifest, unchanged = build_version(settings.out, rows, encoder, spec, reporter.phase), False
            if log is not None:
                release_held(settings.out, log, manifest.writes)
        storage.remove()
        remove_work(work)
        return _summary(settings, manifest, encoder, run, change, written, unchanged, time.perf_counter() - begun)


def _record_places(settings: IndexSettings, sources: Sequence[Source]) -> None:
    """Record where the sources lie now."""
    for unfinished in settings.out.glob(UNFINISHED_SOURCES):
        unfinished.unlink(missing_ok=True)
    replace_text(settings.out / SOURCES_FILE, source_places_text(sources))


def _is_lost(version: Collection) -> bool:
    """Return whether the store of an unchanged version must be built again."""
    store = version.manifest.store
    return is_lost(store.kind, version.folder, version.vectors, store.params)


def _check_store(settings: IndexSettings) -> None:
    """Fail before hours of encoding on a store that is mistyped, away, or of others, or that supports no limit."""
    resolve_kind(settings.store, 0)
    require_usable_store(settings.store, settings.out / VERSIONS)
    if settings.budget.needs_trials:
        candidates(settings.store, EXACT_BELOW)


@dataclass(frozen=True, slots=True)
class _Change:
    """What the new version no longer has.

    Attributes:
        replaced_encoder: as in `IndexSummary`.
        dropped: rows of the previous version whose images are no longer in the sources.
    """

    replaced_encoder: str | None
    dropped: int


def _change(
    previous: Collection | None, run: _Run, embeddings: Sequence[ReusableEmbeddings], encoder: Encoder
) -> _Change:
    if previous is None:
        return _Change(None, 0)
    before = previous.manifest.encoder
    edition = " (first edition)" if is_first_edition(before.weights) else ""
    replaced = f"{before.name}{edition}" if before.identity != encoder.spec.identity else None
    arrived = [place.content_hashes() for place in embeddings if isinstance(place, ShardPool)]
    return _Change(replaced, count_dropped(previous, run.plan, np.concatenate(arrived), run.left_out.hashes))


def _check_dropping(settings: IndexSettings, previous: Collection | None, dropped: int, run: _Run) -> None:
    """Refuse to replace all images of a collection, or to remove many, which are most often mistakes."""
    if previous is None:
        return
    before = source_items(previous, run.left_out)
    if dropped and dropped == before:
        if settings.replace:
            return
        if previous.manifest.sources != list(settings.sources):
            raise SourceError(
                f"{settings.out} holds {dropped:,} images from {', '.join(previous.manifest.sources)}, and none of "
                f"them is in {', '.join(settings.sources)}: name all sources together to add to it, another --out to "
                "keep it, or --replace to put these in its place"
            )
    if not settings.allow_dropping:
        lost = dropped + count_newly_rejected(previous, run.plan, run.shards(), run.shards(rejected=False))
        require_few_dropped(settings.out, settings.sources, before, lost)


def _engine_options(settings: IndexSettings) -> EngineOptions:
    """Return how the encoder of this process runs: if a cluster encodes, GPUs are left to its workers."""
    return EngineOptions("cpu") if settings.cluster else settings.engine_options


def _encoder_name(settings: IndexSettings, previous: Collection | None) -> str:
    return settings.encoder or (previous.manifest.encoder.name if previous else DEFAULT_ENCODER)


@dataclass(frozen=True, slots=True)
class _Run:
    """Result of reading the sources.

    Attributes:
        plan: all items.
        stats: of the encoding.
        runner: has encoded.
        reusable: embeddings that existed before: those of a stopped run and of the previous version.
        storage: of the shards.
        first_shard: number of the first shard of this run.
        report: what the sources hold besides items.
        kept: images of the previous version that can't be reached now.
        left_out: images that a write put or deleted before they were read.
    """

    plan: Plan
    stats: EncodeStats
    runner: EncodeRunner
    reusable: list[ReusableEmbeddings]
    storage: ShardStorage
    first_shard: int
    report: ScanReport
    kept: int
    left_out: LeftOutItems

    def shards(self, *, rejected: bool = True) -> ShardPool:
        """Return the images that were read in this run."""
        return ShardPool(self.storage, rejected=rejected, first=self.first_shard)


def _encode(
    settings: IndexSettings,
    sources: Sequence[Source],
    encoder: Encoder,
    previous: Collection | None,
    log: WriteLog | None,
    work: Path,
    storage: ShardStorage,
    progress: Progress,
) -> _Run:
    """Encode what neither the previous version nor a stopped run holds."""
    copied = reusable_version(previous, encoder.spec) if previous else None
    options, expected = _encode_options(settings), _expected(sources)
    if settings.budget.memory is not None and expected:
        presets = candidates(settings.store, expected)  # an index that is too large is refused before encoding
        require_possible(presets, expected, encoder.spec.dim, settings.budget, _MIN_READABLE_SHARE)
    left_out = left_out_items(log)
    _check_expected(settings, sources, previous, left_out, expected)
    kept = KeptItems(previous if copied else None, left_out)
    stopped = ShardPool(storage, rejected=False)  # comes first: it is newer than any version of this encoder
    reusable: list[ReusableEmbeddings] = [stopped, *([copied] if copied else [])]
    contents = ContentIndex([*reusable, *older_versions(settings.out, encoder.spec)])
    runner = _runner(settings, encoder, contents, options, expected)
    with ShardWriter(storage, runner.max_shard_seconds) as shards:
        progress.begin(expected)
        writer = PlanWriter(work / "plan")
        plan, stats = encode_sources(sources, reusable, kept, left_out, runner, writer, shards, options, progress)
        stats.resumed = len(stopped)
    report = ScanReport()
    for source in sources:
        report.add(source.report)
    if not (plan.count or left_out.count):
        raise SourceError(no_images(settings.sources, report))
    return _Run(plan, stats, runner, reusable, storage, shards.first, report, kept.count, left_out)


def _check_expected(
    settings: IndexSettings,
    sources: Sequence[Source],
    previous: Collection | None,
    left_out: LeftOutItems,
    expected: int | None,
) -> None:
    """Refuse before hours of encoding if the same sources can't hold as many images as before."""
    certain = expected and all(map(_count_is_certain, sources))
    if previous is None or previous.manifest.sources != list(settings.sources):
        return
    if expected and certain and not (settings.allow_dropping or settings.replace):
        before = source_items(previous, left_out)
        require_few_dropped(settings.out, settings.sources, before, before - expected)


def _count_is_certain(source: Source) -> bool:
    return source.count_is_maximum and not source.report.unlisted and not source.report.unread


def _expected(sources: Sequence[Source]) -> int | None:
    """Return the number of images that the sources list, None if one can't tell."""
    total = 0
    for source in sources:
        count = source.estimated_count()
        if count is None:
            return None
        total += count
    return total


def _runner(
    settings: IndexSettings, encoder: Encoder, contents: ContentIndex, options: EncodeOptions, expected: int | None
) -> EncodeRunner:
    if settings.cluster is not None:
        from indexing.ingest.ray_runner.runner import RayRunner  # imports Ray

        gpus = settings.cluster.gpus_per_worker
        return RayRunner(encoder, contents, options, settings.engine_options, gpus, expected)
    decoder = Decoder(encoder, options.max_pixels, contents)
    return LocalRunner(decoder, encoder, options)


def _encode_options(settings: IndexSettings) -> EncodeOptions:
    return EncodeOptions(
        batch_size=settings.batch_size,
        workers=settings.workers,
        min_workers=_MIN_BUCKET_WORKERS if _reads_bucket(settings) else 1,
        max_pixels=settings.max_pixels,
        verify_content=settings.verify_content,
    )


def _reads_bucket(settings: IndexSettings) -> bool:
    return any(is_object_url(source.rpartition("=")[2]) or is_object_url(source) for source in settings.sources)


def _version_settings(settings: IndexSettings) -> dict[str, Any]:
    """Return the settings that decide a version's content; the pixel limit is in every fingerprint."""
    limits = {name: value for name, value in asdict(settings.budget).items() if value not in (None, False)}
    return {"store": settings.store, **limits, "columns": asdict(settings.columns)}


def _written_count(root: Path, manifest: Manifest) -> int:
    """Return the number of a version's items that writes made: they have no source."""
    if not manifest.writes:
        return 0
    return int(open_version(root, manifest.version, verify=False).metadata.column("source").null_count)


def _digest(*parts: object) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _summary(
    settings: IndexSettings,
    manifest: Manifest,
    encoder: Encoder,
    run: _Run,
    change: _Change,
    written: WrittenItems | None,
    unchanged: bool,
    seconds: float,
) -> IndexSummary:
    stats, counts, skipped = run.stats, manifest.counts, run.report.skipped.total()
    left_out_later = written.left_out if written is not None else 0
    own = written.count if written is not None else _written_count(settings.out, manifest)
    return IndexSummary(
        collection=str(settings.out),
        version=manifest.version,
        unchanged=unchanged,
        encoder=manifest.encoder.name,
        text=encoder.spec.text,
        replaced_encoder=change.replaced_encoder,
        engine=run.runner.engine or engine_of(encoder),
        images_by_machine=dict(sorted(run.runner.images_by_machine.items())),
        store=manifest.store.kind,
        seen=counts.indexed + counts.rejected + skipped,  # of this scan: it may differ where no version was written
        indexed=counts.indexed,
        rejected=counts.rejected,
        rejected_by_code=rejected_codes(settings.out, manifest.version),
        truncated=truncated_count(settings.out, manifest.version),
        skipped=skipped,
        skipped_by_extension=dict(run.report.skipped.most_common()),
        excluded=run.report.excluded.total(),
        excluded_by_pattern=dict(run.report.excluded.most_common()),
        left_out_columns=run.report.left_out,
        unlisted_folders=run.report.unlisted,
        unread_files=run.report.unread,
        kept=run.kept,
        encoded=stats.encoded,
        reused=counts.indexed - own - stats.encoded,
        recognised=stats.recognised,
        verified=stats.verified,
        edited=stats.edited,
        dropped=change.dropped,
        written=own,
        left_out_written=run.left_out.count + left_out_later,
        seconds=round(seconds, 3),
        encode_seconds=round(stats.seconds, 3),
        images_per_second=round(stats.images_per_second, 1),
        encoder_waited_seconds=round(stats.encoder_idle_seconds, 3),
        recall={name: value for name, value in manifest.recall.items() if name != "sweep"},
    )
