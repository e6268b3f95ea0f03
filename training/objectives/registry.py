"""Objectives by name, with their options as a configuration writes them."""

from __future__ import annotations

import inspect
from typing import Any

from lookalike.errors import ConfigInvalid
from training.objectives.base import Objective
from training.objectives.clip import Clip
from training.objectives.contrastive import Contrastive
from training.objectives.cosine_pair import CosinePair
from training.objectives.info_nce import InfoNCE
from training.objectives.simclr import SimCLR
from training.objectives.triplet import Triplet

_OBJECTIVES: dict[str, type[Objective]] = {
    "contrastive": Contrastive,
    "triplet": Triplet,
    "cosine_pair": CosinePair,
    "info_nce": InfoNCE,
    "clip": Clip,
    "simclr": SimCLR,
}
_KINDS = {float: "a number", int: "an integer", bool: "true or false", str: "a word"}


def objective_names() -> tuple[str, ...]:
    """Return the names of all objectives."""
    return tuple(_OBJECTIVES)


def make_objective(name: str, **options: Any) -> Objective:
    """Return an objective by its name.

    Args:
        name: contrastive, triplet, cosine_pair, info_nce, clip or simclr.
        options: arguments of its class; an integer is accepted for a float.

    Raises:
        ConfigInvalid: an unknown name or option, a wrong type or a value out of range.

    >>> make_objective("triplet", margin=0.3).margin
    0.3
    """
    objective = _OBJECTIVES.get(name)
    if objective is None:
        raise ConfigInvalid(f"objective.name = {name!r} is unknown; known: {', '.join(_OBJECTIVES)}")
    defaults = {key: parameter.default for key, parameter in inspect.signature(objective).parameters.items()}
    unknown = sorted(options.keys() - defaults.keys())
    if unknown:
        raise ConfigInvalid(f"unknown option {unknown[0]!r} of objective {name}; known: {', '.join(defaults)}")
    return objective(**{key: _coerce(key, value, type(defaults[key])) for key, value in options.items()})


def _coerce(key: str, value: Any, kind: type) -> Any:
    types = (int, float) if kind is float else (kind,)
    if not isinstance(value, types) or (isinstance(value, bool) and kind is not bool):
        raise ConfigInvalid(f"objective.{key} = {value!r} must be {_KINDS[kind]}")
    return kind(value)
