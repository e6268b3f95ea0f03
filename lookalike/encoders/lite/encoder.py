"""The encoder `lite`: small, embedded, offline, the default.

Images work without the text packages. Once the towers have been converted, no torch is imported.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lookalike.calibration import Calibration, read_calibration
from lookalike.encoders.dual_encoder import TEXT_BATCHES, DualEncoder, TextModel
from lookalike.encoders.engines import EngineOptions, Tower, choose_engine
from lookalike.encoders.lite.abilities import LANGUAGES, LIMITS, TEMPERATURE
from lookalike.encoders.lite.constants import LITE_DIM, LITE_PREPROCESSING
from lookalike.encoders.lite.family import LiteFamily
from lookalike.encoders.lite.weights import (
    CALIBRATION_FILE,
    HEAD_FILE,
    TEXT_HINT,
    text_available,
    weights_digest,
)
from lookalike.types import EncoderSpec

if TYPE_CHECKING:
    from torch import nn

NAME = "lite"

FP32_LAYERS = (2, 2)
"""As in `Tower`: the smallest cosine to fp32 is 0.9995 over the sample gallery and 0.9992 over 400 photographs, for a
thirtieth of the speed."""


def lite_encoder(options: EngineOptions = EngineOptions(), *, heads: Path = HEAD_FILE) -> DualEncoder:
    """Return the encoder `lite`.

    Args:
        options: device, engine, precision and threads.
        heads: other heads than the released ones.

    Raises:
        WeightsMissing: heads or backbone are missing.
        WeightsInvalid: a file is not the published one, or does not fit.
        EncoderError: an engine that can't run here.
    """
    family = LiteFamily()
    choice = choose_engine(options, cuda_precision=family.cuda_precision)
    text_here = text_available()
    spec = EncoderSpec(
        name=NAME,
        weights=weights_digest(heads),
        dim=LITE_DIM,
        image_size=LITE_PREPROCESSING.size,
        preprocessing=LITE_PREPROCESSING.digest,
        text=text_here,
        text_hint=TEXT_HINT,
        engine=choice.engine,
        precision=choice.precision,
        device=choice.device,
        calibration=lite_calibration(heads),
        temperature=TEMPERATURE,
        languages=LANGUAGES if text_here else (),
        limits=LIMITS,
    )
    key = hashlib.sha256(f"{spec.weights} {spec.preprocessing} {family.code_digest()}".encode()).hexdigest()
    text = _text_model(family, key, heads) if spec.text else None
    return DualEncoder(spec, LITE_PREPROCESSING, choice, _image_tower(family, key, heads), text)


def lite_calibration(heads: Path = HEAD_FILE) -> Calibration | None:
    """Return the released heads' calibration; there is none while it is measured anew, and for other heads."""
    return read_calibration(CALIBRATION_FILE) if heads == HEAD_FILE and CALIBRATION_FILE.is_file() else None


def _image_tower(family: LiteFamily, key: str, heads: Path) -> Tower:
    def build() -> nn.Module:
        from lookalike.encoders.lite.loading import load_image_tower

        return load_image_tower(heads)

    side = LITE_PREPROCESSING.size
    return Tower(
        name="lite-image",
        key=key,
        dim=LITE_DIM,
        build=build,
        example=(np.zeros((2, 3, side, side), np.uint8),),
        sequence=False,
        batches=family.image_batches,
        fp32_layers=FP32_LAYERS,
        round_to_bf16=family.round_to_bf16,
    )


def _text_model(family: LiteFamily, key: str, heads: Path) -> TextModel:
    def build() -> nn.Module:
        from lookalike.encoders.lite.loading import load_text_tower

        return load_text_tower(heads)

    inputs = family.text_input("", context=0, end=None, end_id=0)
    tower = Tower(
        name="lite-text",
        key=key,
        dim=LITE_DIM,
        build=build,
        example=inputs.example,
        sequence=True,
        batches=TEXT_BATCHES,
    )
    return TextModel(tower, inputs.tokenize)
