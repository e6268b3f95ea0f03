"""HEIC and HEIF files, by libheif."""

from __future__ import annotations

import io

from pillow_heif import HeifImageFile
from typing_extensions import override

from lookalike.images.boxes import read_boxes
from lookalike.images.opened import PillowFile, Pixels


class HeifFile(PillowFile):
    """A HEIF file. libheif applies the boxes `irot` and `imir`; EXIF's orientation counts where there are none."""

    def __init__(self, data: bytes) -> None:
        # Not by `register_heif_opener`, which would change Pillow for the whole process.
        super().__init__(HeifImageFile(io.BytesIO(data)))  # type: ignore[no-untyped-call]
        self._is_oriented = any(kind == b"meta" and _orients(content) for kind, content in read_boxes(data))

    @override
    def load(self) -> Pixels:
        pixels = super().load()
        stated = pixels.image.info.get("original_orientation")  # pillow-heif takes it out of the EXIF block
        return pixels if self._is_oriented or stated is None else Pixels(pixels.image, stated)


def _orients(meta: bytes) -> bool:
    return b"irot" in meta or b"imir" in meta
