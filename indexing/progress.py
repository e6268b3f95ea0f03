"""Progress of a job on stderr: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Never, TextIO

from tqdm import tqdm

_LOG_INTERVAL_SECONDS = 10.0


class Progress:
    """Counts images, or other inputs, from several threads and shows rate and remaining time on stderr.

    Args:
        stream: for the output; stderr if None.
        quiet: count only, without output.
        unit: what is counted, in the plural.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False, unit: str = "images") -> None:
        self._unit = unit
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._lock = threading.Lock()
        self._bar: tqdm[Never] | None = None
        self._total: int | None = None
        self._begun = self._logged = time.monotonic()
        self._worked = self._first_batch = 0
        self.done = self.rejected = self.encoded = 0

    def begin(self, total: int | None) -> None:
        """Start the clock; `total` is the approximate number of images, None if unknown."""
        self._total = total
        self._begun = self._logged = time.monotonic()
        if not self._quiet and self._stream.isatty():
            self._bar = tqdm(
                total=total, unit=f" {self._unit}", file=self._stream, dynamic_ncols=True, mininterval=0.25
            )

    def add(self, *, encoded: int = 0, rejected: int = 0, reused: int = 0, compared: int = 0) -> None:
        """Count finished images.

        Args:
            encoded: images that were encoded.
            rejected: images that could not be.
            reused: images that needed no reading.
            compared: images that were read, and whose content was encoded before.
        """
        with self._lock:
            worked = encoded + compared
            if worked and not self._worked:  # the first batch includes compiling the model: rates begin after it
                self._begun, self._first_batch = time.monotonic(), worked
            self._worked += worked
            self.encoded += encoded
            self.rejected += rejected
            self.done += worked + rejected + reused
            if self._bar is not None:
                self._advance(self._bar)
            elif not self._quiet and time.monotonic() - self._logged >= _LOG_INTERVAL_SECONDS:
                self._log()

    def phase(self, name: str) -> None:
        """Print the name of a step that follows the last image."""
        self.close()
        if not self._quiet:
            print(f"{name} ...", file=self._stream, flush=True)

    def close(self) -> None:
        """Close the bar; further calls do nothing."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _advance(self, bar: tqdm[Never]) -> None:
        if bar.total is not None and self.done > bar.total:
            bar.total = None  # the estimate was too low: no remaining time rather than a wrong one
        if self.rejected:
            bar.set_postfix_str(f"{self.rejected:,} rejected", refresh=False)
        bar.update(self.done - bar.n)

    def _log(self) -> None:
        self._logged = time.monotonic()
        counted = self._worked - self._first_batch if self._worked else self.done  # an import encodes nothing
        rate = counted / max(self._logged - self._begun, 1e-9)
        total = f" of about {self._total:,}" if self._total else ""
        parts = [f"{self.done:,}{total} {self._unit}", f"{rate:.1f}/s"]
        if self._total and rate > 0 and self._total > self.done:
            parts.append(f"{_duration((self._total - self.done) / rate)} left")
        if self.rejected:
            parts.append(f"{self.rejected:,} rejected")
        print(", ".join(parts), file=self._stream, flush=True)


def _duration(seconds: float) -> str:
    """Format hours, minutes and seconds.

    >>> _duration(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
