"""Limits of an index (resident memory, recall, latency), and sizes and times as users write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import ByteSize, TypeAdapter, ValidationError

from lookalike.errors import ConfigInvalid

_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_TIME = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zµ]+)\s*")


@dataclass(frozen=True, slots=True)
class IndexBudget:
    """Limits that an index must keep.

    Attributes:
        recall: minimum ann_recall_at_10, of image queries and of text queries, in (0, 1].
        memory: maximum bytes of the index that are resident while it is searched; None for no limit.
        latency: maximum median milliseconds of one query, search and re-ranking together; None for no limit.
        explain: whether to try all presets even without a limit of memory or latency.
    """

    recall: float = 0.95
    memory: int | None = None
    latency: float | None = None
    explain: bool = False

    @property
    def needs_trials(self) -> bool:
        """Whether presets must be tried and compared."""
        return self.memory is not None or self.latency is not None or self.explain

    def __str__(self) -> str:
        parts = [f"recall {self.recall:g}"]
        parts += [f"{format_size(self.memory)} of memory"] if self.memory is not None else []
        parts += [f"{self.latency:g} ms a query"] if self.latency is not None else []
        return ", ".join(parts)


def parse_budget(recall: float, memory: str | None, latency: str | None, explain: bool) -> IndexBudget:
    """Return limits as users write them, such as `300MB` and `5ms`, as an `IndexBudget`.

    Raises:
        ConfigInvalid: `memory` is not a size, or `latency` not a time.
    """
    return IndexBudget(
        recall,
        None if memory is None else parse_memory(memory),
        None if latency is None else parse_latency(latency),
        explain,
    )


def parse_memory(text: str) -> int:
    """Parse a size in bytes; units as in `300MB` (10**6) and `300MiB` (2**20).

    Raises:
        ConfigInvalid: not a size above zero.

    >>> parse_memory("1.5 GB"), parse_memory("64MiB")
    (1500000000, 67108864)
    """
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size <= 0:
        raise ConfigInvalid(f"memory {text!r} is no size: write it as 300MB, 1.5GB or 512MiB")
    return size


def parse_latency(text: str) -> float:
    """Parse a time in milliseconds.

    Raises:
        ConfigInvalid: not a time above zero, or without a unit.

    >>> parse_latency("5ms"), parse_latency("0.5 s"), parse_latency("800us")
    (5.0, 500.0, 0.8)
    """
    match = _TIME.fullmatch(text)
    milliseconds = float(match[1]) * _MILLISECONDS.get(match[2], 0.0) if match else 0.0
    if milliseconds <= 0:
        raise ConfigInvalid(f"latency {text!r} is no time: write it as 5ms, 800us or 0.1s")
    return milliseconds


def format_size(size: float) -> str:
    """Format a size as `--memory` takes it; rounded up, so that it suffices.

    >>> format_size(74_100_000), format_size(1_340), format_size(2_340_000_001), format_size(1_000_000)
    ('75MB', '2KB', '2.4GB', '1MB')
    """
    if size >= 1e9:
        return f"{-(-size // 1e8) / 10:g}GB"
    return f"{-(-size // 1e6):.0f}MB" if size >= 1e6 else f"{-(-size // 1e3):.0f}KB"
