"""The kinds of index in Milvus under the names of the presets, and their search parameters.

Dimension letters: n rows, d embedding width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lookalike.errors import QueryError
from lookalike.stores.presets import PRESETS, choose_nlist
from lookalike.stores.protocol import SearchParameters

CANDIDATES = "candidates"
MAX_RESULTS = 16_384
"""Results that Milvus returns for a query at most."""

_LINKS, _EF_CONSTRUCTION = 16, 80
_FLAT_CANDIDATES = 20
_COARSE_CODE_CANDIDATES, _FINE_CODE_CANDIDATES = (50, 100, 200, 400), (20, 50, 100)
_EF_GRID = (16, 32, 64, 128, 256, 512, 1024)
_NPROBE_STEPS = 7
_NPROBE_GROWTH = 0.25
"""With f allowed rows of n, nprobe grows by (n / f) ** this, as for FAISS."""


@dataclass(frozen=True, slots=True)
class MilvusIndex:
    """An index of n rows of width d.

    Attributes:
        preset: name of the preset.
        count: n.
        dim: d.
    """

    preset: str
    count: int
    dim: int

    @property
    def nlist(self) -> int:
        """Lists of an inverted file."""
        return choose_nlist(self.count)

    @property
    def effort(self) -> str | None:
        """The search parameter besides `candidates`: `nprobe` or `efSearch`; None if every row is compared."""
        if PRESETS[self.preset].is_ivf:
            return "nprobe"
        return "efSearch" if PRESETS[self.preset].is_graph else None

    def creation(self) -> tuple[str, dict[str, Any]]:
        """Return Milvus's index type and parameters."""
        lists = {"nlist": self.nlist}
        graph = {"M": _LINKS, "efConstruction": _EF_CONSTRUCTION}
        kinds: dict[str, tuple[str, dict[str, Any]]] = {
            "exact": ("FLAT", {}),
            "ivf-flat": ("IVF_FLAT", lists),
            "ivf-sq8": ("IVF_SQ8", lists),
            "ivf-pq4": ("IVF_PQ", {**lists, "m": _divisor(self.dim, 4), "nbits": 8}),  # a byte for four dimensions
            "opq-ivf-pq4": ("IVF_PQ", {**lists, "m": _divisor(self.dim, 8), "nbits": 8}),
            "ivf-rabitq": ("IVF_RABITQ", lists),
            "hnsw-sq8": ("HNSW_SQ", {**graph, "sq_type": "SQ8"}),
        }
        return kinds[self.preset]

    def initial_params(self) -> dict[str, int]:
        """Return the search parameters to use until tuning has measured better ones."""
        efforts = {"nprobe": max(1, self.nlist // 8), "efSearch": 128}
        return {**({self.effort: efforts[self.effort]} if self.effort else {}), CANDIDATES: 100}

    def param_grid(self) -> Sequence[SearchParameters]:
        """Return the search parameters to try, the cheapest first."""
        if self.effort is None:
            return [{CANDIDATES: _FLAT_CANDIDATES}]
        grid = (
            _COARSE_CODE_CANDIDATES if PRESETS[self.preset].code_bytes(self.dim) < self.dim else _FINE_CODE_CANDIDATES
        )
        candidates = sorted({min(count, self.count) for count in grid})
        nprobes = sorted({max(1, self.nlist >> step) for step in range(_NPROBE_STEPS)})
        efforts = nprobes if self.effort == "nprobe" else _EF_GRID
        return [{self.effort: effort, CANDIDATES: count} for effort, count in itertools.product(efforts, candidates)]

    def validated(self, params: Mapping[str, int]) -> dict[str, int]:
        """Return the parameters. Raises QueryError: one is unknown to this index, or below 1."""
        known = [CANDIDATES, *([self.effort] if self.effort else [])]
        for name, value in params.items():
            if name not in known:
                names = ", ".join(known)
                raise QueryError(f"this collection's index has no search parameter {name!r}; it has {names}")
            if value < 1:
                raise QueryError(f"search parameter {name} = {value}; it must be at least 1")
        return dict(params)

    def widened(self, params: Mapping[str, int], allowed: int) -> dict[str, int]:
        """Return parameters that search more of the index, for a filter that allows so many rows."""
        if self.effort != "nprobe":
            return dict(params)
        return {**params, "nprobe": math.ceil(params["nprobe"] * (self.count / allowed) ** _NPROBE_GROWTH)}

    def exhaustive(self, params: Mapping[str, int]) -> dict[str, int]:
        """Return parameters that search all of an inverted file."""
        return {**params, "nprobe": self.nlist} if self.effort == "nprobe" else dict(params)

    def search_params(self, params: Mapping[str, int], k: int) -> dict[str, Any]:
        """Return Milvus's search parameters for k results."""
        if self.effort == "nprobe":
            return {"nprobe": min(params["nprobe"], self.nlist)}
        return {"ef": min(max(params["efSearch"], k), 2 * MAX_RESULTS)} if self.effort else {}


def _divisor(dim: int, dimensions_a_code: int) -> int:
    """Return the largest number of codes that divides d, of at least so many dimensions each."""
    return next(codes for codes in range(max(1, dim // dimensions_a_code), 0, -1) if dim % codes == 0)
