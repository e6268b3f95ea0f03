"""A writer of `.npy` files whose length is known only at the end; memory holds one block of rows."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


class NpyWriter:
    """Appends blocks along the first axis; `np.load`, memory-mapped or not, reads the result.

    Args:
        path: of the file; an existing one is replaced.
        dtype: of the elements.
        shape: of one row; () for a vector of scalars.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._dtype = dtype
        self._shape = shape
        self._stream = path.open("wb")
        self._rows = 0
        self._write_header()

    def append(self, block: NDArray[Any]) -> None:
        """Append (m, *shape) rows of the file's dtype."""
        if block.dtype != self._dtype or block.shape[1:] != self._shape:
            raise ValueError(f"{block.dtype} {block.shape} does not fit rows of {self._dtype} {self._shape}")
        self._stream.write(np.ascontiguousarray(block).data)
        self._rows += len(block)

    def close(self) -> None:
        """Write the final length into the header."""
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
        """Write the header; numpy pads it for 21 digits of the first axis, so its size never changes."""
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._rows, *self._shape)}
        npy.write_array_header_1_0(self._stream, header)
