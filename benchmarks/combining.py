"""`python -m benchmarks.combining`: ways to combine an image and a text into one query vector.

Four kinds of query of two parts, over the validation images of Flickr8k and of the broad set (LOOKALIKE_TEST_DATA):

- *plus*: an image and a word that its captions lack. Relevant images have the word and two further words of the image.
- *minus*: an image without one of its words. Relevant images lack the word and have two further words of the image.
- *texts*: two words. Relevant images have both.
- *own*: a crop, a ninth of an image, and one of the image's captions. Relevant is the image itself.

An image has a word if at least 40 % of its captions do. The image of the query is left out of *plus* and *minus*.
P@10 is divided by min(10, number of relevant images). Intervals resample the words (*own*: the images), 95 %.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.encoders import machine
from evaluation.datasets import Example, read_examples
from evaluation.embedding import embed_images, embed_texts
from evaluation.intervals import bootstrap_counts, percentile_interval
from evaluation.ranking import precision_at_k
from lookalike.encoders.engines import EngineOptions
from lookalike.encoders.registry import load_encoder
from lookalike.types import Bool, Float32, Float64, Int64

K = 10
WEIGHTS = (0.35, 0.5, 0.71, 1.0, 1.41, 2.0, 2.8)
MIN_SHARE = 0.4
"""Share of an image's captions that must have a word."""
SHARED_WORDS = 2
"""Further words of the query's image that a relevant image must have."""
MIN_RELEVANT, MIN_IMAGES_PER_WORD, MAX_QUERIES_PER_WORD = 3, 8, 25
SAMPLE, MEAN_CAPTIONS, CROP = 1_024, 2_000, 1 / 3
# fmt: off
_STOP_WORDS = frozenset((
    "a", "an", "the", "and", "or", "of", "in", "on", "at", "to", "with", "by", "for", "from", "into", "over", "through",
    "near", "out", "up", "down", "off", "it", "its", "his", "her", "their", "is", "are", "was", "be", "being", "has",
    "have", "while", "as", "that", "this", "there", "these", "those", "who", "which", "one", "two", "three", "four",
    "five", "some", "several", "other", "another", "each", "very", "them", "him", "he", "she", "they", "around", "next",
    "front", "behind", "under", "along", "towards", "toward", "onto", "against", "photo", "men", "women",
))
# fmt: on


@dataclass(frozen=True)
class Queries:
    """q queries of one kind.

    Attributes:
        first: (q, d) their first parts, unit: images, or words for *texts*.
        second: (q, d) their second parts, unit: texts.
        sign: of the second part's weight.
        relevant: (q, n) relevant items of the gallery.
        excluded: (q,) row of the gallery that is no result; -1 for none.
        clusters: (q,) what the bootstrap resamples.
    """

    first: Float32
    second: Float32
    sign: int
    relevant: Bool
    excluded: Int64
    clusters: Int64


@dataclass(frozen=True)
class Space:
    """What a combination may use: (d,) the means of the parts' modalities, and (m, d) a sample of the gallery."""

    first_mean: Float32
    second_mean: Float32
    sample: Float32


Combination = Callable[[Float32, Float32, float, Space], Float32]
"""Returns (q, d) query vectors of (q, d) first parts, (q, d) second parts and the signed weight of the second."""


def first_alone(first: Float32, second: Float32, weight: float, space: Space) -> Float32:
    """Ignore the second part."""
    return first


def second_alone(first: Float32, second: Float32, weight: float, space: Space) -> Float32:
    """Ignore the first part."""
    return second if weight > 0 else -second


def plain(first: Float32, second: Float32, weight: float, space: Space) -> Float32:
    """Add unit vectors."""
    return first + weight * second


def centered(first: Float32, second: Float32, weight: float, space: Space) -> Float32:
    """Remove the mean of each part's modality, then add."""
    return (first - space.first_mean) + weight * (second - space.second_mean)


def centered_unit(first: Float32, second: Float32, weight: float, space: Space) -> Float32:
    """Remove the mean of each part's modality, scale to unit norm, then add."""
    return _unit(first - space.first_mean) + weight * _unit(second - space.second_mean)


def standardized(first: Float32, second: Float32, weight: float, space: Space) -> Float32:
    """Divide each part by the standard deviation of its scores against the sample, then add."""
    return first / _deviations(first, space.sample) + weight * second / _deviations(second, space.sample)


ALONE: dict[str, Combination] = {"first part alone": first_alone, "second part alone": second_alone}
COMBINATIONS: dict[str, Combination] = {
    "plain addition": plain,
    "means removed": centered,
    "means removed, unit norm": centered_unit,
    "standardized scores": standardized,
}


def _unit(vectors: Float32) -> Float32:
    unit: Float32 = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _deviations(queries: Float32, sample: Float32) -> Float32:
    deviations: Float32 = (queries @ sample.T).std(axis=1, keepdims=True)
    return deviations


# Words


def words(text: str) -> set[str]:
    """Return a text's words but for the most common ones, plurals as singulars.

    >>> sorted(words("Two dogs playing with a ball."))
    ['ball', 'dog', 'playing']
    """
    found = re.findall(r"[a-z]+", text.lower())
    return {_singular(word) for word in found if word not in _STOP_WORDS and len(word) > 1}


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def words_of(captions: Sequence[str]) -> set[str]:
    """Return the words in at least 40 % of an image's captions."""
    counts = Counter(word for caption in captions for word in words(caption))
    return {word for word, count in counts.items() if count >= MIN_SHARE * len(captions)}


# Queries


def plus_minus(
    gallery: Float32, captions: Sequence[Sequence[str]], anchors: int, vector: Callable[[list[str]], Float32], seed: int
) -> tuple[Queries, Queries]:
    """Return the queries *plus* and *minus*; images of queries are among the first `anchors`."""
    common = [words_of(each) for each in captions]
    any_caption = [{word for caption in each for word in words(caption)} for each in captions]
    counts = Counter(word for each in common for word in each)
    names = sorted(word for word, count in counts.items() if count >= MIN_IMAGES_PER_WORD)
    has = np.array([[word in each for word in names] for each in common])
    mentions = np.array([[word in each for word in names] for each in any_caption])
    shared = has.astype(np.float32) @ has.T.astype(np.float32)
    rng = np.random.default_rng(seed)
    texts = vector(names)
    plus, minus = [], []
    for w in range(len(names)):
        with_word = [(a, has[:, w] & (shared[a] >= SHARED_WORDS)) for a in range(anchors) if not mentions[a, w]]
        plus += [(a, w, mask) for a, mask in _draw(with_word, rng)]
        further = shared - np.outer(has[:, w], has[:, w])
        without = [(a, ~mentions[:, w] & (further[a] >= SHARED_WORDS)) for a in range(anchors) if has[a, w]]
        minus += [(a, w, mask) for a, mask in _draw(without, rng)]
    return _queries(plus, gallery, texts, 1), _queries(minus, gallery, texts, -1)


def _draw(candidates: list[tuple[int, Bool]], rng: np.random.Generator) -> list[tuple[int, Bool]]:
    """Return up to MAX_QUERIES_PER_WORD of the queries that have enough relevant images beside their own."""
    for a, mask in candidates:
        mask[a] = False
    enough = [each for each in candidates if each[1].sum() >= MIN_RELEVANT]
    chosen = rng.permutation(len(enough))[:MAX_QUERIES_PER_WORD]
    return [enough[i] for i in chosen]


def _queries(found: list[tuple[int, int, Bool]], gallery: Float32, texts: Float32, sign: int) -> Queries:
    rows = np.array([a for a, _, _ in found])
    word_rows = np.array([w for _, w, _ in found])
    relevant = np.array([mask for _, _, mask in found])
    return Queries(gallery[rows], texts[word_rows], sign, relevant, rows, word_rows)


def two_words(captions: Sequence[Sequence[str]], vector: Callable[[list[str]], Float32], seed: int) -> Queries:
    """Return the queries *texts*: pairs of words that enough images have together."""
    common = [words_of(each) for each in captions]
    counts = Counter(word for each in common for word in each)
    names = sorted(word for word, count in counts.items() if count >= MIN_IMAGES_PER_WORD)
    has = np.array([[word in each for word in names] for each in common])
    rng = np.random.default_rng(seed)
    both = has.T.astype(np.int64) @ has
    found = []
    for w in range(len(names)):
        partners = rng.permutation(np.flatnonzero((both[w] >= MIN_RELEVANT) & (np.arange(len(names)) != w)))
        found += [(w, u, has[:, w] & has[:, u]) for u in partners[:MAX_QUERIES_PER_WORD]]
    texts = vector(names)
    rows, others = (np.array([each[i] for each in found]) for i in (0, 1))
    return Queries(texts[rows], texts[others], 1, np.array([each[2] for each in found]), np.full(len(rows), -1), rows)


def own(crops: Float32, captions: Float32, count: int) -> Queries:
    """Return the queries *own*: row i of crops and captions belongs to item i."""
    relevant = np.eye(len(crops), count, dtype=np.bool_)
    return Queries(crops, captions, 1, relevant, np.full(len(crops), -1), np.arange(len(crops)))


# Measures


def precisions(vectors: Float32, gallery: Float32, queries: Queries, k: int = K) -> Float64:
    """Return P@k of each query, (q,)."""
    scores = vectors @ gallery.T
    left_out = np.flatnonzero(queries.excluded >= 0)
    scores[left_out, queries.excluded[left_out]] = -np.inf
    return precision_at_k(scores, queries.relevant, k)


def cluster_interval(values: Float64, clusters: Int64, resamples: int = 1_000) -> tuple[float, float]:
    """Return the interval of the mean of (q,) values whose (q,) clusters are resampled."""
    sums, sizes = np.bincount(clusters, values), np.bincount(clusters)
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    return percentile_interval(
        [float((counts @ sums) / (counts @ sizes)) for counts in bootstrap_counts(len(sums), resamples, 0)]
    )


# Data


def embedded(cache: Path | None, name: str, key: Sequence[str], compute: Callable[[], Float32]) -> Float32:
    """Return an array from the cache folder, or compute and store it."""
    if cache is None:
        return compute()
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
    path = cache / f"{name}-{digest}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, compute())
    array: Float32 = np.load(path)
    return array


def crop(data: bytes, seed: int) -> bytes:
    """Return a random crop of an image file, a third of its width and height, as PNG."""
    rng = np.random.default_rng(seed)
    with Image.open(io.BytesIO(data)) as image:
        width, height = (round(side * CROP) for side in image.size)
        left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
        out = io.BytesIO()
        image.convert("RGB").crop((left, top, left + width, top + height)).save(out, "PNG")
    return out.getvalue()


def _cropped(example: Example, seed: int) -> Callable[[], bytes]:
    return lambda: crop(example.load(), seed)


@dataclass(frozen=True)
class Data:
    """The gallery's (n, d) vectors, and the queries by their kind."""

    gallery: Float32
    space: Space
    kinds: dict[str, Queries]


def load(name: str, folder: Path, cache: Path | None, template: str, seed: int) -> Data:
    """Embed images and texts, and make the queries."""
    encoder = load_encoder(name, EngineOptions("cpu", "auto", "auto", None))
    photographs = read_examples([str(folder / "flickr8k" / "val.tar")])
    examples = photographs + read_examples([str(folder / "broad" / "val.tar")])

    def images(kind: str, loads: Sequence[Callable[[], bytes]]) -> Float32:
        return embedded(cache, kind, [name, *keys], lambda: embed_images(encoder, loads)[0])

    def texts(values: list[str]) -> Float32:
        return embedded(cache, "texts", [name, *values], lambda: embed_texts(encoder, values))

    keys = [example.key for example in examples]
    gallery = images("images", [example.load for example in examples])
    crops = images(f"crops-{seed}", [_cropped(example, seed + i) for i, example in enumerate(photographs)])
    rng = np.random.default_rng(seed)
    known = [caption for example in _training(folder) for caption in example.captions]
    mean_texts = texts([known[i] for i in rng.permutation(len(known))[:MEAN_CAPTIONS]])
    sample = gallery[rng.permutation(len(gallery))[:SAMPLE]]
    all_captions = [example.captions for example in examples]

    def word_vectors(names: list[str]) -> Float32:
        return texts([template.format(word) for word in names])

    plus, minus = plus_minus(gallery, all_captions, len(photographs), word_vectors, seed)
    pairs = two_words(all_captions, word_vectors, seed)
    captions = texts([example.captions[int(rng.integers(len(example.captions)))] for example in photographs])
    space = Space(sample.mean(axis=0), mean_texts.mean(axis=0), sample)
    return Data(
        gallery, space, {"plus": plus, "minus": minus, "texts": pairs, "own": own(crops, captions, len(gallery))}
    )


def _training(folder: Path) -> list[Example]:
    return read_examples([str(folder / "flickr8k" / "train.tar"), str(folder / "broad" / "train.tar")], limit=3_000)


# Report


def report(data: Data) -> str:
    """Return Markdown: one table for each kind of query."""
    space = data.space
    gap = float(np.linalg.norm(space.first_mean - space.second_mean))
    norms = [float(np.linalg.norm(mean)) for mean in (space.first_mean, space.second_mean)]
    head = f"Norm of the images' mean {norms[0]:.3f}, of the texts' {norms[1]:.3f}; their distance {gap:.3f}."
    return "\n\n".join([head, *(_table(data, kind, queries) for kind, queries in data.kinds.items())])


def _table(data: Data, kind: str, queries: Queries) -> str:
    measure = "hit rate at 1" if kind == "own" else f"P@{K}"
    k = 1 if kind == "own" else K
    space = replace(data.space, first_mean=data.space.second_mean) if kind == "texts" else data.space

    def values(combination: Combination, weight: float) -> Float64:
        vectors = combination(queries.first, queries.second, queries.sign * weight, space)
        return precisions(vectors, data.gallery, queries, k)

    lines = [
        f"{kind}: {len(queries.first):,} queries, {len(set(queries.clusters.tolist()))} clusters, {measure}, "
        "by the weight of the second part",
        "",
        f"| | {' | '.join(f'{weight:g}' for weight in WEIGHTS)} | best minus best plain | at 1 minus plain at 1 |",
        "| --- |" + " ---: |" * (len(WEIGHTS) + 2),
    ]
    lines += [
        f"| {name} | {values(combination, 1.0).mean():.3f} |" + " |" * (len(WEIGHTS) + 1)
        for name, combination in ALONE.items()
    ]
    by_weight = {name: [values(combination, w) for w in WEIGHTS] for name, combination in COMBINATIONS.items()}
    best = {name: max(found, key=lambda each: float(each.mean())) for name, found in by_weight.items()}
    at_one, reference = WEIGHTS.index(1.0), next(iter(COMBINATIONS))
    for name, found in by_weight.items():
        cells = [f"{each.mean():.3f}" for each in found]
        cells += [
            _difference(a, b, queries.clusters) if name != reference else ""
            for a, b in ((best[name], best[reference]), (found[at_one], by_weight[reference][at_one]))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(a: Float64, b: Float64, clusters: Int64) -> str:
    low, high = cluster_interval(a - b, clusters)
    return f"{(a - b).mean():+.3f} ({low:+.3f} to {high:+.3f})"


def main() -> None:
    """Parse the command line, measure, print."""
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="lite", help="encoder's name")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LOOKALIKE_TEST_DATA", shared)))
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings between runs")
    parser.add_argument("--template", default="{}", help="text of a word, such as 'with a {}'")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn queries, crops and samples")
    options = parser.parse_args()
    data = load(options.encoder, options.data, options.cache, options.template, options.seed)
    print(f"{options.encoder}: {machine()}\n\n{report(data)}")


if __name__ == "__main__":
    main()
