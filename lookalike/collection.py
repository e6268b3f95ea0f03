"""A collection on disk: version folders, of which one is current, published by renaming.

    my-collection/
      CURRENT                 the name of the version being served
      sources.json            where the sources lie on this machine
      calibration.json        probabilities of search results, if they were fitted on the user's own data
      versions/<version>/     manifest.json, vectors.npy, sample.npy, metadata.*, ids.npy, thumbnails.arrow,
                              rejected.parquet, and the store's own files; map.parquet, if a map was made

A new version is written to a staging folder, checksummed, fsynced and renamed; `CURRENT` is replaced last, so that a
reader sees a complete version or none of it. Opening verifies all files before it maps them.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lookalike.calibration import Calibration
from lookalike.collection_calibration import (
    CALIBRATION_FILE,
    collection_calibration_text,
    read_collection_calibration,
)
from lookalike.collection_map import MAP_FILE, CollectionMap, map_bytes
from lookalike.errors import CollectionNotFound, EncoderMismatch, ManifestInvalid
from lookalike.manifest import MANIFEST_FILE, Manifest, file_entry, read_manifest, verify_files
from lookalike.metadata import ItemRecords, Metadata
from lookalike.row_sample import read_sample
from lookalike.thumbnails import Thumbnails, ThumbnailSource
from lookalike.types import EncoderSpec, Float16, Float32, VectorRows

CURRENT, VERSIONS, VECTORS, REJECTED = "CURRENT", "versions", "vectors.npy", "rejected.parquet"
UNFINISHED_CURRENT = f".{CURRENT}.*"
"""Pattern of temporary files that remain if a process is killed while it writes `CURRENT`."""
_MAX_VERSIONS = 2
_HINTS = dict.fromkeys((errno.EMFILE, errno.ENFILE), "; raise `ulimit -n`") | {
    errno.EACCES: "; let this process's user read the whole folder"
}


@dataclass(frozen=True)
class Collection:
    """One opened, verified version; everything large is memory-mapped.

    Attributes:
        root: the collection's folder.
        folder: the version's folder.
        manifest: its manifest.
        vectors: (n, d) float16 unit vectors, memory-mapped.
        metadata: row -> record, id -> row.
        thumbnails: row -> JPEG bytes.
        sample: (m, d) float32 unit vectors of a sample of the rows, in memory, read-only.
        calibration: the one that `lookalike evaluate --calibrate` stored with the collection; None if there is none.
    """

    root: Path
    folder: Path
    manifest: Manifest
    vectors: Float16
    metadata: ItemRecords
    thumbnails: ThumbnailSource
    sample: Float32
    calibration: Calibration | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def stored_vectors(self) -> VectorRows:
        """The vectors of all rows."""
        return self.vectors

    def thumbnail_version(self, row: int) -> str:
        """Return a text that changes when a row's thumbnail does."""
        return self.manifest.version

    def require_encoder(self, spec: EncoderSpec) -> None:
        """Check that an encoder's vectors can be compared with the collection's.

        Raises:
            EncoderMismatch: the encoder's identity is not that of the collection's encoder.
        """
        own = self.manifest.encoder
        if own.identity != spec.identity:
            right_one = f"{own.name!r}" if own.name != spec.name else "its own weights"
            raise EncoderMismatch(
                f"collection {self.root} was made by encoder {own.name!r} (weights {own.weights[:12]}, "
                f"d = {own.dim}), not by {spec.name!r} (weights {spec.weights[:12]}, d = {spec.dim}); "
                f"serve it with {right_one} or index again with {spec.name!r}"
            )


def current_version(root: Path) -> str:
    """Return the name of the current version.

    Raises:
        CollectionNotFound: there is no collection at `root`.
        ManifestInvalid: `CURRENT` does not name a version.
    """
    try:
        version = (root / CURRENT).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CollectionNotFound(
            f"no collection at {root}: make one with `lookalike index SOURCE --out {shlex.quote(str(root))}`"
        ) from error
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        raise CollectionNotFound(f"{root / CURRENT} can't be read: {error.strerror}{hint}") from error
    except UnicodeDecodeError as error:
        raise ManifestInvalid(f"{root / CURRENT} does not name a version: {error}; restore it from a copy") from error
    if not is_version_name(version):
        raise ManifestInvalid(f"{root / CURRENT} does not name a version: {version!r}")
    return version


def is_version_name(text: str) -> bool:
    """Return whether a text can be the name of a version's folder."""
    return text.isprintable() and not text.startswith(".") and Path(text).name == text != ""


def current_manifest(root: Path) -> Manifest:
    """Return the manifest of the current version, without opening its other files.

    Raises:
        CollectionNotFound: there is no collection at `root`.
        ManifestInvalid: the manifest is missing or invalid.
        FormatTooNew: a later release wrote the collection.
    """
    return read_manifest(root / VERSIONS / current_version(root))


def open_collection(root: Path, *, verify: bool = True) -> Collection:
    """Open the current version.

    Args:
        root: the collection's folder.
        verify: whether to verify checksums before files are mapped (about a second for each gigabyte).

    Raises:
        CollectionNotFound: there is no collection at `root`.
        ManifestInvalid: the manifest is missing or invalid, or does not fit the files.
        FormatTooNew: a later release wrote the collection.
        ChecksumMismatch: a file differs from the manifest.
    """
    return open_version(root, current_version(root), verify=verify)


def open_version(root: Path, version: str, *, verify: bool = True) -> Collection:
    """Open a version by its name, as `open_collection` opens the current one; it raises the same errors."""
    folder = root / VERSIONS / version
    manifest = read_manifest(folder)
    if manifest.version != folder.name:
        raise ManifestInvalid(
            f"{folder} holds version {manifest.version!r}; rename the folder to that name, "
            f"and write the name to {root / CURRENT}"
        )
    if verify:
        verify_files(folder, manifest)
    vectors = _map_vectors(folder / VECTORS)
    metadata, thumbnails = Metadata(folder), Thumbnails(folder)
    calibration = read_collection_calibration(root, manifest.encoder.identity)
    sample = read_sample(folder, vectors)
    collection = Collection(root, folder, manifest, vectors, metadata, thumbnails, sample, calibration)
    counts = {len(vectors), len(collection.metadata), len(collection.thumbnails), manifest.counts.indexed}
    if len(counts) != 1 or vectors.shape[1] != manifest.encoder.dim:
        raise ManifestInvalid(
            f"{folder} holds vectors of shape {vectors.shape} and counts {sorted(counts)} that don't agree"
        )
    return collection


def new_version_name() -> str:
    """Return a unique name; names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"


def staging_folder(root: Path, version: str) -> Path:
    """Create the empty folder in which to build `version`; remove what killed builds have left."""
    versions = root / VERSIONS
    versions.mkdir(parents=True, exist_ok=True)
    for leftover in versions.glob(".building-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for unfinished in root.glob(UNFINISHED_CURRENT):
        unfinished.unlink(missing_ok=True)
    folder = versions / f".building-{version}"
    folder.mkdir()
    return folder


def publish(root: Path, staging: Path, manifest: Manifest) -> Path:
    """Add checksums to a staged version and make it current, atomically; remove all but the last two versions.

    Args:
        root: the collection's folder.
        staging: the folder from `staging_folder`, with all files but the manifest.
        manifest: without `files`.

    Returns:
        The version's folder.
    """
    names = sorted(path.name for path in staging.iterdir())
    sealed = manifest.model_copy(update={"files": {name: file_entry(staging / name) for name in names}})
    (staging / MANIFEST_FILE).write_text(sealed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return publish_sealed(root, staging, manifest.version)


def copy_folder(root: Path, version: str) -> Path:
    """Return the folder in which a copy of `version` is made; what a stopped copy of it left is still there."""
    versions = root / VERSIONS
    versions.mkdir(parents=True, exist_ok=True)
    folder = versions / f".copying-{version}"
    for leftover in versions.glob(".copying-*"):
        if leftover != folder:
            shutil.rmtree(leftover, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    return folder


def publish_sealed(root: Path, staging: Path, version: str) -> Path:
    """Make a complete folder of a version, with its manifest, the current one; return its new path.

    All but the last two versions are removed.
    """
    for path in staging.iterdir():
        _fsync(path)
    _fsync(staging)
    folder = root / VERSIONS / version
    staging.rename(folder)
    _fsync(folder.parent)
    make_current(root, version)
    return folder


def make_current(root: Path, version: str) -> None:
    """Make a version that lies in its folder the current one; remove all but the last two versions."""
    replace_text(root / CURRENT, version + "\n")
    _prune(root, version)


def versions_to_remove(names: Iterable[str], current: str) -> list[str]:
    """Return the versions that are older than the last two; the current one stays.

    >>> versions_to_remove(["20260103T", "20260101T", "20260102T"], "20260103T")
    ['20260101T']
    """
    others = sorted(name for name in names if name != current)
    return others[: max(0, len(others) - (_MAX_VERSIONS - 1))]


def store_calibration(root: Path, calibration: Calibration, spec: EncoderSpec) -> None:
    """Store the calibration of an encoder's searches with the collection at `root`; it replaces an earlier one."""
    replace_text(root / CALIBRATION_FILE, collection_calibration_text(calibration, spec.identity))


def store_map(folder: Path, made: CollectionMap) -> None:
    """Store the map of the version in a folder; it replaces an earlier one."""
    for unfinished in folder.glob(f".{MAP_FILE}.*"):  # of a run that was killed
        unfinished.unlink(missing_ok=True)
    replace_bytes(folder / MAP_FILE, map_bytes(made))


def replace_text(path: Path, text: str) -> None:
    """Replace a small file atomically: after a crash it holds the old or the new text, never a part."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Replace a file as `replace_text` does."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_bytes(content)
        _fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _fsync(path.parent)


def _map_vectors(path: Path) -> Float16:
    try:
        vectors: Float16 = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ManifestInvalid(f"{path} can't be read: {error}") from error
    if vectors.dtype != np.float16 or vectors.ndim != 2:
        raise ManifestInvalid(f"{path} holds {vectors.dtype} {vectors.shape}, not (n, d) float16")
    return vectors


def _prune(root: Path, current: str) -> None:
    folders = (path for path in (root / VERSIONS).iterdir() if path.is_dir() and not path.name.startswith("."))
    for old in versions_to_remove((path.name for path in folders), current):
        shutil.rmtree(root / VERSIONS / old, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
