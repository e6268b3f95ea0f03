"""Colour profiles: whatever the colour space, pixels become sRGB; a bad profile never rejects an image."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from lookalike import images
from lookalike.images import icc
from tests.bad_images import encoded, make_image
from tests.icc_profiles import GAMMAS, cmyk_profile, grey_profile, rgb_profile, to_srgb

MAX_PIXELS = images.DEFAULT_MAX_PIXELS


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float64)


def _mean_error(image: Image.Image, expected: np.ndarray) -> float:
    return float(np.abs(_pixels(image) - expected).mean())


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("space", GAMMAS)
def test_embedded_profile_is_converted_to_srgb(space: str, kind: str) -> None:
    image = make_image()
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = images.decode(encoded(image, kind, icc_profile=rgb_profile(space), **options)).image
    assert _mean_error(decoded, to_srgb(np.asarray(image), space)) < 1
    assert _mean_error(decoded, _pixels(image)) > 2


def test_profile_of_a_jpeg_2000_is_converted() -> None:
    image, profile = make_image(), rgb_profile("ProPhoto RGB")
    data = encoded(image, "JPEG2000")
    place = data.index(b"colr") - 4
    plain = struct.unpack_from(">I", data, place)[0]
    colr = struct.pack(">I4sBBB", 11 + len(profile), b"colr", 2, 0, 0) + profile
    header = data.index(b"jp2h") - 4
    size = struct.unpack_from(">I", data, header)[0] + len(colr) - plain
    data = data[:header] + struct.pack(">I", size) + data[header + 4 : place] + colr + data[place + plain :]
    assert _mean_error(images.decode(data).image, to_srgb(np.asarray(image), "ProPhoto RGB")) < 1


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_profile_of_newer_formats_is_converted(kind: str) -> None:
    image, profile = make_image(), rgb_profile("ProPhoto RGB")
    buffer = io.BytesIO()
    if kind == "AVIF":
        image.save(buffer, "AVIF", quality=95, icc_profile=profile)
    else:
        pillow_heif.from_pillow(image).save(buffer, quality=95, icc_profile=profile)
    assert _mean_error(images.decode(buffer.getvalue()).image, to_srgb(np.asarray(image), "ProPhoto RGB")) < 2


def test_reduced_jpeg_is_converted_too() -> None:
    image = make_image(1600, 1200)
    data = encoded(image, "JPEG", quality=95, icc_profile=rgb_profile("ProPhoto RGB"))
    reduced = images.decode(data, target=224)
    assert (reduced.width, reduced.height, reduced.image.size) == (1600, 1200, (800, 600))
    assert _mean_error(reduced.image, to_srgb(np.asarray(image.resize((800, 600))), "ProPhoto RGB")) < 2


def test_image_with_profile_is_reduced_before_its_conversion() -> None:
    image = make_image(1700, 1300)
    reduced = images.decode(encoded(image, "PNG", icc_profile=rgb_profile("Display P3")), target=224)
    assert (reduced.width, reduced.height) == (1700, 1300)
    assert reduced.image.size == (850, 650)
    assert images.decode(encoded(image, "PNG"), target=224).image.size == (1700, 1300)


def test_pillow_image_is_converted_like_its_file() -> None:
    data = encoded(make_image(), "PNG", icc_profile=rgb_profile("ProPhoto RGB"))
    with Image.open(io.BytesIO(data)) as opened:
        converted = images.from_pillow(opened, MAX_PIXELS)
        assert (_pixels(converted) == _pixels(images.decode(data).image)).all()
        assert (_pixels(images.from_pillow(converted, MAX_PIXELS)) == _pixels(converted)).all()  # and once only
        assert opened.info["icc_profile"] == rgb_profile("ProPhoto RGB")


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "L", "I;16"])
def test_other_modes_are_converted_by_their_profile(mode: str) -> None:
    profile = rgb_profile("ProPhoto RGB") if mode in ("RGBA", "P") else grey_profile(1.0)
    image = Image.new("RGB", (8, 8), (120, 120, 120))
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 120 * 257, np.uint16))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    color = images.decode(encoded(image, "PNG", icc_profile=profile)).image.getpixel((4, 4))
    expected = to_srgb(np.uint8([120] * 3), "ProPhoto RGB")[0] if mode in ("RGBA", "P") else 181.5  # linear light
    assert np.abs(np.array(color) - expected).max() < 2


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(kind: str) -> None:
    inks = Image.new("CMYK", (24, 8), (0, 0, 0, 0))
    inks.paste((255, 0, 0, 0), (8, 0, 16, 8))
    inks.paste((0, 0, 0, 255), (16, 0, 24, 8))
    options = {"quality": 95} if kind == "JPEG" else {}
    decoded = images.decode(encoded(inks, kind, icc_profile=cmyk_profile(), **options)).image
    paper, cyan, black = (np.array(decoded.getpixel((x, 4)), np.float64) for x in (4, 12, 20))
    assert np.abs(paper - 255).max() < 4
    assert np.abs(cyan - (0, 159, 224)).max() < 16  # Lab 55, -37, -50, not the (0, 255, 255) of a plain inversion
    assert black.max() < 60


def test_srgb_is_left_as_it_is() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = make_image()
    image.info["icc_profile"] = profile
    assert icc.srgb_transform(image) is None
    assert images.from_pillow(image, MAX_PIXELS) is image


def _damaged() -> dict[str, bytes]:
    profile = rgb_profile("Display P3")
    return {
        "text": b"not a profile",
        "cut": profile[:200],
        "zeros": bytes(len(profile)),
        "grey": grey_profile(1.8),
        "cmyk": cmyk_profile(),
        "huge table": profile[:128] + b"\xff\xff\xff\xff" + profile[132:],
        "long": profile + bytes(5 << 20),
    }


@pytest.mark.parametrize("name", _damaged())
def test_corrupt_or_foreign_profile_is_ignored(name: str) -> None:
    image = make_image()
    decoded = images.decode(encoded(image, "TIFF", icc_profile=_damaged()[name])).image
    assert (_pixels(decoded) == _pixels(image)).all()


def test_color_profile_in_grey_image_is_ignored() -> None:
    grey = make_image().convert("L")
    decoded = images.decode(encoded(grey, "JPEG", quality=95, icc_profile=rgb_profile("ProPhoto RGB"))).image
    assert _mean_error(decoded, _pixels(grey.convert("RGB"))) < 2


def test_damaged_bytes_of_profiles_never_reject_an_image() -> None:
    random, image = np.random.default_rng(0), make_image(8, 8)
    for profile in (rgb_profile("Display P3"), cmyk_profile()):
        base = image.convert("CMYK") if b"CMYK" in profile[:20] else image
        for _ in range(40):
            damaged = bytearray(profile)
            for place in random.integers(0, min(len(damaged), 400), 4):
                damaged[place] = random.integers(0, 256)
            assert images.decode(encoded(base, "TIFF", icc_profile=bytes(damaged))).image.size == (8, 8)


def test_threads_share_a_conversion() -> None:
    data = [encoded(make_image(300, 600, seed), "PNG", icc_profile=rgb_profile("ProPhoto RGB")) for seed in range(4)]
    alone = [_pixels(images.decode(item).image) for item in data]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda n: _pixels(images.decode(data[n % 4]).image), range(16)))
    assert all((pixels == alone[n % 4]).all() for n, pixels in enumerate(together))


def test_adobe_rgb_of_cameras_is_known_by_exif() -> None:
    image, exif = make_image(), Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}}
    decoded = images.decode(encoded(image, "JPEG", quality=95, exif=exif)).image
    assert _mean_error(decoded, to_srgb(np.asarray(image), "Adobe RGB")) < 2
    exif[0x8769] = {0xA001: 1, 0xA005: {1: "R98"}}
    assert _mean_error(images.decode(encoded(image, "JPEG", quality=95, exif=exif)).image, _pixels(image)) < 2


def _with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    added = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return png[:33] + added + png[33:]


def test_png_gamma_is_applied() -> None:
    linear = Image.new("RGB", (8, 8), (55, 55, 55))
    chunk = (b"gAMA", struct.pack(">I", 100_000))
    assert images.decode(_with_chunks(encoded(linear, "PNG"), chunk)).image.getpixel((4, 4)) == (128, 128, 128)
    declared_srgb = _with_chunks(encoded(linear, "PNG"), chunk, (b"sRGB", b"\0"))
    assert images.decode(declared_srgb).image.getpixel((4, 4)) == (55, 55, 55)


@pytest.mark.parametrize("gamma", [0, 1, 45_455, 4_000_000_000])
def test_usual_and_impossible_png_gamma_changes_little(gamma: int) -> None:
    image = make_image()
    decoded = images.decode(_with_chunks(encoded(image, "PNG"), (b"gAMA", struct.pack(">I", gamma)))).image
    assert _mean_error(decoded, _pixels(image)) < 2


@pytest.mark.parametrize("chromaticity", [(0,) * 8, (31_270, 32_900, *(30_000, 60_000) * 3), (2**32 - 1,) * 8])
def test_impossible_png_chromaticity_is_ignored(chromaticity: tuple[int, ...]) -> None:
    image = make_image()
    chunks = [(b"gAMA", struct.pack(">I", 100_000)), (b"cHRM", struct.pack(">8I", *chromaticity))]
    assert (_pixels(images.decode(_with_chunks(encoded(image, "PNG"), *chunks)).image) == _pixels(image)).all()


def test_display_p3_by_nclx_is_converted() -> None:
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    image.info["nclx_profile"] = {"color_primaries": 12, "transfer_characteristics": 13}
    expected = to_srgb(np.uint8([200, 100, 50]), "Display P3")
    assert np.abs(_pixels(images.from_pillow(image, MAX_PIXELS))[4, 4] - expected).max() < 9  # another curve
    image.info["nclx_profile"] = {"color_primaries": 12, "transfer_characteristics": 16}  # PQ: not known well enough
    assert images.from_pillow(image, MAX_PIXELS) is image


@pytest.mark.parametrize("make", [lambda: rgb_profile("ProPhoto RGB"), lambda: None])
def test_thumbnail_has_srgb_colors(make: Callable[[], bytes | None]) -> None:
    image = Image.new("RGB", (64, 64), (180, 90, 60))
    decoded = images.decode(encoded(image, "PNG", icc_profile=make())).image
    with Image.open(io.BytesIO(images.encode_thumbnail(decoded))) as thumbnail:
        assert "icc_profile" not in thumbnail.info
        expected = to_srgb(np.uint8([180, 90, 60]), "ProPhoto RGB") if make() else np.array([180, 90, 60])
        assert np.abs(np.array(thumbnail.getpixel((32, 32))) - expected).max() < 5
