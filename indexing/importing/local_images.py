"""The images of imported rows, where they are at hand: thumbnails and sizes, and a proof of the encoder.

What a piece's images gave is kept in the work folder until the import is done: one that was stopped goes on there.
m rows of a piece, d embedding width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa

from indexing.durable_files import read_table, write_table
from lookalike import images
from lookalike.encoders.protocol import Encoder
from lookalike.errors import LookalikeError
from lookalike.sources.item import read_range
from lookalike.types import Float32

LOOKED = pa.schema([("thumbnail", pa.binary()), ("width", pa.int32()), ("height", pa.int32()), ("format", pa.string())])
"""What is known of a row's image; all null where none is at hand, or it can't be read."""
CHECKED = 16
"""How many images are encoded again."""


class ImagesAtHand:
    """Looks for rows' images and reads them.

    Args:
        source: the embeddings' file or folder, beside which paths are tried.
        images: the folder under which paths are looked for; None for as they stand, and beside the source.
        work: the folder for what is kept; made when there is something.
        encoder: what is said to have made the vectors.
        pool: reads and decodes.

    Attributes:
        cosines: of images encoded again with their vectors, at most `CHECKED`.
    """

    def __init__(self, source: Path, images: Path | None, work: Path, encoder: Encoder, pool: Executor) -> None:
        self._source, self._images, self._work = source, images, work
        self._encoder, self._pool = encoder, pool
        self.cosines: list[float] = []

    def of(self, paths: Sequence[str | None]) -> pa.Table:
        """(m, columns of `LOOKED`) of the images that m rows name."""
        files = list(self._pool.map(self._found, paths))
        if not any(files):
            return pa.table([pa.nulls(len(files), field.type) for field in LOOKED], schema=LOOKED)
        kept = self._work / f"images-{self._digest(files)}.arrow"
        if kept.is_file():
            return read_table(kept)
        looked = pa.Table.from_pylist(list(self._pool.map(self._look, files)), LOOKED)
        self._work.mkdir(parents=True, exist_ok=True)
        write_table(kept, looked)
        return looked

    def compare(self, paths: Sequence[str | None], looked: pa.Table, unit: Float32) -> bool:
        """Encodes images again, the first `CHECKED` of the import, and compares them with their vectors.

        Args:
            paths: m, of the rows.
            looked: what `of` gave for them.
            unit: (m, d) the rows' vectors, of unit norm.

        Returns:
            Whether there was one.
        """
        readable = np.flatnonzero(looked.column("thumbnail").is_valid().to_numpy())
        rows = readable[: CHECKED - len(self.cosines)]
        for row in rows:
            image = self._decoded(self._found(paths[row]))
            if image is not None:
                again = self._encoder.encode_images(self._encoder.preprocess(image.image)[None])[0]
                self.cosines.append(float(again @ unit[row]))
        return len(rows) > 0

    @property
    def agreement(self) -> float | None:
        """Median of `cosines`; None where no image was at hand."""
        return float(np.median(self.cosines)) if self.cosines else None

    def _found(self, path: str | None) -> Path | None:
        """The file that a path means here: as it stands, beside the source, or its longest end under `images`."""
        if not path:
            return None
        if self._images is None:
            beside = self._source if self._source.is_dir() else self._source.parent
            candidates = [Path(path), beside / path]
        else:
            parts = PurePosixPath(path).parts
            ends = [parts[i:] for i in range(len(parts)) if parts[i] not in ("/", "..")]
            candidates = [self._images.joinpath(*end) for end in ends]
        try:
            return next((candidate for candidate in candidates if candidate.is_file()), None)
        except (OSError, ValueError):  # a name too long, a NUL character
            return None

    def _digest(self, files: Sequence[Path | None]) -> str:
        """Of files as they are now: another file, or one that was mended since, is looked at again."""
        content = json.dumps([self._encoder.preprocessing.resize, [file and _stamp(file) for file in files]])
        return hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=16).hexdigest()

    def _look(self, file: Path | None) -> dict[str, object]:
        image = self._decoded(file)
        if image is None:
            return {}
        return {
            "thumbnail": images.encode_thumbnail(image.image),
            "width": image.width,
            "height": image.height,
            "format": image.format,
        }

    def _decoded(self, file: Path | None) -> images.DecodedImage | None:
        if file is None:
            return None
        try:
            return images.decode(read_range(file), target=self._encoder.preprocessing.resize)
        except LookalikeError:
            return None


def _stamp(file: Path) -> tuple[object, ...]:
    try:
        stat = file.stat()
    except OSError:  # it has just vanished
        return (str(file),)
    return str(file), stat.st_size, stat.st_mtime_ns
