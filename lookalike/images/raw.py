"""Camera RAW files, by the extra `raw`: the preview that the camera stored, else the sensor's pixels at half size."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from PIL import Image

from lookalike.errors import ImageUndecodable, ImageUnsupported
from lookalike.images.jpeg import JpegFile
from lookalike.images.opened import OpenedImage, PillowFile, Pixels, upright

if TYPE_CHECKING:
    import rawpy

MIN_PREVIEW_SIDE = 320
"""A preview whose longer side is below this is not used: it may be a thumbnail for lists, pixels."""

_MAX_DIRECTORIES, _MAX_ENTRIES, _MAX_VALUES = 32, 1_024, 65_536
"""Bounds on what is read of a TIFF's directories: a hostile file may repeat them, or point in circles."""

_SUBFILES, _PHOTOMETRIC, _DNG_VERSION = 0x014A, 0x0106, 0xC612
_PIXEL_TAGS = ((0x0111, 0x0117), (0x0144, 0x0145))
"""Offsets and lengths of strips, and of tiles."""
_READ_TAGS = frozenset({_SUBFILES, _PHOTOMETRIC, _DNG_VERSION}.union(*_PIXEL_TAGS))
_SENSOR_PIXELS = frozenset({32803, 34892})
"""Photometric interpretations of DNG: a color filter array, and linear sensor values."""

_MIN_BRIGHTEST = 16
"""Brightest sample of developed pixels, of 255: LibRaw leaves them black where it can't decompress them."""

_FLIPS = {0: 1, 3: 3, 5: 8, 6: 6}
"""LibRaw's rotation as an EXIF orientation."""


class RawFile:
    """A camera's file. The sizes are those of the sensor's image, upright."""

    format = "RAW"

    def __init__(self, data: bytes, sizes: rawpy.ImageSizes, preview: OpenedImage | None) -> None:
        self._data = data
        self._preview = preview
        self._orientation = _FLIPS.get(sizes.flip, 1)
        self._sensor_lies = sizes.width >= sizes.height
        turned = self._orientation >= 5
        self.width, self.height = (sizes.height, sizes.width) if turned else (sizes.width, sizes.height)

    @property
    def held_pixels(self) -> int:
        """The pixels of the preview, or the sensor's where that is used."""
        return self.width * self.height if self._preview is None else self._preview.held_pixels

    def load(self) -> Pixels:
        """Decode the preview, which cameras store upright or as the sensor saw it, or the sensor's pixels."""
        if self._preview is None:
            return Pixels(_develop(self._data))
        pixels = self._preview.load()
        lies = self._preview.width >= self._preview.height
        is_upright = self._orientation >= 5 and lies != self._sensor_lies
        return Pixels(pixels.image if is_upright else upright(pixels.image, self._orientation))


def open_raw(data: bytes, target: int | None) -> OpenedImage:
    """Read the header and the preview of a camera RAW file; the preview is not decompressed.

    Raises:
        ImageUnsupported: the extra `raw` is not installed.
        ImageUndecodable: LibRaw can't read it.
    """
    try:
        import rawpy
    except ImportError as error:
        raise ImageUnsupported("a camera RAW file; `pip install 'lookalike[raw]'` reads it") from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            sizes = raw.sizes
            preview = _preview_of(raw, target)
    except rawpy.LibRawError as error:
        raise ImageUndecodable(f"the camera RAW file can't be read: {_text(error)}") from error
    return RawFile(data, sizes, preview)


def _preview_of(raw: rawpy.RawPy, target: int | None) -> OpenedImage | None:
    """Return the largest preview, None where there is none that suffices."""
    import rawpy

    try:
        thumbnail = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    preview: OpenedImage
    if isinstance(thumbnail.data, bytes):
        preview = JpegFile(thumbnail.data, target)
    else:
        preview = PillowFile(Image.fromarray(thumbnail.data))
    return preview if max(preview.width, preview.height) >= MIN_PREVIEW_SIDE else None


def _develop(data: bytes) -> Image.Image:
    """Return the sensor's pixels, upright, at half the size."""
    import rawpy

    if not _has_sensor_pixels(data):  # LibRaw would return what its memory held before
        raise ImageUndecodable("the camera RAW file has no usable preview, and its pixels are missing")
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            pixels = raw.postprocess(half_size=True, use_camera_wb=True)
    except rawpy.LibRawError as error:
        raise ImageUndecodable(f"the camera RAW file has no usable preview, and its pixels: {_text(error)}") from error
    if pixels.max() < _MIN_BRIGHTEST:
        raise ImageUndecodable("the camera RAW file has no usable preview, and its pixels are missing")
    return Image.fromarray(pixels)


def _text(error: Exception) -> str:
    """Return the message of one of rawpy's errors, which holds bytes."""
    message = error.args[0] if error.args else ""
    return message.decode(errors="replace") if isinstance(message, bytes) else str(message)


def is_raw_tiff(data: bytes) -> bool:
    """Return whether a TIFF file holds a camera's sensor values; its first page is then a small preview."""
    return data[8:10] == b"CR" or any(_is_raw_directory(tags) for tags in _directories(data))


def _has_sensor_pixels(data: bytes) -> bool:
    """Return whether the pixels that a TIFF's directories name are within the file; True for files of another form."""
    if not data.startswith((b"II*\0", b"MM\0*")):
        return True
    directories = [tags for tags in _directories(data) if _SENSOR_PIXELS.intersection(tags.get(_PHOTOMETRIC, ()))]
    return all(
        offset + length <= len(data)
        for tags in directories
        for offsets, lengths in _PIXEL_TAGS
        for offset, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
    )


def _is_raw_directory(tags: dict[int, tuple[int, ...]]) -> bool:
    return _DNG_VERSION in tags or bool(_SENSOR_PIXELS.intersection(tags.get(_PHOTOMETRIC, ())))


def _directories(data: bytes) -> Iterator[dict[int, tuple[int, ...]]]:
    """Yield a TIFF's directories and those below them, as far as they are there: tag -> the integers of its value."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        waiting = list(struct.unpack_from(order + "I", data, 4))
        for _ in range(_MAX_DIRECTORIES):
            if not waiting:
                return
            tags, following = _directory(data, order, waiting.pop(0))
            yield tags
            waiting += [offset for offset in (*tags.get(_SUBFILES, ()), following) if offset]
    except struct.error:
        return


def _directory(data: bytes, order: str, at: int) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the tags of a directory, and the offset of the next one, 0 if there is none."""
    tags: dict[int, tuple[int, ...]] = {}
    (count,) = struct.unpack_from(order + "H", data, at)
    for entry in range(at + 2, at + 2 + 12 * min(count, _MAX_ENTRIES), 12):
        tag, kind, length = struct.unpack_from(order + "HHI", data, entry)
        letter = {1: "B", 3: "H", 4: "I", 13: "I"}.get(kind)
        if letter is None or tag not in _READ_TAGS or tag in tags:
            continue
        form = f"{order}{min(length, _MAX_VALUES)}{letter}"
        start = entry + 8 if struct.calcsize(form) <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        tags[tag] = struct.unpack_from(form, data, start)
    return tags, struct.unpack_from(order + "I", data, at + 2 + 12 * count)[0]
