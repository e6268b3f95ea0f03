"""A bounded cache of encoded responses that take long to build, such as a collection's map."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class EncodedResponse:
    """A body, and the ETag of it."""

    body: bytes
    etag: str


class ResponseCache:
    """Encoded responses of objects that do not change; safe to use from several threads.

    An entry is used as long as its object lives. The least recently used ones are dropped beyond 64 MiB.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, tuple[weakref.ref[Any], EncodedResponse]] = OrderedDict()

    def get(self, source: object, key: Hashable, build: Callable[[], bytes]) -> EncodedResponse:
        """Return the response of an object by a key, built if it is not there."""
        place = (id(source), key)
        with self._lock:
            reference, found = self._entries.get(place, (None, None))
            if found is not None and reference is not None and reference() is source:
                self._entries.move_to_end(place)
                return found
        body = build()
        made = EncodedResponse(body, f'"{blake2b(body, digest_size=12).hexdigest()}"')
        with self._lock:
            self._entries[place] = weakref.ref(source), made
            self._entries.move_to_end(place)
            self._drop()
        return made

    def _drop(self) -> None:
        """Drop responses of objects that are gone, then the oldest ones until the rest fits."""
        for place in [place for place, (reference, _) in self._entries.items() if reference() is None]:
            del self._entries[place]
        size = sum(len(made.body) for _, made in self._entries.values())
        while size > self._max_bytes:
            _, (_, dropped) = self._entries.popitem(last=False)
            size -= len(dropped.body)
