"""JPEG XL files, by the extra `jxl`. The library decodes as it opens, so the header is read here (ISO/IEC 18181)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from PIL import Image

from lookalike.errors import ImageUndecodable, ImageUnsupported
from lookalike.images.jpeg import JpegFile
from lookalike.images.opened import LateFile, OpenedImage, Pixels, orientation_of, upright

_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_SIZE_BITS = (9, 13, 18, 30)


class _Header(NamedTuple):
    """The size of the upright image, and whether the codestream says how to turn it upright."""

    width: int
    height: int
    is_oriented: bool


def open_jxl(data: bytes, target: int | None) -> OpenedImage:
    """Read the header of a JPEG XL file.

    Raises:
        ImageUnsupported: the extra `jxl` is not installed.
        ImageUndecodable: the header is truncated or corrupt.
    """
    try:
        import pillow_jxl  # noqa: F401
    except ImportError as error:
        raise ImageUnsupported("a JPEG XL image; `pip install 'lookalike[jxl]'` reads it") from error
    try:
        header = _read_header(data)
    except (IndexError, struct.error) as error:
        raise ImageUndecodable("the header of the JPEG XL image is truncated or corrupt") from error
    return LateFile("JXL", (header.width, header.height), lambda: _decode(data, header.is_oriented, target))


def _decode(data: bytes, is_oriented: bool, target: int | None) -> Pixels:
    """Decode it. The library turns pixels upright by the codestream's orientation; without one, EXIF's counts."""
    import pillow_jxl

    try:
        is_jpeg, info, decoded, profile, boxes = pillow_jxl.Decoder(num_threads=1)(data)
    except RuntimeError as error:  # its message is several lines about building the library
        raise ImageUndecodable("truncated or corrupt JPEG XL image") from error
    if is_jpeg:  # a JPEG that was compressed further: its own EXIF says the same as the codestream
        pixels = JpegFile(decoded, target).load()
        return Pixels(upright(pixels.image, pixels.orientation)) if is_oriented else pixels
    mode = "F" if info.mode == "F;16" else info.mode  # the library widens halves to floats
    image = Image.frombytes(mode, (info.width, info.height), decoded)
    if profile:
        image.info["icc_profile"] = profile
    if is_oriented:
        return Pixels(image)
    exif = next((box.data for box in boxes if box.box_type == b"Exif"), None)
    if exif:
        image.info["exif"] = exif
    return Pixels(image, orientation_of(image))


class _Bits:
    """Reads bits, the lowest of a byte first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next bits as an integer."""
        if count > self._left:
            raise IndexError("out of bits")
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        self._left -= count
        return value


def _read_header(data: bytes) -> _Header:
    bits = _Bits(_codestream_start(data)[2:18])
    in_eights = bits.take(1)
    height = _read_side(bits, in_eights)
    ratio = bits.take(3)
    width = height * _RATIOS[ratio][0] // _RATIOS[ratio][1] if ratio else _read_side(bits, in_eights)
    all_default = bits.take(1)
    has_extra_fields = not all_default and bits.take(1)
    orientation = bits.take(3) + 1 if has_extra_fields else 1
    if orientation >= 5:
        width, height = height, width
    return _Header(width, height, orientation > 1)


def _read_side(bits: _Bits, in_eights: int) -> int:
    if in_eights:
        return (bits.take(5) + 1) * 8
    return bits.take(_SIZE_BITS[bits.take(2)]) + 1


def _codestream_start(data: bytes) -> bytes:
    """Return the first bytes of the codestream, which may be in a box of a container."""
    if not data.startswith(_CONTAINER):
        return data[:32]
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        if kind == b"jxlc":
            return data[body : body + 32]
        if kind == b"jxlp":
            return data[body + 4 : body + 36]
        if size < 8:
            break
        at += size
    raise IndexError("no codestream")
