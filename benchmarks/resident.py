"""How much memory a process holds, as the kernel counts it (Linux's /proc), in bytes.

*Anonymous* memory is the process's own and must stay; *file* pages are mapped files' (libraries, indexes, vectors),
clean, and can be taken back by the kernel at any time. Peaks are the kernel's high-water mark (VmHWM), which counts
both and starts at zero with the process, unlike `ru_maxrss`, which a child inherits from its parent; the peak of
anonymous memory alone has no such mark and is sampled from another process.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

MEGABYTE = 2**20
_EVERY_SECONDS = 0.01


@dataclass(frozen=True)
class Resident:
    """Bytes of memory that a process holds."""

    anonymous: int
    file: int

    def since(self, before: Resident) -> Resident:
        """The growth."""
        return Resident(self.anonymous - before.anonymous, self.file - before.file)


def resident(pid: int | str = "self") -> Resident:
    """What a process holds now.

    Raises:
        OSError: there is no such process any more, or no /proc.
    """
    status = _status(pid)
    return Resident(status["RssAnon"] + status["RssShmem"], status["RssFile"])


def peak_resident() -> int:
    """The most that this process ever held, mapped files included."""
    return _status("self")["VmHWM"]


def mapped(path: Path) -> int:
    """Bytes of a file that this process holds through its mappings of it."""
    held, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split(maxsplit=5)
        if not words[0].endswith(":"):  # a mapping's first line; its counters follow
            counts = len(words) == 6 and words[5] == str(path.resolve())
        elif counts and words[0] == "Rss:":
            held += 1024 * int(words[1])
    return held


class AnonymousPeak:
    """Watches another process: the largest anonymous memory since the watch began, or since `take`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._most = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> AnonymousPeak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def take(self) -> int:
        """Bytes; starts anew with what the process holds now."""
        with self._lock:
            now = self._held()
            most, self._most = max(self._most, now), now
        return most

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            with self._lock:
                self._most = max(self._most, self._held())

    def _held(self) -> int:
        try:
            return resident(self._pid).anonymous
        except (OSError, KeyError):  # it has ended; while nobody has waited for it, it has a status without counters
            return 0


def _status(pid: int | str) -> dict[str, int]:
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    sizes = (line.split() for line in lines if line.endswith(" kB"))
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in sizes}
