"""Embedded colour profiles -> a conversion to sRGB by LittleCMS, which every screen and encoder expects."""

from __future__ import annotations

import io
import struct
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from lookalike.images.color_spaces import ADOBE_RGB, DISPLAY_P3, SRGB, ColorSpace

Transform = ImageCms.ImageCmsTransform

_MAX_PROFILE_BYTES = 4 << 20  # profiles of printers take up to 3 MB
_MODE_OF_SPACE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_MAX_SRGB_DIFFERENCE = 2  # of 255: writings of sRGB by other makers differ by as much

# Transforms are shared by the decode threads, which LittleCMS allows without its cache of one pixel.
_FLAGS = ImageCms.Flags.NOCACHE
_SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))

_EXIF_INTEROPERABILITY = 0xA005
_INTEROPERABILITY_INDEX = 1
_SDR_TRANSFER_CHARACTERISTICS = (1, 6, 13, 14, 15)  # ITU-T H.273; 16 and 18 are HDR
_DISPLAY_P3_PRIMARIES = 12


def srgb_transform(image: Image.Image) -> Transform | None:
    """Return the conversion of an image's colours to sRGB, or None where they are to be left as they are.

    The conversion takes 8-bit pixels of the mode that it names (`input_mode`: `RGB`, `L` or `CMYK`) and may be used by
    several threads. A profile that is corrupt, or of another kind than the pixels, is ignored, and so is sRGB.
    """
    mode = _color_mode(image)
    profile = _embedded_profile(image) or (_declared_profile(image) if mode == "RGB" else None)
    return _transform(profile, mode) if profile else None


def _color_mode(image: Image.Image) -> str:
    if image.mode == "CMYK":
        return "CMYK"
    return "RGB" if image.mode.startswith(("RGB", "P")) else "L"


def _embedded_profile(image: Image.Image) -> bytes | None:
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and len(profile) <= _MAX_PROFILE_BYTES else None


def _declared_profile(image: Image.Image) -> bytes | None:
    """Return a profile of the colour space that an image without profile names by other means."""
    if _is_adobe_rgb_by_exif(image):
        return ADOBE_RGB.profile
    if _is_display_p3_by_nclx(image):
        return DISPLAY_P3.profile
    gamma = image.info.get("gamma")  # PNG
    if isinstance(gamma, float) and "srgb" not in image.info and 0.1 <= gamma <= 2:
        return _profile_by_gamma(gamma, image.info.get("chromaticity", SRGB.chromaticity))
    return None


def _profile_by_gamma(gamma: float, chromaticity: tuple[float, ...]) -> bytes | None:
    exponent = None if abs(1 / gamma - 2.2) < 0.05 else 1 / gamma  # 2.2 is written where sRGB's curve is meant
    try:
        return ColorSpace(chromaticity, exponent).profile
    except (ArithmeticError, ValueError, struct.error):  # numbers that make no colour space
        return None


def _is_display_p3_by_nclx(image: Image.Image) -> bool:
    nclx = image.info.get("nclx_profile")  # HEIC
    return (
        isinstance(nclx, dict)
        and nclx.get("color_primaries") == _DISPLAY_P3_PRIMARIES
        and nclx.get("transfer_characteristics") in _SDR_TRANSFER_CHARACTERISTICS
    )


def _is_adobe_rgb_by_exif(image: Image.Image) -> bool:
    """Whether a camera says so by the interoperability index R03 of DCF 2.0; it embeds no profile then."""
    exif = image.info.get("exif")
    if not isinstance(exif, bytes) or b"R03" not in exif:  # parsing takes longer than decoding a small image
        return False
    try:
        return str(image.getexif().get_ifd(_EXIF_INTEROPERABILITY).get(_INTEROPERABILITY_INDEX)).startswith("R03")
    except Exception:  # a corrupt EXIF block is no reason to reject the pixels
        return False


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> Transform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _MODE_OF_SPACE.get(source.profile.xcolor_space.strip()) != mode:
            return None
        transform = Transform(source, _SRGB_PROFILE, mode, "RGB", ImageCms.Intent.PERCEPTUAL, flags=_FLAGS)
        return transform if _changes_colors(transform) else None
    except Exception:  # a corrupt profile is no reason to reject the pixels
        return None


def _changes_colors(transform: Transform) -> bool:
    if transform.input_mode == "CMYK":
        return True
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    probe = Image.fromarray(grid if transform.input_mode == "RGB" else np.arange(256, dtype=np.uint8)[None])
    before, after = (np.asarray(image.convert("RGB"), np.int16) for image in (probe, transform.apply(probe)))
    return int(np.abs(before - after).max()) > _MAX_SRGB_DIFFERENCE
