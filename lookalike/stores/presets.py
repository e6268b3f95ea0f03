"""The kinds of index that `--store` accepts: FAISS factory string, memory and growth of each.

`Preset.memory_bytes` computes the memory in advance: the bytes that stay resident while the index is searched. The
float16 vectors for re-ranking are memory-mapped and count only in the exact store, which scans them. This module
imports no index library.

Dimension letters: n rows, d embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

EXACT = "exact"
DEFAULT_PRESET = "ivf-pq4"
MIN_ROWS_PER_CENTROID = 39
"""Training rows that k-means needs for each list; FAISS warns below that."""

MAX_EXACT_FLOAT32_BYTES = 64 * 1024 * 1024
"""The exact store keeps a float32 copy of its vectors up to this size."""

MIN_CODED_LISTS = 1_024
"""From this many lists on, a single query compares 4-bit codes of the centroids; below, centroids are held twice."""

_MAX_NLIST = 16_384
_ROW_ID_BYTES = 8
_HEADER_BYTES = 4_096
_CENTROID_CODE_BYTES = 0.25  # for each dimension
_ROWS_PER_PACK = 32  # fast-scan keeps codes in packs of 32 rows; the last pack of a list is half empty on average


@dataclass(frozen=True, slots=True)
class Preset:
    """One kind of index.

    Attributes:
        name: the name that `--store` accepts.
        recipe: FAISS's factory string with placeholders for nlist and for the widths d, d / 2, d / 4; "" for no index.
        code_bytes: d -> bytes of a row's code.
        link_bytes: bytes a row for a graph's links, besides code and id.
        fast_scan: whether codes are kept in packs of 32 rows.
        table_bytes: d -> bytes that do not grow with the rows, besides the lists' centroids.
        time_exponent: a search takes f ** time_exponent times as long over f times as many rows.
        dim_multiple: the width must be a multiple of this; other widths are padded with zeros.
        min_rows: fewer rows are too few to learn the codes from.
    """

    name: str
    recipe: str
    code_bytes: Callable[[int], float]
    link_bytes: float = 0.0
    fast_scan: bool = False
    table_bytes: Callable[[int], float] = lambda d: 0.0
    time_exponent: float = 0.5
    dim_multiple: int = 1
    min_rows: int = 1_024

    @property
    def has_index(self) -> bool:
        """Whether there is an index file; the exact store has none."""
        return bool(self.recipe)

    @property
    def is_ivf(self) -> bool:
        """Whether rows are kept in lists around centroids (an inverted file)."""
        return "IVF" in self.recipe

    @property
    def is_graph(self) -> bool:
        """Whether rows are nodes of a graph, so that a search for an indexed row leads straight to it."""
        return "HNSW" in self.recipe

    def factory_string(self, count: int, dim: int) -> str:
        """Return FAISS's factory string for n rows of width d.

        >>> PRESETS["ivf-pq4"].factory_string(100_000, 511)
        'Pad512,IVF1024,PQ256x4fsr'
        """
        width = self._padded(dim)
        text = self.recipe.format(nlist=choose_nlist(count), d=width, half=width // 2, quarter=width // 4)
        return text if width == dim else f"Pad{width},{text}"

    def memory_bytes(self, count: int, dim: int) -> int:
        """Return the resident bytes of the index over n rows of width d."""
        width = self._padded(dim)
        if not self.has_index:
            float32_bytes = 4 * count * width
            kept = float32_bytes if float32_bytes <= MAX_EXACT_FLOAT32_BYTES else 0
            return int(count * self.code_bytes(width)) + kept + _HEADER_BYTES
        if not self.is_ivf:
            return int(count * (self.code_bytes(width) + self.link_bytes) + self.table_bytes(width)) + _HEADER_BYTES
        nlist = choose_nlist(count)
        rows = count + (nlist * _ROWS_PER_PACK / 2 if self.fast_scan else 0)
        copy = _CENTROID_CODE_BYTES if nlist >= MIN_CODED_LISTS else 4
        fixed = nlist * ((4 + copy) * self.centroid_dim(width) + 24) + self.table_bytes(width)
        return int(rows * self.code_bytes(width) + count * _ROW_ID_BYTES + fixed) + _HEADER_BYTES

    def centroid_dim(self, width: int) -> int:
        """Return the width of the lists' centroids: the width after a rotation, if there is one."""
        return width // 2 if self.recipe.startswith("OPQ") else width

    def _padded(self, dim: int) -> int:
        return math.ceil(dim / self.dim_multiple) * self.dim_multiple


PRESETS = {
    preset.name: preset
    for preset in (
        # Every float16 vector is read and compared.
        Preset(EXACT, "", lambda d: 2 * d, time_exponent=1.0, min_rows=0),
        # Lists of 4-bit product codes, two dimensions each, for fast-scan.
        Preset(
            "ivf-pq4", "IVF{nlist},PQ{half}x4fsr", lambda d: d / 4,
            fast_scan=True, table_bytes=lambda d: 64 * d, dim_multiple=2,
        ),
        # Lists of one-bit codes (RaBitQ) for fast-scan.
        Preset(
            "ivf-rabitq", "IVF{nlist},RaBitQfs", lambda d: math.ceil(d / 8) + 8,
            fast_scan=True, dim_multiple=8,
        ),
        # Rotated to half the width, then as ivf-pq4: half its memory.
        Preset(
            "opq-ivf-pq4", "OPQ{quarter}_{half},IVF{nlist},PQ{quarter}x4fsr", lambda d: d / 8,
            fast_scan=True, table_bytes=lambda d: 2 * d * d + 32 * d, dim_multiple=4,
        ),
        # Lists of 8-bit numbers.
        Preset("ivf-sq8", "IVF{nlist},SQ8", lambda d: d, table_bytes=lambda d: 8 * d, min_rows=1),
        # Lists of whole float32 vectors.
        Preset("ivf-flat", "IVF{nlist},Flat", lambda d: 4 * d, min_rows=1),
        # A graph over 8-bit numbers.
        Preset(
            "hnsw-sq8", "IDMap,HNSW16,SQ8", lambda d: d,
            link_bytes=16 * 2 * 4 + 8 + 4 + 5 + _ROW_ID_BYTES, table_bytes=lambda d: 8 * d,
            time_exponent=0.15, min_rows=1,
        ),
    )
}  # fmt: skip
"""Name -> preset; of equally good ones the earlier is chosen."""


def choose_nlist(count: int) -> int:
    """Return nlist for n rows: the power of two nearest to 3 sqrt(n), with at least 39 training rows for each list."""
    preferred = int(2 ** round(math.log2(3 * math.sqrt(count))))
    return max(1, min(preferred, count // MIN_ROWS_PER_CENTROID, _MAX_NLIST))


def default_preset(count: int) -> Preset:
    """Return the preset that `faiss` stands for: 4-bit codes, or whole vectors if n rows are too few for codes."""
    return PRESETS[DEFAULT_PRESET] if count >= PRESETS[DEFAULT_PRESET].min_rows else PRESETS["ivf-flat"]
