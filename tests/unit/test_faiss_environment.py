"""Environment variables with which FAISS is loaded: OpenBLAS's core type and OpenMP's spin count."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lookalike.stores.faiss.environment import (
    CORETYPE,
    SPINCOUNT,
    WAIT_POLICY,
    environment_variables,
    faiss_environment,
    openblas_coretype,
    openblas_coretype_for,
)

WIDE = "fpu avx2 fma avx512f avx512bw avx512dq avx512vl avx512cd amx_tile"


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("GenuineIntel", WIDE, "SKYLAKEX"),
        ("GenuineIntel", "fpu avx2 fma avx512f", "HASWELL"),
        ("GenuineIntel", "fpu sse4_2", None),
        ("AuthenticAMD", WIDE, None),
        ("", "", None),
    ],
)
def test_coretype_depends_on_cpu_flags(vendor: str, flags: str, expected: str | None) -> None:
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: Intel(R) Xeon(R) : new\nflags\t\t: {flags}\n\n"
    assert openblas_coretype_for(2 * one) == expected


def test_unknown_processor_has_no_coretype() -> None:
    assert openblas_coretype_for("") is None
    assert openblas_coretype_for("CPU implementer\t: 0x41\nFeatures\t: fp asimd\n") is None


@pytest.mark.parametrize("set_by_user", [None, "NEHALEM"])
def test_environment_is_restored(set_by_user: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CORETYPE, SPINCOUNT, WAIT_POLICY):
        monkeypatch.delenv(name, raising=False)
    if set_by_user:
        monkeypatch.setenv(CORETYPE, set_by_user)
    before = dict(os.environ)
    with faiss_environment():
        assert os.environ.get(CORETYPE) == (set_by_user or openblas_coretype())
        assert int(os.environ[SPINCOUNT]) > 0
    assert dict(os.environ) == before


@pytest.mark.parametrize(("name", "value"), [(SPINCOUNT, "7"), (WAIT_POLICY, "active")])
def test_user_setting_of_thread_waiting_wins(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in (SPINCOUNT, WAIT_POLICY):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    with faiss_environment():
        assert os.environ[name] == value
        assert os.environ.get(SPINCOUNT) == (value if name == SPINCOUNT else None)


def test_faiss_loads_with_the_spin_count() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {SPINCOUNT, WAIT_POLICY}}
    done = subprocess.run(
        [sys.executable, "-c", "import lookalike.stores.faiss.store"],
        env=environment | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    spins = [line.split("'")[1] for line in done.stderr.splitlines() if SPINCOUNT in line]
    if not spins:
        pytest.skip("FAISS has another OpenMP than GNU's here")
    assert spins[-1] == environment_variables()[SPINCOUNT]


def test_faiss_loads_with_the_coretype() -> None:
    if openblas_coretype() is None:
        pytest.skip("OpenBLAS recognises this processor, or it is no x86 one on Linux")
    environment = {name: value for name, value in os.environ.items() if name != CORETYPE} | {"OPENBLAS_VERBOSE": "2"}
    done = subprocess.run(
        [sys.executable, "-c", "import lookalike.stores.faiss.store"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    cores = [line.removeprefix("Core: ") for line in done.stderr.splitlines() if line.startswith("Core: ")]
    assert len(cores) >= 2  # NumPy's, then FAISS's
    assert cores[-1] in {"SkylakeX", "Haswell"}


def test_a_forked_process_searches() -> None:
    script = """
import os
import numpy as np
from lookalike.stores.faiss.library import faiss

vectors = np.random.default_rng(0).standard_normal((20_000, 32)).astype(np.float32)
index = faiss.index_factory(32, "IVF16,Flat")
index.train(vectors)
index.add(vectors)
expected = index.search(vectors[:64], 5)[1]  # starts the threads
child = os.fork()
if not child:
    os._exit(0 if (index.search(vectors[:64], 5)[1] == expected).all() else 3)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
