"""The encoder `open_clip:<model>/<pretrained>`: any dual encoder of open_clip, with its authors' preprocessing.

The first start builds the model, converts its towers and caches its description. Later starts read the cache, and
import neither torch nor open_clip until the first text.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from lookalike.encoders.dual_encoder import IMAGE_BATCHES, TEXT_BATCHES, DualEncoder, TextModel
from lookalike.encoders.engines import EngineChoice, EngineOptions, Tower, choose_engine
from lookalike.encoders.open_clip.family import OpenClipFamily
from lookalike.encoders.open_clip.model import Description, OpenClipModel
from lookalike.encoders.open_clip.weights import OpenClipName, parse_name
from lookalike.errors import EncoderError
from lookalike.types import EncoderSpec


def open_clip_encoder(name: str, options: EngineOptions = EngineOptions()) -> DualEncoder:
    """Return an open_clip model as an encoder.

    Args:
        name: `open_clip:<model>/<pretrained>[@<precision>]`; <pretrained> is a published tag or a checkpoint's path.
        options: device, engine, precision and threads; the precision must not contradict the name's.

    Raises:
        UnknownEncoder: no such model or tag.
        WeightsMissing: no such file, or it could not be fetched.
        WeightsInvalid: the file is no checkpoint of this model.
        EncoderError: an engine that can't run here.
    """
    parts = parse_name(name)
    options = _with_precision_of(name, parts, options)
    loader = OpenClipModel(parts)
    description = loader.description
    encoder = _assemble(name, description, choose_engine(options), loader)
    if loader.loaded:  # while the model is in memory: later starts will not need it
        encoder.load()
        loader.release()
    return encoder


def _with_precision_of(name: str, parts: OpenClipName, options: EngineOptions) -> EngineOptions:
    if parts.precision == "auto":
        return options
    if options.precision not in ("auto", parts.precision):
        raise EncoderError(
            f"{name!r} says {parts.precision}, but precision {options.precision!r} was requested; drop one"
        )
    return replace(options, precision=parts.precision)


def _assemble(name: str, description: Description, choice: EngineChoice, loader: OpenClipModel) -> DualEncoder:
    spec = EncoderSpec(
        name=name,
        weights=description.weights,
        dim=description.dim,
        image_size=description.preprocessing.size,
        preprocessing=description.preprocessing.digest,
        text=description.text_fault is None,
        text_hint=description.text_fault or "",
        engine=choice.engine,
        precision=choice.precision,
        device=choice.device,
        temperature=description.temperature,
    )
    family = OpenClipFamily()
    image = _image_tower(description, family, loader)
    text = _text_model(description, family, loader) if spec.text else None
    return DualEncoder(spec, description.preprocessing, choice, image, text)


def _image_tower(description: Description, family: OpenClipFamily, loader: OpenClipModel) -> Tower:
    side = description.preprocessing.size
    return Tower(
        name="open_clip-image",
        key=_tower_key(description.weights, description.preprocessing.digest, family.code_digest()),
        dim=description.dim,
        build=lambda: family.optimize_for_inference(loader.image_tower()),
        example=(np.zeros((2, 3, side, side), np.uint8),),
        sequence=False,
        batches=IMAGE_BATCHES,
    )


def _text_model(description: Description, family: OpenClipFamily, loader: OpenClipModel) -> TextModel:
    inputs = family.text_input(
        loader.name.model, context=description.context, end=description.end, end_id=description.end_id
    )
    tower = Tower(
        name="open_clip-text",
        key=_tower_key(description.weights, family.code_digest()),
        dim=description.dim,
        build=lambda: family.optimize_for_inference(loader.text_tower()),
        example=inputs.example,
        sequence=True,
        batches=TEXT_BATCHES,
        max_packed_tokens=inputs.max_packed_tokens,
    )
    return TextModel(tower, inputs.tokenize)


def _tower_key(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
