"""The recipe's training data, as frozen features of captioned images and of the texts about ImageNet's classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from evaluation.datasets import Example, read_examples
from lookalike.encoders.lite.pretrained import load_efficientnet
from lookalike.errors import ConfigInvalid, SourceError, SourceNotFound
from training.lite.classes import class_texts, concept_space
from training.lite.config import LiteConfig
from training.lite.features import image_features, text_features
from training.lite.heads import LiteData, TextGroups, TrainingSet

TRAIN = "train.tar"


def load_data(folders: Sequence[Path], config: LiteConfig, cache: Path) -> LiteData:
    """Read train.tar of each folder, and compute the features that are not in the cache.

    Raises:
        ConfigInvalid: `images_per_step` is for another number of sets.
        SourceNotFound: no train.tar in a folder.
        SourceError: it holds no captioned images.
        TextUnsupported: the text packages are not installed.
        ImageError: an image can't be decoded.
    """
    if len(folders) != len(config.images_per_step):
        raise ConfigInvalid(
            f"images_per_step has {len(config.images_per_step)} numbers; --data names {len(folders)} folders: "
            "it must have one for each"
        )
    numbers = TextNumbers()
    sets = [_training_set(read_split(folder, TRAIN), numbers, config, cache) for folder in folders]
    texts = class_texts()
    prompts = _groups([text.prompts for text in texts], numbers, cache)
    classifier = load_efficientnet().get_submodule("classifier")
    return LiteData(
        sets=sets,
        prompts=prompts,
        concepts=concept_space(texts, prompts.features),
        classifier_weight=_parameter(classifier, "weight"),
        classifier_bias=_parameter(classifier, "bias"),
    )


def read_split(folder: Path, name: str) -> list[Example]:
    """Return all captioned images of an archive, sorted by key.

    Raises:
        SourceNotFound: the folder has no such archive.
        SourceError: it holds no captioned images.
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


class TextNumbers:
    """Gives equal texts equal numbers; case and repeated spaces do not count."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """Return the text's number."""
        return self._numbers.setdefault(" ".join(text.lower().split()), len(self._numbers))


def _training_set(items: list[Example], numbers: TextNumbers, config: LiteConfig, cache: Path) -> TrainingSet:
    views = torch.stack([image_features(items, view, config.seed, cache) for view in range(config.views)])
    return TrainingSet(views, _groups([item.captions for item in items], numbers, cache))


def _groups(texts: Sequence[Sequence[str]], numbers: TextNumbers, cache: Path) -> TextGroups:
    """Return the features and numbers of each image's or class's texts."""
    features = text_features([text for group in texts for text in group], cache)
    sizes = [len(group) for group in texts]
    ends = list(accumulate(sizes))
    split = [features[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    return TextGroups(split, [torch.tensor([numbers(text) for text in group]) for group in texts])


def _parameter(module: torch.nn.Module, name: str) -> Tensor:
    return module.get_parameter(name).detach()
