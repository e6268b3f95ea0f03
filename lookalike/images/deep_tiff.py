"""TIFFs of more than 8 bits a sample, by tifffile: Pillow itself reads few of them without loss."""

from __future__ import annotations

import io
import logging
import zlib
from typing import IO, Any, cast

import numpy as np
from PIL import Image, ImageFile

from lookalike.images.depth import ValueRange, declared_range, finite_range, value_range
from lookalike.types import UInt8

_MAX_BYTES = 1 << 30  # of an image's samples: 64 megapixels of four floats
_KINDS = ("u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
_NONE, _DEFLATE = 1, (8, 32946)
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB = 0, 1, 2
_NO_PREDICTOR, _HORIZONTAL = 1, 2
_ALPHA = (1, 2)
_MODES = {1: "L", 2: "L", 3: "RGB", 4: "RGB"}
_ROWS = 256
_ORIENTATION, _ICC_PROFILE = 274, 34675


class DeepTiffImage(ImageFile.ImageFile):
    """The first page of a TIFF; its samples are decompressed on `load`."""

    format = "TIFF"
    format_description = "TIFF with deep samples"

    _page: Any = None

    def _open(self) -> None:
        import tifffile  # here, since it takes 80 ms that few processes need

        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # odd metadata do not concern the pixels
        try:
            page: Any = tifffile.TiffFile(cast(IO[bytes], self.fp)).pages[0]
            readable = _is_readable(page)
        except Exception as error:  # hostile bytes, as for Pillow's own plugins
            raise SyntaxError("not a TIFF that tifffile reads") from error
        if not readable:
            raise SyntaxError("a TIFF for Pillow")
        self._page = page
        self._size = (page.imagewidth, page.imagelength)
        self._mode = _MODES[page.samplesperpixel] + ("A" if _has_alpha(page) else "")
        self.info.update(_metadata(page))

    def load(self) -> Any:
        """Decompress the samples and scale them to 8 bits."""
        if self._page is not None:
            page, self._page = self._page, None
            self.im = Image.fromarray(_pixels(page)).im
        return super().load()


def open_deep_tiff(data: bytes) -> Image.Image | None:
    """Read the header of a TIFF of more than 8 bits a sample; None for others, which are left to Pillow."""
    try:
        return DeepTiffImage(io.BytesIO(data))  # not registered, which would change Pillow for the whole process
    except SyntaxError:
        return None


def _is_readable(page: Any) -> bool:
    """Whether tifffile reads the page, which has deep samples, within bounds and without further packages."""
    samples, kind = page.samplesperpixel, page.dtype.str[1:] if page.dtype else ""
    return (
        kind in _KINDS
        and page.bitspersample == 8 * page.dtype.itemsize
        and samples in _MODES
        and page.photometric in ((_RGB,) if samples > 2 else (_MIN_IS_WHITE, _MIN_IS_BLACK))
        and page.imagedepth == 1
        and page.compression in (_NONE, *_DEFLATE)
        and page.predictor in (_NO_PREDICTOR, _HORIZONTAL)
        and page.nbytes <= _MAX_BYTES
        and _segment_bytes(page) <= _MAX_BYTES
    )


def _metadata(page: Any) -> dict[str, bytes]:
    exif = Image.Exif()
    exif[_ORIENTATION] = int(page.tags.valueof(_ORIENTATION, 1))
    metadata = {"exif": exif.tobytes()}
    profile = page.tags.valueof(_ICC_PROFILE)
    return {**metadata, "icc_profile": bytes(profile)} if profile else metadata


def _pixels(page: Any) -> UInt8:
    """Return (height, width) or (height, width, channels) uint8, channels in the order of `_mode`."""
    if page.compression != _NONE:
        _check_segments(page)
    planes, _, height, width, samples = page.shaped
    values = page.asarray(maxworkers=1).reshape(planes, height, width, samples)
    values = values[0] if planes == 1 else np.moveaxis(values[..., 0], 0, -1)
    colors = 1 if page.samplesperpixel < 3 else 3
    pixels = _scaled(values[..., :colors], declared_range({tag.code: tag.value for tag in page.tags}))
    if page.photometric == _MIN_IS_WHITE:
        pixels = 255 - pixels
    if _has_alpha(page):
        pixels = np.concatenate([pixels, _scaled(values[..., -1:], None)], axis=-1)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _scaled(values: Any, span: ValueRange | None) -> UInt8:
    """Return (height, width, channels) samples as 8 bits; all channels alike, so that colours stay."""
    parts = [slice(top, top + _ROWS) for top in range(0, len(values), _ROWS)]
    extrema = [finite_range(values[part]) for part in parts]
    low, high = min(low for low, _ in extrema), max(high for _, high in extrema)
    if span is None or not span.low <= low <= high <= span.high:
        span = value_range(low, high, values.dtype.kind == "f") if low <= high else ValueRange(0, 1)
    pixels = np.empty(values.shape, np.uint8)
    for part in parts:
        pixels[part] = span.scale(values[part])
    return pixels


def _has_alpha(page: Any) -> bool:
    return page.samplesperpixel in (2, 4) and bool(page.extrasamples) and page.extrasamples[0] in _ALPHA


def _segment_bytes(page: Any) -> int:
    """Return the bytes of a decompressed strip or tile."""
    return int(np.prod(page.chunks, dtype=np.int64)) * int(page.dtype.itemsize)


def _check_segments(page: Any) -> None:
    """Raise ValueError where a strip or tile decompresses to more than the header declares: tifffile sets no bound."""
    limit, file = _segment_bytes(page), page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        file.seek(offset)
        if len(zlib.decompressobj().decompress(file.read(count), limit + 1)) > limit:
            raise ValueError(f"a strip or tile of more than {limit:,} bytes")
