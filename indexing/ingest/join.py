"""The plan joined with the embeddings: for each chunk of the plan, the encoded and the rejected items.

Dimension letters: m items of a chunk, d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexing.ingest.reusable_embeddings import ReusableEmbeddings
from indexing.metadata_tables import conform
from indexing.plan import Plan
from indexing.row_stream import ENCODED_SCHEMA, REJECTED_SCHEMA, RowChunk
from lookalike.errors import SourceError
from lookalike.types import Bool, Int64, UInt64


def join_plan(plan: Plan, embeddings: Sequence[ReusableEmbeddings]) -> Iterator[RowChunk]:
    """Yield the plan's chunks in order; memory holds one of them."""
    for control, metadata in plan.chunks():
        refused = control.column("_code").is_valid().to_numpy()
        id_hashes, fingerprints = (control.column(name).to_numpy() for name in ("_id_hash", "_fingerprint"))
        outcomes = _outcomes(embeddings, id_hashes, fingerprints, refused)
        bad = outcomes.column("code").is_valid().to_numpy() | refused
        good = pa.array(~bad)
        rejected = metadata.filter(bad)
        for name in ("code", "message"):
            reason = pc.coalesce(control.column(f"_{name}"), outcomes.column(name)).filter(bad)
            rejected = rejected.append_column(f"_{name}", reason)
        yield RowChunk(outcomes.filter(good), metadata.filter(good), _rejected(rejected))


def _outcomes(
    embeddings: Sequence[ReusableEmbeddings], id_hashes: UInt64, fingerprints: UInt64, refused: Bool
) -> pa.Table:
    """Return (m, columns of ENCODED_SCHEMA): null rows for items refused by the plan, else what was encoded."""
    missing = np.flatnonzero(~refused)
    places: list[Int64] = [np.flatnonzero(refused)]
    pieces = [_null_rows(len(places[0]))]
    for known in embeddings:
        rows = known.find(id_hashes[missing], fingerprints[missing])
        hit = rows >= 0
        pieces.append(known.take(rows[hit]))
        places.append(missing[hit])
        missing = missing[~hit]
    if len(missing):
        raise SourceError(f"{len(missing)} encoded images vanished from the work folder; run the same command again")
    table = pa.concat_tables(pieces).take(np.argsort(np.concatenate(places)))
    identities = [pa.array(id_hashes), pa.array(fingerprints)]
    return pa.table([*identities, *table.columns[2:]], schema=ENCODED_SCHEMA)


def _null_rows(count: int) -> pa.Table:
    return pa.table([pa.nulls(count, field.type) for field in ENCODED_SCHEMA], schema=ENCODED_SCHEMA)


def _rejected(items: pa.Table) -> pa.Table:
    """Return the columns of REJECTED_SCHEMA; `_code` is the reason's, `code` may be a source's own column."""
    plain = items.select([name for name in ("id", "source", "path") if name in items.column_names])
    reasons = {name: items.column(f"_{name}") for name in ("code", "message")}
    for name, column in reasons.items():
        plain = plain.append_column(name, column)
    return conform(plain, REJECTED_SCHEMA)
