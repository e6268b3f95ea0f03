"""Widths and preprocessing of `lite`. Imports no torch."""

from __future__ import annotations

from lookalike.encoders.preprocessing import Preprocessing

POOLED = 1280
STAGES = 112 + 192 + 320
IMAGE_FEATURES = POOLED + STAGES
SENTENCE = 384
CLASSES = 1000
CONTRASTIVE = 256
HIDDEN = 512
CONCEPT_GAIN = 4.5
"""Length that a concept vector has among the standardised features, found by trial."""
LITE_DIM = CONTRASTIVE + SENTENCE

LITE_PREPROCESSING = Preprocessing(
    size=240,  # a little above the 224 of its training, which helps (Touvron et al. 2019) and still runs fast enough
    resize=240,
    mode="crop",
    interpolation="bicubic",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)
"""The published network saw (pixel - 127) / 128."""
