"""Labelled photographs to measure with: a webdataset tar with captions, or a folder of class folders.

Yields encoded bytes; decoding and encoding happen elsewhere. One archive or folder is listed whole (keys and captions),
pictures are read one at a time.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import SourceError, SourceNotFound

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Captioned:
    """A photograph and what people wrote about it.

    Attributes:
        key: its name in the archive, without the extension.
        image: encoded bytes (JPEG, PNG, ...).
        captions: at least one.
    """

    key: str
    image: bytes
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A photograph and the folder it lay in: `category` is the folder's name with `_` and `-` as spaces."""

    key: str
    image: bytes
    category: str


def read_captioned(path: Path) -> Iterator[Captioned]:
    """A tar's `key.jpg` + `key.txt` pairs in the order of keys; a picture without captions is left out.

    Args:
        path: a webdataset tar: pictures beside `key.txt`, one caption a line.

    Raises:
        SourceNotFound: no file there.
        SourceError: not a tar, or not one captioned picture in it.
    """
    if not path.is_file():
        raise SourceNotFound(f"{path} is not a file: expected a tar of key.jpg and key.txt")
    try:
        with tarfile.open(path) as archive:
            yield from _pairs(archive, path)
    except tarfile.TarError as error:
        raise SourceError(f"{path} can't be read as a tar: {error}") from error


def read_labelled(folder: Path) -> Iterator[Labelled]:
    """The pictures of `folder`/CLASS/**, classes and files in the order of their names.

    Raises:
        SourceNotFound: no folder there.
        SourceError: no class folder with a picture in it.
    """
    if not folder.is_dir():
        raise SourceNotFound(f"{folder} is not a folder of class folders")
    count = 0
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        category = class_folder.name.replace("_", " ").replace("-", " ").strip()
        for path in sorted(class_folder.rglob("*")):
            if path.suffix.lower() in PICTURES and path.is_file():
                count += 1
                yield Labelled(path.relative_to(folder).as_posix(), path.read_bytes(), category)
    if count == 0:
        raise SourceError(f"{folder} has no class folder with a picture in it")


def _pairs(archive: tarfile.TarFile, path: Path) -> Iterator[Captioned]:
    pictures, texts = _members(archive)
    keys = sorted(pictures.keys() & texts.keys())
    if not keys:
        raise SourceError(f"{path} has no picture with a .txt of captions beside it")
    for key in keys:
        lines = _bytes(archive, texts[key]).decode("utf-8", errors="replace").splitlines()
        captions = tuple(line.strip() for line in lines if line.strip())
        if captions:
            yield Captioned(key, _bytes(archive, pictures[key]), captions)


def _members(archive: tarfile.TarFile) -> tuple[dict[str, tarfile.TarInfo], dict[str, tarfile.TarInfo]]:
    pictures, texts = {}, {}
    for member in archive:
        key, dot, extension = member.name.rpartition(".")
        if not member.isfile():
            continue
        if dot + extension.lower() in PICTURES:
            pictures[key] = member
        elif extension.lower() == "txt":
            texts[key] = member
    return pictures, texts


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()
