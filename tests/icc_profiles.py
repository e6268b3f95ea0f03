"""Small ICC profiles as bytes, written field by field from ISO 15076-1, independently of the product's own."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

D50 = (0.9642, 1.0, 0.8249)
# Linear RGB -> XYZ adapted to D50, columns red, green and blue, as the profiles of these spaces publish them.
MATRICES = {
    "Display P3": ((0.51512, 0.29198, 0.15710), (0.24120, 0.69225, 0.06657), (-0.00105, 0.04189, 0.78407)),
    "Adobe RGB": ((0.60974, 0.20528, 0.14919), (0.31111, 0.62567, 0.06322), (0.01947, 0.06087, 0.74457)),
    "ProPhoto RGB": ((0.79767, 0.13519, 0.03134), (0.28804, 0.71187, 0.00009), (0.0, 0.0, 0.82491)),
    "sRGB": ((0.43607, 0.38515, 0.14307), (0.22249, 0.71687, 0.06061), (0.01392, 0.09708, 0.71410)),
}
GAMMAS = {"Display P3": 2.2, "Adobe RGB": 563 / 256, "ProPhoto RGB": 1.8}


def rgb_profile(space: str) -> bytes:
    """A matrix profile, version 2, with the space's plain exponent."""
    gamma = struct.pack(">IH", 1, round(GAMMAS[space] * 256))
    tags = {b"wtpt": b"XYZ \0\0\0\0" + _fixed(D50)}
    for letter, column in zip("rgb", zip(*MATRICES[space], strict=True), strict=True):
        tags[f"{letter}XYZ".encode()] = b"XYZ \0\0\0\0" + _fixed(column)
        tags[f"{letter}TRC".encode()] = b"curv\0\0\0\0" + gamma
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile(gamma: float) -> bytes:
    """A profile of grey, version 2."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"wtpt": b"XYZ \0\0\0\0" + _fixed(D50), b"kTRC": curve})


def cmyk_profile() -> bytes:
    """A profile of four inks whose table has two points a side, which are Lab colours: paper, inks, overprints."""
    inks = np.array([[55, -37, -50], [48, 74, -3], [89, -5, 93], [16, 0, 0]], np.float64) - (100, 0, 0)
    corners = np.array([[cyan, magenta, yellow, black] for cyan in (0, 1) for magenta in (0, 1) for yellow in (0, 1)
                        for black in (0, 1)])  # fmt: skip
    lab = np.clip((100, 0, 0) + corners @ inks, (0, -128, -128), (100, 127, 127))
    lab[corners[:, 3] == 1, 1:] = 0  # black is neutral
    table = np.rint(lab * (2.55, 1, 1) + (0, 128, 128)).astype(np.uint8)
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + _fixed((1, 0, 0, 0, 1, 0, 0, 0, 1)) + ramp * 4
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": lut + table.tobytes() + ramp * 3})


def to_srgb(colors: NDArray[np.uint8], space: str) -> NDArray[np.float64]:
    """(..., 3) 8-bit colours of a space as sRGB, 0 to 255, by its matrix and exponent: what a conversion must give."""
    linear = (colors / 255.0) ** GAMMAS[space] @ np.array(MATRICES[space]).T @ np.linalg.inv(MATRICES["sRGB"]).T
    linear = np.clip(linear, 0, 1)
    return np.asarray(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def _fixed(numbers: tuple[float, ...]) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65_536)) for number in numbers)


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    description = b"test\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", len(description)) + description + bytes(78)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", **tags}
    start, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4xI4s4s4s12x4s", start + len(body), 0x02400000, kind, space, connection, b"acsp")
    return header + bytes(28) + _fixed(D50) + bytes(48) + table + body
