"""The precision that the towers train in."""

from __future__ import annotations

import torch

from lookalike.encoders.engines.selection import bf16_is_faster


def uses_bf16(precision: str, device: str) -> bool:
    """Return whether the towers run under bf16 autocast.

    Args:
        precision: `auto`, `bf16` or `fp32`; `auto` is bf16 on a CPU that is faster in it, and on CUDA from compute
            capability 8.0; elsewhere fp32.
        device: `cpu` or `cuda`.
    """
    if precision != "auto":
        return precision == "bf16"
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    return bf16_is_faster()
