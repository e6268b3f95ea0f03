"""Evaluation of an encoder: every metric that the examples' labels and captions allow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from evaluation.captions import caption_ranks
from evaluation.classes import encode_labels, prompt_text, unseen_classes
from evaluation.datasets import Example
from evaluation.embedded_set import EmbeddedSet, embed
from evaluation.embedding import ProgressCallback, embed_texts
from evaluation.extras import PAIRS, require_packages
from evaluation.groups import group_examples
from evaluation.intervals import mean_interval
from evaluation.labels import label_scores
from evaluation.options import Options
from evaluation.pair_evaluation import PairEvaluation, caption_pairs, label_pairs, measure_pairs, view_pairs
from evaluation.ranking import best_ranks, hit_rate_at_k, precision_at_k
from evaluation.search_evaluation import SearchEvaluation, measure_image_search, measure_text_search
from evaluation.views import two_views
from lookalike.calibration import Calibration
from lookalike.encoders.protocol import Encoder
from lookalike.errors import SourceError, TextUnsupported
from lookalike.types import EncoderSpec, Float64, Int64

CAPTION_DEPTHS = (1, 5, 10)
PRECISION_DEPTH = 10


@dataclass
class Evaluation:
    """The result of an evaluation.

    Attributes:
        metrics: JSON-ready, see docs/reference/evaluation-measures.md.
        data: the examples with their embeddings.
        gallery: the items that were searched; None for the examples themselves.
        pairs: `image_image` and `image_text`, where measured.
        searches: of `text` and `image` queries, where measured.
        map_at_r: (n,) of each example, NaN where its class has no other image.
    """

    metrics: dict[str, Any]
    data: EmbeddedSet
    gallery: EmbeddedSet | None = None
    pairs: dict[str, PairEvaluation] = field(default_factory=dict)
    searches: dict[str, SearchEvaluation] = field(default_factory=dict)
    map_at_r: Float64 | None = None

    @property
    def calibration(self) -> Calibration:
        """The calibration of pairs and searches that were measured, for an encoder's folder."""
        pairs = {kind: pair.calibration for kind, pair in self.pairs.items()}
        searches = {f"{kind}_search": search.calibration for kind, search in self.searches.items()}
        return Calibration(**pairs, **searches)  # type: ignore[arg-type]  # kinds by name


def evaluate(
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    gallery: Sequence[Example] | None = None,
    options: Options | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Return the metrics of `measure`."""
    return measure(encoder, examples, gallery=gallery, options=options, progress=progress).metrics


def measure(
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    gallery: Sequence[Example] | None = None,
    options: Options | None = None,
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Measure what the options name and the examples allow.

    Args:
        encoder: any encoder.
        examples: the queries.
        gallery: labelled examples to search; None for the examples themselves, each without itself.
        options: see `Options`.
        progress: see `ProgressCallback`.

    Raises:
        SourceError: no image can be read, or there are neither captions nor two images of a class.
        TextUnsupported: there are only captions, and the encoder has no text tower here.
        ExtraMissing: pairs are to be measured and scikit-learn is not installed.
    """
    started = time.perf_counter()
    chosen = options or Options()
    if "pairs" in chosen.measures:
        require_packages(PAIRS, "measuring pairs (--only labels,captions,zero_shot leaves them out)")
    data = embed(encoder, examples, progress)
    result = Evaluation({}, data, None if gallery is None else embed(encoder, gallery, progress))
    result.metrics = {
        "encoder": describe(encoder.spec),
        "images": len(data.examples),
        "rejected": data.rejected,
        "seed": chosen.seed,
        "intervals": {},
    }
    if "labels" in chosen.measures:
        _measure_labels(result, chosen)
    if encoder.spec.text:
        _measure_texts(result, chosen)
    if "pairs" in chosen.measures:
        _measure_pairs(result, chosen, progress)
    if "search" in chosen.measures:
        _measure_search(result, chosen)
    if not result.metrics.keys() & {"labels", "captions", "zero_shot", "pairs", "search"}:
        raise _nothing_to_measure(result, chosen)
    result.metrics["seconds"] = round(time.perf_counter() - started, 3)
    return result


_NOT_DESCRIBED = ("calibration", "temperature", "text_hint", "languages", "limits")


def describe(spec: EncoderSpec) -> dict[str, Any]:
    """Return a spec as plain values; its thresholds are the service's, calibrated ones first."""
    plain = {name: value for name, value in asdict(spec).items() if name not in _NOT_DESCRIBED}
    for kind in ("image_image", "image_text"):
        if measured := getattr(spec.calibration, kind, None):
            plain["thresholds"][kind] = measured.threshold
    return plain


def _measure_labels(result: Evaluation, options: Options) -> None:
    scores, answerable, gallery_size = _label_scores(result, options, None)
    _check_gallery(result, len(answerable))
    if len(answerable) == 0:
        return
    result.map_at_r = np.full(len(result.data.examples), np.nan)
    result.map_at_r[answerable] = scores["map_at_r"]
    summary: dict[str, Any] = {
        "classes": len(_class_names(result)),
        "queries": len(answerable),
        "left_out": sum(example.label is not None for example in result.data.examples) - len(answerable),
        "gallery": gallery_size,
        **_means(scores),
    }
    result.metrics["labels"] = summary
    _add_intervals(result, "", scores, options)
    if options.unseen is not None:
        unseen = unseen_classes(_class_names(result), options.unseen)
        for part, group in (("seen", set(_class_names(result)) - unseen), ("unseen", unseen)):
            scores, answerable, gallery_size = _label_scores(result, options, frozenset(group))
            counts = {"classes": len(group), "queries": len(answerable), "gallery": gallery_size}
            summary[part] = counts | (_means(scores) if len(answerable) else {})
            _add_intervals(result, f"{part}.", scores, options)


def _check_gallery(result: Evaluation, answerable: int) -> None:
    """Check that queries and gallery share a label.

    Raises:
        SourceError: they don't; the message says which labels each has.
    """
    if result.gallery is None or answerable:
        return
    for name, side in (("images", result.data), ("gallery's images", result.gallery)):
        if not side.classes:
            raise SourceError(f"a gallery is searched by labels, and the {name} have none; leave the gallery out")
    raise SourceError(
        f"the gallery has no image of the queries' classes ({_abbreviated(result.data.classes)}); its classes are "
        f"{_abbreviated(result.gallery.classes)}"
    )


def _abbreviated(names: Sequence[str], shown: int = 5) -> str:
    """Return the first names and the number of the others.

    >>> _abbreviated(["cat", "dog", "owl"], 2)
    'cat, dog and 1 more'
    """
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _label_scores(
    result: Evaluation, options: Options, group: frozenset[str] | None
) -> tuple[dict[str, Float64], Int64, int]:
    """Return scores, the positions of their examples, and the gallery's size; of all classes, or within a group."""
    names = sorted(set(_class_names(result)) if group is None else group)
    labels = encode_labels((example.label for example in result.data.examples), names)
    rows = np.flatnonzero(labels >= 0)
    if result.gallery is None:
        scores, answerable = label_scores(result.data.vectors[rows], labels[rows], depths=options.depths)
        return scores, rows[answerable], len(rows)
    others = encode_labels((example.label for example in result.gallery.examples), names)
    # Without a group the whole gallery is searched: unlabelled images are distractors.
    kept = np.flatnonzero(others >= 0) if group is not None else np.arange(len(others))
    scores, answerable = label_scores(
        result.data.vectors[rows], labels[rows], result.gallery.vectors[kept], others[kept], depths=options.depths
    )
    return scores, rows[answerable], len(kept)


def _measure_texts(result: Evaluation, options: Options) -> None:
    data = result.data
    if "captions" in options.measures and len(data.captioned):
        text_ranks, image_ranks = caption_ranks(data.vectors[data.captioned], data.caption_vectors, data.owners)
        directions = {"text_to_image": text_ranks, "image_to_text": image_ranks}
        counts = {"images": len(image_ranks), "captions": len(text_ranks)}
        result.metrics["captions"] = counts | {name: _rank_summary(ranks) for name, ranks in directions.items()}
        for name, ranks in directions.items():
            hits = {f"R@{k}": (ranks <= k).astype(np.float64) for k in CAPTION_DEPTHS}
            _add_intervals(result, f"captions.{name}.", hits, options)
    if "zero_shot" in options.measures and _are_words(data.classes):
        result.metrics["zero_shot"] = _zero_shot(result, options)


def _zero_shot(result: Evaluation, options: Options) -> dict[str, Any]:
    data = result.data
    labels = encode_labels((example.label for example in data.examples), data.classes)
    rows = np.flatnonzero(labels >= 0)
    queries = embed_texts(data.encoder, [options.prompt.format(prompt_text(name)) for name in data.classes])
    scores = queries @ data.vectors[rows].T  # (classes, n)
    precision = precision_at_k(scores, np.arange(len(data.classes))[:, None] == labels[rows], PRECISION_DEPTH)
    correct = (best_ranks(scores.T, labels[rows, None] == np.arange(len(data.classes))) == 1).astype(np.float64)
    _add_intervals(result, "zero_shot.", {"accuracy": correct}, options)
    return {
        "accuracy": float(correct.mean()),
        f"mean_precision_at_{PRECISION_DEPTH}": float(precision.mean()),
        "prompt": options.prompt,
        f"precision_at_{PRECISION_DEPTH}": dict(zip(data.classes, precision.tolist(), strict=True)),
    }


def _measure_pairs(result: Evaluation, options: Options, progress: ProgressCallback | None) -> None:
    data = result.data
    groups = group_examples(data.examples)
    if options.views:
        views = embed(data.encoder, two_views(data.examples, options.seed), progress)
        add_pairs(result, "image_image", measure_pairs(*view_pairs(data, views, groups, options), options))
    elif len(data.classes) > 1:
        add_pairs(result, "image_image", measure_pairs(*label_pairs(data, groups, options), options))
    if len(data.captioned) > 1 and data.encoder.spec.text:
        add_pairs(result, "image_text", measure_pairs(*caption_pairs(data, groups, options), options))


def _measure_search(result: Evaluation, options: Options) -> None:
    measured = {"image": measure_image_search(result.data, options)}
    if result.data.encoder.spec.text:
        measured["text"] = measure_text_search(result.data, options)
    result.searches = {kind: search for kind, search in measured.items() if search is not None}
    if result.searches:
        result.metrics["search"] = {kind: search.metrics for kind, search in result.searches.items()}


def add_pairs(result: Evaluation, kind: str, pairs: PairEvaluation | None) -> None:
    """Add the pairs of one kind (`image_image`, `image_text`) to the evaluation; None adds nothing."""
    if pairs is None:
        return
    result.pairs[kind] = pairs
    result.metrics.setdefault("pairs", {})[kind] = pairs.metrics
    prefix = "pairs." if kind == "image_image" else f"pairs.{kind}."
    result.metrics["intervals"] |= {prefix + name: list(ends) for name, ends in pairs.intervals.items()}


def _nothing_to_measure(result: Evaluation, options: Options) -> SourceError | TextUnsupported:
    name = result.data.encoder.spec.name
    if len(result.data.captioned) and not result.data.encoder.spec.text:
        return TextUnsupported(f"{name!r} has no text tower here, and this data can only be measured with text queries")
    return SourceError(
        f"nothing to measure ({', '.join(options.measures)}): needs two labelled images of a class, or captions"
    )


def _class_names(result: Evaluation) -> list[str]:
    """Return all classes of queries and gallery."""
    return sorted({*result.data.classes, *(result.gallery.classes if result.gallery else ())})


def _are_words(classes: list[str]) -> bool:
    """Return whether the classes make text queries: there are two, and they are not all numbers."""
    return len(classes) > 1 and any(not name.lstrip("-").isdecimal() for name in classes)


def _means(scores: dict[str, Float64]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in scores.items()}


def _rank_summary(ranks: Int64) -> dict[str, float]:
    rates = {f"R@{k}": hit_rate_at_k(ranks, k) for k in CAPTION_DEPTHS}
    return rates | {"mean_rank": float(ranks.mean()), "median_rank": float(np.median(ranks))}


def _add_intervals(result: Evaluation, prefix: str, values: dict[str, Float64], options: Options) -> None:
    if options.resamples == 0:
        return
    for name, each in values.items():
        if len(each):
            ends = mean_interval(each, resamples=options.resamples, seed=options.seed)
            result.metrics["intervals"][prefix + name] = list(ends)
