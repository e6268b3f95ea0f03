"""The tower that an engine runs, and the protocol of an engine."""

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
    """One tower of a dual encoder, not loaded yet.

    Attributes:
        name: for logs and for the cache: `lite-image`.
        key: digest, hex, of all that decides the output: weights, architecture, normalisation, code.
        dim: d.
        build: loads the module; called only when no converted graph is cached, so that a start needs no torch.
        example: one array for each input, two rows or more, for tracing.
        sequence: whether axis 1 of every input (tokens) varies from call to call as well as axis 0 (rows).
        batches: row counts, ascending, from 1; the last one is the maximum. OpenVINO compiles graphs of convolutions
            for these alone; other counts are split and padded to them.
        max_packed_tokens: tokens of one call on a CPU, in a sequence tower that packs its rows (of the first input,
            without the zeros after a row's end); 0 for no limit.
        fp32_layers: (c, d): OpenVINO computes the first c convolutions, every sum, and the depthwise ones among the
            first d convolutions in fp32 even where the rest is bf16. (0, 0) for none.
        round_to_bf16: rounds the weights of a built module before OpenVINO runs it in bf16; OpenVINO's own rounding
            ignores the bias that it causes.
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
    """Runs one tower; called from at most `EngineChoice.streams` threads at a time."""

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
        """Bytes of the tower's weights as loaded, before a compiler repacks them."""
        ...

    def __call__(self, *inputs: NDArray[Any]) -> Float32:
        """One array for each input, n rows each, any n including 0 -> (n, d) float32. Inputs are not modified."""
        ...
