"""The encoder `folder:PATH`: what `lookalike train` exported, with text or for images alone.

Reads the folder's notes; torch is imported only where a tower was not converted before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lookalike.calibration import read_calibration
from lookalike.encoders.dual import IMAGE_BATCHES, TEXT_BATCHES, DualEncoder, TextSide
from lookalike.encoders.engines import EngineChoice, EngineOptions, Tower, choose_engine
from lookalike.encoders.engines.cache import sha256_file, source_digest
from lookalike.encoders.exported.model import CALIBRATION_FILE, ExportedEncoder, load_tower, read_encoder
from lookalike.encoders.lite import model as lite_model
from lookalike.encoders.lite.encoder import LITE_BATCHES, TEXT_MEND, LiteTokens
from lookalike.encoders.open_clip.encoder import PACKED_TOKENS, OpenClipTokens, lean_tower
from lookalike.errors import UnknownEncoder
from lookalike.types import EncoderSpec

if TYPE_CHECKING:
    from torch import nn

PREFIX = "folder:"
_EXAMPLE_TOKENS = 8

_EXACT = (6, 12)
"""As `Tower.exact` has it: training on small images leaves less to average rounding over than `lite` has. With three
and eight an image of a triplet encoder at 64 pixels strayed to cosine 0.981 in bf16, now 0.997."""


def folder_encoder(name: str, options: EngineOptions = EngineOptions()) -> DualEncoder:
    """An exported encoder.

    Args:
        name: `folder:PATH`.
        options: device, engine, precision and threads.

    Raises:
        UnknownEncoder: no path.
        WeightsMissing: no exported encoder there.
        WeightsInvalid: its files are not what was exported.
        EncoderError: an engine that can't run here.
    """
    path = name.removeprefix(PREFIX)
    if not path:
        raise UnknownEncoder(
            f"{name!r} names no folder; the form is {PREFIX}PATH, a folder that `lookalike train` wrote"
        )
    folder = Path(path).expanduser().resolve()  # a collection's encoder is found from any working directory
    exported = read_encoder(folder)
    cuda = "fp16" if exported.architecture.family == "lite" else "bf16"
    choice = choose_engine(options, cuda_precision=cuda)
    architecture = json.dumps(asdict(exported.architecture), sort_keys=True)
    spec = EncoderSpec(
        name=f"{PREFIX}{folder}",
        weights=hashlib.sha256(f"{exported.weights} {architecture}".encode()).hexdigest(),
        dim=exported.dim,
        image_size=exported.preprocessing.size,
        preprocessing=exported.preprocessing.digest,
        text=exported.architecture.text and _text_packages(exported),
        engine=choice.engine,
        precision=choice.precision,
        device=choice.device,
        calibration=read_calibration(notes) if (notes := folder / CALIBRATION_FILE).exists() else None,
    )
    return _assemble(folder, exported, spec, choice)


def _text_packages(exported: ExportedEncoder) -> bool:
    return exported.architecture.family != "lite" or lite_model.text_available()


def _assemble(folder: Path, exported: ExportedEncoder, spec: EncoderSpec, choice: EngineChoice) -> DualEncoder:
    lite = exported.architecture.family == "lite"
    image = Tower(
        name="folder-image",
        key=_tower_key(spec),
        dim=spec.dim,
        build=lambda: _built(folder, exported, "image"),
        example=(np.zeros((2, 3, spec.image_size, spec.image_size), np.uint8),),
        sequence=False,
        batches=LITE_BATCHES if lite else IMAGE_BATCHES,
        exact=_EXACT if lite else (0, 0),
        round_to_bf16=lite_model.round_to_bf16 if lite else None,
    )
    text = _text_side(folder, exported, spec) if spec.text else None
    only_images = f"{spec.name!r} was trained on images alone and takes no texts"
    return DualEncoder(spec, exported.preprocessing, choice, image, text, TEXT_MEND if lite and text else only_images)


def _built(folder: Path, exported: ExportedEncoder, side: Literal["image", "text"]) -> nn.Module:
    tower = load_tower(folder, exported, side)
    return tower if exported.architecture.family == "lite" else lean_tower(tower)


def _tower_key(spec: EncoderSpec) -> str:
    """Weights, preprocessing and the code around them: a graph converted from older code must not be found."""
    here, open_clip_code = Path(__file__).parent, Path(__file__).parent.parent / "open_clip"
    names = ("towers", "inference", "packed")
    code = [sha256_file(path) for path in (here / "towers.py", *(open_clip_code / f"{name}.py" for name in names))]
    parts = [spec.weights, spec.preprocessing, version("open_clip_torch"), version("timm"), *code]
    return hashlib.sha256(" ".join([*parts, source_digest(Path(lite_model.__file__).parent)]).encode()).hexdigest()


def _text_side(folder: Path, exported: ExportedEncoder, spec: EncoderSpec) -> TextSide:
    lite = exported.architecture.family == "lite"
    tokens = exported.context if exported.end is None and not lite else _EXAMPLE_TOKENS
    inputs = 2 if lite else 1
    tower = Tower(
        name="folder-text",
        key=_tower_key(spec),
        dim=spec.dim,
        build=lambda: _built(folder, exported, "text"),
        example=tuple(np.ones((2, tokens), np.int64) for _ in range(inputs)),
        sequence=True,
        batches=TEXT_BATCHES,
        tokens=0 if lite or exported.end is None else PACKED_TOKENS,
    )
    if lite:
        return TextSide(tower, LiteTokens())
    return TextSide(tower, OpenClipTokens(_tokenizer(exported.architecture.model), exported.end, exported.end_id))


def _tokenizer(model: str) -> Callable[[], Any]:
    def get() -> Any:
        import open_clip

        return open_clip.get_tokenizer(model)

    return get
