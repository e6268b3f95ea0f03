"""An encoder and examples -> figures: everything that their labels and captions allow to measure.

The one use case of this room. Reads no file, draws no image; `figures` is what `--json` prints and what training
compares before and after.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from evaluation.captions import caption_ranks
from evaluation.classes import encode_labels, spoken, unseen_classes
from evaluation.datasets import Example
from evaluation.embedded import EmbeddedSet, embed
from evaluation.embedding import Progress, embed_texts
from evaluation.extras import PAIRS, require
from evaluation.intervals import mean_interval
from evaluation.labels import Float64, label_scores
from evaluation.options import Options
from evaluation.pair_measure import PairMeasure, caption_pairs, label_pairs, measure_pairs
from evaluation.ranking import best_ranks, hit_rate_at_k, precision_at_k
from evaluation.views import two_views
from lookalike.calibration import Calibration
from lookalike.encoders.protocol import Encoder
from lookalike.errors import SourceError, TextUnsupported
from lookalike.types import EncoderSpec, Int64

CAPTION_DEPTHS = (1, 5, 10)
PRECISION_DEPTH = 10


@dataclass
class Evaluation:
    """What was measured, and what a report draws from.

    Attributes:
        figures: JSON-ready, see docs/evaluation.md.
        data: the examples with their embeddings.
        gallery: what they were searched in; None for themselves.
        pairs: `image_image` and `image_text`, where they were measured.
        map_at_r: (n,) of each example, NaN where its class has no other image.
    """

    figures: dict[str, Any]
    data: EmbeddedSet
    gallery: EmbeddedSet | None = None
    pairs: dict[str, PairMeasure] = field(default_factory=dict)
    map_at_r: Float64 | None = None

    @property
    def calibration(self) -> Calibration:
        """What the pairs taught, for an encoder's folder."""
        return Calibration(**{kind: pair.calibration for kind, pair in self.pairs.items()})


def evaluate(
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    gallery: Sequence[Example] | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The figures of `measure`, for who needs no more."""
    return measure(encoder, examples, gallery=gallery, options=options, progress=progress).figures


def measure(
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    gallery: Sequence[Example] | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure everything that the options name and the examples allow.

    Args:
        encoder: any encoder.
        examples: the queries.
        gallery: labelled examples to find them in; None for the examples themselves, each without itself.
        options: see `Options`.
        progress: called with the number of images done since the last call.

    Raises:
        SourceError: no image can be read, or they have nothing to measure by: no labels of two images, no captions.
        TextUnsupported: there is nothing but captions, and the encoder has no text tower here.
        ExtraMissing: pairs are asked for and scikit-learn is not installed.
    """
    started = time.perf_counter()
    chosen = options or Options()
    if "pairs" in chosen.measures:
        require(PAIRS, "measuring pairs (--only labels,captions,zero_shot leaves them out)")
    data = embed(encoder, examples, progress)
    found = Evaluation({}, data, None if gallery is None else embed(encoder, gallery, progress))
    found.figures = {
        "encoder": describe(encoder.spec),
        "images": len(data.examples),
        "rejected": data.rejected,
        "seed": chosen.seed,
        "intervals": {},
    }
    if "labels" in chosen.measures:
        _measure_labels(found, chosen)
    if encoder.spec.text:
        _measure_texts(found, chosen)
    if "pairs" in chosen.measures:
        _measure_pairs(found, chosen, progress)
    if not found.figures.keys() & {"labels", "captions", "zero_shot", "pairs"}:
        raise _nothing(found, chosen)
    found.figures["seconds"] = round(time.perf_counter() - started, 3)
    return found


def describe(spec: EncoderSpec) -> dict[str, Any]:
    """A spec as plain values; its thresholds are those that the service decides by, calibrated ones first."""
    plain = {name: value for name, value in asdict(spec).items() if name != "calibration"}
    for kind in ("image_image", "image_text"):
        if measured := getattr(spec.calibration, kind, None):
            plain["thresholds"][kind] = measured.threshold
    return plain


def _measure_labels(found: Evaluation, options: Options) -> None:
    scores, asked, gallery_size = _label_scores(found, options, None)
    _require_matches(found, len(asked))
    if len(asked) == 0:
        return
    found.map_at_r = np.full(len(found.data.examples), np.nan)
    found.map_at_r[asked] = scores["map_at_r"]
    summary: dict[str, Any] = {
        "classes": len(_names(found)),
        "queries": len(asked),
        "left_out": sum(example.label is not None for example in found.data.examples) - len(asked),
        "gallery": gallery_size,
        **_means(scores),
    }
    found.figures["labels"] = summary
    _add_intervals(found, "", scores, options)
    if options.unseen is not None:
        unseen = unseen_classes(_names(found), options.unseen)
        for part, group in (("seen", set(_names(found)) - unseen), ("unseen", unseen)):
            scores, asked, gallery_size = _label_scores(found, options, frozenset(group))
            counts = {"classes": len(group), "queries": len(asked), "gallery": gallery_size}
            summary[part] = counts | (_means(scores) if len(asked) else {})
            _add_intervals(found, f"{part}.", scores, options)


def _require_matches(found: Evaluation, asked: int) -> None:
    """A gallery is searched by labels: without one that both have there is nothing to find in it.

    Raises:
        SourceError: naming what is missing.
    """
    if found.gallery is None or asked:
        return
    for name, side in (("images", found.data), ("gallery's images", found.gallery)):
        if not side.classes:
            raise SourceError(f"a gallery is searched by labels, and the {name} have none; leave the gallery out")
    raise SourceError(
        f"the gallery has no image of the queries' classes: {_some(found.data.classes)} are asked for, and "
        f"{_some(found.gallery.classes)} are in it"
    )


def _some(names: Sequence[str], shown: int = 5) -> str:
    """The first few of them.

    >>> _some(["cat", "dog", "owl"], 2)
    'cat, dog and 1 more'
    """
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _label_scores(
    found: Evaluation, options: Options, group: frozenset[str] | None
) -> tuple[dict[str, Float64], Int64, int]:
    """Scores, the examples they belong to, and the size of the gallery; of all classes, or among a group's alone."""
    names = sorted(set(_names(found)) if group is None else group)
    labels = encode_labels((example.label for example in found.data.examples), names)
    rows = np.flatnonzero(labels >= 0)
    if found.gallery is None:
        scores, asked = label_scores(found.data.vectors[rows], labels[rows], depths=options.depths)
        return scores, rows[asked], len(rows)
    others = encode_labels((example.label for example in found.gallery.examples), names)
    # Without a group all of the gallery counts: what has no label is there to be mistaken for an answer.
    kept = np.flatnonzero(others >= 0) if group is not None else np.arange(len(others))
    scores, asked = label_scores(
        found.data.vectors[rows], labels[rows], found.gallery.vectors[kept], others[kept], depths=options.depths
    )
    return scores, rows[asked], len(kept)


def _measure_texts(found: Evaluation, options: Options) -> None:
    data = found.data
    if "captions" in options.measures and len(data.captioned):
        forth, back = caption_ranks(data.vectors[data.captioned], data.caption_vectors, data.owners)
        both = {"text_to_image": forth, "image_to_text": back}
        counts = {"images": len(back), "captions": len(forth)}
        found.figures["captions"] = counts | {name: _rank_summary(ranks) for name, ranks in both.items()}
        for name, ranks in both.items():
            hits = {f"R@{k}": (ranks <= k).astype(np.float64) for k in CAPTION_DEPTHS}
            _add_intervals(found, f"captions.{name}.", hits, options)
    if "zero_shot" in options.measures and _nameable(data.classes):
        found.figures["zero_shot"] = _zero_shot(found, options)


def _zero_shot(found: Evaluation, options: Options) -> dict[str, Any]:
    data = found.data
    labels = encode_labels((example.label for example in data.examples), data.classes)
    rows = np.flatnonzero(labels >= 0)
    queries = embed_texts(data.encoder, [options.prompt.format(spoken(name)) for name in data.classes])
    scores = queries @ data.vectors[rows].T  # (classes, n)
    precision = precision_at_k(scores, np.arange(len(data.classes))[:, None] == labels[rows], PRECISION_DEPTH)
    right = (best_ranks(scores.T, labels[rows, None] == np.arange(len(data.classes))) == 1).astype(np.float64)
    _add_intervals(found, "zero_shot.", {"accuracy": right}, options)
    return {
        "accuracy": float(right.mean()),
        f"mean_precision_at_{PRECISION_DEPTH}": float(precision.mean()),
        "prompt": options.prompt,
        f"precision_at_{PRECISION_DEPTH}": dict(zip(data.classes, precision.tolist(), strict=True)),
    }


def _measure_pairs(found: Evaluation, options: Options, progress: Progress | None) -> None:
    data = found.data
    images = embed(data.encoder, two_views(data.examples, options.seed), progress) if options.views else data
    if len(images.classes) > 1:
        add_pairs(
            found, "image_image", measure_pairs(*label_pairs(images, options, whole_classes=options.views), options)
        )
    if len(data.captioned) > 1 and data.encoder.spec.text:
        add_pairs(found, "image_text", measure_pairs(*caption_pairs(data, options), options))


def add_pairs(found: Evaluation, kind: str, pairs: PairMeasure | None) -> None:
    """Put the pairs of one kind (`image_image`, `image_text`) into the evaluation; None adds nothing."""
    if pairs is None:
        return
    found.pairs[kind] = pairs
    found.figures.setdefault("pairs", {})[kind] = pairs.figures
    prefix = "pairs." if kind == "image_image" else f"pairs.{kind}."
    found.figures["intervals"] |= {prefix + name: list(ends) for name, ends in pairs.intervals.items()}


def _nothing(found: Evaluation, options: Options) -> SourceError | TextUnsupported:
    name = found.data.encoder.spec.name
    if len(found.data.captioned) and not found.data.encoder.spec.text:
        return TextUnsupported(f"{name!r} has no text tower here, and this data can only be measured with words")
    return SourceError(
        f"nothing to measure ({', '.join(options.measures)}): needs two labelled images of a class, or captions"
    )


def _names(found: Evaluation) -> list[str]:
    """All classes of queries and gallery."""
    return sorted({*found.data.classes, *(found.gallery.classes if found.gallery else ())})


def _nameable(classes: list[str]) -> bool:
    """Whether a text can ask for these classes: there are two, and they are words."""
    return len(classes) > 1 and any(not name.lstrip("-").isdecimal() for name in classes)


def _means(scores: dict[str, Float64]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in scores.items()}


def _rank_summary(ranks: Int64) -> dict[str, float]:
    rates = {f"R@{k}": hit_rate_at_k(ranks, k) for k in CAPTION_DEPTHS}
    return rates | {"mean_rank": float(ranks.mean()), "median_rank": float(np.median(ranks))}


def _add_intervals(found: Evaluation, prefix: str, values: dict[str, Float64], options: Options) -> None:
    if options.resamples == 0:
        return
    for name, each in values.items():
        if len(each):
            ends = mean_interval(each, resamples=options.resamples, seed=options.seed)
            found.figures["intervals"][prefix + name] = list(ends)
