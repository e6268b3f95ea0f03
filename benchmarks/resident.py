"""Memory of a process in bytes, as the kernel counts it (Linux's /proc).

*Anonymous* memory is the process's own and must stay resident. *File* pages belong to mapped files (libraries, indexes,
vectors); they are clean, and the kernel can reclaim them at any time. Peaks are the kernel's high-water mark (VmHWM).
It counts both and starts at zero with the process, unlike `ru_maxrss`, which a child inherits from its parent. There is
no such mark for anonymous memory alone, so another process samples it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

MEGABYTE = 2**20
_INTERVAL_SECONDS = 0.01


@dataclass(frozen=True)
class Resident:
    """Resident memory of a process, bytes."""

    anonymous: int
    file: int

    def since(self, before: Resident) -> Resident:
        """Return the growth since an earlier measurement."""
        return Resident(self.anonymous - before.anonymous, self.file - before.file)


def resident(pid: int | str = "self") -> Resident:
    """Return the resident memory of a process.

    Raises:
        OSError: the process has ended, or there is no /proc.
    """
    status = _status(pid)
    return Resident(status["RssAnon"] + status["RssShmem"], status["RssFile"])


def peak_resident() -> int:
    """Return the peak resident memory of this process, with mapped files."""
    return _status("self")["VmHWM"]


def mapped(path: Path) -> int:
    """Return the resident bytes of this process's mappings of a file."""
    total, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split(maxsplit=5)
        if not words[0].endswith(":"):  # a mapping's first line; its counters follow
            counts = len(words) == 6 and words[5] == str(path.resolve())
        elif counts and words[0] == "Rss:":
            total += 1024 * int(words[1])
    return total


class AnonymousPeak:
    """Samples another process's peak of anonymous memory, since the start or the last `take`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> AnonymousPeak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def take(self) -> int:
        """Return the peak in bytes, and start again from the current value."""
        with self._lock:
            current = self._current()
            peak, self._peak = max(self._peak, current), current
        return peak

    def _sample(self) -> None:
        while not self._ended.wait(_INTERVAL_SECONDS):
            with self._lock:
                self._peak = max(self._peak, self._current())

    def _current(self) -> int:
        try:
            return resident(self._pid).anonymous
        except (OSError, KeyError):  # it has ended; a zombie has a status without counters
            return 0


def _status(pid: int | str) -> dict[str, int]:
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    sizes = (line.split() for line in lines if line.endswith(" kB"))
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in sizes}
