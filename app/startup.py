"""Opening the collection behind an open port: /livez answers at once, /readyz when the first queries have passed.

The service holds one collection, or the reason why it could not be opened. It knows nothing of routes.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app.batching import Device
from app.errors import NotReady
from app.queries import ImageSide, Queries, TextSide
from app.settings import Settings
from retrieval.errors import LookalikeError
from retrieval.nearest import SearchOptions

logger = logging.getLogger(__name__)

# One grey pixel as a PNG: enough to walk every stage once.
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCB2kUIOwAAAABJRU5ErkJggg=="
)


class Service:
    """What the application holds from start to end.

    Attributes:
        settings: as given.
        failure: why the collection could not be opened, None while all is well.
        on_ready: called once when the first queries have passed.
        on_failure: called once when the collection could not be opened; logs it unless replaced.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failure: LookalikeError | None = None
        self.on_ready: Callable[[Queries], None] = lambda queries: None
        self.on_failure: Callable[[LookalikeError], None] = lambda error: logger.error("%s [%s]", error, error.code)
        self._device = Device()
        self._pool = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="work")
        self._queries: Queries | None = None

    @property
    def queries(self) -> Queries:
        """What answers queries.

        Raises:
            NotReady: the collection is still being opened, or could not be.
        """
        if self._queries is None:
            if self.failure is not None:
                raise NotReady(f"the collection could not be opened: {self.failure} [{self.failure.code}]")
            raise NotReady("the collection is being opened; try again in a moment")
        return self._queries

    async def start(self) -> None:
        """Opens and warms up; a failure is kept and told, not raised."""
        try:
            queries = await self._open()
        except LookalikeError as error:
            self._fail(error)
        except Exception as error:  # whatever it is, the service must say so instead of staying silently unready
            logger.exception("the collection could not be opened")
            self._fail(LookalikeError(f"{type(error).__name__}: {error}"))
        else:
            self._queries = queries
            self.on_ready(queries)

    def close(self) -> None:
        """Drops what waits; what runs may finish."""
        self._device.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _open(self) -> Queries:
        from retrieval.bootstrap import open_searcher  # torch, FAISS and Arrow: seconds that /livez need not wait for

        settings = self.settings
        searcher = await self._device.run(
            lambda: open_searcher(
                settings.collection,
                encoder=settings.encoder,
                device=settings.device,
                engine=settings.engine,
                store_device=settings.store_device,
                verify=settings.verify,
                limits=settings.limits(),
            )
        )
        queries = Queries(searcher, self._device, self._pool)
        await queries.search(ImageSide(_PIXEL), SearchOptions(limit=1))
        if searcher.encoder.spec.text:
            await queries.search(TextSide("a photograph"), SearchOptions(limit=1))
        return queries

    def _fail(self, error: LookalikeError) -> None:
        self.failure = error
        self.on_failure(error)
