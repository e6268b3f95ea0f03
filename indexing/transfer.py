"""Copies of a collection from and to a bucket: files first, each checked, and `CURRENT` last.

A collection is built and served from a local folder. A copy that was stopped continues with the files that are missing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from indexing.progress import Progress
from indexing.work_folder import exclusive
from lookalike.collection import (
    CURRENT,
    VERSIONS,
    copy_folder,
    current_version,
    is_version_name,
    make_current,
    publish_sealed,
    replace_bytes,
    replace_text,
    versions_to_remove,
)
from lookalike.collection_calibration import CALIBRATION_FILE
from lookalike.collection_map import MAP_FILE
from lookalike.disk_errors import translated_disk_errors
from lookalike.errors import (
    ChecksumMismatch,
    CollectionNotFound,
    CollectionUnwritable,
    EncoderMismatch,
    LookalikeError,
    ManifestInvalid,
    SourceNotFound,
    WritesDamaged,
)
from lookalike.manifest import MANIFEST_FILE, FileEntry, Manifest, file_entry, parse_manifest
from lookalike.messages import number_of
from lookalike.object_storage import (
    Location,
    StoredObject,
    find_object,
    list_objects,
    read_object,
    read_parts,
    remove_objects,
    stored_sha256,
    upload_file,
    write_object,
)
from lookalike.paths import exists
from lookalike.writes.log import WriteLog, has_log

_MEGABYTE = 1_000_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TransferSummary:
    """Result of a copy.

    Attributes:
        collection: the local folder.
        url: of the collection in the bucket.
        version: the one that was copied.
        unchanged: True if it was current there already, so that nothing was copied.
        files: files of the version.
        bytes: of these files.
        copied_files: those that were copied in this run; the others were complete.
        copied_bytes: of these files.
        seconds: of the whole run.
    """

    collection: str
    url: str
    version: str
    unchanged: bool
    files: int
    bytes: int
    copied_files: int
    copied_bytes: int
    seconds: float


class _Copied:
    """Counts copied bytes, and shows them in megabytes."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self.files, self.bytes, self._shown = progress, 0, 0, 0
        progress.begin(total // _MEGABYTE)

    def add(self, size: int) -> None:
        self.bytes += size
        self._show(self.bytes)

    def skip(self, size: int) -> None:
        self._progress.add(reused=size // _MEGABYTE)

    def _show(self, size: int) -> None:
        new = size // _MEGABYTE - self._shown
        self._shown += new
        if new:
            self._progress.add(compared=new)


def pull(url: str, root: Path, progress: Progress | None = None) -> TransferSummary:
    """Copy the current version of a collection from a bucket, and make it the current one of a local folder.

    Every file is compared with its checksum in the manifest before the version is published. A version that is there
    already is not read again. A service that watches the folder swaps to the new version.

    Args:
        url: of the collection, `s3://BUCKET/KEY`.
        root: the local folder, new, empty or a collection.
        progress: counts megabytes.

    Raises:
        CollectionNotFound: there is no collection in the bucket.
        ManifestInvalid: the manifest in the bucket is invalid.
        ChecksumMismatch: a file in the bucket is missing, or differs from the manifest.
        CollectionBusy: a job writes to the local folder.
        CollectionUnwritable: the folder holds other files, or can't be written to.
        DiskFull: the disk is full; what was copied is kept.
        BucketUnavailable: the bucket can't be reached; what was copied is kept.
        WritesDamaged: the folder has a log of writes that the version in the bucket does not continue.
    """
    begun = time.perf_counter()
    place = Location.parse(url)
    version, text = _remote_manifest(place)
    manifest = parse_manifest(text, f"the manifest of {place}")
    _require_plain_names(manifest, version, place)
    with translated_disk_errors(root), exclusive(root), progress or Progress(quiet=True) as reporter:
        _require_fitting_log(root, manifest, place)
        copied = _Copied(reporter, _size(manifest))
        unchanged = _is_complete(root / VERSIONS / version, manifest, text)
        if not unchanged:
            staging = copy_folder(root, version)
            _download(place.below(f"{VERSIONS}/{version}"), staging, manifest, copied)
            (staging / MANIFEST_FILE).write_bytes(text)
            shutil.rmtree(root / VERSIONS / version, ignore_errors=True)  # a damaged copy
            publish_sealed(root, staging, version)
        elif not exists(root / CURRENT) or current_version(root) != version:
            make_current(root, version)
        _pull_calibration(place, root)
        _pull_map(place.below(f"{VERSIONS}/{version}"), root / VERSIONS / version)
    return _summary(root, url, manifest, unchanged, copied, begun)


def push(root: Path, url: str, progress: Progress | None = None) -> TransferSummary:
    """Copy the current version of a local collection to a bucket, and make it the current one there.

    Files that are there with the same size and checksum are not copied again. All but the last two versions are
    removed from the bucket.

    Args:
        root: the local folder.
        url: of the collection in the bucket, `s3://BUCKET/KEY`.
        progress: counts megabytes.

    Raises:
        CollectionNotFound: there is no collection in the local folder.
        ManifestInvalid: its manifest is invalid.
        ChecksumMismatch: a local file is missing, or differs from the manifest.
        CollectionUnwritable: a permission is missing.
        BucketUnavailable: the bucket can't be reached; what was copied is kept.
    """
    begun = time.perf_counter()
    place, version = Location.parse(url), current_version(root)
    folder, target = root / VERSIONS / version, place.below(f"{VERSIONS}/{version}")
    with translated_disk_errors(root), progress or Progress(quiet=True) as reporter:
        text = _read_manifest_file(folder)
        manifest = parse_manifest(text, str(folder / MANIFEST_FILE))
        _warn_of_pending_writes(root, manifest)
        copied = _Copied(reporter, _size(manifest))
        unchanged = _remote_text(place.below(CURRENT)) == version
        _upload(folder, target, manifest, copied)
        write_object(target.below(MANIFEST_FILE), text)
        _push_map(folder, target)
        if exists(root / CALIBRATION_FILE):
            write_object(place.below(CALIBRATION_FILE), (root / CALIBRATION_FILE).read_bytes())
        write_object(place.below(CURRENT), f"{version}\n".encode())
        _prune(place, version)
    return _summary(root, url, manifest, unchanged and not copied.files, copied, begun)


def _require_fitting_log(root: Path, manifest: Manifest, place: Location) -> None:
    """Check that the log of a local collection continues a version from a bucket, before anything is changed."""
    if not has_log(root):
        return
    with WriteLog(root) as log:
        try:
            log.require_fits(manifest.writes, manifest.version)
        except WritesDamaged as error:
            raise WritesDamaged(
                f"version {manifest.version} in {place} holds the writes up to {manifest.writes}, and {root} has a log "
                f"of those from {log.released() + 1} to {log.last}: pull into another folder; nothing was changed"
            ) from error
        made_by = log.encoder()
        if made_by != manifest.encoder.identity and log.count_puts(manifest.writes):
            raise EncoderMismatch(
                f"{root} has pending writes by another encoder than {manifest.encoder.name!r} of the version in "
                f"{place}: pull into another folder; nothing was changed"
            )


def _warn_of_pending_writes(root: Path, manifest: Manifest) -> None:
    """Log one line if writes are pending: a bucket gets the version alone."""
    if not has_log(root):
        return
    try:
        with WriteLog(root) as log:
            pending = log.count_pending(manifest.writes)
    except LookalikeError as error:
        _log.warning("only the version is pushed: %s", error)
        return
    if pending:
        _log.warning(
            "only the version is pushed, without %s: run `lookalike compact %s` first",
            number_of(pending, "pending write"),
            shlex.quote(str(root)),
        )


def _remote_manifest(place: Location) -> tuple[str, bytes]:
    """Return the name of the current version and the content of its manifest."""
    version = _remote_text(place.below(CURRENT))
    if version is None:
        raise CollectionNotFound(f"no collection at {place}: put one there with `lookalike push DIR {place}`")
    if not is_version_name(version):
        raise ManifestInvalid(f"{place.below(CURRENT)} does not name a version: {version!r}")
    try:
        return version, read_object(place.below(f"{VERSIONS}/{version}/{MANIFEST_FILE}"))
    except SourceNotFound as error:
        raise ManifestInvalid(f"{place} has no manifest of its version {version}; push the collection again") from error


def _remote_text(place: Location) -> str | None:
    found = find_object(place)
    return read_object(place).decode("utf-8", "replace").strip() if found else None


def _require_plain_names(manifest: Manifest, version: str, place: Location) -> None:
    """Refuse a manifest that names files outside the version's folder."""
    wrong = [name for name in manifest.files if not is_version_name(name) or name == MANIFEST_FILE]
    if wrong or manifest.version != version:
        what = f"file {wrong[0]!r}" if wrong else f"version {manifest.version!r}"
        raise ManifestInvalid(f"the manifest of {version} in {place} names {what}; push the collection again")


def _is_complete(folder: Path, manifest: Manifest, text: bytes) -> bool:
    """Return whether a version is there by its manifest and the sizes of its files, which were checked when copied."""
    try:
        sizes = {name: (folder / name).stat().st_size for name in manifest.files}
        return (folder / MANIFEST_FILE).read_bytes() == text and all(
            sizes[name] == entry.size for name, entry in manifest.files.items()
        )
    except FileNotFoundError:
        return False


def _download(place: Location, staging: Path, manifest: Manifest, copied: _Copied) -> None:
    stored = {found.location.name: found for found in list_objects(place.below(""))}
    for name, entry in manifest.files.items():
        found = stored.get(name)
        if found is None or found.size != entry.size:
            state = "is missing" if found is None else f"has {found.size} bytes, but {entry.size} in the manifest"
            raise ChecksumMismatch(f"{place.below(name)} {state}; push the collection again")
    for leftover in staging.iterdir():
        if leftover.name not in manifest.files:
            leftover.unlink()
    for name, entry in manifest.files.items():
        if exists(staging / name) and file_entry(staging / name) == entry:
            copied.skip(entry.size)
        else:
            _download_file(stored[name], staging / name, entry, copied)


def _download_file(found: StoredObject, path: Path, entry: FileEntry, copied: _Copied) -> None:
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for part in read_parts(found):
            stream.write(part)
            digest.update(part)
            copied.add(len(part))
        stream.flush()
        os.fsync(stream.fileno())
    if digest.hexdigest() != entry.sha256:
        path.unlink()
        raise ChecksumMismatch(f"{found.location} differs from its checksum in the manifest; push the collection again")
    copied.files += 1


def _pull_calibration(place: Location, root: Path) -> None:
    source, target = place.below(CALIBRATION_FILE), root / CALIBRATION_FILE
    if (text := _remote_text(source)) is not None and (not exists(target) or target.read_text("utf-8").strip() != text):
        replace_text(target, text + "\n")


def _push_map(folder: Path, place: Location) -> None:
    """Copy the map of a version to a bucket, unless it is there."""
    if not exists(folder / MAP_FILE):
        return
    entry = file_entry(folder / MAP_FILE)
    if find_object(place.below(MAP_FILE)) is None or stored_sha256(place.below(MAP_FILE)) != entry.sha256:
        upload_file(folder / MAP_FILE, place.below(MAP_FILE), entry.sha256)


def _pull_map(place: Location, folder: Path) -> None:
    """Copy the map of a version from a bucket, if there is one, unless it is here."""
    path = folder / MAP_FILE
    if find_object(place.below(MAP_FILE)) is None:
        return
    if not exists(path) or stored_sha256(place.below(MAP_FILE)) != file_entry(path).sha256:
        replace_bytes(path, read_object(place.below(MAP_FILE)))


def _read_manifest_file(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise ManifestInvalid(f"{folder / MANIFEST_FILE} can't be read: {error.strerror}") from error


def _upload(folder: Path, place: Location, manifest: Manifest, copied: _Copied) -> None:
    stored = {found.location.name: found for found in list_objects(place.below(""))}
    for name, entry in manifest.files.items():
        if not exists(folder / name):
            raise ChecksumMismatch(f"{folder / name} is missing; index again or restore the folder from a copy")
        if name in stored and stored[name].size == entry.size and stored_sha256(place.below(name)) == entry.sha256:
            copied.skip(entry.size)
            continue
        if file_entry(folder / name) != entry:
            raise ChecksumMismatch(f"{folder / name} differs from its checksum in the manifest; restore it")
        upload_file(folder / name, place.below(name), entry.sha256)
        copied.add(entry.size)
        copied.files += 1


def _prune(place: Location, current: str) -> None:
    """Remove all but the last two versions from a bucket; without the permission they stay."""
    versions = place.below(VERSIONS).below("")
    stored = [found.location for found in list_objects(versions)]
    names = {location: location.key.removeprefix(versions.key).partition("/")[0] for location in stored}
    old = versions_to_remove(set(names.values()), current)
    try:
        remove_objects(location for location in stored if names[location] in old)
    except CollectionUnwritable as error:
        _log.warning("older versions stay: %s", error)


def _size(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.files.values())


def _summary(
    root: Path, url: str, manifest: Manifest, unchanged: bool, copied: _Copied, begun: float
) -> TransferSummary:
    return TransferSummary(
        collection=str(root),
        url=url,
        version=manifest.version,
        unchanged=unchanged,
        files=len(manifest.files),
        bytes=_size(manifest),
        copied_files=copied.files,
        copied_bytes=copied.bytes,
        seconds=round(time.perf_counter() - begun, 3),
    )
