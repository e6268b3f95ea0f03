"""open_clip models as bases of training."""

from __future__ import annotations

from functools import partial

from lookalike.encoders.architecture import Architecture, Towers
from lookalike.encoders.open_clip.model import OpenClipModel
from lookalike.encoders.open_clip.tokenizer import OpenClipTokens, load_tokenizer
from lookalike.encoders.open_clip.weights import find_checkpoint, parse_name
from lookalike.encoders.projected import Projected
from lookalike.errors import ConfigInvalid
from training.network.trainable import Trainable, Traits

OPEN_CLIP_TRAITS = Traits(max_learning_rate=5e-5)


def load_open_clip(name: str, head: int, *, text: bool) -> Trainable:
    """Return an open_clip model's towers.

    Args:
        name: `open_clip:<model>/<pretrained>`.
        head: width of a new head; 0 keeps the model's joint space.
        text: whether the text tower is trained as well.

    Raises:
        ConfigInvalid: texts are needed, but the model's text half is not supported.
        EncoderError: its weights are missing or invalid.
    """
    parts = parse_name(name)
    loader = OpenClipModel(parts)
    description = loader.description
    if text and description.text_fault:
        raise ConfigInvalid(f"base.encoder = {name!r} can't be trained on captions: {description.text_fault}")
    quick_gelu = bool(find_checkpoint(parts).published.get("quick_gelu", False))
    image = loader.image_tower()
    towers = Towers(image, loader.text_tower() if text else None, loader.model())
    if head:
        towers = Towers(Projected(image, description.dim, head), None, loader.model())
    load = partial(load_tokenizer, parts.model)
    tokens = OpenClipTokens(load, description.context, description.end, description.end_id) if text else None
    return Trainable(
        towers,
        Architecture("open_clip", parts.model, quick_gelu, head, text),
        description.preprocessing,
        head or description.dim,
        tokens,
        description.context if text else 0,
        description.end if text else None,
        description.end_id if text else 0,
        traits=OPEN_CLIP_TRAITS,
    )
