"""A table of judged pairs -> figures: columns `a` (an image), `b` (an image) or `text`, and `same`.

CSV (between commas, semicolons or tabs) or Parquet; images are paths relative to the table. `same` is 1/0,
true/false or yes/no.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.datasets import Example
from evaluation.embedded import embed
from evaluation.embedding import Progress, embed_texts
from evaluation.evaluate import Evaluation, add_pairs, describe
from evaluation.extras import PAIRS, require
from evaluation.options import Options
from evaluation.pair_measure import listed_pairs, measure_pairs
from lookalike.encoders.protocol import Encoder
from lookalike.errors import SourceError
from lookalike.sources.item import read_range
from lookalike.sources.parquet import SUFFIXES

_TRUE, _FALSE = {"1", "true", "yes", "1.0"}, {"0", "false", "no", "0.0"}


@dataclass(frozen=True, slots=True)
class ListedPair:
    """Two images' paths, or an image's path and a text, and whether they belong together."""

    a: str
    b: str
    same: bool


@dataclass(frozen=True, slots=True)
class PairList:
    """Judged pairs of one kind; `folder` is where their paths begin, `text` whether `b` is a text."""

    folder: Path
    pairs: list[ListedPair]
    text: bool

    @property
    def images(self) -> list[str]:
        """The paths, sorted, each once."""
        return sorted({path for pair in self.pairs for path in ((pair.a,) if self.text else (pair.a, pair.b))})


def is_pair_list(path: Path) -> bool:
    """Whether a path is a table of pairs: any CSV, or a Parquet file with the columns a, same, and b or text."""
    if path.suffix.lower() == ".csv":
        return path.is_file()
    if not path.name.lower().endswith(SUFFIXES) or not path.is_file():
        return False
    try:
        names = set(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return False
    return {"a", "same"} <= names and bool(names & {"b", "text"})


def read_pair_list(path: Path) -> PairList:
    """The pairs of a table.

    Raises:
        SourceError: it can't be read, lacks a column, is empty, or says something else than yes or no.
    """
    try:
        rows = _read_csv(path) if path.suffix.lower() == ".csv" else pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} can't be read as a table of pairs: {error}") from error
    text = bool(rows) and "b" not in rows[0]
    if rows and {"b", "text"} <= rows[0].keys():
        raise SourceError(f"{path} has both columns, b and text: a list holds pairs of one kind; make two")
    other = "text" if text else "b"
    if not rows:
        raise SourceError(f"{path} holds no pairs: expected rows with the columns a, b (or text) and same")
    if not {"a", other, "same"} <= rows[0].keys():
        raise SourceError(f"{path} has the columns {', '.join(map(str, rows[0]))}: pairs need a, b (or text) and same")
    pairs = [
        ListedPair(str(row["a"]), str(row[other]), _same(row["same"], f"row {number} of {path.name}"))
        for number, row in enumerate(rows)
    ]
    return PairList(path.parent, pairs, text)


def measure_pair_list(
    encoder: Encoder, listed: PairList, *, options: Options | None = None, progress: Progress | None = None
) -> Evaluation:
    """Threshold and curve from half of the pairs, figures from the other half; unreadable images cost their pairs.

    Raises:
        SourceError: no image can be read, or what is left has not two pairs of each kind.
        TextUnsupported: the pairs have texts and the encoder has no text tower here.
        ExtraMissing: scikit-learn is not installed.
    """
    started = time.perf_counter()
    chosen = options or Options()
    require(PAIRS, "measuring pairs")
    examples = [Example(path, partial(read_range, listed.folder / path)) for path in listed.images]
    data = embed(encoder, examples, progress)
    place = {example.key: row for row, example in enumerate(data.examples)}
    pairs = [pair for pair in listed.pairs if pair.a in place and (listed.text or pair.b in place)]
    left = data.vectors[[place[pair.a] for pair in pairs]]
    if listed.text:
        right = embed_texts(encoder, [pair.b for pair in pairs])
    else:
        right = data.vectors[[place[pair.b] for pair in pairs]]
    cosines = np.einsum("pd,pd->p", left, right).astype(np.float64)
    found = Evaluation(_head(encoder, len(data.examples), data.rejected, chosen), data)
    halves = listed_pairs(cosines, np.array([pair.same for pair in pairs], bool), chosen.seed)
    add_pairs(found, "image_text" if listed.text else "image_image", measure_pairs(*halves, chosen))
    if not found.pairs:
        raise SourceError(
            f"{len(pairs)} readable pairs: at least two that belong together and two that don't are needed"
        )
    found.figures["seconds"] = round(time.perf_counter() - started, 3)
    return found


def _head(encoder: Encoder, images: int, rejected: int, options: Options) -> dict[str, Any]:
    spec = describe(encoder.spec)
    return {"encoder": spec, "images": images, "rejected": rejected, "seed": options.seed, "intervals": {}}


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = file.readline()
        file.seek(0)
        return list(csv.DictReader(file, delimiter=max(",;\t", key=header.count)))


def _same(value: object, where: str) -> bool:
    word = str(value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise SourceError(f"{where} has {value!r} in column same; it must be 1 or 0")
    return word in _TRUE
