"""RGB colour spaces that files name without embedding a profile, as ICC profiles."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lookalike.types import Float64

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D65 = (0.3127, 0.3290)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


@dataclass(frozen=True)
class ColorSpace:
    """An RGB colour space by its primaries and its curve.

    Attributes:
        chromaticity: CIE x and y of white, red, green and blue: eight numbers.
        gamma: the exponent from pixel / 255 to linear light; None for sRGB's curve.
    """

    chromaticity: tuple[float, ...]
    gamma: float | None = None

    @cached_property
    def profile(self) -> bytes:
        """The bytes of an ICC profile, version 4 (ISO 15076-1): a matrix and a parametric curve."""
        curve = (
            struct.pack(">HH", 0, 0) + _fixed(self.gamma)
            if self.gamma
            else struct.pack(">HH", 3, 0) + _fixed(*_SRGB_CURVE)
        )
        tags = {b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50)}
        for letter, column in zip(b"rgb", self._to_d50().T, strict=True):
            tags[bytes([letter]) + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(*column)
            tags[bytes([letter]) + b"TRC"] = b"para\0\0\0\0" + curve
        return _icc_file(tags)

    def _to_d50(self) -> Float64:
        """Return the (3, 3) matrix from linear RGB to CIE XYZ, adapted to D50 by the Bradford method."""
        white, *primaries = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in _pairs(self.chromaticity))
        columns = np.stack(primaries, axis=1)
        to_xyz = columns * np.linalg.solve(columns, white)
        adaptation = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
        return np.asarray(np.linalg.inv(_BRADFORD) @ adaptation @ _BRADFORD @ to_xyz)


def _pairs(numbers: tuple[float, ...]) -> list[tuple[float, float]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _fixed(*values: float) -> bytes:
    """Pack s15Fixed16 numbers."""
    return struct.pack(f">{len(values)}i", *(round(value * 65_536) for value in values))


def _icc_file(tags: dict[bytes, bytes]) -> bytes:
    offset, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", offset + len(body), b"", 0x04000000, b"mntr", b"RGB ", b"XYZ ")
    head = head.ljust(36, b"\0") + b"acsp"
    return head.ljust(68, b"\0") + _fixed(*_D50) + bytes(48) + table + body


SRGB = ColorSpace((*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060))
DISPLAY_P3 = ColorSpace((*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060))
ADOBE_RGB = ColorSpace((*_D65, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060), 563 / 256)
