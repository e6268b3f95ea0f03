"""Which matrix kernels FAISS's OpenBLAS gets: the ones for this processor, where it would not find them itself.

The wheels of faiss-cpu carry OpenBLAS 0.3.15, which knows processors by their model numbers. On an Intel server newer
than itself (Sapphire Rapids and later) it falls back to the kernels of 2004, and k-means, flat search and the choice of
lists for a batch run at a fifth of their speed. The variable that names the kernels is read once, when the library is
loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "OPENBLAS_CORETYPE"
_CPUINFO = Path("/proc/cpuinfo")
_KERNELS = {
    "SKYLAKEX": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"},
    "HASWELL": {"avx2", "fma"},
}
"""OpenBLAS's names, the best first, and the instructions that each needs."""


@contextmanager
def best_kernels() -> Iterator[None]:
    """Within it OpenBLAS is to be loaded; what the user has set stays."""
    name = kernels()
    if name is None or VARIABLE in os.environ:
        yield
        return
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def kernels() -> str | None:
    """`kernels_for` this machine; None where nothing has to be said."""
    return kernels_for(_CPUINFO.read_text()) if _CPUINFO.is_file() else None


def kernels_for(cpuinfo: str) -> str | None:
    r"""OpenBLAS's name for the best kernels that an Intel processor runs; None for others, which it recognises.

    Args:
        cpuinfo: what Linux's `/proc/cpuinfo` says.

    >>> kernels_for("vendor_id : GenuineIntel\nflags : fpu avx2 fma")
    'HASWELL'
    """
    facts = dict(line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    told = {name.strip(): value.split() for name, value in facts.items()}
    if told.get("vendor_id") != ["GenuineIntel"]:
        return None
    able = set(told.get("flags", []))
    return next((name for name, needed in _KERNELS.items() if needed <= able), None)
