"""Ctrl-C and SIGTERM wait for the end of a step: half a step saved would resume to another curve of losses."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class HeldBack:
    """A context in which a first signal is only noted, for `deliver` to answer; a second one is answered at once.

    Outside the main thread, which alone gets signals, it does nothing.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._arrived: int | None = None

    def __enter__(self) -> HeldBack:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def deliver(self) -> None:
        """Answers what has arrived as it would have been answered outside; ours no longer stand in the way then."""
        if self._arrived is not None:
            number, self._arrived = self._arrived, None
            self._restore()
            signal.raise_signal(number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if kind is None:
            self.deliver()

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self._arrived = self._arrived is not None, number
        if again:
            self.deliver()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
