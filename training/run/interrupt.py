"""Deferral of Ctrl-C and SIGTERM to the end of a step: resuming from half a step would give other losses."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DeferredInterrupt:
    """A context that holds a first signal back until `deliver`; a second signal is delivered immediately.

    Outside of the main thread, the only one that receives signals, it does nothing.
    """

    def __init__(self) -> None:
        self._old_handlers: dict[int, Any] = {}
        self._pending: int | None = None

    def __enter__(self) -> DeferredInterrupt:
        if threading.current_thread() is threading.main_thread():
            self._old_handlers = {number: signal.signal(number, self._defer) for number in _SIGNALS}
        return self

    def deliver(self) -> None:
        """Restore the old handlers and raise the pending signal again, if there is one."""
        if self._pending is not None:
            number, self._pending = self._pending, None
            self._restore()
            signal.raise_signal(number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if kind is None:
            self.deliver()

    def _defer(self, number: int, frame: FrameType | None) -> None:
        is_second, self._pending = self._pending is not None, number
        if is_second:
            self.deliver()

    def _restore(self) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers = {}
