"""Choice and tower -> engine."""

from __future__ import annotations

from retrieval.encoders.engines.choice import EngineChoice
from retrieval.encoders.engines.tower import Engine, Tower


def make_engine(tower: Tower, choice: EngineChoice) -> Engine:
    """Load a tower into the chosen engine; each engine's library is imported only when it is the one."""
    if choice.engine == "openvino":
        from retrieval.encoders.engines.openvino import OpenVINOEngine

        return OpenVINOEngine(tower, choice)
    from retrieval.encoders.engines.pytorch import TorchEngine

    return TorchEngine(tower, choice)
