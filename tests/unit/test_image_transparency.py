"""Transparent images: on white, or on grey where their content would vanish on white."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lookalike import images
from lookalike.encoders.registry import load_encoder
from tests.bad_images import encoded, make_image

WHITE, GREY = (255, 255, 255), (128, 128, 128)


def _logo(color: tuple[int, int, int], shape: str = "ellipse", side: int = 128) -> Image.Image:
    """A shape of one colour on transparency, which is black below."""
    logo = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(logo)
    if shape == "ellipse":
        draw.ellipse((side // 8, side // 8, side * 7 // 8, side * 7 // 8), fill=(*color, 255))
    else:
        draw.polygon(
            [(side // 2, side // 8), (side * 7 // 8, side * 7 // 8), (side // 8, side * 3 // 4)], (*color, 255)
        )
    return logo


def _background(data: bytes) -> tuple[int, ...]:
    return tuple(np.asarray(images.decode(data).image)[0, 0].tolist())


def _translucent(logo: Image.Image) -> Image.Image:
    logo.putalpha(logo.getchannel("A").point(lambda value: value // 4))
    return logo


WRITERS: dict[str, Callable[[Image.Image], bytes]] = {
    "png": lambda logo: encoded(logo, "PNG"),
    "webp": lambda logo: encoded(logo, "WEBP", quality=80),
    "tiff": lambda logo: encoded(logo, "TIFF"),
    "grey with alpha": lambda logo: encoded(logo.convert("LA"), "PNG"),
    "palette": lambda logo: encoded(logo.quantize(8), "PNG"),
    "gif": lambda logo: encoded(logo, "GIF"),
    "small": lambda logo: encoded(logo.resize((24, 24)), "PNG"),
    "large": lambda logo: encoded(logo.resize((900, 700)), "PNG"),
    "translucent": lambda logo: encoded(_translucent(logo), "PNG"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_background_follows_the_content_in_every_format(writer: str) -> None:
    assert _background(WRITERS[writer](_logo(WHITE))) == GREY
    assert _background(WRITERS[writer](_logo((0, 0, 0)))) == WHITE


@pytest.mark.parametrize("color", [(0, 0, 0), (230, 30, 30), (255, 255, 0), (128, 128, 128), (225, 225, 225)])
def test_visible_content_stays_on_white(color: tuple[int, int, int]) -> None:
    assert _background(encoded(_logo(color), "PNG")) == WHITE


def test_photograph_cut_out_equals_its_copy_on_white() -> None:
    cut_out = make_image(128, 128).convert("RGBA")
    cut_out.putalpha(_logo(WHITE).getchannel("A"))
    on_white = Image.alpha_composite(Image.new("RGBA", cut_out.size, WHITE), cut_out).convert("RGB")
    assert images.decode(encoded(cut_out, "PNG")).image.tobytes() == on_white.tobytes()


def test_white_logo_with_a_coloured_part_stays_visible() -> None:
    logo = _logo(WHITE)
    ImageDraw.Draw(logo).ellipse((40, 40, 80, 80), fill=(200, 0, 0, 255))
    assert _background(encoded(logo, "PNG")) == GREY


@pytest.mark.parametrize("color", [WHITE, (248, 248, 246), (0, 0, 0)])
def test_different_logos_are_told_apart(color: tuple[int, int, int]) -> None:
    encoder = load_encoder("lite")
    pixels = [
        encoder.preprocess(images.decode(encoded(_logo(color, shape, 256), "PNG")).image)
        for shape in ("ellipse", "triangle")
    ]
    first, second = encoder.encode_images(np.stack(pixels))
    assert first @ second < 0.95


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_fully_transparent_image_is_white(mode: str) -> None:
    empty = Image.new(mode, (8, 8))
    empty.putalpha(0)
    assert set(np.asarray(images.from_pillow(empty, 64)).ravel().tolist()) == {255}


def test_opaque_alpha_changes_nothing() -> None:
    image = make_image()
    for mode, expected in (("RGBA", image), ("LA", image.convert("L").convert("RGB"))):
        assert images.decode(encoded(image.convert(mode), "PNG")).image.tobytes() == expected.tobytes()


def test_transparent_color_of_an_rgb_png_is_applied() -> None:
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    image.putpixel((0, 0), (9, 9, 9))
    assert _background(encoded(image, "PNG", transparency=(9, 9, 9))) == WHITE
