"""Backups of a collection: a consistent copy of its current version and its log of writes, and the way back.

A snapshot is a collection, which can be opened and served. `CURRENT` is written last, here and in a collection that is
restored: a run that was killed leaves a folder without a collection, or the collection as it was.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from indexing.progress import Progress
from indexing.work_folder import LOCK, WORK, exclusive, remove_work
from lookalike.collection import (
    CURRENT,
    VERSIONS,
    copy_folder,
    current_version,
    make_current,
    publish_sealed,
    replace_bytes,
    replace_text,
)
from lookalike.collection_calibration import CALIBRATION_FILE
from lookalike.collection_map import MAP_FILE
from lookalike.disk_errors import translated_disk_errors
from lookalike.errors import (
    ChecksumMismatch,
    CollectionError,
    CollectionUnwritable,
    ManifestInvalid,
    WritesDamaged,
)
from lookalike.manifest import MANIFEST_FILE, Manifest, file_entry, read_manifest, verify_files
from lookalike.paths import exists, names_in
from lookalike.source_places import SOURCES_FILE
from lookalike.stores.registry import MILVUS
from lookalike.writes.log import HEAD_FILE, LOG_FILE, LOG_FILES, LOG_WAL, WriteLog, has_log
from lookalike.writes.writer import LOCK_FILE, lock_writes

_MEGABYTE = 1_000_000
_MAX_ATTEMPTS = 5
"""Copies of a version that are begun, because another one became current and the first was removed meanwhile."""
_UNFINISHED = "copy"
"""Folder in the work folder while a collection is copied; what a killed run has left may be removed."""
_BESIDE_VERSIONS = (CALIBRATION_FILE, SOURCES_FILE)
_LOCKS = {LOCK, LOCK_FILE}


@dataclass(frozen=True, slots=True)
class SnapshotSummary:
    """Result of a snapshot or a restore.

    Attributes:
        source: the folder that was copied.
        target: the new folder.
        version: the version that was copied.
        files: files of the version.
        bytes: of these files.
        writes: number of the last write in the copy; 0 if there was none.
        pending: items whose last write the version does not hold.
        seconds: of the whole run.
    """

    source: str
    target: str
    version: str
    files: int
    bytes: int
    writes: int
    pending: int
    seconds: float


class _Copied:
    """Counts copied bytes, and shows them in megabytes."""

    def __init__(self, progress: Progress, manifest: Manifest) -> None:
        self._progress, self._bytes, self._shown = progress, 0, 0
        progress.begin(_size(manifest) // _MEGABYTE)

    def add(self, size: int) -> None:
        self._bytes += size
        new = self._bytes // _MEGABYTE - self._shown
        self._shown += new
        if new:
            self._progress.add(reused=new)


def take_snapshot(root: Path, out: Path, progress: Progress | None = None, *, link: bool = False) -> SnapshotSummary:
    """Copy the current version and the log of a collection into a new folder, as of one moment.

    Jobs and a service may write to the collection meanwhile.

    Args:
        root: the collection's folder.
        out: a new or empty folder.
        progress: counts megabytes.
        link: whether files of the version are linked instead of copied, where both folders are on one disk.

    Raises:
        CollectionNotFound: there is no collection at `root`.
        CollectionUnwritable: `out` holds files or can't be written to, or Milvus holds the vectors.
        CollectionBusy: another snapshot is being taken there.
        ChecksumMismatch, ManifestInvalid, WritesDamaged: the collection is damaged.
        DiskFull: nothing was copied.
    """
    begun = time.perf_counter()
    if out.resolve().is_relative_to(root.resolve()):
        raise CollectionUnwritable(f"{out} is inside the collection {root}; name a folder elsewhere")
    current_version(root)
    with translated_disk_errors(out, "nothing was copied"), _new_folder(out) as folder:
        shown = progress or Progress(quiet=True)
        with shown:
            manifest = _copy_collection(root, folder, shown, link=link)
            last, pending = _verified_log(folder, manifest)
            replace_text(folder / CURRENT, f"{manifest.version}\n")
    return _summary(root, out, manifest, last, pending, begun)


def restore(snapshot: Path, root: Path, progress: Progress | None = None, *, replace: bool = False) -> SnapshotSummary:
    """Make a snapshot the collection at `root`.

    Args:
        snapshot: the folder of a snapshot, or of any collection that nobody writes to.
        root: a new or empty folder; with `replace`, a collection.
        progress: counts megabytes.
        replace: whether a collection at `root` is replaced. A version that is there already is not copied again.

    Raises:
        CollectionNotFound: there is no snapshot.
        CollectionUnwritable: `root` holds a collection or other files, or can't be written to.
        CollectionBusy: a job or a service writes to `root`.
        ChecksumMismatch, ManifestInvalid, WritesDamaged: the snapshot is damaged; `root` is as it was.
        DiskFull: likewise.
    """
    begun = time.perf_counter()
    version = current_version(snapshot)
    manifest = _manifest(snapshot, version)
    if snapshot.resolve() == root.resolve():
        raise CollectionUnwritable(f"{root} is the snapshot itself; name another folder")
    with ExitStack() as stack:
        stack.enter_context(translated_disk_errors(root, "the collection is as it was"))
        stack.enter_context(exclusive(root))
        if not (replace and exists(root / CURRENT)):
            _require_new(root)
        stack.enter_context(lock_writes(root))
        shown = stack.enter_context(progress or Progress(quiet=True))
        log = _fresh_folder(root / WORK / _UNFINISHED)
        _copy_log_files(snapshot, log)
        last, pending = _verified_log(log, manifest)
        staged = _staged_version(snapshot, root, manifest, shown)
        _swap(snapshot, root, log, staged, version)
        remove_work(log)
    return _summary(snapshot, root, manifest, last, pending, begun)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a new or empty folder to write a collection into; remove what was written if that fails.

    What a killed run has left in it is removed.
    """
    with exclusive(out):
        _require_new(out)
        mark = _fresh_folder(out / WORK / _UNFINISHED)
        _clear(out)
        try:
            yield out
        except BaseException:
            _clear(out)
            raise
        finally:
            remove_work(mark)


def _clear(folder: Path) -> None:
    """Remove an unfinished collection, but not the lock."""
    shutil.rmtree(folder / VERSIONS, ignore_errors=True)
    for name in (CURRENT, *_BESIDE_VERSIONS, HEAD_FILE, *LOG_FILES):
        (folder / name).unlink(missing_ok=True)


def _copy_collection(root: Path, folder: Path, progress: Progress, *, link: bool) -> Manifest:
    """Copy a version and the log that fits it; begin again where another version became current meanwhile."""
    for attempt in range(_MAX_ATTEMPTS):
        version = current_version(root)
        try:
            manifest = _manifest(root, version)
            _copy_version(root, folder, manifest, progress, link=link)
            _copy_log(root, folder)
            _verified_log(folder, manifest)
        except (CollectionError, OSError):
            if current_version(root) == version or attempt == _MAX_ATTEMPTS - 1:
                raise
            _clear(folder)
            continue
        for name in _BESIDE_VERSIONS:
            if exists(root / name):
                shutil.copyfile(root / name, folder / name)
        return manifest
    raise AssertionError


def _manifest(root: Path, version: str) -> Manifest:
    folder = root / VERSIONS / version
    manifest = read_manifest(folder)
    if manifest.store.kind == MILVUS:
        raise CollectionUnwritable(f"{root} is searched by Milvus, whose vectors are not in the folder; back up Milvus")
    if manifest.version != version or any(Path(name).name != name for name in manifest.files):
        raise ManifestInvalid(f"{folder / MANIFEST_FILE} does not describe version {version}")
    return manifest


def _copy_version(root: Path, folder: Path, manifest: Manifest, progress: Progress, *, link: bool) -> None:
    source, target = root / VERSIONS / manifest.version, folder / VERSIONS / manifest.version
    target.mkdir(parents=True)
    _copy_files(source, target, manifest, progress, _link if link else shutil.copyfile)


def _copy_files(
    source: Path, target: Path, manifest: Manifest, progress: Progress, copy: Callable[[Path, Path], object]
) -> None:
    """Copy the files of a version, compare each with its checksum, and write them to the disk."""
    copied = _Copied(progress, manifest)
    for name, entry in manifest.files.items():
        try:
            copy(source / name, target / name)
        except FileNotFoundError as error:
            raise ChecksumMismatch(f"{source / name} is missing") from error
        if file_entry(target / name) != entry:
            raise ChecksumMismatch(f"{source / name} differs from its checksum in the manifest")
        _sync(target / name)
        copied.add(entry.size)
    shutil.copyfile(source / MANIFEST_FILE, target / MANIFEST_FILE)
    _sync(target / MANIFEST_FILE)
    _copy_map(source, target)
    _sync(target)


def _copy_map(source: Path, target: Path) -> None:
    """Copy the map of a version, which has no checksum, if it has one."""
    if exists(source / MAP_FILE):
        replace_bytes(target / MAP_FILE, (source / MAP_FILE).read_bytes())


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it where the file system has no link to it."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _copy_log(root: Path, folder: Path) -> None:
    """Copy the log as of this moment, if there is one."""
    if has_log(root):
        with WriteLog(root) as log:
            log.copy_to(folder)
        for name in (LOG_FILE, HEAD_FILE):
            _sync(folder / name)


def _copy_log_files(snapshot: Path, folder: Path) -> None:
    """Copy the log of a snapshot, whose folder may be read-only."""
    for name in (LOG_FILE, LOG_WAL, HEAD_FILE):
        if exists(snapshot / name):
            shutil.copyfile(snapshot / name, folder / name)


def _verified_log(folder: Path, manifest: Manifest) -> tuple[int, int]:
    """Check the copy of a log; return the number of its last write, and how many items are pending.

    Raises:
        WritesDamaged: it does not have the writes that the version lacks, or an entry differs from its checksum.
    """
    if not has_log(folder):
        if manifest.writes:
            raise WritesDamaged(f"version {manifest.version} holds the writes up to {manifest.writes}, but has no log")
        return 0, 0
    with WriteLog(folder) as log:  # its end writes all of the log to one file
        log.require_fits(manifest.writes, manifest.version)
        for _ in log.all_entries():
            pass
        return log.last, sum(1 for _ in log.pending(manifest.writes))


def _require_new(root: Path) -> None:
    """Check that a folder is empty, but for what a killed run has left."""
    if exists(root / CURRENT):
        raise CollectionUnwritable(f"{root} holds a collection; name a new or empty folder (`restore` has --replace)")
    if not exists(root / WORK / _UNFINISHED) and (others := {*names_in(root)} - _LOCKS):
        raise CollectionUnwritable(f"{root} holds other files ({min(others)!r}, ...); name a new or empty folder")


def _fresh_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _staged_version(snapshot: Path, root: Path, manifest: Manifest, progress: Progress) -> Path | None:
    """Copy a version beside those of a collection; return None if it is there and sound."""
    folder = root / VERSIONS / manifest.version
    if names_in(folder):
        try:
            if read_manifest(folder) == manifest:
                verify_files(folder, manifest)
                return None
        except CollectionError:
            pass  # a damaged version is replaced
    staging = _fresh_folder(copy_folder(root, manifest.version))
    _copy_files(snapshot / VERSIONS / manifest.version, staging, manifest, progress, shutil.copyfile)
    return staging


def _swap(snapshot: Path, root: Path, log: Path, staged: Path | None, version: str) -> None:
    """Put a version and a log in the place of a collection's: without `CURRENT`, there is none meanwhile."""
    (root / CURRENT).unlink(missing_ok=True)
    _sync(root)
    for name in (*LOG_FILES, HEAD_FILE, *_BESIDE_VERSIONS):
        (root / name).unlink(missing_ok=True)
    for name in names_in(log):
        (log / name).replace(root / name)
    for name in _BESIDE_VERSIONS:
        if exists(snapshot / name):
            replace_text(root / name, (snapshot / name).read_text("utf-8"))
    _sync(root)
    if staged is None:
        _copy_map(snapshot / VERSIONS / version, root / VERSIONS / version)
        make_current(root, version)
        return
    shutil.rmtree(root / VERSIONS / version, ignore_errors=True)
    publish_sealed(root, staged, version)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.files.values())


def _summary(source: Path, target: Path, manifest: Manifest, last: int, pending: int, begun: float) -> SnapshotSummary:
    return SnapshotSummary(
        source=str(source),
        target=str(target),
        version=manifest.version,
        files=len(manifest.files),
        bytes=_size(manifest),
        writes=last,
        pending=pending,
        seconds=round(time.perf_counter() - begun, 3),
    )
