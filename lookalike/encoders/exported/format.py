"""The folder of a trained encoder.

    encoder.json          `Architecture`, preprocessing, name, SHA-256 of the weights
    weights.safetensors   `image.*` and, where there is text, `text.*`, float32
    calibration.json      thresholds and probabilities of pairs, where they were measured
    README.md             the model card; report.json and config.toml are for people, too

Training builds the very same modules (`training.network.model`), so what is served is what was trained. Torch is
imported only by what builds a tower. Dimension letters: n rows, f features of a network, d joint width, S side of an
image.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from lookalike.encoders.architecture import Architecture
from lookalike.encoders.engines.cache import sha256_file
from lookalike.encoders.families import model_family
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import WeightsInvalid, WeightsMissing

ENCODER_FILE, WEIGHTS_FILE, CALIBRATION_FILE = "encoder.json", "weights.safetensors", "calibration.json"
FORMAT = 3
"""Format 2 has the fields of format 1; it means that weights in `lite`'s joint space are of its second edition.
Format 3 adds the temperature."""
MAX_SIDE = 4096
"""Side of an input image, pixels."""


@dataclass(frozen=True, slots=True)
class ExportedEncoder:
    """`encoder.json`.

    Attributes:
        name: chosen by whoever trained it.
        base: name of the encoder that training started from.
        dim: d.
        architecture: which modules.
        preprocessing: applied to every image.
        context: tokens the text tower takes; 0 without text.
        end: how the end token is found, as in `open_clip.model.Description`.
        end_id: its id.
        weights: SHA-256 of `weights.safetensors`, hex.
        temperature: at the end of training, as in `EncoderSpec`.
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
    temperature: float | None = None

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


def read_encoder(folder: Path) -> ExportedEncoder:
    """Read `encoder.json`, and check that the weights beside it are the ones that it was written with.

    Raises:
        WeightsMissing: the folder or one of its two files is missing.
        WeightsInvalid: not what `lookalike train` writes, from a later release, other weights, or in the joint space of
            an earlier edition of its family.
    """
    path, weights = folder / ENCODER_FILE, folder / WEIGHTS_FILE
    if not path.is_file() or not weights.is_file():
        missing = ENCODER_FILE if not path.is_file() else WEIGHTS_FILE
        raise WeightsMissing(f"no {missing} in {folder}: name a folder that `lookalike train` wrote")
    try:
        record = json.loads(path.read_text("utf-8"))
        written = record.pop("format")
        if written > FORMAT:
            raise WeightsInvalid(f"{path} was written by a later release of lookalike: upgrade")
        preprocessing = record["preprocessing"]
        preprocessing |= {name: tuple(map(float, preprocessing[name])) for name in ("mean", "std")}
        record |= {"preprocessing": Preprocessing(**preprocessing)}
        exported = ExportedEncoder(**{**record, "architecture": Architecture(**record["architecture"])})
        _require_valid(exported)
        _require_current_edition(exported, written, folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsInvalid(f"{path} is not what `lookalike train` writes: {error!r}") from error
    if sha256_file(weights) != exported.weights:
        raise WeightsInvalid(f"{weights} is not the file that {ENCODER_FILE} was written with: copy the whole folder")
    return exported


def _require_current_edition(exported: ExportedEncoder, written: int, folder: Path) -> None:
    """Check that the family still has the modules that the weights fill; a head of its own is kept for ever."""
    architecture = exported.architecture
    if not architecture.head and written < model_family(architecture.family).first_format:
        raise WeightsInvalid(
            f"{folder} was trained from the first edition of {architecture.family!r}, whose joint space this release "
            f"no longer has; train it again from this release's {architecture.family!r}"
        )


def _require_valid(exported: ExportedEncoder) -> None:
    """Raise ValueError for values that no encoder has."""
    model_family(exported.architecture.family)
    size, resize = exported.preprocessing.size, exported.preprocessing.resize
    temperature = exported.temperature
    mean, std = exported.preprocessing.mean, exported.preprocessing.std
    if not 1 <= size <= resize <= MAX_SIDE:
        raise ValueError(f"size is {size} and resize {resize}; they must be 1 to {MAX_SIDE}, size the smaller")
    if exported.dim < 1 or exported.architecture.head not in (0, exported.dim):
        raise ValueError(f"dim {exported.dim} does not fit a head of {exported.architecture.head}")
    if temperature is not None and not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"mean {mean} and std {std} must be three numbers each, std above 0")
