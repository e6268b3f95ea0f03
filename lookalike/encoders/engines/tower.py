"""What an engine is given and what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from lookalike.types import Float32

if TYPE_CHECKING:
    from torch import nn

Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Tower:
    """One half of a dual encoder, not yet loaded.

    Attributes:
        name: for logs and for the cache: `lite-image`.
        key: digest of whatever decides the output: weights, architecture, normalisation. Hex.
        dim: d.
        build: loads the module; called only when no converted graph is at hand, so that a start needs no torch.
        example: one array for each input, two rows or more, for tracing.
        sequence: whether axis 1 of every input (tokens) varies from call to call as well as axis 0 (rows).
        batches: row counts, ascending, from 1, the last one the most that is run at once. OpenVINO compiles graphs of
            convolutions for these alone, and other counts are split and padded to them.
        tokens: in a sequence tower whose rows share their attention, how many tokens are run at once on a CPU (of the
            first input, zeros behind a row's end not counted); 0 for as many as come.
        exact: how many of the first convolutions OpenVINO computes in fp32, with all sums, even where the rest is bf16,
            and among how many it does so with the depthwise ones; (0, 0) leaves everything to the precision chosen.
        round_to_bf16: changes a built module before OpenVINO runs it in bf16, which would round its weights blindly.
    """

    name: str
    key: str
    dim: int
    build: Callable[[], nn.Module]
    example: Arrays
    sequence: bool
    batches: tuple[int, ...]
    max_packed_tokens: int = 0
    fp32_layers: tuple[int, int] = (0, 0)
    round_to_bf16: Callable[[nn.Module], None] | None = None


class Engine(Protocol):
    """Runs one tower. Called from as many threads at a time as its choice has streams."""

    @property
    def name(self) -> str:
        """`openvino` or `torch`."""
        ...

    @property
    def precision(self) -> str:
        """`fp32`, `bf16` or `fp16`: what most of the arithmetic is done in; input and output are unaffected."""
        ...

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Bytes of the tower's weights as they were loaded, before a compiler packs them anew."""
        ...

    def __call__(self, *inputs: NDArray[Any]) -> Float32:
        """One array for each input, n rows each, any n including 0 -> (n, d) float32. Inputs are left unmodified."""
        ...
