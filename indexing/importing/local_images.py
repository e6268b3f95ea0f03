"""Local images of imported rows: thumbnails and sizes, and a check of the encoder.

Results are kept in the work folder until the import is finished, so that a stopped import resumes.

Dimension letters: m rows of a batch, d embedding width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa

from indexing.arrow_files import read_table, write_table
from lookalike.encoders.protocol import Encoder
from lookalike.errors import LookalikeError
from lookalike.images import DecodedImage, decode, encode_thumbnail
from lookalike.prepared_image import DECODER_VERSION
from lookalike.sources.item import find_path, read_range
from lookalike.types import Float32

IMAGE_SCHEMA = pa.schema(
    [
        ("thumbnail", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("truncated", pa.bool_()),
    ]
)
"""Columns of a row's image; all null where none is available, or it can't be read."""
MAX_COMPARED_IMAGES = 16
"""Images that are encoded and compared with their vectors."""


class LocalImages:
    """Finds and reads the images of rows.

    Args:
        source: the embeddings' file or folder, beside which paths are tried.
        folder: the folder to look for paths in; None to take them as they are, or relative to the source.
        work: the folder for results; created when needed.
        encoder: the encoder that should have made the vectors.
        pool: for reading and decoding.

    Attributes:
        cosines: of encoded images and their vectors, at most `MAX_COMPARED_IMAGES`.
    """

    def __init__(self, source: Path, folder: Path | None, work: Path, encoder: Encoder, pool: Executor) -> None:
        self._source, self._folder, self._work = source, folder, work
        self._encoder, self._pool = encoder, pool
        self.cosines: list[float] = []

    def read(self, paths: Sequence[str | None]) -> pa.Table:
        """Return (m, columns of `IMAGE_SCHEMA`) of the images at m paths."""
        files = list(self._pool.map(self._resolve, paths))
        if not any(files):
            return pa.table([pa.nulls(len(files), field.type) for field in IMAGE_SCHEMA], schema=IMAGE_SCHEMA)
        cached = self._work / f"pictures-{self._digest(files)}.arrow"
        if cached.is_file():
            return read_table(cached)
        table = pa.Table.from_pylist(list(self._pool.map(self._describe, files)), IMAGE_SCHEMA)
        self._work.mkdir(parents=True, exist_ok=True)
        write_table(cached, table)
        return table

    def compare(self, paths: Sequence[str | None], images: pa.Table, unit: Float32) -> bool:
        """Encode images, the first `MAX_COMPARED_IMAGES` of the import, and compare them with their vectors.

        Args:
            paths: m, of the rows.
            images: the result of `read` for them.
            unit: (m, d) the rows' vectors, of unit norm.

        Returns:
            Whether any image was compared.
        """
        readable = np.flatnonzero(images.column("thumbnail").is_valid().to_numpy())
        rows = readable[: MAX_COMPARED_IMAGES - len(self.cosines)]
        for row in rows:
            image = self._decode(self._resolve(paths[row]))
            if image is not None:
                vector = self._encoder.encode_images(self._encoder.preprocess(image.image)[None])[0]
                self.cosines.append(float(vector @ unit[row]))
        return len(rows) > 0

    @property
    def agreement(self) -> float | None:
        """Median of `cosines`; None if no image was available."""
        return float(np.median(self.cosines)) if self.cosines else None

    def _resolve(self, path: str | None) -> Path | None:
        """Return the local file of a path: as it is, relative to the source, or its longest end in `folder`."""
        if not path:
            return None
        if self._folder is None:
            folder = self._source if self._source.is_dir() else self._source.parent
            candidates = [Path(path), folder / path]
        else:
            parts = PurePosixPath(path).parts
            ends = [parts[i:] for i in range(len(parts)) if parts[i] not in ("/", "..")]
            candidates = [self._folder.joinpath(*end) for end in ends]
        try:
            return next((file for candidate in candidates if (file := find_path(candidate)).is_file()), None)
        except (OSError, ValueError):  # a name too long, a NUL character
            return None

    def _digest(self, files: Sequence[Path | None]) -> str:
        """Hash the files' names, sizes and times: a file that changed is read again."""
        stamps = [file and _stamp(file) for file in files]
        content = json.dumps([DECODER_VERSION, self._encoder.preprocessing.resize, stamps])
        return hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=16).hexdigest()

    def _describe(self, file: Path | None) -> dict[str, object]:
        image = self._decode(file)
        if image is None:
            return {}
        return {
            "thumbnail": encode_thumbnail(image.image),
            "width": image.width,
            "height": image.height,
            "format": image.format,
            "truncated": image.truncated or None,
        }

    def _decode(self, file: Path | None) -> DecodedImage | None:
        if file is None:
            return None
        try:
            return decode(read_range(file), target=self._encoder.preprocessing.resize)
        except LookalikeError:
            return None


def _stamp(file: Path) -> tuple[object, ...]:
    try:
        stat = file.stat()
    except OSError:  # removed since it was found
        return (str(file),)
    return str(file), stat.st_size, stat.st_mtime_ns
