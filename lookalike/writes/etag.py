"""The ETag of an item (RFC 9110, section 8.8.3): it changes with the item's metadata or vector, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lookalike.types import Float16

_BYTES = 12


def etag(record: Mapping[str, Any], vector: Float16) -> str:
    """Return the quoted tag of an item, from its JSON-ready record and its (d,) stored vector.

    A whole number has one form: whether it is written as 3, 3.0 or "3" depends on the other items of its column.
    """
    text = json.dumps(_canonical(record), sort_keys=True, default=str)
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=_BYTES)
    digest.update(vector.tobytes())
    return f'"{digest.hexdigest()}"'


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _canonical(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
