"""The only decoder: every odd image becomes 8-bit RGB, every bad one an error with a stable code."""

from __future__ import annotations

import io
import threading
import time
import tracemalloc
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lookalike import images
from lookalike.encoders.registry import load_encoder
from lookalike.errors import ImageError, ImageTooLarge, ImageUndecodable
from lookalike.images import _Room
from lookalike.search import Limits, Searcher
from lookalike.stopwatch import Stopwatch
from tests.bad_images import OddImage, bad_images, bomb, encoded, make_image, odd_images


def _difference(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference of two RGB images, 0 to 255."""
    return float(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean())


@pytest.mark.parametrize("bad", bad_images(), ids=lambda bad: bad.name)
def test_a_bad_image_is_an_error_with_its_code(bad: OddImage) -> None:
    with pytest.raises(ImageError) as caught:
        images.decode(bad.data)
    assert caught.value.code == bad.code


@pytest.mark.parametrize("odd", odd_images(), ids=lambda odd: odd.name)
def test_an_odd_image_becomes_8_bit_rgb_that_encoders_and_thumbnails_take(odd: OddImage) -> None:
    decoded = images.decode(odd.data)
    assert decoded.image.mode == "RGB"
    assert (decoded.width, decoded.height) == odd.size == decoded.image.size
    pixels = load_encoder("fake").preprocess(decoded.image)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (3, 8, 8))
    with Image.open(io.BytesIO(images.encode_thumbnail(decoded.image))) as thumbnail:
        assert max(thumbnail.size) <= images.THUMBNAIL_SIDE


def test_a_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(ImageTooLarge, match="60000 x 60000"):
        images.decode(bomb())


def test_the_pixel_limit_is_inclusive() -> None:
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


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.decode(data).image.getpixel((8, 8)) == (255, 0, 0)


def test_transparency_is_laid_on_white() -> None:
    data = encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG")
    assert images.decode(data).image.getpixel((4, 4)) == (255, 255, 255)


def test_sixteen_bits_keep_their_brightness() -> None:
    grey = np.full((8, 8), 32896, np.uint16)  # 128 x 257: half way
    assert images.decode(encoded(Image.fromarray(grey), "PNG")).image.getpixel((4, 4)) == (128, 128, 128)


def test_sixteen_bits_are_scaled_strip_by_strip_as_a_whole_would_be() -> None:
    grey = np.random.default_rng(0).integers(0, 65_536, (600, 7), dtype=np.uint16)
    decoded = np.asarray(images.decode(encoded(Image.fromarray(grey), "PNG")).image)
    assert (decoded == np.rint(grey / 257)[..., None]).all()


def test_floats_are_stretched_from_their_own_range_over_all_strips() -> None:
    values = np.linspace(-3, 5, 600 * 4, dtype=np.float32).reshape(600, 4)
    values[0, 0], values[300, 1], values[599, 2] = np.nan, np.inf, -np.inf
    decoded = np.asarray(images.decode(encoded(Image.fromarray(values), "TIFF")).image)[..., 0]
    low, high = values[0, 1], values[599, 3]
    filled = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    assert np.abs(decoded - np.rint((filled - low) * 255 / (high - low))).max() <= 1


def test_transparency_is_laid_on_white_in_every_strip() -> None:
    layered = np.random.default_rng(0).integers(0, 256, (600, 5, 4), dtype=np.uint8)
    whole = Image.fromarray(layered)
    expected = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    assert (np.asarray(images.decode(encoded(whole, "PNG")).image) == np.asarray(expected)).all()


@pytest.mark.parametrize("mode", ["P", "LA"])
def test_transparency_of_other_modes_is_laid_on_white_in_every_strip(mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 4, (600, 5), dtype=np.uint8)).convert(mode)
    if mode == "LA":
        image.putalpha(Image.fromarray(np.random.default_rng(1).integers(0, 256, (600, 5), dtype=np.uint8)))
    data = encoded(image, "PNG", **({"transparency": 2} if mode == "P" else {}))
    with Image.open(io.BytesIO(data)) as whole:
        layered = whole.convert("RGBA")
    assert np.asarray(layered)[..., 3].min() < 255
    expected = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    assert (np.asarray(images.decode(data).image) == np.asarray(expected)).all()


def test_a_large_image_of_sixteen_bits_takes_no_multiple_of_its_memory() -> None:
    data = encoded(Image.fromarray(np.zeros((4_000, 4_000), np.uint16)), "PNG")
    tracemalloc.start()  # sees what numpy takes
    images.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64_000_000  # 512 MB when it was scaled as a whole


def test_cmyk_looks_as_it_did() -> None:
    image = make_image()
    assert _difference(images.decode(encoded(image.convert("CMYK"), "JPEG", quality=95)).image, image) < 6


def test_a_target_reduces_a_jpeg_but_never_below_twice_the_target() -> None:
    data = encoded(make_image(1600, 1200), "JPEG")
    reduced = images.decode(data, target=224)
    assert (reduced.width, reduced.height) == (1600, 1200)
    assert reduced.image.size == (800, 600)
    assert images.decode(data).image.size == (1600, 1200)


def test_a_thumbnail_is_small_never_enlarged_and_carries_no_metadata() -> None:
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
def test_damaged_bytes_give_an_image_or_an_image_error(start: bytes, damage: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(start)
    for place, value in damage:
        data[place % len(data)] = value
    with suppress(ImageError):
        assert images.decode(bytes(data[:cut]), max_pixels=1_000_000).image.mode == "RGB"


def test_an_error_names_what_is_wrong() -> None:
    with pytest.raises(ImageUndecodable, match="zero bytes"):
        images.decode(b"")


class TestRoom:
    def test_no_more_pixels_are_decoded_at_once_than_there_is_room_for(self) -> None:
        room, begun, let_go = _Room(10), Counter[str](), threading.Event()

        def take(name: str, pixels: int) -> None:
            with room.take(pixels):
                begun[name] += 1
                let_go.wait(10)

        def starts(name: str, pixels: int) -> threading.Thread:
            thread = threading.Thread(target=take, args=(name, pixels))
            thread.start()
            time.sleep(0.05)
            return thread

        threads = [starts("first", 6), starts("large", 99), starts("small", 1)]
        assert begun == {"first": 1}  # the large one is next, and the small one does not slip by
        let_go.set()
        for thread in threads:
            thread.join(10)
        assert begun == {"first": 1, "large": 1, "small": 1}
        with pytest.raises(ZeroDivisionError), room.take(10):
            raise ZeroDivisionError
        with room.take(10):
            pass

    def test_a_query_keeps_its_room_until_it_is_preprocessed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        room = _Room(1_000_000)
        monkeypatch.setattr(images, "_ROOM", room)
        free: list[int] = []

        class Looking:
            preprocessing = SimpleNamespace(resize=10)

            def preprocess(self, image: Image.Image) -> str:
                free.append(room._free)
                return "pixels"

        searcher = SimpleNamespace(limits=Limits(), encoder=Looking())
        for format, taken in (("PNG", 640 * 480), ("JPEG", 80 * 60)):  # a JPEG is decoded smaller
            data = io.BytesIO()
            Image.new("RGB", (640, 480)).save(data, format)
            assert Searcher.prepare_image(searcher, data.getvalue(), Stopwatch()) == "pixels"  # type: ignore[arg-type,comparison-overlap]
            assert free.pop() == 1_000_000 - taken
            assert room._free == 1_000_000
