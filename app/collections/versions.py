"""Facts about a collection's versions that need no opening: names, sizes and fingerprints of files.

The functions read the disk, so the event loop calls them on a thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.errors import LookalikeError

if TYPE_CHECKING:
    from lookalike.manifest import Manifest

Fingerprint = tuple[tuple[str, int, int], ...]
"""Name, size in bytes and time of change in nanoseconds of each file; empty if the folder can't be read."""


def named_version(root: Path) -> str:
    """Return the version that `CURRENT` names; empty if it can't be read."""
    from lookalike.collection import current_version

    try:
        return current_version(root)
    except LookalikeError:
        return ""


def version_bytes(root: Path) -> int:
    """Return the bytes of the current version's files; 0 if they are unknown, which opening will report."""
    from lookalike.collection import current_manifest

    try:
        return total_bytes(current_manifest(root))
    except LookalikeError:
        return 0


def total_bytes(manifest: Manifest) -> int:
    """Return the bytes of a version's files."""
    return sum(entry.size for entry in manifest.files.values())


def fingerprint(root: Path, version: str) -> Fingerprint:
    """Return the fingerprint of a version's files; it changes with their permissions, too."""
    from lookalike.collection import VERSIONS

    try:
        folder = root / VERSIONS / version
        return tuple(sorted((path.name, (stat := path.stat()).st_size, stat.st_ctime_ns) for path in folder.iterdir()))
    except (OSError, ValueError):
        return ()
