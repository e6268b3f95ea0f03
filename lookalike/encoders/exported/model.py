"""What a trained encoder's folder holds, and the torch modules that its weights fill.

    encoder.json          `Architecture`, preprocessing, name, SHA-256 of the weights
    weights.safetensors   `image.*` and, where there is text, `text.*`, float32
    calibration.json      thresholds and probabilities of pairs, where they were measured
    README.md             the model card; report.json and config.toml are for people, too

Training builds the very same modules (`training.bases`), so what is served is what was trained. Torch is
imported only by what builds a tower. Dimension letters: n rows, f features of a network, d joint width, S side of an
image.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lookalike.encoders.engines.cache import sha256_file
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import WeightsInvalid, WeightsMissing

if TYPE_CHECKING:
    from torch import nn

ENCODER_FILE, WEIGHTS_FILE, CALIBRATION_FILE = "encoder.json", "weights.safetensors", "calibration.json"
FORMAT = 1
_LARGEST_SIDE = 4096


@dataclass(frozen=True, slots=True)
class Architecture:
    """Which modules the weights fill.

    Attributes:
        family: `lite` or `open_clip`.
        model: open_clip's name of the model; empty for `lite`.
        quick_gelu: open_clip's older activation, which some published weights need.
        head: width d of a linear head on the features of the network; 0 where the family's own joint space is kept.
        text: whether there is a text tower; never beside a head of its own.
    """

    family: Literal["lite", "open_clip"]
    model: str = ""
    quick_gelu: bool = False
    head: int = 0
    text: bool = False


@dataclass(frozen=True, slots=True)
class ExportedEncoder:
    """`encoder.json`.

    Attributes:
        name: what its maker called it.
        base: name of the encoder that training started from.
        dim: d.
        architecture: which modules.
        preprocessing: applied to every image.
        context: tokens the text tower takes; 0 without text.
        end: how the end token is found, as in `open_clip_model.Description`.
        end_id: its id.
        weights: SHA-256 of `weights.safetensors`, hex.
    """

    name: str
    base: str
    dim: int
    architecture: Architecture
    preprocessing: Preprocessing
    context: int
    end: str | None
    end_id: int
    weights: str

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


def read_encoder(folder: Path) -> ExportedEncoder:
    """`encoder.json`, and a check that the weights beside it are the ones that it was written with.

    Raises:
        WeightsMissing: the folder or one of its two files is not there.
        WeightsInvalid: not what `lookalike train` writes, from a later release, or other weights.
    """
    path, weights = folder / ENCODER_FILE, folder / WEIGHTS_FILE
    if not path.is_file() or not weights.is_file():
        missing = ENCODER_FILE if not path.is_file() else WEIGHTS_FILE
        raise WeightsMissing(f"no {missing} in {folder}: name a folder that `lookalike train` wrote")
    try:
        record = json.loads(path.read_text("utf-8"))
        if record.pop("format") > FORMAT:
            raise WeightsInvalid(f"{path} was written by a later release of lookalike: upgrade")
        preprocessing = record["preprocessing"]
        preprocessing |= {name: tuple(map(float, preprocessing[name])) for name in ("mean", "std")}
        record |= {"preprocessing": Preprocessing(**preprocessing)}
        exported = ExportedEncoder(**{**record, "architecture": Architecture(**record["architecture"])})
        _require_sound(exported)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsInvalid(f"{path} is not what `lookalike train` writes: {error!r}") from error
    if sha256_file(weights) != exported.weights:
        raise WeightsInvalid(f"{weights} is not the file that {ENCODER_FILE} was written with: copy the whole folder")
    return exported


def _require_sound(exported: ExportedEncoder) -> None:
    """Raises ValueError for numbers that no encoder has."""
    taken = exported.preprocessing
    if not 1 <= taken.size <= taken.resize <= _LARGEST_SIDE:
        raise ValueError(f"size {taken.size} and resize {taken.resize} must be 1 to {_LARGEST_SIDE}, size the smaller")
    if exported.dim < 1 or exported.architecture.head not in (0, exported.dim):
        raise ValueError(f"dim {exported.dim} does not fit a head of {exported.architecture.head}")
    if len(taken.mean) != 3 or len(taken.std) != 3 or min(taken.std) <= 0:
        raise ValueError(f"mean {taken.mean} and std {taken.std} must be three numbers each, std above 0")


def load_tower(folder: Path, exported: ExportedEncoder, side: Literal["image", "text"]) -> nn.Module:
    """One tower with its weights, in eval mode, float32, on the CPU.

    Raises:
        WeightsInvalid: the weights do not fit the architecture.
    """
    import safetensors.torch

    from lookalike.encoders.exported.towers import build_towers

    try:
        towers = build_towers(exported.architecture, exported.preprocessing)
        tensors = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # what model libraries raise for a name or a width that makes no sense is theirs
        reason = " ".join(str(error).split())[:200]
        raise WeightsInvalid(f"{folder / ENCODER_FILE} describes no model that can be built: {reason}") from error
    tower = towers.image if side == "image" else towers.text
    if tower is None:
        raise WeightsInvalid(f"{folder} has no text tower")
    prefix = f"{side}."
    own: dict[str, Any] = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        missing, unknown = tower.load_state_dict(own, strict=False)
    except RuntimeError as error:  # what torch raises for misshapen tensors
        reason = " ".join(str(error).split())[:200]
        raise WeightsInvalid(f"{folder / WEIGHTS_FILE} does not fit its architecture: {reason}") from error
    # CLIP's text half is cut from the whole model and carries the images' half along, which it never asks.
    if unknown or (missing := [name for name in missing if not (side == "text" and ".visual." in f".{name}")]):
        names = ", ".join([*unknown, *missing][:3])
        raise WeightsInvalid(f"{folder / WEIGHTS_FILE} does not fit its architecture: {names}")
    return tower.eval()
