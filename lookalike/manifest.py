"""`manifest.json`: the fields that describe a version of a collection, and the checks of its files' checksums."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lookalike.errors import ChecksumMismatch, FormatTooNew, ManifestInvalid
from lookalike.paths import exists
from lookalike.types import EncoderSpec, Identity, Thresholds

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EncoderEntry(_Record):
    """The encoder that made the vectors; only an encoder of the same identity may search them."""

    name: str
    weights: str
    dim: int = Field(gt=0)
    image_size: int = Field(gt=0)
    preprocessing: str
    text: bool
    engine: str
    precision: str

    @classmethod
    def of(cls, spec: EncoderSpec) -> EncoderEntry:
        """Return the entry for an encoder."""
        fields = asdict(spec)
        return cls(**{name: fields[name] for name in cls.model_fields})

    @property
    def identity(self) -> Identity:
        """The fields that decide whether vectors are comparable, see `EncoderSpec.identity`."""
        return EncoderSpec(**self.model_dump(), thresholds=Thresholds()).identity


class StoreEntry(_Record):
    """The vector store.

    Attributes:
        kind: the registered name.
        params: the store's parameters; `asked` is the store that the user chose, which may be `auto`.
    """

    kind: str
    params: dict[str, Any] = Field(default_factory=dict)


class Counts(_Record):
    """Numbers of images and other files: seen = indexed + rejected + skipped."""

    seen: int = Field(ge=0)
    indexed: int = Field(ge=0)
    rejected: int = Field(ge=0)
    skipped: int = Field(default=0, ge=0)


class FileEntry(_Record):
    """One file of the version folder."""

    sha256: str
    size: int = Field(ge=0)


class Manifest(_Record):
    """Description of a version, readable without its other files.

    Attributes:
        writes: number of the last write that the version holds (`lookalike.writes`); 0 if it holds none.
    """

    format_version: int
    name: str
    version: str
    created: str
    lookalike: str
    encoder: EncoderEntry
    store: StoreEntry
    counts: Counts
    recall: dict[str, Any] = Field(default_factory=dict)
    sources: list[str] = Field(default_factory=list)
    inputs: str = ""
    writes: int = 0
    files: dict[str, FileEntry] = Field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest:
    """Read and validate `folder/manifest.json`.

    Raises:
        ManifestInvalid: the file is missing or not JSON, or a field is missing or of the wrong type.
        FormatTooNew: a later release wrote it.
    """
    path = folder / MANIFEST_FILE
    try:
        return parse_manifest(path.read_bytes(), str(path))
    except OSError as error:
        raise ManifestInvalid(f"{path} can't be read: {error.strerror}") from error


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Validate the content of a manifest; `name` is that of its file. It raises the errors of `read_manifest`."""
    try:
        text = data.decode()
        version = _format_version(text, name)
        if version > FORMAT_VERSION:
            raise FormatTooNew(
                f"{name} has format {version}; this release reads up to {FORMAT_VERSION}; upgrade lookalike"
            )
        return Manifest.model_validate_json(text)
    except UnicodeDecodeError as error:
        raise ManifestInvalid(f"{name} can't be read: {error}") from error
    except ValidationError as error:
        raise ManifestInvalid(f"{name} is not a valid manifest: {_first_message(error)}") from error


def file_entry(path: Path) -> FileEntry:
    """Return the size and SHA-256 of a file, reading it as a stream."""
    with path.open("rb") as stream:
        return FileEntry(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), size=path.stat().st_size)


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Check every file's size, then its SHA-256.

    Raises:
        ChecksumMismatch: a file is missing or differs.
        ManifestInvalid: a file can't be read.
    """
    try:
        _verify(folder, manifest)
    except OSError as error:
        hint = "; let this process's user read it" if isinstance(error, PermissionError) else ""
        raise ManifestInvalid(f"{error.filename or folder} can't be read: {error.strerror or error}{hint}") from error


def _verify(folder: Path, manifest: Manifest) -> None:
    for name, expected in manifest.files.items():
        path = folder / name
        if not exists(path):
            raise ChecksumMismatch(f"{path} is missing; index again or restore the folder from a copy")
        size = path.stat().st_size
        if size != expected.size:
            raise ChecksumMismatch(f"{path} has {size} bytes, but {expected.size} in the manifest; restore it")
    for name, expected in manifest.files.items():
        if file_entry(folder / name).sha256 != expected.sha256:
            raise ChecksumMismatch(f"{folder / name} differs from its checksum in the manifest; restore it")


class _Version(BaseModel):
    format_version: int


def _format_version(text: str, name: str) -> int:
    try:
        return _Version.model_validate_json(text).format_version
    except ValidationError as error:
        raise ManifestInvalid(f"{name} is not a valid manifest: {_first_message(error)}") from error


def _first_message(error: ValidationError) -> str:
    detail = error.errors()[0]
    location = ".".join(str(part) for part in detail["loc"]) or "document"
    return f"{location}: {detail['msg']}"
