"""Environment variables that FAISS's native libraries read once, when they are loaded.

`OPENBLAS_CORETYPE`: the wheels of faiss-cpu carry OpenBLAS 0.3.15, which recognises processors by model number. On
Intel servers newer than itself (Sapphire Rapids and later) it falls back to the kernels of 2004. K-means, flat search
and the choice of lists for a batch then run at a fifth of their speed.

`GOMP_SPINCOUNT`: threads of GNU OpenMP spin for milliseconds while they wait for each other. On a busy machine this
keeps the awaited thread off the processor. With a busy process next to a search on two cores, every hundredth query
took 32 ms instead of 5. With no spinning at all, a query on an idle machine takes a tenth longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CORETYPE, SPINCOUNT, WAIT_POLICY = "OPENBLAS_CORETYPE", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
_SPINS = "1000"  # some microseconds
_CPUINFO = Path("/proc/cpuinfo")
_REQUIRED_FLAGS = {
    "SKYLAKEX": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"},
    "HASWELL": {"avx2", "fma"},
}
"""OpenBLAS's core type, the fastest first -> CPU flags that it needs."""


@contextmanager
def faiss_environment() -> Iterator[None]:
    """Set the variables while FAISS is imported; a variable that the user has set keeps its value."""
    added = {name: value for name, value in environment_variables().items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def environment_variables() -> dict[str, str]:
    """Return the variables for this machine; no spin count if the user has set `OMP_WAIT_POLICY`."""
    coretype = openblas_coretype()
    variables = {} if coretype is None else {CORETYPE: coretype}
    return variables if WAIT_POLICY in os.environ else {**variables, SPINCOUNT: _SPINS}


def openblas_coretype() -> str | None:
    """Return OpenBLAS's core type for this machine, None if OpenBLAS recognises the processor itself."""
    return openblas_coretype_for(_CPUINFO.read_text()) if _CPUINFO.is_file() else None


def openblas_coretype_for(cpuinfo: str) -> str | None:
    r"""Return OpenBLAS's name for the fastest kernels that an Intel processor runs.

    Args:
        cpuinfo: contents of Linux's `/proc/cpuinfo`.

    Returns:
        None for processors of other vendors, which OpenBLAS recognises.

    >>> openblas_coretype_for("vendor_id : GenuineIntel\nflags : fpu avx2 fma")
    'HASWELL'
    """
    lines = dict(line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    fields = {name.strip(): value.split() for name, value in lines.items()}
    if fields.get("vendor_id") != ["GenuineIntel"]:
        return None
    flags = set(fields.get("flags", []))
    return next((name for name, required in _REQUIRED_FLAGS.items() if required <= flags), None)
