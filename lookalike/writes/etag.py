"""The ETag of an item (RFC 9110, section 8.8.3): it changes with the item's metadata or vector, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lookalike.types import Float16

_BYTES = 12


def etag(record: Mapping[str, Any], vector: Float16) -> str:
    """Return the quoted tag of an item, from its JSON-ready record and its (d,) stored vector."""
    digest = hashlib.blake2b(
        json.dumps(record, sort_keys=True, default=str).encode("utf-8", "replace"), digest_size=_BYTES
    )
    digest.update(vector.tobytes())
    return f'"{digest.hexdigest()}"'
