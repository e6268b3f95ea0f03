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
        steps: of the optimizer.
        images_per_step: images of each set in a step, in the order of `--data`.
        classes_per_step: ImageNet classes that are added to each step as pseudo images with a text.
        learning_rate: at the peak, AdamW; linear warm-up, then half a cosine down to zero.
        warmup_steps: steps until the peak.
        weight_decay: of matrices; vectors have none.
        dropout: inside the heads; half of it at their inputs.
        views: of each image: 1 whole, 2 also mirrored, more are random crops.
        concept_weight: w, the share of the class-name part (ConSE) in the score, in [0, 1).
        appearance_weight: a, the share of the image-only part in the score of two images, in [0, 1).
        minilm_dropout: share of the texts without MiniLM's features, in [0, 1).
        temperature: at the start; learned.
        min_temperature: lower bound of the learned temperature.
        class_noise: share of a real image's deviation from the mean that is added to a pseudo image.
        class_weight: weight of a class in the loss; an image has 1.
        class_scale: length of a pseudo image's deviation from the mean, in standard deviations of real ones.
    """

    seed: int = 0
    steps: int = 500
    images_per_step: tuple[int, ...] = (896, 384)
    classes_per_step: int = 384
    learning_rate: float = 4e-3
    warmup_steps: int = 20
    weight_decay: float = 0.3
    dropout: float = 0.75
    views: int = 4
    concept_weight: float = 0.3
    appearance_weight: float = 0.5
    minilm_dropout: float = 0.2
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
        for name in ("steps", "views"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(
            bool(self.images_per_step) and min(self.images_per_step) >= 1,
            "images_per_step",
            list(self.images_per_step),
            "a list of numbers of at least 1",
        )
        for name in ("learning_rate", "temperature", "min_temperature"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in ("weight_decay", "warmup_steps", "class_noise", "class_weight", "class_scale"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("concept_weight", "appearance_weight", "minilm_dropout", "dropout"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
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
    if kind is tuple:
        numbers = value if isinstance(value, list) else [value]
        return tuple(_coerce(key, number, int) for number in numbers)
    types = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, types):
        raise ConfigInvalid(f"{key} = {value!r} must be {'a number' if kind is float else 'an integer'}")
    return kind(value)


def _require(valid: bool, name: str, value: object, expected: str) -> None:
    if not valid:
        raise ConfigInvalid(f"{name} = {value!r} must be {expected}")
