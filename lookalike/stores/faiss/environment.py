"""What FAISS's libraries read from the environment when they are loaded, and only then.

`OPENBLAS_CORETYPE`: the wheels of faiss-cpu carry OpenBLAS 0.3.15, which knows processors by their model numbers. On an
Intel server newer than itself (Sapphire Rapids and later) it falls back to the kernels of 2004, and k-means, flat
search and the choice of lists for a batch run at a fifth of their speed.

`GOMP_SPINCOUNT`: threads of GNU OpenMP wait for each other by spinning for milliseconds, which keeps the very thread
that they wait for from the processor where others compute, too. With one busy process beside a search on two cores,
every hundredth query took 32 ms instead of 5. Without any spinning a query on an idle machine takes a tenth longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CORETYPE, SPINCOUNT, WAIT_POLICY = "OPENBLAS_CORETYPE", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
_SPINS = "1000"  # some microseconds
_CPUINFO = Path("/proc/cpuinfo")
_KERNELS = {
    "SKYLAKEX": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"},
    "HASWELL": {"avx2", "fma"},
}
"""OpenBLAS's names, the best first, and the instructions that each needs."""


@contextmanager
def faiss_environment() -> Iterator[None]:
    """Within it FAISS is to be loaded; what the user has set stays."""
    added = {name: value for name, value in environment_variables().items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def environment_variables() -> dict[str, str]:
    """The variables for this machine, where the user has not said how threads are to wait."""
    best = openblas_coretype()
    named = {} if best is None else {CORETYPE: best}
    return named if WAIT_POLICY in os.environ else {**named, SPINCOUNT: _SPINS}


def openblas_coretype() -> str | None:
    """`openblas_coretype_for` this machine; None where nothing has to be said."""
    return openblas_coretype_for(_CPUINFO.read_text()) if _CPUINFO.is_file() else None


def openblas_coretype_for(cpuinfo: str) -> str | None:
    r"""OpenBLAS's name for the best kernels that an Intel processor runs; None for others, which it recognises.

    Args:
        cpuinfo: what Linux's `/proc/cpuinfo` says.

    >>> openblas_coretype_for("vendor_id : GenuineIntel\nflags : fpu avx2 fma")
    'HASWELL'
    """
    facts = dict(line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    told = {name.strip(): value.split() for name, value in facts.items()}
    if told.get("vendor_id") != ["GenuineIntel"]:
        return None
    able = set(told.get("flags", []))
    return next((name for name, needed in _KERNELS.items() if needed <= able), None)
