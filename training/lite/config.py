"""The configuration of the recipe, read from TOML; each default is the value of the released `lite`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lookalike.errors import ConfigInvalid


@dataclass(frozen=True, slots=True)
class LiteConfig:
    """Hyper-parameters of the training of `lite`'s heads.

    Attributes:
        seed: of initial weights, batches, captions, crops and dropout.
        epochs: passes over the photographs; each pass takes one view and one caption of a photograph.
        batch_size: photographs in a step.
        classes_per_step: ImageNet classes that are added to each step as pseudo photographs with a text.
        learning_rate: at the peak, AdamW; linear warm-up, then half a cosine down to zero.
        warmup_steps: steps until the peak.
        weight_decay: of matrices; vectors have none.
        dropout: inside the heads; half of it at their inputs.
        views: of each photograph: 1 whole, 2 also mirrored, more are random crops.
        concept_weight: w, the share of the class-name part (ConSE) in the score, in [0, 1).
        concept_centering: share of the class names' mean that is subtracted from the concept vectors, in [0, 1]: a
            larger share separates rare things better, but makes flat posteriors sensitive to rounding.
        temperature: at the start; learned.
        min_temperature: lower bound of the learned temperature.
        class_noise: share of a real photograph's deviation from the mean that is added to a pseudo photograph.
        class_weight: weight of a class in the loss; a photograph has 1.
        class_scale: length of a pseudo photograph's deviation from the mean, in standard deviations of real ones.
    """

    seed: int = 0
    epochs: int = 48
    batch_size: int = 1024
    classes_per_step: int = 384
    learning_rate: float = 4e-3
    warmup_steps: int = 20
    weight_decay: float = 0.3
    dropout: float = 0.7
    views: int = 8
    concept_weight: float = 0.4
    concept_centering: float = 0.0
    temperature: float = 0.05
    min_temperature: float = 0.01
    class_noise: float = 0.3
    class_weight: float = 0.5
    class_scale: float = 0.8

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigInvalid: a value is out of range.
        """
        for name in ("epochs", "batch_size", "views"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("learning_rate", "temperature", "min_temperature"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in ("weight_decay", "warmup_steps", "class_noise", "class_weight", "class_scale"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("concept_weight", "dropout"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        _require(0 <= self.concept_centering <= 1, "concept_centering", self.concept_centering, "in [0, 1]")
        _require(0 <= self.classes_per_step <= 1000, "classes_per_step", self.classes_per_step, "in [0, 1000]")


def load_config(path: Path) -> LiteConfig:
    """Read the table `[lite]` of a TOML file.

    Raises:
        ConfigInvalid: no such file, not TOML, an unknown key, a wrong type or a value out of range.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigInvalid(f"no configuration at {path}: configs/lite.toml is the released one") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{path} is not TOML: {error}") from error
    table = document.pop("lite", None)
    if document or not isinstance(table, dict):
        raise ConfigInvalid(f"{path} must hold one table, [lite]; found {sorted(document) or 'none'}")
    return from_table(table)


def from_table(table: dict[str, Any]) -> LiteConfig:
    """Return the configuration with these keys and values; an integer is accepted for a float.

    Raises:
        ConfigInvalid: an unknown key, a wrong type or a value out of range.
    """
    kinds = {field.name: type(field.default) for field in fields(LiteConfig)}
    unknown = sorted(table.keys() - kinds.keys())
    if unknown:
        raise ConfigInvalid(f"unknown key {unknown[0]!r} in [lite]; known: {', '.join(kinds)}")
    return LiteConfig(**{key: _coerce(key, value, kinds[key]) for key, value in table.items()})


def _coerce(key: str, value: Any, kind: type) -> Any:
    types = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, types):
        raise ConfigInvalid(f"{key} = {value!r} must be {'a number' if kind is float else 'an integer'}")
    return kind(value)


def _require(valid: bool, name: str, value: object, expected: str) -> None:
    if not valid:
        raise ConfigInvalid(f"{name} = {value!r} must be {expected}")
