"""Evaluation of a list of labelled pairs: columns `a` (an image), `b` (an image) or `text`, and `same`.

A list is a CSV file (separated by commas, semicolons or tabs) or a Parquet file. Images are paths relative to it.
`same` is 1/0, true/false or yes/no.
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
from evaluation.embedded_set import embed
from evaluation.embedding import ProgressCallback, embed_texts
from evaluation.evaluate import Evaluation, add_pairs, describe
from evaluation.extras import PAIRS, require_packages
from evaluation.options import Options
from evaluation.pair_evaluation import measure_pairs, split_pair_list
from lookalike.encoders.protocol import Encoder
from lookalike.errors import SourceError
from lookalike.sources.item import find_path, read_range
from lookalike.sources.parquet import SUFFIXES

_TRUE, _FALSE = {"1", "true", "yes", "1.0"}, {"0", "false", "no", "0.0"}


@dataclass(frozen=True, slots=True)
class ListedPair:
    """Two images' paths, or an image's path and a text, and whether the pair is positive."""

    a: str
    b: str
    same: bool


@dataclass(frozen=True, slots=True)
class PairList:
    """Labelled pairs of one kind; paths are relative to `folder`, `text` is whether `b` is a text."""

    folder: Path
    pairs: list[ListedPair]
    text: bool

    @property
    def images(self) -> list[str]:
        """The paths, sorted, each once."""
        return sorted({path for pair in self.pairs for path in ((pair.a,) if self.text else (pair.a, pair.b))})


def is_pair_list(path: Path) -> bool:
    """Return whether a path is a list of pairs: any CSV, or a Parquet file with the columns a, same, and b or text."""
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
    """Read the pairs of a list.

    Raises:
        SourceError: it can't be read, lacks a column, is empty, or `same` has another value than yes or no.
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
    encoder: Encoder, pair_list: PairList, *, options: Options | None = None, progress: ProgressCallback | None = None
) -> Evaluation:
    """Fit on half of the pairs and measure on the other half; pairs of unreadable images are left out.

    Raises:
        SourceError: no image can be read, or fewer than two pairs of each kind remain.
        TextUnsupported: the pairs have texts and the encoder has no text tower here.
        ExtraMissing: scikit-learn is not installed.
    """
    started = time.perf_counter()
    chosen = options or Options()
    require_packages(PAIRS, "measuring pairs")
    examples = [Example(path, partial(read_range, find_path(pair_list.folder / path))) for path in pair_list.images]
    data = embed(encoder, examples, progress)
    positions = {example.key: row for row, example in enumerate(data.examples)}
    pairs = [pair for pair in pair_list.pairs if pair.a in positions and (pair_list.text or pair.b in positions)]
    left = data.vectors[[positions[pair.a] for pair in pairs]]
    if pair_list.text:
        right = embed_texts(encoder, [pair.b for pair in pairs])
    else:
        right = data.vectors[[positions[pair.b] for pair in pairs]]
    cosines = np.einsum("pd,pd->p", left, right).astype(np.float64)
    result = Evaluation(_initial_metrics(encoder, len(data.examples), data.rejected, chosen), data)
    halves = split_pair_list(cosines, np.array([pair.same for pair in pairs], bool), chosen.seed)
    add_pairs(result, "image_text" if pair_list.text else "image_image", measure_pairs(*halves, chosen))
    if not result.pairs:
        raise SourceError(f"{len(pairs)} readable pairs: at least two with same = 1 and two with same = 0 are needed")
    result.metrics["seconds"] = round(time.perf_counter() - started, 3)
    return result


def _initial_metrics(encoder: Encoder, images: int, rejected: int, options: Options) -> dict[str, Any]:
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
