"""Checks that a run does not remove many images by mistake: a drive that is missing, another source, a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indexing.ingest.reusable_embeddings import ReusableEmbeddings
from indexing.plan import Plan
from lookalike.collection import Collection
from lookalike.errors import SourceError
from lookalike.metadata import IDS_FILE

MIN_DROPPED = 20
MAX_DROPPED_SHARE = 0.1
"""A run that removes at least MIN_DROPPED items and more than this share of the collection must be allowed to."""


def require_few_dropped(out: Path, sources: Sequence[str], before: int, dropped: int) -> None:
    """Refuse to remove many items.

    Args:
        out: the collection.
        sources: as they were named.
        before: items of the previous version.
        dropped: how many of these the new version would not have, at least.

    Raises:
        SourceError: too many; names the option that allows it.
    """
    if dropped >= MIN_DROPPED and dropped > before * MAX_DROPPED_SHARE:
        raise SourceError(
            f"{dropped:,} of the {before:,} images in {out} would be removed, since they are not in "
            f"{', '.join(sources)} or can't be read now: check that every drive is mounted, every source named and no "
            "pattern too wide, or give --allow-dropping to remove them"
        )


def count_newly_rejected(
    previous: Collection, plan: Plan, outcomes: ReusableEmbeddings, encoded: ReusableEmbeddings
) -> int:
    """Return how many of the previous version's items could not be read in this run.

    Args:
        previous: the version.
        plan: of this run.
        outcomes: of all images that this run read, rejected ones included.
        encoded: the same without rejected ones.
    """
    before, _ = np.load(previous.folder / IDS_FILE, mmap_mode="r")
    count = 0
    for control, _ in plan.chunks():
        accepted = control.filter(control.column("_code").is_null())  # others have the id of another item
        hashes, fingerprints = (accepted.column(name).to_numpy() for name in ("_id_hash", "_fingerprint"))
        rejected = (outcomes.find(hashes, fingerprints) >= 0) & (encoded.find(hashes, fingerprints) < 0)
        count += int(np.isin(hashes[rejected], before).sum())
    return count
