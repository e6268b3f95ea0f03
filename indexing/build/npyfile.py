"""A `.npy` file written row by row: its length is known at the end only, and memory holds no more than one piece."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


class NpyWriter:
    """Appends pieces along the first axis; `np.load`, memory-mapped or not, reads the result.

    Args:
        path: the file, replaced if it exists.
        dtype: of the elements.
        shape: of one row; () for a vector of scalars.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._dtype = dtype
        self._shape = shape
        self._stream = path.open("wb")
        self._rows = 0
        self._write_header()

    def append(self, piece: NDArray[Any]) -> None:
        """(m, *shape) further rows of the file's dtype."""
        if piece.dtype != self._dtype or piece.shape[1:] != self._shape:
            raise ValueError(f"{piece.dtype} {piece.shape} does not fit rows of {self._dtype} {self._shape}")
        self._stream.write(np.ascontiguousarray(piece).data)
        self._rows += len(piece)

    def close(self) -> None:
        """Writes the true length into the header."""
        if self._stream.closed:
            return
        with self._stream:
            self._stream.seek(0)
            self._write_header()

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_header(self) -> None:
        """Numpy pads the header so that the first axis may grow to 21 digits: both times it takes the same room."""
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._rows, *self._shape)}
        npy.write_array_header_1_0(self._stream, header)
