"""The single import of FAISS, translation of its exceptions, and helpers that the other modules share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lookalike.errors import StoreUnavailable
from lookalike.stores.faiss.environment import faiss_environment

with faiss_environment():
    import faiss

# A forked child has none of its parent's threads; GNU OpenMP would wait for them for ever.
os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))

__all__ = ["INDEX_FILE", "extract_ivf", "faiss", "translated_errors", "unpatched_search", "untyped_faiss"]

INDEX_FILE = "index.faiss"

untyped_faiss: Any = faiss
"""FAISS for calls where its stubs describe the C++ constructor instead of the Python wrapper."""


@contextmanager
def translated_errors(failure: str) -> Iterator[None]:
    """Raise FAISS's exceptions as StoreUnavailable; `failure` is the first part of the message.

    C++ exceptions arrive as RuntimeError or MemoryError; the Python wrappers use assertions.
    """
    try:
        yield
    except (RuntimeError, MemoryError, AssertionError) as error:
        raise StoreUnavailable(f"{failure}: {_last_line(error)}") from error


def unpatched_search(index: Any) -> Any:
    """Return FAISS's own `search`, even if `faiss.contrib.torch_utils` has replaced it by one without parameters."""
    return getattr(index, "search_numpy", index.search)


def extract_ivf(index: Any) -> Any:
    """Return the inverted file within an index, as its most derived class."""
    return faiss.downcast_index(faiss.extract_index_ivf(index))


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("Error: ")[2][:200] or type(error).__name__
