"""What `lite` finds: in 15 languages over the sample gallery, and over the validation images of the shared data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.captions import caption_ranks
from evaluation.datasets import read_examples
from lookalike.api import LoadedEncoder, load_encoder
from lookalike.types import Float32

QUERIES: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "languages.json").read_text(encoding="utf-8"))
"""Language -> file of the sample gallery -> a text that describes it."""


@pytest.fixture(scope="module")
def lite() -> LoadedEncoder:
    return load_encoder("lite")


@pytest.fixture(scope="module")
def embedded(lite: LoadedEncoder, gallery: Path) -> tuple[list[str], Float32]:
    """File names and vectors of the sample gallery."""
    paths = sorted(path for path in gallery.rglob("*") if path.suffix in (".jpg", ".png"))
    return [path.name for path in paths], lite.encode_images(paths)


@pytest.mark.parametrize("language", QUERIES)
def test_texts_find_their_image_in_every_language(
    lite: LoadedEncoder, embedded: tuple[list[str], Float32], language: str
) -> None:
    names, images = embedded
    scores = lite.encode_texts(list(QUERIES[language].values())) @ images.T
    assert [names[row] for row in scores.argmax(1)] == list(QUERIES[language])


def test_languages_are_those_that_lite_states(lite: LoadedEncoder) -> None:
    assert sorted(language.partition("-")[0] for language in QUERIES) == sorted(
        [*lite.languages, "zh"]
    )  # in two scripts


def recall_at_10(lite: LoadedEncoder, images: Float32, captions: list[tuple[str, ...]]) -> float:
    """Share of captions that find their own image among the first ten."""
    texts = lite.encode_texts([caption for each in captions for caption in each])
    owners = np.repeat(np.arange(len(captions)), [len(each) for each in captions])
    return float((caption_ranks(images, texts, owners)[0] <= 10).mean())


def test_chinese_and_english_captions_find_their_photographs(lite: LoadedEncoder, shared_data: Path) -> None:
    examples = read_examples([str(shared_data / "flickr8k" / "val.tar")])
    images = lite.encode_images([example.load() for example in examples])
    lines = (shared_data / "flickr8k" / "val-zh.jsonl").read_text(encoding="utf-8").splitlines()
    chinese = {entry["key"]: tuple(entry["captions"]) for entry in map(json.loads, lines)}
    assert recall_at_10(lite, images, [example.captions for example in examples]) >= 0.69
    texts = lite.encode_texts([example.captions[0] for example in examples])
    own = (texts * images).sum(1)
    others = np.concatenate([(texts * np.roll(images, shift, axis=0)).sum(1) for shift in (1, 7, 100)])
    assert (own[:, None] > others).mean() > 0.97  # ROC-AUC of captions with their own and with other photographs
    assert recall_at_10(lite, images, [chinese[example.key.partition("/")[2]] for example in examples]) >= 0.5


def test_captions_of_many_kinds_find_their_images(lite: LoadedEncoder, shared_data: Path) -> None:
    archive = shared_data / "broad" / "val.tar"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    examples = [example for example in read_examples([str(archive)]) if example.captions]
    images = lite.encode_images([example.load() for example in examples])
    assert recall_at_10(lite, images, [example.captions for example in examples]) >= 0.68
