"""What an evaluation found, as records and as a table for people; measures nothing itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from retrieval.types import EncoderSpec


@dataclass(frozen=True, slots=True)
class CaptionReport:
    """Retrieval between photographs and their captions; R@k are hit rates in [0, 1], ranks count from 1.

    Attributes:
        encoder: the encoder's spec as plain values.
        photographs: pictures in the gallery.
        captions: text queries.
        rejected: pictures that could not be decoded, left out of everything.
        text_to_image: `R@1`, `R@5`, `R@10`, `mean_rank`, `median_rank`: each caption seeks its photograph.
        image_to_text: the same: each photograph seeks one of its captions.
    """

    encoder: dict[str, object]
    photographs: int
    captions: int
    rejected: int
    text_to_image: dict[str, float]
    image_to_text: dict[str, float]
    kind: str = "captions"


@dataclass(frozen=True, slots=True)
class CategoryReport:
    """Text search by category names.

    Attributes:
        encoder: the encoder's spec as plain values.
        photographs: pictures in the gallery.
        rejected: pictures that could not be decoded, left out of everything.
        k: depth of the precision.
        prompt: the query, `{}` standing for the category.
        precision: category -> P@k in [0, 1].
        mean_precision: their mean, each category counting alike.
        zero_shot_accuracy: share of pictures whose best scoring category is their own.
    """

    encoder: dict[str, object]
    photographs: int
    rejected: int
    k: int
    prompt: str
    precision: dict[str, float] = field(repr=False)
    mean_precision: float
    zero_shot_accuracy: float
    kind: str = "categories"


Report = CaptionReport | CategoryReport


def as_json(report: Report) -> str:
    """The report on one line."""
    return json.dumps(asdict(report), ensure_ascii=False)


def as_table(report: Report) -> str:
    """The report for reading: at most 80 columns, no colour."""
    head = f"{report.encoder['name']}  {report.photographs} photographs, {report.rejected} rejected"
    body = _caption_rows(report) if isinstance(report, CaptionReport) else _category_rows(report)
    return "\n".join([head, *body])


def describe(spec: EncoderSpec) -> dict[str, object]:
    """A spec as plain values for a report."""
    return asdict(spec)


def _caption_rows(report: CaptionReport) -> list[str]:
    columns = list(report.text_to_image)
    rows = [f"{'':16}" + "".join(f"{name:>13}" for name in columns)]
    for label, values in (("text -> image", report.text_to_image), ("image -> text", report.image_to_text)):
        rows.append(f"{label:16}" + "".join(f"{values[name]:>13.3f}" for name in columns))
    return rows


def _category_rows(report: CategoryReport) -> list[str]:
    width = max(len(name) for name in (*report.precision, "zero-shot accuracy"))
    rows = [f"{'category':{width}}  P@{report.k}   query: {report.prompt!r}"]
    rows += [
        f"{name:{width}}  {value:.2f}" for name, value in sorted(report.precision.items(), key=lambda item: -item[1])
    ]
    rows.append(f"{'mean':{width}}  {report.mean_precision:.3f}")
    rows.append(f"{'zero-shot accuracy':{width}}  {report.zero_shot_accuracy:.3f}")
    return rows
