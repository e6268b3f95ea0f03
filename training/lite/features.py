"""Frozen backbone features of photographs and texts, computed once and cached on disk.

The heads are small, the backbones are not: with cached features an epoch takes a second instead of minutes. A cache
file's name contains a digest of all that determines its content.

Dimension letters: n images or texts, f = 1904 image features, s = 896 text features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from evaluation.datasets import Example
from evaluation.embedding import chunks
from lookalike.encoders.engines import EngineOptions, Tower, choose_engine, create_engine
from lookalike.encoders.lite.constants import (
    IMAGE_FEATURES,
    LITE_PREPROCESSING,
    TEXT_FEATURES,
)
from lookalike.encoders.lite.pretrained import load_efficientnet, load_minilm, load_use
from lookalike.encoders.lite.tokenizer import LiteTokens
from lookalike.encoders.lite.towers import LiteBackbone, LiteTextBackbone
from lookalike.encoders.lite.weights import IMAGE_SHA256, MINILM_SHA256, USE_SHA256
from lookalike.images import decode
from lookalike.types import Float32, UInt8

IMAGE_BATCH_SIZE = 32
TEXT_BATCH_SIZE = 128
MIN_CROP_AREA = 0.5  # share of the image
MAX_CROP_ASPECT_RATIO = 1.2
VERSION = 1  # incremented when the code here changes its results


def image_features(items: Sequence[Example], view: int, seed: int, cache: Path) -> Tensor:
    """Return the features of one view of every photograph.

    Args:
        items: n photographs.
        view: 0 the whole image, 1 its mirror image, 2 and above random crops, mirrored half the time.
        seed: of the crops.
        cache: folder of the cache; created if necessary.

    Returns:
        (n, f) float32.
    """
    images = hashlib.sha256(b"".join(hashlib.sha256(item.load()).digest() for item in items)).hexdigest()
    key = ["images", VERSION, IMAGE_SHA256, LITE_PREPROCESSING.digest, images, view, seed if view > 1 else 0]
    return _cached(cache, key, lambda: _encode_images(items, view, seed))


def text_features(texts: Sequence[str], cache: Path) -> Tensor:
    """Return the sentence vectors of both text networks side by side, MiniLM's not normalized.

    Returns:
        (n, s) float32.
    """
    digest = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
    return _cached(cache, ["texts", VERSION, MINILM_SHA256, USE_SHA256, digest], lambda: _encode_texts(texts))


def take_view(image: Image.Image, view: int, rng: np.random.Generator) -> Image.Image:
    """Return a view of one image, see `image_features`; only crops consume random numbers."""
    if view == 0:
        return image
    if view == 1:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side, ratio = np.sqrt(rng.uniform(MIN_CROP_AREA, 1)), MAX_CROP_ASPECT_RATIO ** rng.uniform(-0.5, 0.5)
    width, height = (min(image.width, side * ratio * image.width), min(image.height, side / ratio * image.height))
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    crop = image.crop((round(left), round(top), round(left + width), round(top + height)))
    crop = crop.resize((LITE_PREPROCESSING.size, LITE_PREPROCESSING.size), Image.Resampling.BICUBIC)  # stretched
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _encode_images(items: Sequence[Example], view: int, seed: int) -> Float32:
    side = LITE_PREPROCESSING.size
    example = np.zeros((2, 3, side, side), np.uint8)
    tower = Tower(
        name="lite-features",
        key=hashlib.sha256(f"{VERSION}{IMAGE_SHA256}{LITE_PREPROCESSING.digest}".encode()).hexdigest(),
        dim=IMAGE_FEATURES,
        build=lambda: LiteBackbone(load_efficientnet()),
        example=(example,),
        sequence=False,
        batches=(1, IMAGE_BATCH_SIZE),
    )
    engine = create_engine(tower, choose_engine(EngineOptions(precision="fp32")))
    rng = np.random.default_rng([seed, view])

    def pixels(item: Example) -> UInt8:
        return LITE_PREPROCESSING(take_view(decode(item.load()).image, view, rng))

    bar = tqdm(total=len(items), desc=f"features of view {view}", unit=" photographs", disable=None)
    rows = [np.zeros((0, IMAGE_FEATURES), np.float32)]
    with bar:
        for batch in chunks(items, IMAGE_BATCH_SIZE):
            rows.append(engine(np.stack([pixels(item) for item in batch])).copy())
            bar.update(len(batch))
    return np.concatenate(rows)


def _encode_texts(texts: Sequence[str]) -> Float32:
    tokenize, model = LiteTokens(), LiteTextBackbone(load_minilm(), load_use()).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # similar lengths in a batch: little padding
    vectors = np.zeros((len(texts), TEXT_FEATURES), np.float32)
    with torch.inference_mode(), tqdm(total=len(texts), desc="text features", unit=" texts", disable=None) as bar:
        for batch in chunks(order, TEXT_BATCH_SIZE):
            arrays = tokenize([texts[i] for i in batch])
            vectors[batch] = model(*(torch.from_numpy(array) for array in arrays)).numpy()
            bar.update(len(batch))
    return vectors


def _cached(folder: Path, key: list[object], compute: Callable[[], Float32]) -> Tensor:
    path = folder / f"{key[0]}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]}.npy"
    if not path.is_file():
        values = compute()
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        np.save(part, values)
        part.replace(path)  # a stopped run leaves no partial file under the final name
    return torch.from_numpy(np.load(path))
