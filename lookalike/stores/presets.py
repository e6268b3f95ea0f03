"""The kinds of index that a collection can have, as data: what each is made of, what it holds in memory, how it grows.

A preset's name is what `--store` takes and what the tuner chooses among. Memory is told beforehand by arithmetic, in
bytes that stay resident while the index is searched; the float16 vectors for re-ranking are mapped from disk and count
only where they are scanned. This module knows no index library.

Dimension letters: n rows, d embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

EXACT = "exact"
DEFAULT = "ivf-pq4"
POINTS_PER_CENTROID = 39
"""Rows that k-means wants for a list; with fewer, FAISS warns that it is starved."""

EXACT_KEPT = 64 * 1024 * 1024
"""Bytes up to which the exact store keeps its vectors in float32, too."""

_LARGEST_NLIST = 16_384
_ROW_ID = 8
_HEADERS = 4_096
CODED_LISTS = 1_024
"""From so many lists on codes of their centroids choose them for a lone query; of fewer, centroids are held twice."""
_CENTROID_CODE = 0.25  # bytes a dimension
_PACK = 32  # fast-scan keeps codes in packs of 32 rows, and the last pack of a list is half empty on average


@dataclass(frozen=True, slots=True)
class Preset:
    """One kind of index.

    Attributes:
        name: what the user calls it.
        recipe: FAISS's factory string with places for nlist, and for the width d, d / 2, d / 4; "" for no index.
        code: d -> bytes of a row's code.
        links: bytes a row beside code and id, for the links of a graph.
        packed: whether codes are kept in packs of 32 rows.
        table: d -> bytes that do not grow with the rows, beside the lists' centroids.
        growth: what happens to a search's time when the rows grow by a factor f: f ** growth.
        divides: what the width has to be a multiple of; others are padded with zeros.
        fewest: rows below which codes can't be learned.
        about: what it is, for `--explain`.
    """

    name: str
    recipe: str
    code: Callable[[int], float]
    about: str
    links: float = 0.0
    packed: bool = False
    table: Callable[[int], float] = lambda d: 0.0
    growth: float = 0.5
    divides: int = 1
    fewest: int = 1_024

    @property
    def indexed(self) -> bool:
        """Whether there is an index at all."""
        return bool(self.recipe)

    @property
    def listed(self) -> bool:
        """Whether rows are kept in lists around centroids."""
        return "IVF" in self.recipe

    @property
    def walked(self) -> bool:
        """Whether rows are nodes of a graph, so that a search for a row of its own is led straight to it."""
        return "HNSW" in self.recipe

    def factory(self, count: int, dim: int) -> str:
        """FAISS's factory string for n rows of width d.

        >>> PRESETS["ivf-pq4"].factory(100_000, 511)
        'Pad512,IVF1024,PQ256x4fsr'
        """
        width = math.ceil(dim / self.divides) * self.divides
        text = self.recipe.format(nlist=choose_nlist(count), d=width, half=width // 2, quarter=width // 4)
        return text if width == dim else f"Pad{width},{text}"

    def memory(self, count: int, dim: int) -> int:
        """Resident bytes of the index over n rows of width d."""
        width = math.ceil(dim / self.divides) * self.divides
        if not self.indexed:
            whole = 4 * count * width
            return int(count * self.code(width)) + (whole if whole <= EXACT_KEPT else 0) + _HEADERS
        if not self.listed:
            return int(count * (self.code(width) + self.links) + self.table(width)) + _HEADERS
        nlist = choose_nlist(count)
        rows = count + (nlist * _PACK / 2 if self.packed else 0)
        beside = _CENTROID_CODE if nlist >= CODED_LISTS else 4
        fixed = nlist * ((4 + beside) * self.centroid(width) + 24) + self.table(width)
        return int(rows * self.code(width) + count * _ROW_ID + fixed) + _HEADERS

    def centroid(self, width: int) -> int:
        """Width of the lists' centroids: that of what a rotation leaves."""
        return width // 2 if self.recipe.startswith("OPQ") else width


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(EXACT, "", lambda d: 2 * d, "no index: every float16 vector is read and compared", growth=1.0, fewest=0),
        Preset(
            "ivf-pq4", "IVF{nlist},PQ{half}x4fsr", lambda d: d / 4,
            "lists of 4-bit product codes, two dimensions each (fast-scan), re-ranked",
            packed=True, table=lambda d: 64 * d, divides=2,
        ),
        Preset(
            "ivf-rabitq", "IVF{nlist},RaBitQfs", lambda d: math.ceil(d / 8) + 8,
            "lists of one-bit codes (RaBitQ, fast-scan), re-ranked", packed=True, divides=8,
        ),
        Preset(
            "opq-ivf-pq4", "OPQ{quarter}_{half},IVF{nlist},PQ{quarter}x4fsr", lambda d: d / 8,
            "rotated to half the width, then as ivf-pq4: half its memory", packed=True,
            table=lambda d: 2 * d * d + 32 * d, divides=4,
        ),
        Preset(
            "ivf-sq8", "IVF{nlist},SQ8", lambda d: d,
            "lists of 8-bit numbers, re-ranked", table=lambda d: 8 * d, fewest=1,
        ),
        Preset(
            "ivf-flat", "IVF{nlist},Flat", lambda d: 4 * d,
            "lists of whole float32 vectors", fewest=1,
        ),
        Preset(
            "hnsw-sq8", "IDMap,HNSW16,SQ8", lambda d: d,
            "a graph over 8-bit numbers, re-ranked", links=16 * 2 * 4 + 8 + 4 + 5 + _ROW_ID, table=lambda d: 8 * d,
            growth=0.15, fewest=1,
        ),
    )
}  # fmt: skip
"""By name; among equals the earlier one is taken."""


def choose_nlist(count: int) -> int:
    """Lists for n rows: the power of two nearest to 3 sqrt(n), with at least 39 rows each to train from."""
    wished = int(2 ** round(math.log2(3 * math.sqrt(count))))
    return max(1, min(wished, count // POINTS_PER_CENTROID, _LARGEST_NLIST))


def default_preset(count: int) -> Preset:
    """What `faiss` is for n rows: 4-bit codes, or whole vectors where codes could not be learned."""
    return PRESETS[DEFAULT] if count >= PRESETS[DEFAULT].fewest else PRESETS["ivf-flat"]
