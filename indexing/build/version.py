"""Rows -> a published version: row files, store, recall report, manifest, and `CURRENT` last.

Everything is written into a staging folder, so a reader sees the version before until the new one is whole.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexing.build.budget import IndexBudget
from indexing.build.index_selection import Say, build_chosen
from indexing.build.prompts import prompts
from indexing.build.rows import Rows, write_rows
from indexing.build.tuning import FEWEST_QUERIES, query_budget
from indexing.ingest.join import Joined
from lookalike.collection import REJECTED, VECTORS, VERSIONS, new_version_name, publish, staging_folder
from lookalike.disk_errors import translated_disk_errors
from lookalike.encoders.protocol import Encoder, TextEncoder
from lookalike.errors import EncoderError, SourceError
from lookalike.manifest import FORMAT_VERSION, Counts, EncoderEntry, Manifest, StoreEntry
from lookalike.stores.registry import EXACT, TORCH_EXACT, resolve_kind
from lookalike.types import Float32

_TEXTS_AT_ONCE = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the version is to be.

    Attributes:
        store: a registered kind, a preset of `faiss`, or `auto`.
        budget: what the index may cost.
        sources: the arguments, for the manifest.
        inputs: digest of everything that decides the version's content.
    """

    store: str
    budget: IndexBudget
    sources: tuple[str, ...]
    inputs: str


@dataclass(frozen=True, slots=True)
class Content:
    """What the rows are made of.

    Attributes:
        chunks: in row order.
        schema: of the metadata, without what is measured on images.
        seen: items in all, those rejected included.
        kept: what becomes of the work where the disk is full, for the message.
    """

    chunks: Iterable[Joined]
    schema: pa.Schema
    seen: int
    kept: str = "what was encoded is kept"


def build_version(root: Path, content: Content, encoder: Encoder, wish: Wish, say: Say | None = None) -> Manifest:
    """Builds and publishes a version; `say` is called with what is being done.

    Raises:
        SourceError: nothing could be indexed; the version before stays.
        StoreError: the store can't be built.
    """
    version = new_version_name()
    staging = staging_folder(root, version)
    try:
        with translated_disk_errors(root, content.kept):  # in here, since what fills the disk is removed below
            rows = write_rows(staging, content.chunks, content.schema, encoder.spec.dim)
            _check_counts(content.seen, rows)
            store, recall = _build_store(staging, encoder, rows, wish, say)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=root.resolve().name,
            version=version,
            created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            lookalike=_release(),
            encoder=EncoderEntry.of(encoder.spec),
            store=store,
            counts=Counts(seen=content.seen, indexed=rows.indexed, rejected=rows.rejected.total()),
            recall=recall,
            sources=list(wish.sources),
            inputs=wish.inputs,
        )
        publish(root, staging, manifest)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return manifest


def rejected_codes(root: Path, version: str) -> dict[str, int]:
    """Error code -> count of a version's `rejected.parquet`, the most frequent first."""
    table = pq.read_table(root / VERSIONS / version / REJECTED, columns=["code"])
    return dict(Counter(table.column("code").to_pylist()).most_common())


def _release() -> str:
    try:
        return package_version("lookalike")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "unknown"


def _check_counts(seen: int, rows: Rows) -> None:
    """In = indexed + rejected, and something was indexed."""
    if seen != rows.indexed + rows.rejected.total():
        raise SourceError(f"{seen} seen, but {rows.indexed} indexed and {rows.rejected.total()} rejected")
    if not seen:
        raise SourceError("the source holds no rows")
    if not rows.indexed:
        reasons = ", ".join(f"{count:,} {code}" for code, count in rows.rejected.most_common())
        what = f"nothing could be indexed, {seen:,} rejected ({reasons})"
        raise SourceError(f"{what}; the first: {rows.example}")


def _build_store(
    staging: Path, encoder: Encoder, rows: Rows, wish: Wish, say: Say | None
) -> tuple[StoreEntry, dict[str, Any]]:
    vectors = np.load(staging / VECTORS, mmap_mode="r")
    exact = not wish.budget.tight and resolve_kind(wish.store, len(vectors)) in (EXACT, TORCH_EXACT)
    most = query_budget(*vectors.shape, exact=exact)
    captions = [caption for caption in dict.fromkeys(rows.captions) if caption.strip()]
    asked = captions[:most]
    if len(asked) < FEWEST_QUERIES and not exact:  # an exact store finds all, whatever is asked
        asked += prompts(FEWEST_QUERIES - len(asked) if captions else most)
    built = build_chosen(vectors, staging, wish.store, wish.budget, _encode_texts(encoder, asked), say)
    origin = "prompts" if not captions else "captions" if len(asked) <= len(captions) else "captions and prompts"
    report = built.report if built.report["text"] is None else {**built.report, "texts": origin}
    return StoreEntry(kind=built.kind, params=built.params), report


def _encode_texts(encoder: Encoder, texts: Sequence[str]) -> Float32 | None:
    """(m, d) unit vectors of the texts, None where there are none or the encoder has no text tower."""
    if not (texts and encoder.spec.text and isinstance(encoder, TextEncoder)):
        return None
    pieces = [texts[i : i + _TEXTS_AT_ONCE] for i in range(0, len(texts), _TEXTS_AT_ONCE)]
    try:
        return np.concatenate([encoder.encode_texts(piece) for piece in pieces])
    except EncoderError as error:  # the vectors are sound: a report without texts beats losing hours of work
        _log.warning("recall on text queries is not measured: %s", error)
        return None
