"""`python -m benchmarks.classify SOURCE...`: accuracy over the labels of images, and the best temperature, by template.

The temperature of the smallest cross-entropy is fitted on every other image. The figures are of the rest, with that
temperature and with the encoder's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks.encoders import machine
from evaluation.datasets import read_examples
from evaluation.embedding import embed_images, embed_texts
from lookalike.bootstrap import load_encoder
from lookalike.encoders.protocol import Encoder
from lookalike.search import ensemble, softmax
from lookalike.types import Float32, Float64, Int64

TEMPLATES = (("{}",), ("a photo of a {}.",), ("{}", "a photo of a {}.", "a picture of a {}"))
TEMPERATURES = np.geomspace(0.005, 0.5, 120)
_BINS = 10


def embed_labels(encoder: Encoder, labels: Sequence[str], templates: Sequence[str]) -> Float32:
    """Return the (n, d) unit vectors of n labels, each the mean of its templates."""
    prompts = [embed_texts(encoder, [each.replace("{}", label) for label in labels]) for each in templates]
    return np.stack([ensemble(vectors) for vectors in np.stack(prompts, axis=1)])


def cross_entropy(cosines: Float64, correct: Int64, temperature: float) -> float:
    """Return the mean of -log of the softmax of the (n,) correct labels among (n, m) cosines."""
    shares = softmax(cosines, temperature)[np.arange(len(correct)), correct]
    return float(-np.log(np.maximum(shares, 1e-12)).mean())


def calibration_error(cosines: Float64, correct: Int64, temperature: float) -> float:
    """Return the expected calibration error of the best label's softmax, over ten bins (Guo et al. 2017, eq. 3)."""
    shares = softmax(cosines, temperature)
    best, right = shares.max(axis=1), shares.argmax(axis=1) == correct
    bins = np.minimum((best * _BINS).astype(int), _BINS - 1)
    gaps = [abs(best[bins == each].mean() - right[bins == each].mean()) * (bins == each).mean() for each in set(bins)]
    return float(sum(gaps))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, embed, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="folders, tars or Parquet files of labelled images")
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--label-column")
    parser.add_argument("--limit", type=int, default=3000)
    options = parser.parse_args(arguments)
    encoder = load_encoder(options.encoder)
    found = read_examples(options.sources, label_column=options.label_column, limit=options.limit)
    examples = [example for example in found if example.label is not None]
    labels = sorted({str(example.label) for example in examples})
    images, rows = embed_images(encoder, [example.load for example in examples])
    correct = np.array([labels.index(str(examples[row].label)) for row in rows])
    own = encoder.spec.temperature
    print(machine())
    print(f"{len(rows):,} images, {len(labels)} labels")
    print(f"| templates | accuracy | best temperature | cross-entropy; at {own:g} | calibration error; at {own:g} |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for templates in TEMPLATES:
        cosines = images.astype(np.float64) @ embed_labels(encoder, labels, templates).astype(np.float64).T
        fitted, rest = cosines[::2], cosines[1::2]
        entropy = [cross_entropy(fitted, correct[::2], float(each)) for each in TEMPERATURES]
        best = TEMPERATURES[int(np.argmin(entropy))]
        entropies = [cross_entropy(rest, correct[1::2], each) for each in (float(best), own)]
        errors = [calibration_error(rest, correct[1::2], each) for each in (float(best), own)]
        accuracy = float((rest.argmax(axis=1) == correct[1::2]).mean())
        print(
            f"| {', '.join(f'`{each}`' for each in templates)} | {accuracy:.3f} | {best:.4f} | "
            f"{entropies[0]:.3f}; {entropies[1]:.3f} | {errors[0]:.3f}; {errors[1]:.3f} |"
        )


if __name__ == "__main__":
    main()
