"""A small camera RAW file in the form of DNG, with a preview in JPEG and sensor values."""

from __future__ import annotations

import struct

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL = 1, 2, 3, 4, 10
_LETTERS = {_BYTE: "B", _ASCII: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "i"}
_Tag = tuple[int, int, tuple[int, ...]]
_THUMBNAIL = (24, 16)


def dng(
    preview: bytes | None, size: tuple[int, int] = (96, 64), orientation: int = 1, sensor: int | None = 9_000
) -> bytes:
    """Return a DNG.

    Args:
        preview: a JPEG.
        size: (width, height) of the sensor.
        orientation: as in EXIF.
        sensor: the value of all of the sensor's pixels, 16 bits; None to leave them out, as where a file was cut.
    """
    width, height = size
    file = bytearray(b"II*\0" + bytes(4))
    if sensor is None:
        pixels = 1 << 24, 2 * width * height
    else:
        pixels = _append(file, struct.pack("<H", sensor) * (width * height))
    raw = _directory(file, width, height, 16, 1, 32803, pixels, 0)
    raw += [(33421, _SHORT, (2, 2)), (33422, _BYTE, (0, 1, 1, 2))]  # the pattern of the colour filters
    subfiles = [_write_directory(file, raw)]
    if preview is not None:
        jpeg = _append(file, preview)
        tags = _directory(file, 640, 428, 8, 3, 6, jpeg, 1)
        subfiles.append(_write_directory(file, [*tags[:3], (259, _SHORT, (7,)), *tags[4:]]))
    thumbnail = _append(file, bytes(_THUMBNAIL[0] * _THUMBNAIL[1] * 3))
    main = _directory(file, *_THUMBNAIL, 8, 3, 2, thumbnail, 1)
    main += [
        (271, _ASCII, (*b"Test\0",)),
        (272, _ASCII, (*b"Camera\0",)),
        (274, _SHORT, (orientation,)),
        (330, _LONG, tuple(subfiles)),
        (50706, _BYTE, (1, 4, 0, 0)),  # DNG's version
        (50708, _ASCII, (*b"Test Camera\0",)),
        (50721, _RATIONAL, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1)),  # the color matrix
    ]
    struct.pack_into("<I", file, 4, _write_directory(file, main))
    return bytes(file)


def _directory(
    file: bytearray,
    width: int,
    height: int,
    bits: int,
    samples: int,
    photometric: int,
    data: tuple[int, int],
    kind: int,
) -> list[_Tag]:
    return [
        (254, _LONG, (kind,)),
        (256, _LONG, (width,)),
        (257, _LONG, (height,)),
        (259, _SHORT, (1,)),
        (258, _SHORT, (bits,) * samples),
        (262, _SHORT, (photometric,)),
        (273, _LONG, data[:1]),
        (277, _SHORT, (samples,)),
        (278, _LONG, (height,)),
        (279, _LONG, data[1:]),
    ]


def _append(file: bytearray, data: bytes) -> tuple[int, int]:
    """Return offset and length of the data at the end of the file."""
    file += bytes(len(file) % 2)
    file += data
    return len(file) - len(data), len(data)


def _write_directory(file: bytearray, tags: list[_Tag]) -> int:
    entries = b""
    for tag, kind, values in sorted(tags):
        value = struct.pack(f"<{len(values)}{_LETTERS[kind]}", *values)
        count = len(values) // (2 if kind == _RATIONAL else 1)
        field = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", _append(file, value)[0])
        entries += struct.pack("<HHI", tag, kind, count) + field
    return _append(file, struct.pack("<H", len(tags)) + entries + bytes(4))[0]
