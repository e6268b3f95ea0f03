"""What a caller asks of an engine; `selection` turns it into an `EngineChoice` for this machine."""

from __future__ import annotations

from dataclasses import dataclass

DEVICES = ("auto", "cpu", "cuda")
ENGINES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Requested device, engine, precision and threads; `auto` and None leave the choice to `choose_engine`.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        engine: `auto`, `torch` or `openvino`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        threads: CPU threads; None for all cores.
    """

    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    threads: int | None = None
