"""The configuration of a training run, read from TOML. Every key has a default, a range and a description."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lookalike.errors import ConfigInvalid

Share = Annotated[float, Field(ge=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Base(_Table):
    """`[base]`: the encoder that training starts from, and changes of it."""

    encoder: str = Field(default="lite", description="`lite`, `open_clip:<model>/<pretrained>` or `folder:PATH`.")
    head: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="Width of a new linear head on the image tower's features; 0 keeps the encoder's own.",
    )
    size: int = Field(
        default=0, ge=0, le=1024, description="Side of the square input in pixels; 0 keeps the encoder's."
    )
    projection: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="Width of a two-layer head that only training uses, as in SimCLR; 0 for none.",
    )
    freeze: Share = Field(
        default=0.0, description="Share of the image tower's stages, from the input on, that are frozen."
    )
    freeze_norm: bool = Field(
        default=True,
        description="Whether batch normalization keeps the base's statistics; if not, it uses each batch's.",
    )
    freeze_text: bool = Field(default=True, description="Whether the text tower is frozen, except for its own head.")


class Data(_Table):
    """`[data]`: the images; `--data` and `--validation` override it."""

    train: list[str] = Field(
        default=[], description="Folders, tars, Parquet files or glob patterns; `--data` overrides it."
    )
    validation: list[str] = Field(
        default=[], description="Validation images; `--validation` overrides it. Empty: `holdout` applies."
    )
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="Share of each class that is held out where `validation` is empty."
    )
    unseen: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Share of the classes that are held out whole; 0 for none.",
    )
    label_column: str = Field(default="", description="Column of class names; empty finds it by its name.")
    classes: list[str] = Field(default=[], description="Use only these classes; empty for all.")
    limit: int = Field(default=0, ge=0, description="Maximum number of training images; 0 for all.")


class ObjectiveSettings(BaseModel):
    """`[objective]`: the loss by name, with its options."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str = Field(
        default="triplet", description="`contrastive`, `triplet`, `cosine_pair`, `info_nce`, `clip` or `simclr`."
    )

    @property
    def options(self) -> dict[str, Any]:
        """Return all keys but the name."""
        return dict(self.model_extra or {})


class Optimizer(_Table):
    """`[optimizer]`: AdamW with linear warm-up and half a cosine (Loshchilov and Hutter 2019)."""

    epochs: float = Field(default=4.0, gt=0, description="Passes over the training images.")
    batch_size: int = Field(default=128, ge=2, description="Images in a step, over all processes.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak learning rate of the towers.")
    head_learning_rate: float = Field(
        default=1e-3, gt=0, description="Peak learning rate of a new head, a projection and a learned temperature."
    )
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="Factor of the learning rate from each stage to the one before it."
    )
    weight_decay: float = Field(default=0.05, ge=0, description="Weight decay of matrices; vectors have none.")
    warmup: Share = Field(default=0.05, description="Share of the steps in which the learning rate rises to its peak.")
    clip_norm: float = Field(default=1.0, ge=0, description="Maximum L2 norm of the gradient; 0 for none.")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="Arithmetic of the towers; weights stay fp32. `auto` takes bf16 where it is faster.",
    )
    chunk: int = Field(default=0, ge=0, description="Images in memory at a time (GradCache); 0 for the whole batch.")
    memory: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Embeddings of earlier batches that are further references; 0 for none.",
    )
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Decay of the moving average of the weights that is exported; 0 exports the last weights.",
    )
    wise: Share = Field(
        default=1.0,
        description="Share of the trained weights in the result; the rest are the start's (WiSE-FT).",
    )


class Sampling(_Table):
    """`[sampling]`: the selection of a batch's images."""

    per_class: int = Field(default=0, ge=0, description="Images of each class in a batch; 0 ignores classes.")


class Augment(_Table):
    """`[augment]`: random transforms of an image before each step, by torchvision."""

    crop: Share = Field(default=0.6, description="Minimum share of the image's area in a random crop; 1 for no crop.")
    flip: Share = Field(default=0.5, description="Probability that an image is mirrored.")
    jitter: float = Field(
        default=0.0, ge=0, le=1, description="Strength of random brightness, contrast, saturation and hue."
    )
    grey: Share = Field(default=0.0, description="Probability that an image is converted to greyscale.")
    blur: Share = Field(default=0.0, description="Probability that an image is blurred.")
    erase: Share = Field(default=0.0, description="Probability that a rectangle is erased.")
    pad: int = Field(
        default=0, ge=0, le=64, description="Random shifts by up to this many pixels; edges are reflected."
    )
    grow_from: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Side of the input at the start in pixels; it grows to the encoder's. 0 for no growth.",
    )


class Settings(_Table):
    """The whole configuration."""

    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="Random seed of the split, batches, augmentations, initial weights and dropout.",
    )
    evaluate_every: float = Field(default=1.0, gt=0, description="Epochs between two validation runs.")
    base: Base = Base()
    data: Data = Data()
    objective: ObjectiveSettings = ObjectiveSettings()
    optimizer: Optimizer = Optimizer()
    sampling: Sampling = Sampling()
    augment: Augment = Augment()


def load_settings(path: Path) -> Settings:
    """Read a configuration file.

    Raises:
        ConfigInvalid: no such file, not TOML, an unknown key, a wrong type or a value out of range.
    """
    return settings_from(read_toml(path), str(path))


def settings_from(document: dict[str, Any], source: str) -> Settings:
    """Return the configuration of a TOML document; an integer is accepted for a float.

    Raises:
        ConfigInvalid: an unknown key, a wrong type or a value out of range; the message names key and value.
    """
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigInvalid(
                f"{source}: unknown key {key!r}; docs/reference/training-configuration.md lists all"
            ) from error
        if first["type"] == "model_type":
            raise ConfigInvalid(f"{source}: {key} = {first['input']!r} must be a table, [{key}]") from error
        raise ConfigInvalid(f"{source}: {key} = {first['input']!r}: {first['msg'].lower()}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Read the tables of a TOML file.

    Raises:
        ConfigInvalid: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(
            f"{path} can't be read: {error.strerror}; the repository's folder configs/ has examples"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid(
            f"{path} is not text; name a TOML file, such as those in the repository's folder configs/"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{path} is not TOML: {error}") from error
