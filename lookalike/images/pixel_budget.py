"""A bound on the decoded pixels that the threads of a process hold together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelBudget:
    """A fair counting semaphore over pixels.

    Pillow takes 4 to 16 bytes a pixel: eight threads with an image of the largest size each would take 9 GB.
    """

    def __init__(self, pixels: int) -> None:
        self._total = self._free = pixels
        self._changed = threading.Condition()
        self._queue = threading.Lock()  # first come, first served: small images must not starve a large one

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Wait until so many pixels are free, and hold them; a request beyond the budget takes all of it."""
        reserved = min(pixels, self._total)
        with self._queue, self._changed:
            self._changed.wait_for(lambda: self._free >= reserved)
            self._free -= reserved
        try:
            yield
        finally:
            with self._changed:
                self._free += reserved
                self._changed.notify_all()
