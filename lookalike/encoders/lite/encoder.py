"""The encoder `lite`: small, embedded, offline, the default. Ties the model of `lite_model` to engines.

Images work without the text packages. Where the towers were converted before, torch is not imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.calibration import Calibration, read_calibration
from lookalike.encoders.dual import TEXT_BATCHES, DualEncoder, TextSide, pad_tokens
from lookalike.encoders.engines import EngineChoice, EngineOptions, Tower, choose_engine
from lookalike.encoders.engines.cache import sha256_file, source_digest
from lookalike.encoders.lite import model as lite_model
from lookalike.encoders.lite.facts import (
    CALIBRATION_FILE,
    TEXT_PACKAGE,
    TOKENIZER_FILE,
    TOKENIZER_SHA256,
    package_file,
)
from lookalike.encoders.lite.model import (
    HEAD_FILE,
    LITE_DIM,
    LITE_PREPROCESSING,
    load_image_tower,
    load_text_tower,
    text_available,
    weights_digest,
)
from lookalike.encoders.lite.tokenizer import MAX_TOKENS, Tokenizer
from lookalike.errors import TextUnsupported, WeightsInvalid
from lookalike.types import EncoderSpec

NAME = "lite"
EXACT = (2, 2)
"""The first two convolutions and all sums in fp32: the smallest cosine to fp32 is 0.9995 over the sample gallery and
0.9992 over 400 photographs; for a thirtieth of the speed."""

LITE_BATCHES = (1, 4)
"""Row counts of the image tower's graph: of a small convolutional network four images fill a core's cache."""

TEXT_MEND = "'lite' has no text tower here: pip install 'lookalike[text]'"


def lite_encoder(options: EngineOptions = EngineOptions(), *, heads: Path = HEAD_FILE) -> DualEncoder:
    """The encoder `lite`.

    Args:
        options: device, engine, precision and threads.
        heads: other heads than the ones that come with this package.

    Raises:
        WeightsMissing: heads or backbone are not there.
        WeightsInvalid: they are not what they should be.
        EncoderError: an engine that can't run here.
    """
    choice = choose_engine(options, cuda_precision="fp16")
    spec = EncoderSpec(
        name=NAME,
        weights=weights_digest(heads),
        dim=LITE_DIM,
        image_size=LITE_PREPROCESSING.size,
        preprocessing=LITE_PREPROCESSING.digest,
        text=text_available(),
        engine=choice.engine,
        precision=choice.precision,
        device=choice.device,
        calibration=_calibration(heads),
    )
    return _assemble(spec, choice, heads)


def _calibration(heads: Path) -> Calibration | None:
    """The released heads' own; there is none while it is being made anew, and for other heads."""
    return read_calibration(CALIBRATION_FILE) if heads == HEAD_FILE and CALIBRATION_FILE.is_file() else None


def _assemble(spec: EncoderSpec, choice: EngineChoice, heads: Path) -> DualEncoder:
    side = spec.image_size
    key = _tower_key(spec)
    image = Tower(
        name="lite-image",
        key=key,
        dim=spec.dim,
        build=lambda: load_image_tower(heads),
        example=(np.zeros((2, 3, side, side), np.uint8),),
        sequence=False,
        batches=LITE_BATCHES,
        exact=EXACT,
        round_to_bf16=lite_model.round_to_bf16,
    )
    text = _text_side(spec, key, heads) if spec.text else None
    return DualEncoder(spec, LITE_PREPROCESSING, choice, image, text, TEXT_MEND)


def _tower_key(spec: EncoderSpec) -> str:
    """Weights, preprocessing and the code between them: a graph converted from older code must not be found."""
    code = source_digest(Path(lite_model.__file__).parent)
    return hashlib.sha256(f"{spec.weights} {spec.preprocessing} {code}".encode()).hexdigest()


def _text_side(spec: EncoderSpec, key: str, heads: Path) -> TextSide:
    tower = Tower(
        name="lite-text",
        key=key,
        dim=spec.dim,
        build=lambda: load_text_tower(heads)[0],
        example=(np.ones((2, 8), np.int64), np.ones((2, 8), np.int64)),
        sequence=True,
        batches=TEXT_BATCHES,
    )
    return TextSide(tower, LiteTokens())


class LiteTokens:
    """Texts -> ids and mask, padded to a multiple of four tokens; reads the tokenizer's file at the first call."""

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Texts -> ids and mask, (n, t) int64 each."""
        return tuple(pad_tokens(array, MAX_TOKENS) for array in self._tokenizer(texts))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        path = package_file(TEXT_PACKAGE, TOKENIZER_FILE)
        if path is None:
            raise TextUnsupported(TEXT_MEND)
        if sha256_file(path) != TOKENIZER_SHA256:
            raise WeightsInvalid(f"{path} is not the published tokenizer: reinstall the package {TEXT_PACKAGE}")
        return Tokenizer(path)
