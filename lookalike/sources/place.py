"""Where the image files of a source lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SourcePlace:
    """Where the image files of a source lie.

    Attributes:
        kind: `folder`, `table`, `tar` or `bucket`; later releases may have others.
        folder: the local folder to which the items' `path` is relative; None where images are not files of their own.
    """

    kind: str
    folder: Path | None = None
