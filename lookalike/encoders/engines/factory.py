"""Tower and choice -> engine."""

from __future__ import annotations

from lookalike.encoders.engines.selection import EngineChoice
from lookalike.encoders.engines.tower import Engine, Tower


def create_engine(tower: Tower, choice: EngineChoice) -> Engine:
    """Load a tower into the chosen engine; only that engine's library is imported."""
    if choice.engine == "openvino":
        from lookalike.encoders.engines.openvino import OpenVINOEngine

        return OpenVINOEngine(tower, choice)
    from lookalike.encoders.engines.pytorch import TorchEngine

    return TorchEngine(tower, choice)
