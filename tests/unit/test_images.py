"""The only decoder: every odd image becomes 8-bit RGB, every bad one an error with a stable code."""

from __future__ import annotations

import io
import re
import threading
import time
import tracemalloc
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lookalike import images
from lookalike.encoders.registry import load_encoder
from lookalike.errors import ImageError, ImageTooLarge, ImageUndecodable
from lookalike.images import decoder
from lookalike.images.formats import FORMATS
from lookalike.images.pixel_budget import PixelBudget
from lookalike.search import Limits, Searcher
from lookalike.stopwatch import Stopwatch
from tests.bad_images import OddImage, bad_images, bomb, encoded, make_image, odd_images


def _difference(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference of two RGB images, 0 to 255."""
    return float(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean())


@pytest.mark.parametrize("bad", bad_images(), ids=lambda bad: bad.name)
def test_bad_image_raises_its_code(bad: OddImage) -> None:
    with pytest.raises(ImageError) as caught:
        images.decode(bad.data)
    assert caught.value.code == bad.code


@pytest.mark.parametrize("odd", odd_images(), ids=lambda odd: odd.name)
def test_odd_image_becomes_8_bit_rgb(odd: OddImage) -> None:
    decoded = images.decode(odd.data)
    assert decoded.image.mode == "RGB"
    assert (decoded.width, decoded.height) == odd.size == decoded.image.size
    pixels = load_encoder("fake").preprocess(decoded.image)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (3, 8, 8))
    with Image.open(io.BytesIO(images.encode_thumbnail(decoded.image))) as thumbnail:
        assert max(thumbnail.size) <= images.THUMBNAIL_SIDE


def test_bomb_is_rejected_by_its_header() -> None:
    with pytest.raises(ImageTooLarge, match="60000 x 60000"):
        images.decode(bomb())


def test_pixel_limit_is_inclusive() -> None:
    data = encoded(make_image(20, 10), "PNG")
    assert images.decode(data, max_pixels=200).width == 20
    with pytest.raises(ImageTooLarge):
        images.decode(data, max_pixels=199)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = make_image(64, 32)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that turns the upright one into the stored
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = images.decode(encoded(stored, "PNG", exif=exif))
    assert (decoded.width, decoded.height) == (64, 32)
    assert _difference(decoded.image, upright) == 0


def test_first_frame_of_an_animation_is_decoded() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.decode(data).image.getpixel((8, 8)) == (255, 0, 0)


def test_transparency_is_laid_on_white() -> None:
    data = encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG")
    assert images.decode(data).image.getpixel((4, 4)) == (255, 255, 255)


def test_sixteen_bits_keep_their_brightness() -> None:
    grey = np.full((8, 8), 32896, np.uint16)  # 128 x 257: half way
    assert images.decode(encoded(Image.fromarray(grey), "PNG")).image.getpixel((4, 4)) == (128, 128, 128)


def test_strips_of_sixteen_bits_are_scaled_alike() -> None:
    grey = np.random.default_rng(0).integers(0, 65_536, (600, 7), dtype=np.uint16)
    decoded = np.asarray(images.decode(encoded(Image.fromarray(grey), "PNG")).image)
    assert (decoded == np.rint(grey / 257)[..., None]).all()


def test_floats_are_stretched_over_all_strips() -> None:
    values = np.linspace(-3, 5, 600 * 4, dtype=np.float32).reshape(600, 4)
    values[0, 0], values[300, 1], values[599, 2] = np.nan, np.inf, -np.inf
    decoded = np.asarray(images.decode(encoded(Image.fromarray(values), "TIFF")).image)[..., 0]
    low, high = values[0, 1], values[599, 3]
    filled = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    assert np.abs(decoded - np.rint((filled - low) * 255 / (high - low))).max() <= 1


def test_every_strip_is_laid_on_white() -> None:
    layered = np.random.default_rng(0).integers(0, 256, (600, 5, 4), dtype=np.uint8)
    whole = Image.fromarray(layered)
    expected = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    assert (np.asarray(images.decode(encoded(whole, "PNG")).image) == np.asarray(expected)).all()


@pytest.mark.parametrize("mode", ["P", "LA"])
def test_every_strip_of_other_modes_is_laid_on_white(mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 4, (600, 5), dtype=np.uint8)).convert(mode)
    if mode == "LA":
        image.putalpha(Image.fromarray(np.random.default_rng(1).integers(0, 256, (600, 5), dtype=np.uint8)))
    data = encoded(image, "PNG", **({"transparency": 2} if mode == "P" else {}))
    with Image.open(io.BytesIO(data)) as whole:
        layered = whole.convert("RGBA")
    assert np.asarray(layered)[..., 3].min() < 255
    expected = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    assert (np.asarray(images.decode(data).image) == np.asarray(expected)).all()


def test_large_sixteen_bit_image_is_converted_in_strips() -> None:
    data = encoded(Image.fromarray(np.zeros((4_000, 4_000), np.uint16)), "PNG")
    tracemalloc.start()  # sees what numpy takes
    images.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64_000_000  # 512 MB when it was scaled as a whole


def test_cmyk_keeps_its_colors() -> None:
    image = make_image()
    assert _difference(images.decode(encoded(image.convert("CMYK"), "JPEG", quality=95)).image, image) < 6


def test_target_reduces_a_jpeg_to_no_less_than_twice_its_side() -> None:
    data = encoded(make_image(1600, 1200), "JPEG")
    reduced = images.decode(data, target=224)
    assert (reduced.width, reduced.height) == (1600, 1200)
    assert reduced.image.size == (800, 600)
    assert images.decode(data).image.size == (1600, 1200)


def test_thumbnail_is_small_and_carries_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera's maker"
    source = images.decode(encoded(make_image(1000, 500), "JPEG", exif=exif, comment=b"a secret")).image
    data = images.encode_thumbnail(source)
    with Image.open(io.BytesIO(data)) as thumbnail:
        assert thumbnail.size == (256, 128)
        assert not thumbnail.getexif()
    assert b"secret" not in data
    with Image.open(io.BytesIO(images.encode_thumbnail(make_image(10, 20)))) as small:
        assert small.size == (10, 20)


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([encoded(make_image(), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]),
    damage=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=20),
    cut=st.integers(0, 4000),
)
def test_damaged_bytes_give_an_image_or_an_error(start: bytes, damage: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(start)
    for place, value in damage:
        data[place % len(data)] = value
    with suppress(ImageError):
        assert images.decode(bytes(data[:cut]), max_pixels=1_000_000).image.mode == "RGB"


def test_error_says_what_is_wrong() -> None:
    with pytest.raises(ImageUndecodable, match="zero bytes"):
        images.decode(b"")


class TestPixelBudget:
    def test_it_bounds_pixels_and_serves_in_order(self) -> None:
        budget, begun, finish = PixelBudget(10), Counter[str](), threading.Event()

        def hold(name: str, pixels: int) -> None:
            with budget.reserve(pixels):
                begun[name] += 1
                finish.wait(10)

        def start(name: str, pixels: int) -> threading.Thread:
            thread = threading.Thread(target=hold, args=(name, pixels))
            thread.start()
            time.sleep(0.05)
            return thread

        threads = [start("first", 6), start("large", 99), start("small", 1)]
        assert begun == {"first": 1}  # the small one must not overtake the large one
        finish.set()
        for thread in threads:
            thread.join(10)
        assert begun == {"first": 1, "large": 1, "small": 1}
        with pytest.raises(ZeroDivisionError), budget.reserve(10):
            raise ZeroDivisionError
        with budget.reserve(10):
            pass

    def test_a_query_holds_its_share_until_it_is_preprocessed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        budget = PixelBudget(1_000_000)
        monkeypatch.setattr(decoder, "_PIXEL_BUDGET", budget)
        free: list[int] = []

        class RecordingEncoder:
            preprocessing = SimpleNamespace(resize=10)

            def preprocess(self, image: Image.Image) -> str:
                free.append(budget._free)
                return "pixels"

        searcher = SimpleNamespace(limits=Limits(), encoder=RecordingEncoder())
        for format, taken in (("PNG", 640 * 480), ("JPEG", 80 * 60)):  # a JPEG is decoded smaller
            data = io.BytesIO()
            Image.new("RGB", (640, 480)).save(data, format)
            assert Searcher.prepare_image(searcher, data.getvalue(), Stopwatch()) == "pixels"  # type: ignore[arg-type,comparison-overlap]
            assert free.pop() == 1_000_000 - taken
            assert budget._free == 1_000_000


@pytest.mark.parametrize(
    "place",
    [
        "docs/reference/image-formats.md",
        "docs/guides/search-from-code.md",
        "docs/guides/index-images.md",
        "docs/reference/errors.md",
    ],
)
def test_accepted_formats_are_listed_wherever_users_look(place: str) -> None:
    text = (Path(__file__).parents[2] / place).read_text(encoding="utf-8")
    assert any(all(re.search(rf"\b{name}\b", line) for name in FORMATS) for line in text.splitlines()), FORMATS
