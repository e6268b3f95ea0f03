"""Building and publishing of a version: row files, store, recall report, manifest, and `CURRENT` last.

All files are written into a staging folder, so readers see the previous version until the new one is complete.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow.parquet as pq

from indexing.build.budget import IndexBudget
from indexing.build.index_selection import build_chosen, build_within_budget
from indexing.build.preset_trials import ProgressCallback
from indexing.build.prompts import prompts
from indexing.build.query_sets import MIN_QUERIES, query_budget
from indexing.build.rows import RowCounts, write_rows
from indexing.row_stream import RowStream
from lookalike.collection import REJECTED, VECTORS, VERSIONS, new_version_name, publish, staging_folder
from lookalike.disk_errors import translated_disk_errors
from lookalike.errors import EncoderError, SourceError
from lookalike.manifest import FORMAT_VERSION, Counts, EncoderEntry, Manifest, StoreEntry
from lookalike.metadata import PARQUET_FILE
from lookalike.row_sample import write_sample
from lookalike.stores.registry import EXACT, TORCH_EXACT, discard_store, publish_store, resolve_kind
from lookalike.types import EncoderSpec, Float32

_TEXT_BATCH_SIZE = 256
_log = logging.getLogger(__name__)


class VersionEncoder(Protocol):
    """What a version needs of the encoder that made its vectors; an `Encoder` has it."""

    @property
    def spec(self) -> EncoderSpec:
        """The encoder's properties."""
        ...


@runtime_checkable
class EncodesTexts(Protocol):
    """Texts to vectors, with which the recall of text queries is measured."""

    def encode_texts(self, texts: Sequence[str], /) -> Float32:
        """Return the (n, d) vectors of n texts."""
        ...


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """Settings of a version.

    Attributes:
        store: a registered kind, a preset of `faiss`, or `auto`.
        budget: limits of the index.
        sources: the arguments, for the manifest.
        inputs: digest of everything that decides the version's content.
        writes: number of the last write that the version holds.
        chosen: the table of presets that were tried for an earlier version, whose choice is built; None to choose.
    """

    store: str
    budget: IndexBudget
    sources: tuple[str, ...]
    inputs: str
    writes: int = 0
    chosen: Mapping[str, Any] | None = None


def build_version(
    root: Path, rows: RowStream, encoder: VersionEncoder, spec: BuildSpec, on_progress: ProgressCallback | None = None
) -> Manifest:
    """Build and publish a version; `on_progress` is called with the name of each step.

    Raises:
        SourceError: nothing could be indexed; the previous version stays.
        StoreError: the store can't be built.
    """
    version = new_version_name()
    staging = staging_folder(root, version)
    store: StoreEntry | None = None
    try:
        with translated_disk_errors(root, rows.kept):  # inside the try, since the staging folder is removed below
            dim = encoder.spec.dim
            counts = write_rows(staging, rows.chunks, rows.schema, dim, is_complete=rows.is_complete)
            seen = rows.seen - counts.left_out
            _check_counts(seen, counts)
            write_sample(staging, np.load(staging / VECTORS, mmap_mode="r"))
            store, recall = _build_store(staging, encoder, counts, spec, on_progress)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=root.resolve().name,
            version=version,
            created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            lookalike=_release(),
            encoder=EncoderEntry.of(encoder.spec),
            store=store,
            counts=Counts(
                seen=seen + rows.skipped,
                indexed=counts.indexed,
                rejected=counts.rejected.total(),
                skipped=rows.skipped,
            ),
            recall=recall,
            sources=list(spec.sources),
            inputs=spec.inputs,
            writes=spec.writes,
        )
        publish_store(store.kind, store.params)
        publish(root, staging, manifest)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if store is not None:
            discard_store(store.kind, store.params)
        raise
    return manifest


def rejected_codes(root: Path, version: str) -> dict[str, int]:
    """Count the error codes of a version's `rejected.parquet`, the most frequent first."""
    table = pq.read_table(root / VERSIONS / version / REJECTED, columns=["code"])
    return dict(Counter(table.column("code").to_pylist()).most_common())


def truncated_count(root: Path, version: str) -> int:
    """Count a version's images that were read as far as they go; versions of earlier releases have none."""
    path = root / VERSIONS / version / PARQUET_FILE
    if "truncated" not in pq.read_schema(path).names:
        return 0
    column = pq.read_table(path, columns=["truncated"]).column("truncated")
    return int(len(column) - column.null_count)


def _release() -> str:
    try:
        return package_version("lookalike")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "unknown"


def _check_counts(seen: int, counts: RowCounts) -> None:
    """Check that every item was indexed or rejected, and that something was indexed."""
    if seen != counts.indexed + counts.rejected.total():
        raise SourceError(f"{seen} seen, but {counts.indexed} indexed and {counts.rejected.total()} rejected")
    if not seen:
        raise SourceError("the source holds no rows")
    if not counts.indexed:
        reasons = ", ".join(f"{count:,} {code}" for code, count in counts.rejected.most_common())
        raise SourceError(f"nothing could be indexed, {seen:,} rejected ({reasons}); the first: {counts.first_error}")


def _build_store(
    staging: Path, encoder: VersionEncoder, counts: RowCounts, spec: BuildSpec, on_progress: ProgressCallback | None
) -> tuple[StoreEntry, dict[str, Any]]:
    vectors = np.load(staging / VECTORS, mmap_mode="r")
    exact = not spec.budget.needs_trials and resolve_kind(spec.store, len(vectors)) in (EXACT, TORCH_EXACT)
    limit = query_budget(*vectors.shape, exact=exact)
    captions = [caption for caption in dict.fromkeys(counts.captions) if caption.strip()]
    queries = captions[:limit]
    if len(queries) < MIN_QUERIES and not exact:  # an exact store finds all, whatever the query
        queries += prompts(MIN_QUERIES - len(queries) if captions else limit)
    text = _encode_texts(encoder, queries)
    if spec.chosen is None:
        built = build_within_budget(vectors, staging, spec.store, spec.budget, text, on_progress)
    else:
        built = build_chosen(vectors, staging, spec.store, spec.chosen, spec.budget, text)
    origin = "prompts" if not captions else "captions" if len(queries) <= len(captions) else "captions and prompts"
    report = built.report if built.report["text"] is None else {**built.report, "texts": origin}
    return StoreEntry(kind=built.kind, params=built.params), report


def _encode_texts(encoder: VersionEncoder, texts: Sequence[str]) -> Float32 | None:
    """Encode texts, (m, d) of unit norm; None without texts or without a text tower."""
    if not (texts and encoder.spec.text and isinstance(encoder, EncodesTexts)):
        return None
    batches = [texts[i : i + _TEXT_BATCH_SIZE] for i in range(0, len(texts), _TEXT_BATCH_SIZE)]
    try:
        return np.concatenate([encoder.encode_texts(batch) for batch in batches])
    except EncoderError as error:  # the image vectors are valid: a report without texts beats losing hours of work
        _log.warning("recall on text queries is not measured: %s", error)
        return None
