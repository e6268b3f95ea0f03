"""Plan and origins put together again: for each chunk of the plan, what was encoded and what was refused.

Dimension letters: m items of a chunk, d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexing.build.tables import conformed
from indexing.ingest.shards import SCHEMA, Origin
from indexing.plan import Plan
from lookalike.errors import SourceError
from lookalike.types import Bool, Int64, UInt64


@dataclass(frozen=True, slots=True)
class Joined:
    """One chunk of the plan.

    Attributes:
        kept: (rows, columns of `indexing.ingest.shards.SCHEMA`) of the items that were encoded, in order.
        metadata: their metadata, as the sources gave it.
        rejected: columns id, source, path, code, message of the items that were not.
    """

    kept: pa.Table
    metadata: pa.Table
    rejected: pa.Table


REJECTED_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "source", "path", "code", "message")])


def joined(plan: Plan, origins: Sequence[Origin]) -> Iterator[Joined]:
    """The plan's chunks in order; memory holds one of them."""
    for control, metadata in plan.chunks():
        refused = control.column("_code").is_valid().to_numpy()
        id_hashes, fingerprints = (control.column(name).to_numpy() for name in ("_id_hash", "_fingerprint"))
        outcomes = _outcomes(origins, id_hashes, fingerprints, refused)
        bad = outcomes.column("code").is_valid().to_numpy() | refused
        good = pa.array(~bad)
        rejected = metadata.filter(bad)
        for name in ("code", "message"):
            reason = pc.coalesce(control.column(f"_{name}"), outcomes.column(name)).filter(bad)
            rejected = rejected.append_column(f"_{name}", reason)
        yield Joined(outcomes.filter(good), metadata.filter(good), _rejected(rejected))


def _outcomes(origins: Sequence[Origin], id_hashes: UInt64, fingerprints: UInt64, refused: Bool) -> pa.Table:
    """(m,) rows with the columns of SCHEMA: an empty one where an item was refused, else what an origin holds."""
    missing = np.flatnonzero(~refused)
    places: list[Int64] = [np.flatnonzero(refused)]
    pieces = [_nothing(len(places[0]))]
    for origin in origins:
        rows = origin.find(id_hashes[missing], fingerprints[missing])
        hit = rows >= 0
        pieces.append(origin.take(rows[hit]))
        places.append(missing[hit])
        missing = missing[~hit]
    if len(missing):
        raise SourceError(f"{len(missing)} encoded images vanished from the work folder; run the same command again")
    table = pa.concat_tables(pieces).take(np.argsort(np.concatenate(places)))
    identities = [pa.array(id_hashes), pa.array(fingerprints)]
    return pa.table([*identities, *table.columns[2:]], schema=SCHEMA)


def _nothing(count: int) -> pa.Table:
    return pa.table([pa.nulls(count, field.type) for field in SCHEMA], schema=SCHEMA)


def _rejected(items: pa.Table) -> pa.Table:
    """The job's own columns of refused items; a source's column may be called `code`, the reasons' are `_code`."""
    plain = items.select([name for name in ("id", "source", "path") if name in items.column_names])
    reasons = {name: items.column(f"_{name}") for name in ("code", "message")}
    for name, column in reasons.items():
        plain = plain.append_column(name, column)
    return conformed(plain, REJECTED_SCHEMA)
