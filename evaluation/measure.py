"""An encoder and a data set -> a report: the two measurements that `lookalike evaluate` knows.

Reads through `datasets`, encodes through `embedding`, scores through `ranking`; knows no file format and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from evaluation.datasets import read_captioned, read_labelled
from evaluation.embedding import Progress, embed_images, embed_texts
from evaluation.ranking import Scores, accuracy, best_ranks, hit_rate_at_k, precision_at_k
from evaluation.report import CaptionReport, CategoryReport, Report, describe
from retrieval.encoders.protocol import Encoder
from retrieval.errors import SourceError
from retrieval.types import Bool, Int64

DEPTHS = (1, 5, 10)
PRECISION_DEPTH = 10
PROMPT = "a photo of a {}"


def measure(encoder: Encoder, path: Path, *, progress: Progress | None = None) -> Report:
    """A folder is measured by its categories, anything else as a tar of captioned photographs.

    Raises:
        SourceError: nothing to measure at the path.
        TextUnsupported: the encoder has no text tower here.
    """
    how: Callable[..., Report] = measure_categories if path.is_dir() else measure_captions
    return how(encoder, path, progress=progress)


def measure_captions(encoder: Encoder, tar: Path, *, progress: Progress | None = None) -> CaptionReport:
    """Each caption seeks its photograph among all, and each photograph one of its captions.

    Raises:
        SourceError: no captioned photograph in the tar.
        TextUnsupported: the encoder has no text tower here.
    """
    captions: list[tuple[str, ...]] = []

    def images() -> Iterator[bytes]:
        for item in read_captioned(tar):
            captions.append(item.captions)
            yield item.image

    vectors, kept = embed_images(encoder, images(), progress=progress)
    _require(len(kept), tar)
    owners = np.repeat(np.arange(len(kept)), [len(captions[i]) for i in kept])  # (q,): photograph of each caption
    texts = embed_texts(encoder, [text for i in kept for text in captions[i]])
    scores = texts @ vectors.T
    relevant = owners[:, None] == np.arange(len(kept))
    return CaptionReport(
        encoder=describe(encoder.spec),
        photographs=len(kept),
        captions=len(owners),
        rejected=len(captions) - len(kept),
        text_to_image=_summary(scores, relevant),
        image_to_text=_summary(scores.T, relevant.T),
    )


def measure_categories(
    encoder: Encoder, folder: Path, *, progress: Progress | None = None, prompt: str = PROMPT, k: int = PRECISION_DEPTH
) -> CategoryReport:
    """Each category's name, put into `prompt`, seeks the pictures of its folder among those of all folders.

    Raises:
        SourceError: no class folder with a readable picture.
        TextUnsupported: the encoder has no text tower here.
    """
    found: list[str] = []

    def images() -> Iterator[bytes]:
        for item in read_labelled(folder):
            found.append(item.category)
            yield item.image

    vectors, kept = embed_images(encoder, images(), progress=progress)
    _require(len(kept), folder)
    categories = sorted({found[i] for i in kept})
    labels: Int64 = np.array([categories.index(found[i]) for i in kept], np.int64)
    queries = embed_texts(encoder, [prompt.format(name) for name in categories])
    scores = queries @ vectors.T
    precision = precision_at_k(scores, np.arange(len(categories))[:, None] == labels, k)
    return CategoryReport(
        encoder=describe(encoder.spec),
        photographs=len(kept),
        rejected=len(found) - len(kept),
        k=k,
        prompt=prompt,
        precision=dict(zip(categories, precision.tolist(), strict=True)),
        mean_precision=float(precision.mean()),
        zero_shot_accuracy=accuracy(scores.T, labels),
    )


def _summary(scores: Scores, relevant: Bool) -> dict[str, float]:
    ranks = best_ranks(scores, relevant)
    rates = {f"R@{k}": hit_rate_at_k(ranks, k) for k in DEPTHS}
    return rates | {"mean_rank": float(ranks.mean()), "median_rank": float(np.median(ranks))}


def _require(count: int, path: Path) -> None:
    if count == 0:
        raise SourceError(f"{path} holds no picture that can be read")
