"""Widths and preprocessing of `lite`. Imports no torch."""

from __future__ import annotations

from lookalike.encoders.preprocessing import Preprocessing

POOLED = 1280
STAGES = 112 + 192 + 320
IMAGE_FEATURES = POOLED + STAGES
MINILM = 384
USE = 512
TEXT_FEATURES = MINILM + USE
CLASSES = 1000
CONTRASTIVE = 256
CONCEPT_MINILM = 128
CONCEPT_USE = 128
CONCEPT = CONCEPT_MINILM + CONCEPT_USE
APPEARANCE = 256
IMAGE_HIDDEN = 1024
TEXT_HIDDEN = 768
CONCEPT_GAIN = 6.4
"""Length that a concept vector has among the standardised features, found by trial."""
LITE_DIM = CONTRASTIVE + CONCEPT + APPEARANCE

LITE_PREPROCESSING = Preprocessing(
    size=240,  # a little above the 224 of its training, which helps (Touvron et al. 2019) and still runs fast enough
    resize=240,
    mode="crop",
    interpolation="bicubic",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)
"""The published network saw (pixel - 127) / 128."""
