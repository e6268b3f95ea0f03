"""JPEGs whose end is missing, as browsers show them, and the pixel limit of those that are decoded at a fraction."""

from __future__ import annotations

import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from lookalike import images
from lookalike.errors import ImageTooLarge, ImageUndecodable
from lookalike.images import jpeg_structure
from tests.bad_images import encoded, make_image

END = b"\xff\xd9"


def _noisy(width: int = 640, height: int = 480, mode: str = "RGB") -> Image.Image:
    """An image with detail everywhere, so that the bytes of a JPEG are spread evenly over its rows."""
    smooth = np.asarray(make_image(width, height), np.int16)
    noise = np.random.default_rng(0).integers(-40, 40, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).convert(mode)


KINDS = {
    "plain": {},
    "restarts by blocks": {"restart_marker_blocks": 5},
    "restarts by rows": {"restart_marker_rows": 1},
    "full chroma": {"subsampling": 0},
    "optimised": {"optimize": True},
}


@pytest.fixture(params=[*KINDS, "grey", "CMYK"])
def sequential(request: pytest.FixtureRequest) -> bytes:
    mode = {"grey": "L", "CMYK": "CMYK"}.get(request.param, "RGB")
    return encoded(_noisy(mode=mode), "JPEG", quality=90, **KINDS.get(request.param, {}))


@pytest.fixture
def progressive() -> bytes:
    return encoded(_noisy(), "JPEG", quality=90, progressive=True)


def _scan_ends(data: bytes) -> list[int]:
    frame = jpeg_structure.read_frame(data)
    assert frame is not None
    return [scan.end for scan in jpeg_structure._scans(data, frame)[0]]


@pytest.mark.parametrize("missing", [1, 2, 3, 20])
def test_jpeg_without_its_last_bytes_is_read(sequential: bytes, missing: int) -> None:
    decoded, whole = images.decode(sequential[:-missing]), images.decode(sequential)
    assert (decoded.truncated, whole.truncated) == (True, False)
    assert (decoded.width, decoded.height) == (640, 480)
    upper = (0, 0, 640, 440)
    assert (np.asarray(decoded.image.crop(upper)) == np.asarray(whole.image.crop(upper))).all()


@pytest.mark.parametrize("end", [b"", END], ids=["cut", "cut with an end marker"])
@pytest.mark.parametrize("target", [None, 32])
def test_two_thirds_of_a_jpeg_are_read(sequential: bytes, end: bytes, target: int | None) -> None:
    decoded = images.decode(sequential[: len(sequential) * 2 // 3] + end, target=target)
    assert decoded.truncated
    assert (decoded.width, decoded.height) == (640, 480)


@pytest.mark.parametrize("end", [b"", END], ids=["cut", "cut with an end marker"])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_less_than_half_of_a_jpeg_is_refused(sequential: bytes, end: bytes, share: float) -> None:
    with pytest.raises(ImageUndecodable, match="at least half must be"):
        images.decode(sequential[: int(len(sequential) * share)] + end)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_fraction_is_that_of_the_rows(sequential: bytes, share: float) -> None:
    start = jpeg_structure.read_frame(sequential).scan_header  # type: ignore[union-attr]
    body = sequential[:-2][: start + int((len(sequential) - 2 - start) * share)]
    assert jpeg_structure.fraction_present(body) == pytest.approx(share, abs=0.06)


def test_progressive_jpeg_is_read_after_its_first_scan(progressive: bytes) -> None:
    first, second, *_ = _scan_ends(progressive)
    whole = images.decode(progressive)
    for cut in (first + 1, first + 3, first + 30, (first + second) // 2, second, len(progressive) - 2):
        decoded = images.decode(progressive[:cut]) if cut > first + 1 else None
        if decoded is not None:
            assert decoded.truncated, cut
            difference = np.asarray(decoded.image, np.int16) - np.asarray(whole.image, np.int16)
            assert np.abs(difference).mean() < 25, cut
    assert not whole.truncated


@pytest.mark.parametrize("end", [b"", END], ids=["cut", "cut with an end marker"])
def test_progressive_jpeg_within_its_first_scan_is_refused(progressive: bytes, end: bytes) -> None:
    first = _scan_ends(progressive)[0]
    with pytest.raises(ImageUndecodable, match="first scan is incomplete"):
        images.decode(progressive[: first // 2] + end)


def test_grey_image_with_all_its_data_is_whole() -> None:
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        data = encoded(Image.new("RGB", (200, 160), (128, 128, 128)), "JPEG", **options)
        assert not images.decode(data).truncated
        assert not images.decode(data + b"trailing bytes").truncated


def test_cut_grey_image_is_found_by_its_data() -> None:
    data = encoded(Image.new("RGB", (1600, 1200), (128, 128, 128)), "JPEG")
    with pytest.raises(ImageUndecodable, match="at least half"):
        images.decode(data[: jpeg_structure.read_frame(data).scan_header + 100] + END)  # type: ignore[union-attr]


def test_cut_within_the_header_is_refused(sequential: bytes) -> None:
    for cut in (3, 20, 200, jpeg_structure.read_frame(sequential).scan_header + 4):  # type: ignore[union-attr]
        with pytest.raises(ImageUndecodable):
            images.decode(sequential[:cut])


def test_exif_of_a_truncated_jpeg_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(_noisy(), "JPEG", exif=exif)
    decoded = images.decode(data[:-50])
    assert (decoded.width, decoded.height) == decoded.image.size == (480, 640)


def test_thumbnail_in_exif_is_no_scan_of_the_image() -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" + encoded(make_image(32, 24), "JPEG").decode("latin-1")
    data = encoded(_noisy(), "JPEG", exif=exif)
    with pytest.raises(ImageUndecodable, match="at least half"):
        images.decode(data[: len(data) // 4])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_other_formats_stay_refused(kind: str) -> None:
    data = encoded(_noisy(), kind)
    with pytest.raises(ImageUndecodable):
        images.decode(data[: len(data) * 9 // 10])


def test_threads_and_pillow_keep_their_own_state(sequential: bytes) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda data: images.decode(data).truncated, [sequential[:-20], sequential] * 8))
    assert found == [True, False] * 8
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_intact_jpeg_is_decoded_once(monkeypatch: pytest.MonkeyPatch, sequential: bytes, progressive: bytes) -> None:
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **options: opened.append(1) or real(*args, **options))
    for data in (sequential, progressive):
        images.decode(data)
    assert len(opened) == 2


def test_limit_bounds_what_is_decoded() -> None:
    data = encoded(make_image(1600, 1200), "JPEG")
    assert images.decode(data, max_pixels=150_000, target=64).image.size == (200, 150)
    with pytest.raises(ImageTooLarge, match="1600 x 1200"):
        images.decode(data, max_pixels=150_000)


def test_jpeg_of_108_megapixels_takes_little_memory() -> None:
    data = encoded(Image.new("L", (12_000, 9_000), 200), "JPEG")
    tracemalloc.start()
    try:
        decoded = images.decode(data, target=224)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert (decoded.width, decoded.height) == (12_000, 9_000)
    assert decoded.image.size == (1_500, 1_125)


def test_progressive_jpeg_is_bounded_by_its_full_size() -> None:
    data = encoded(make_image(1600, 1200), "JPEG", progressive=True)
    with pytest.raises(ImageTooLarge):
        images.decode(data, max_pixels=150_000, target=64)


def test_jpeg_in_one_scan_a_component_counts_as_progressive() -> None:
    data = bytearray(encoded(make_image(64, 48), "JPEG"))
    frame = jpeg_structure.read_frame(bytes(data))
    assert frame is not None
    assert not frame.several_scans
    data[frame.scan_header + 4] = 1
    parsed = jpeg_structure.read_frame(bytes(data))
    assert parsed is not None
    assert parsed.several_scans


def test_hostile_size_is_refused_before_decoding() -> None:
    data = bytearray(encoded(make_image(64, 48), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xdc\xff\xdc"
    begun = time.perf_counter()
    with pytest.raises(ImageTooLarge, match="65500 x 65500"):
        images.decode(bytes(data), target=224)
    assert time.perf_counter() - begun < 1
