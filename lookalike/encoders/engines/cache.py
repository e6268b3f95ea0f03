"""What is worth keeping between starts: converted graphs (a folder each) and small records (a JSON file each).

Everything here can be deleted at any time and is made again. Entries are written beside and renamed, so two processes
may write the same one; a folder that can't be written costs speed, never the result.
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

_SUMS = "sums.json"


def cache_folder() -> Path:
    """`$LOOKALIKE_CACHE`, or `~/.cache/lookalike`."""
    return Path(os.environ.get("LOOKALIKE_CACHE") or os.path.expanduser("~/.cache/lookalike"))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's Python files, hex."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def file_stamps(paths: Iterable[Path]) -> list[list[str | int]]:
    """Path, size, times and inode of each file: while these stay, the bytes are taken to be the same."""
    stamps: list[list[str | int]] = []
    for path in sorted(paths):
        stat = path.stat()
        stamps.append([str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino])
    return stamps


def recall(key: Any) -> dict[str, Any] | None:
    """The record kept under a JSON-ready key, or None where there is none that is sound."""
    try:
        entry = json.loads(_record_path(key).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    sound = isinstance(entry, dict) and entry.get("key") == key and isinstance(entry.get("record"), dict)
    return entry["record"] if sound else None


def remember(key: Any, record: dict[str, Any]) -> None:
    """Keep a JSON-ready record; a cache that can't be written is logged."""
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
    """A published folder whose files all have the sums they were published with; an unsound one is removed."""
    folder = cache_folder() / "towers" / name
    if not folder.exists():
        return None
    if _is_sound(folder):
        return folder
    logger.warning("cache_corrupt path=%s: made again", folder)
    _discard(folder)
    return None


def publish_folder(name: str, write: Callable[[Path], None]) -> Path | None:
    """Have `write` fill a folder, and publish it by renaming; None, with a warning, where that is not possible."""
    parent = cache_folder() / "towers"
    scratch: str | None = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(dir=parent, prefix=f".{name}-")
        write(Path(scratch))
        (Path(scratch) / _SUMS).write_text(json.dumps(_sums(Path(scratch))), "utf-8")
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
        return target if _is_sound(target) else None  # another process was first
    return target


def _is_sound(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _SUMS).read_text("utf-8")) == _sums(folder))
    except (OSError, ValueError):
        return False


def _sums(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.name != _SUMS}


def _discard(folder: Path) -> None:
    """Moved away first, so that nobody meets a half-deleted folder."""
    try:
        grave = tempfile.mkdtemp(dir=folder.parent, prefix=".old-")
        folder.rename(Path(grave) / "folder")
        shutil.rmtree(grave, ignore_errors=True)
    except OSError as error:
        logger.warning("cache_unwritable path=%s reason=%s", folder, error.strerror)


def _record_path(key: Any) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / "records" / f"{digest}.json"
