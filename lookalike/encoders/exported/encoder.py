"""The encoder `folder:PATH`: what `lookalike train` exported, with text or for images alone.

Torch is imported only where a tower was never converted before.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lookalike.calibration import Calibration, read_calibration
from lookalike.encoders.architecture import ModelFamily
from lookalike.encoders.dual_encoder import TEXT_BATCHES, DualEncoder, TextModel
from lookalike.encoders.engines import EngineOptions, Tower, choose_engine
from lookalike.encoders.engines.cache import sha256_file, source_digest
from lookalike.encoders.exported.format import CALIBRATION_FILE, ExportedEncoder, read_encoder
from lookalike.encoders.families import model_family
from lookalike.errors import UnknownEncoder
from lookalike.types import CLIP_TEMPERATURE, EncoderSpec

if TYPE_CHECKING:
    from torch import nn

PREFIX = "folder:"


def folder_encoder(name: str, options: EngineOptions = EngineOptions()) -> DualEncoder:
    """Return an exported encoder.

    Args:
        name: `folder:PATH`.
        options: device, engine, precision and threads.

    Raises:
        UnknownEncoder: no path.
        WeightsMissing: no exported encoder at the path.
        WeightsInvalid: its files are not what was exported.
        EncoderError: an engine that can't run here.
    """
    path = name.removeprefix(PREFIX)
    if not path:
        raise UnknownEncoder(
            f"{name!r} names no folder; the form is {PREFIX}PATH, a folder that `lookalike train` wrote"
        )
    folder = Path(path).expanduser().resolve()  # a collection's encoder is found from any working directory
    return _Exported(folder).encoder(options)


def folder_calibration(name: str) -> Calibration | None:
    """Return the calibration of the exported encoder `folder:PATH`, without its weights; None where there is none.

    Raises:
        WeightsInvalid: its file is damaged.
    """
    path = Path(name.removeprefix(PREFIX)).expanduser() / CALIBRATION_FILE
    return read_calibration(path) if path.is_file() else None


class _Exported:
    """An exported folder and what its towers need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record: ExportedEncoder = read_encoder(folder)
        self.family: ModelFamily = model_family(self.record.architecture.family)

    def encoder(self, options: EngineOptions) -> DualEncoder:
        choice = choose_engine(options, cuda_precision=self.family.cuda_precision)
        spec = EncoderSpec(
            name=f"{PREFIX}{self.folder}",
            weights=self._weights_digest(),
            dim=self.record.dim,
            image_size=self.record.preprocessing.size,
            preprocessing=self.record.preprocessing.digest,
            text=self.record.architecture.text and self.family.text_available(),
            text_hint=self._text_hint(),
            engine=choice.engine,
            precision=choice.precision,
            device=choice.device,
            calibration=folder_calibration(f"{PREFIX}{self.folder}"),
            temperature=self.record.temperature or CLIP_TEMPERATURE,
        )
        key = self._tower_key(spec)
        text = self._text_model(key) if spec.text else None
        return DualEncoder(spec, self.record.preprocessing, choice, self._image_tower(key), text)

    def _text_hint(self) -> str:
        if self.record.architecture.text:
            return self.family.text_hint
        return "it was trained on images alone; search by image"

    def _weights_digest(self) -> str:
        architecture = json.dumps(asdict(self.record.architecture), sort_keys=True)
        return hashlib.sha256(f"{self.record.weights} {architecture}".encode()).hexdigest()

    def _tower_key(self, spec: EncoderSpec) -> str:
        """Weights, preprocessing and the code around them: a graph converted from older code must not be found."""
        package = Path(__file__).parent
        code = source_digest(package), sha256_file(package.with_name("projected.py")), self.family.code_digest()
        return hashlib.sha256(" ".join([spec.weights, spec.preprocessing, *code]).encode()).hexdigest()

    def _image_tower(self, key: str) -> Tower:
        side = self.record.preprocessing.size
        return Tower(
            name="folder-image",
            key=key,
            dim=self.record.dim,
            build=lambda: self._build("image"),
            example=(np.zeros((2, 3, side, side), np.uint8),),
            sequence=False,
            batches=self.family.image_batches,
            fp32_layers=self.family.fp32_layers,
            round_to_bf16=self.family.round_to_bf16,
        )

    def _text_model(self, key: str) -> TextModel:
        record = self.record
        inputs = self.family.text_input(
            record.architecture.model, context=record.context, end=record.end, end_id=record.end_id
        )
        tower = Tower(
            name="folder-text",
            key=key,
            dim=record.dim,
            build=lambda: self._build("text"),
            example=inputs.example,
            sequence=True,
            batches=TEXT_BATCHES,
            max_packed_tokens=inputs.max_packed_tokens,
        )
        return TextModel(tower, inputs.tokenize)

    def _build(self, side: Literal["image", "text"]) -> nn.Module:
        from lookalike.encoders.exported.loading import load_tower

        return self.family.optimize_for_inference(load_tower(self.folder, self.record, side))
