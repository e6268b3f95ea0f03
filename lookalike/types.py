"""Plain records that the packages share. Imports no library but numpy.

Dimension letters used throughout: n rows of the collection, q queries, d embedding width, k neighbours requested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lookalike.calibration import Calibration

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Float16 = NDArray[np.float16]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
UInt64 = NDArray[np.uint64]
Bool = NDArray[np.bool_]


class VectorRows(Protocol):
    """The (n, d) stored vectors of items, by row: an array, or several as one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Return the (r, d) float16 vectors of rows."""
        ...


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Cosine distances (1 - cosine, in [0, 2]) under which a pair counts as similar, by what the two sides are.

    Images and texts lie apart in a joint space, so an image and its caption are farther from each other than two
    images of the same thing.
    """

    image_image: float = 0.3
    image_text: float = 0.75
    text_text: float = 0.3


CLIP_TEMPERATURE = 0.01
"""The lowest that the training of CLIP allows, at which its models end (Radford et al. 2021, section 2.5)."""

Identity = tuple[str, int, int, str]
"""Weights, width, input side and preprocessing of an encoder."""


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """The properties of an encoder. Encoders of equal `identity` give comparable vectors.

    Attributes:
        name: as `load_encoder` takes it: `lite`, `open_clip:ViT-B-32/laion2b_s34b_b79k`, `folder:PATH`.
        weights: SHA-256 over the weights, hex.
        dim: width d of the joint space.
        image_size: side S of the square input, pixels.
        preprocessing: digest of the resize, crop and normalisation parameters, hex.
        text: whether `encode_texts` works here.
        engine: what runs the towers: `torch`, `openvino` (or `numpy` for the fake one).
        precision: `fp32`, `bf16` or `fp16`.
        device: `cpu` or `cuda`.
        text_hint: what to do where `text` is false.
        thresholds: the encoder's default thresholds of similarity.
        calibration: measured thresholds and probabilities, which override the defaults.
        temperature: what cosines of images and texts are divided by before a softmax over texts; above 0.
        languages: of texts, ISO 639-1 codes; empty where they are not known.
        limits: what it finds well and what not, one plain sentence; empty where it is not known.
    """

    name: str
    weights: str
    dim: int
    image_size: int
    preprocessing: str
    text: bool
    engine: str
    precision: str
    device: str = "cpu"
    text_hint: str = "search by image"
    thresholds: Thresholds = Thresholds()
    calibration: Calibration | None = None
    temperature: float = CLIP_TEMPERATURE
    languages: tuple[str, ...] = ()
    limits: str = ""

    @property
    def identity(self) -> Identity:
        """The properties that decide comparability; engine, precision and device do not."""
        return (self.weights, self.dim, self.image_size, self.preprocessing)


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The neighbours of one query, best first.

    Attributes:
        rows: (m,) int64, m <= k, each in [0, n); never -1.
        scores: (m,) float32, higher is better, non-increasing; ties by ascending row.
    """

    rows: Int64
    scores: Float32


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a search.

    Attributes:
        id: the item's id, unique in the collection.
        score: exact cosine similarity to the query, in [-1, 1].
        metadata: the item's record, JSON-ready values only.
        row: its position in this version of the collection.
        probability: that the item truly matches the query, in [0, 1]; None where that is not calibrated.
        group: its value of the column that the results are grouped by; None without a value or without grouping.
        duplicates: near-identical items that this result stands for; 0 where these are not collapsed.
        embedding: its unit vector (d,) float32, if the search asked for embeddings.
    """

    id: str
    score: float
    metadata: Mapping[str, Any]
    row: int
    probability: float | None = None
    group: Any = None
    duplicates: int = 0
    embedding: Float32 | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        probability = "" if self.probability is None else f", probability={self.probability:.4f}"
        return f"Hit(id={self.id!r}, score={self.score:.4f}{probability}, metadata={dict(self.metadata)!r})"


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of one query.

    Attributes:
        hits: best first.
        took_ms: stage name (decode, preprocess, encode, search, rerank, metadata) -> milliseconds.
        truncated_tokens: tokens at the end of the query's texts that the encoder did not read.
        no_match: whether even the best item hardly matches the query; None where that is not calibrated.
        warnings: what was changed in the query, one sentence each.
    """

    hits: list[Hit]
    took_ms: dict[str, float] = field(default_factory=dict)
    truncated_tokens: int = 0
    no_match: bool | None = None
    warnings: list[str] = field(default_factory=list)
