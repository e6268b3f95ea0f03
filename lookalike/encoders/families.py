"""Names -> model families."""

from __future__ import annotations

from lookalike.encoders.architecture import ModelFamily
from lookalike.encoders.lite.family import LiteFamily
from lookalike.encoders.open_clip.family import OpenClipFamily

_FAMILIES: dict[str, ModelFamily] = {"lite": LiteFamily(), "open_clip": OpenClipFamily()}


def model_family(name: str) -> ModelFamily:
    """Return a model family by the name that `Architecture.family` has.

    Raises:
        ValueError: no such family.
    """
    if name not in _FAMILIES:
        raise ValueError(f"unknown model family {name!r}; known are {', '.join(_FAMILIES)}")
    return _FAMILIES[name]
