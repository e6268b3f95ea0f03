"""A cache on disk: converted graphs (a folder each) and small records (a JSON file each).

Everything in it can be deleted at any time and is made again. Entries are written to a temporary folder and renamed,
so two processes may write the same one; a folder that can't be written costs speed, never the result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_CHECKSUMS_FILE = "sums.json"


def cache_folder() -> Path:
    """`$LOOKALIKE_CACHE`, or `~/.cache/lookalike`."""
    return Path(os.environ.get("LOOKALIKE_CACHE") or os.path.expanduser("~/.cache/lookalike"))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_digest(folder: Path) -> str:
    """Return a SHA-256 over the names and bytes of a folder's Python files, hex."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def file_stamps(paths: Iterable[Path]) -> list[list[str | int]]:
    """Path, size, times and inode of each file: while they are equal, the bytes count as unchanged."""
    stamps: list[list[str | int]] = []
    for path in sorted(paths):
        stat = path.stat()
        stamps.append([str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino])
    return stamps


def recall(key: Any) -> dict[str, Any] | None:
    """Return the record of a JSON-ready key; None if it is missing or invalid."""
    try:
        entry = json.loads(_record_path(key).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    valid = isinstance(entry, dict) and entry.get("key") == key and isinstance(entry.get("record"), dict)
    return entry["record"] if valid else None


def remember(key: Any, record: dict[str, Any]) -> None:
    """Store a JSON-ready record; a cache that can't be written is logged."""
    path = _record_path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
            json.dump({"key": key, "record": record}, file)
        os.chmod(file.name, 0o644)  # temporary files are made private; a cache may be read by another user
        os.replace(file.name, path)
    except OSError as error:
        logger.warning("cache_unwritable path=%s reason=%s", path, error.strerror)


def find_folder(name: str) -> Path | None:
    """Return a published folder if its files have their checksums; a corrupt one is removed."""
    folder = cache_folder() / "towers" / name
    if not folder.exists():
        return None
    if _is_valid(folder):
        return folder
    logger.warning("cache_corrupt path=%s: made again", folder)
    _discard(folder)
    return None


def publish_folder(name: str, write: Callable[[Path], None]) -> Path | None:
    """Fill a folder with `write` and publish it by renaming; log a warning and return None if that fails."""
    parent = cache_folder() / "towers"
    scratch: str | None = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(dir=parent, prefix=f".{name}-")
        write(Path(scratch))
        (Path(scratch) / _CHECKSUMS_FILE).write_text(json.dumps(_checksums(Path(scratch))), "utf-8")
        os.chmod(scratch, 0o755)
        return _rename(Path(scratch), parent / name)
    except (OSError, RuntimeError) as error:  # OpenVINO reports a full disk as RuntimeError
        logger.warning("cache_unwritable path=%s reason=%s: kept in memory only", parent / name, error)
        return None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _rename(scratch: Path, target: Path) -> Path | None:
    try:
        scratch.rename(target)
    except OSError:
        return target if _is_valid(target) else None  # another process was first
    return target


def _is_valid(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _CHECKSUMS_FILE).read_text("utf-8")) == _checksums(folder))
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.name != _CHECKSUMS_FILE}


def _discard(folder: Path) -> None:
    """Rename before deleting, so that no process sees a half-deleted folder."""
    try:
        trash = tempfile.mkdtemp(dir=folder.parent, prefix=".old-")
        folder.rename(Path(trash) / "folder")
        shutil.rmtree(trash, ignore_errors=True)
    except OSError as error:
        logger.warning("cache_unwritable path=%s reason=%s", folder, error.strerror)


def _record_path(key: Any) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / "records" / f"{digest}.json"
