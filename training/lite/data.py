"""The recipe's training data, as frozen features of Flickr8k and of the texts about ImageNet's classes."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from evaluation.datasets import Example, read_examples
from lookalike.encoders.lite.pretrained import load_efficientnet
from lookalike.errors import SourceError, SourceNotFound
from training.lite.classes import class_texts, class_vectors
from training.lite.config import LiteConfig
from training.lite.features import image_features, sentence_vectors
from training.lite.heads import LiteData

TRAIN = "train.tar"
VAL = "val.tar"


def load_data(folder: Path, config: LiteConfig, cache: Path) -> LiteData:
    """Read `folder`/train.tar, and compute the features that are not in the cache.

    Raises:
        SourceNotFound: no train.tar in the folder.
        SourceError: it holds no captioned photographs.
        TextUnsupported: the text packages are not installed.
        ImageError: a photograph can't be decoded.
    """
    items = read_split(folder, TRAIN)
    views = torch.stack([image_features(items, view, config.seed, cache) for view in range(config.views)])
    captions = sentence_vectors([caption for item in items for caption in item.captions], cache)
    texts = class_texts()
    prompt_vectors = sentence_vectors([prompt for text in texts for prompt in text.prompts], cache)
    prompts = _split_rows(prompt_vectors, [len(text.prompts) for text in texts])
    vectors, mean = class_vectors(texts, prompts, config.concept_centering)
    classifier = load_efficientnet().get_submodule("classifier")
    return LiteData(
        views=views,
        captions=_split_rows(captions, [len(item.captions) for item in items]),
        class_prompts=prompts,
        class_vectors=vectors,
        class_mean=mean,
        classifier_weight=_parameter(classifier, "weight"),
        classifier_bias=_parameter(classifier, "bias"),
    )


def read_split(folder: Path, name: str) -> list[Example]:
    """Return all captioned photographs of an archive, sorted by key.

    Raises:
        SourceNotFound: the folder has no such archive.
        SourceError: it holds no captioned photographs.
    """
    path = folder / name
    if not path.is_file():
        raise SourceNotFound(
            f"no {name} in {folder}: expected a webdataset tar of key.jpg and key.txt, a caption a line"
        )
    examples = read_examples([str(path)])
    for example in examples:
        if not example.captions:
            example.load()  # raises where the archive is damaged
    captioned = sorted((example for example in examples if example.captions), key=lambda example: example.key)
    if not captioned:
        raise SourceError(f"{path} has no image with a .txt of captions beside it")
    return captioned


def _parameter(module: torch.nn.Module, name: str) -> Tensor:
    return module.get_parameter(name).detach()


def _split_rows(rows: Tensor, sizes: list[int]) -> list[Tensor]:
    """Split consecutive rows into one view for each group."""
    ends = list(accumulate(sizes))
    return [rows[end - size : end] for size, end in zip(sizes, ends, strict=True)]
