"""Parts of tables in the terminal: chosen columns, values on one line, and bars."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

_BARS = " ▁▂▃▄▅▆▇█"


def column_names(names: str | None) -> tuple[str, ...] | None:
    """Return the names of an option `--fields`, which are separated by commas; None without the option."""
    if names is None:
        return None
    return tuple(name.strip() for name in names.split(",")) if names.strip() else ()


def one_line(value: object) -> str:
    """Return a value as text without line breaks."""
    return " ".join(str(value).split())


def fitting(line: str) -> str:
    """Return a line without what does not fit into the terminal."""
    return line.rstrip()[: shutil.get_terminal_size((120, 24)).columns]


def bars(counts: Sequence[int]) -> str:
    """Return one character for each count, as high as its share of the largest one; a count of 1 shows.

    >>> bars([0, 1, 50, 100])
    ' ▁▄█'
    """
    most = max(counts, default=0)
    return "".join(_BARS[-(-8 * count // most) if most else 0] for count in counts)
