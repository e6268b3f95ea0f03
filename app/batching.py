"""The one thread that owns the device: every call of an encoder runs here, and the event loop never waits for it.

Routes hand over one prepared query and get one vector back, so that queries which arrive together can leave as one
batch without a change anywhere else. It knows nothing of HTTP or of collections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from retrieval.search import Searcher
from retrieval.stopwatch import Stopwatch
from retrieval.types import Float32, UInt8

T = TypeVar("T")


class Device:
    """Runs calls one after another on its own thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call()` on the device's thread; a call whose caller is gone by then is dropped."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def encode_image(self, searcher: Searcher, pixels: UInt8, watch: Stopwatch) -> Float32:
        """A preprocessed picture (3, S, S) -> (d,) of unit norm."""
        vectors = await self.run(lambda: searcher.encode_images(pixels[None], watch))
        return vectors.reshape(-1)

    async def encode_text(self, searcher: Searcher, text: str, watch: Stopwatch) -> Float32:
        """A prepared text -> (d,) of unit norm."""
        vectors = await self.run(lambda: searcher.encode_texts([text], watch))
        return vectors.reshape(-1)

    def close(self) -> None:
        """Lets the running call finish and drops the waiting ones."""
        self._thread.shutdown(wait=False, cancel_futures=True)
