"""The images that the Python API accepts: a path, a file's bytes, a Pillow image, or an array of pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from lookalike import images
from lookalike.encoders.protocol import Encoder
from lookalike.errors import ImageError, SourceNotFound
from lookalike.images import PillowImage
from lookalike.sources.item import read_range
from lookalike.stopwatch import Stopwatch
from lookalike.types import UInt8

ImageInput = str | os.PathLike[str] | bytes | PillowImage | UInt8
"""A file's path, a file's bytes, a Pillow image, or RGB pixels (height, width, 3) uint8."""


def preprocess(image: ImageInput, encoder: Encoder, max_pixels: int, stopwatch: Stopwatch | None = None) -> UInt8:
    """Return the (3, S, S) uint8 pixels that an encoder takes; safe to call from any thread.

    Args:
        image: see `ImageInput`.
        encoder: whose preprocessing and input size apply.
        max_pixels: width x height above which an image is rejected.
        stopwatch: times the stages decode and preprocess.

    Raises:
        ImageError: the image can't be decoded, or an array has another shape or type; of a file, it names the path.
        SourceError: the file can't be read.
        TypeError: not an image.
    """
    stopwatch = stopwatch or Stopwatch()
    with ExitStack() as opened:
        with stopwatch.stage("decode"):
            rgb = opened.enter_context(_opened(image, max_pixels, encoder.preprocessing.resize))
        with stopwatch.stage("preprocess"):
            return encoder.preprocess(rgb)


@contextmanager
def _opened(image: ImageInput, max_pixels: int, target: int) -> Iterator[PillowImage]:
    """Yield the image as upright 8-bit RGB, and hold its share of the process's pixel budget while it is decoded."""
    if isinstance(image, str | os.PathLike):
        path = Path(image).expanduser()
        try:
            with images.open_decoded(_read(path), max_pixels=max_pixels, target=target) as decoded:
                yield decoded.image
        except ImageError as error:
            raise type(error)(f"{path}: {error}") from error
    elif isinstance(image, bytes):
        with images.open_decoded(image, max_pixels=max_pixels, target=target) as decoded:
            yield decoded.image
    elif isinstance(image, PillowImage):
        yield images.from_pillow(image, max_pixels, target)
    elif isinstance(image, np.ndarray):
        yield images.from_array(image, max_pixels)
    else:
        raise TypeError(
            "an image is a path, a file's bytes, a Pillow image or a uint8 array (height, width, 3), "
            f"not {type(image).__name__}"
        )


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device might never end
            raise SourceNotFound(f"{path} is not an image file")
        return read_range(path)
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise SourceNotFound(f"{str(path)[:200]!a} is not a path: {error}") from error
