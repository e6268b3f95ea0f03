"""The indexing job from its arguments to its summary: the order of the steps, and what survives when one fails.

Sources are looked at, the collection is locked, what is new is encoded; where anything changed, a version is built and
published, and the work folder goes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from indexing.build.budget import IndexBudget
from indexing.build.index_selection import candidates, require_possible
from indexing.build.version import Content, Wish, build_version, rejected_codes
from indexing.durable_files import WORK, clean_up, exclusive
from indexing.ingest.encoding import Budget, Effort, encode_sources
from indexing.ingest.join import joined
from indexing.ingest.previous_version import as_origin, gone, open_previous
from indexing.ingest.shards import Origin, ShardPool, ShardWriter
from indexing.plan import Plan, PlanWriter
from indexing.progress import Progress
from lookalike.bootstrap import EngineOptions, load_encoder
from lookalike.collection import Collection
from lookalike.disk_errors import translated_disk_errors
from lookalike.encoders.protocol import Encoder
from lookalike.errors import SourceError
from lookalike.images import DEFAULT_MAX_PIXELS
from lookalike.manifest import FORMAT_VERSION, Manifest
from lookalike.sources.item import ColumnNames, Source
from lookalike.sources.registry import open_sources
from lookalike.stores.registry import EXACT_BELOW, resolve_kind

DEFAULT_ENCODER = "lite"
_BATCH_SIZES = {"cpu": 32, "cuda": 256}
_LIKELY_SHARE = 0.8
"""Of the images that sources announce; the rest may turn out to be unreadable."""


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Every setting of the job.

    Attributes:
        sources: folders, tars, Parquet files, or patterns of them; `NAME=PATH` puts `NAME/` before the ids.
        out: the collection's folder.
        encoder: its name; None for the collection's own, or `lite` for a new one.
        store: a registered kind, a preset of `faiss`, or `auto`.
        batch_size: images a call of the encoder gets; None for 32 on a CPU, 256 on a GPU.
        workers: decode threads; None for one a core.
        columns: which columns of a table play a part.
        max_pixels: width x height above which an image is rejected.
        engine_options: how the encoder runs.
        budget: what the index may cost.
        replace: whether sources that hold none of the collection's images may take their place.
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


@dataclass(frozen=True, slots=True)
class Summary:
    """What the job did.

    Attributes:
        collection: the folder.
        version: the current version's name.
        unchanged: True where nothing was new, so that no version was written.
        encoder: name of the encoder.
        replaced_encoder: name of the encoder of the version before, where another made it; else None.
        engine: what ran it.
        store: kind of the store.
        seen: items in the sources; seen = indexed + rejected.
        indexed: rows of the version.
        rejected: items in `rejected.parquet`.
        rejected_by_code: error code -> count.
        encoded: images that went through the encoder in this run.
        reused: indexed images that did not.
        dropped: rows of the version before that are no longer in the sources.
        seconds: of the whole run.
        encode_seconds: of decoding and encoding.
        images_per_second: decoded and encoded, after the first batch, in which the model is compiled.
        encoder_waited_seconds: of encode_seconds, how long the encoder had no batch.
        recall: the manifest's report, without the parameters that were tried.
    """

    collection: str
    version: str
    unchanged: bool
    encoder: str
    replaced_encoder: str | None
    engine: str
    store: str
    seen: int
    indexed: int
    rejected: int
    rejected_by_code: dict[str, int]
    encoded: int
    reused: int
    dropped: int
    seconds: float
    encode_seconds: float
    images_per_second: float
    encoder_waited_seconds: float
    recall: dict[str, Any]


def run_index(settings: IndexSettings, progress: Progress | None = None) -> Summary:
    """Indexes the sources into the collection, or finds that nothing has changed.

    Raises:
        SourceError: a source can't be read at all, nothing could be indexed, the collection holds other images
            altogether, or the disk is full.
        CollectionBusy: another job writes to the collection.
        EncoderError: the encoder can't be loaded, or failed; what was encoded is kept.
        StoreError: the store can't be built, or no index keeps the budget.
    """
    begun = time.perf_counter()
    _require_sound(settings)
    sources = open_sources(settings.sources, settings.columns)
    with translated_disk_errors(settings.out), exclusive(settings.out), progress or Progress(quiet=True) as shown:
        previous = open_previous(settings.out)
        encoder = load_encoder(_encoder_name(settings, previous), settings.engine_options)
        work = settings.out / WORK / _digest(encoder.spec.identity)
        plan, effort, origins = _encode(settings, sources, encoder, previous, work, shown)
        inputs = _digest(FORMAT_VERSION, plan.digest, encoder.spec.identity, _choices(settings))
        change = _change(previous, plan, encoder)
        # An image that could not be read the last time may have been encoded now, from the very same input.
        if previous is not None and previous.manifest.inputs == inputs and not effort.encoded:
            manifest, unchanged = previous.manifest, True
        else:
            _allow_replacing(settings, previous, change.dropped)
            shown.phase("building the store")
            content = Content(joined(plan, origins), plan.schema, plan.count)
            wish = Wish(settings.store, settings.budget, settings.sources, inputs)
            manifest, unchanged = build_version(settings.out, content, encoder, wish, shown.phase), False
        clean_up(work)
        return _summary(settings, manifest, encoder, effort, change, unchanged, time.perf_counter() - begun)


def _require_sound(settings: IndexSettings) -> None:
    """A mistyped name, or a limit that a store does not keep, must not come to light after hours of encoding."""
    resolve_kind(settings.store, 0)
    if settings.budget.tight:
        candidates(settings.store, EXACT_BELOW)


@dataclass(frozen=True, slots=True)
class _Change:
    """What the version before had and the new one does not: its encoder's name, its rows."""

    encoder: str | None
    dropped: int


def _change(previous: Collection | None, plan: Plan, encoder: Encoder) -> _Change:
    if previous is None:
        return _Change(None, 0)
    before = previous.manifest.encoder
    return _Change(before.name if before.identity != encoder.spec.identity else None, gone(previous, plan))


def _allow_replacing(settings: IndexSettings, previous: Collection | None, dropped: int) -> None:
    """Another folder's images must not push out a collection by a slip of --out."""
    if settings.replace or previous is None or previous.manifest.sources == list(settings.sources):
        return
    if dropped == len(previous):
        raise SourceError(
            f"{settings.out} holds {dropped:,} images from {', '.join(previous.manifest.sources)}, and none of them "
            f"is in {', '.join(settings.sources)}: name all sources together to add to it, another --out to keep "
            "it, or --replace to put these in its place"
        )


def _encoder_name(settings: IndexSettings, previous: Collection | None) -> str:
    return settings.encoder or (previous.manifest.encoder.name if previous else DEFAULT_ENCODER)


def _encode(
    settings: IndexSettings,
    sources: Sequence[Source],
    encoder: Encoder,
    previous: Collection | None,
    work: Path,
    progress: Progress,
) -> tuple[Plan, Effort, list[Origin]]:
    """Encodes what neither the version before nor a run that was stopped has; returns where everything now lies."""
    copied = as_origin(previous, encoder.spec) if previous else None
    known: list[Origin] = [copied] if copied else []
    budget, expected = _budget(settings, encoder), _expected(sources)
    if settings.budget.memory is not None and expected:
        presets = candidates(settings.store, expected)  # an index that is too large is refused before encoding
        require_possible(presets, expected, encoder.spec.dim, settings.budget, _LIKELY_SHARE)
    with ShardWriter(work) as shards:
        progress.begin(expected)
        kept = [*known, ShardPool(work, rejected=False)]
        plan, effort = encode_sources(sources, kept, encoder, PlanWriter(work / "plan"), shards, budget, progress)
    if not plan.count:
        raise SourceError(f"no images were found in {', '.join(settings.sources)}")
    return plan, effort, [*known, ShardPool(work)]


def _expected(sources: Sequence[Source]) -> int | None:
    total = 0
    for source in sources:
        count = source.estimated_count()
        if count is None:
            return None
        total += count
    return total


def _budget(settings: IndexSettings, encoder: Encoder) -> Budget:
    return Budget(
        batch_size=settings.batch_size or _BATCH_SIZES.get(encoder.spec.device, _BATCH_SIZES["cpu"]),
        workers=settings.workers or len(os.sched_getaffinity(0)),
        max_pixels=settings.max_pixels,
    )


def _choices(settings: IndexSettings) -> dict[str, Any]:
    """What decides the version's content besides sources and encoder; the pixel limit is in every fingerprint."""
    limits = {name: value for name, value in asdict(settings.budget).items() if value not in (None, False)}
    return {"store": settings.store, **limits, "columns": asdict(settings.columns)}


def _digest(*parts: object) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _summary(
    settings: IndexSettings,
    manifest: Manifest,
    encoder: Encoder,
    effort: Effort,
    change: _Change,
    unchanged: bool,
    seconds: float,
) -> Summary:
    return Summary(
        collection=str(settings.out),
        version=manifest.version,
        unchanged=unchanged,
        encoder=manifest.encoder.name,
        replaced_encoder=change.encoder,
        engine=f"{encoder.spec.engine} {encoder.spec.precision} on {encoder.spec.device}",
        store=manifest.store.kind,
        **manifest.counts.model_dump(),
        rejected_by_code=rejected_codes(settings.out, manifest.version),
        encoded=effort.encoded,
        reused=manifest.counts.indexed - effort.encoded,
        dropped=change.dropped,
        seconds=round(seconds, 3),
        encode_seconds=round(effort.seconds, 3),
        images_per_second=round(effort.images_per_second, 1),
        encoder_waited_seconds=round(effort.waited, 3),
        recall={name: value for name, value in manifest.recall.items() if name != "sweep"},
    )
