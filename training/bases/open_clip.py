"""open_clip models as bases of training."""

from __future__ import annotations

from lookalike.encoders.exported.model import Architecture, ExportedEncoder
from lookalike.encoders.exported.towers import Projected, Towers
from lookalike.encoders.open_clip.encoder import OpenClipTokens
from lookalike.encoders.open_clip.model import OpenClipModel
from lookalike.encoders.open_clip.weights import find_checkpoint, parse_name
from lookalike.errors import ConfigInvalid
from training.network.trainable import Tokens, Trainable, Traits

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
    if text and description.no_text:
        raise ConfigInvalid(f"base.encoder = {name!r} can't be trained on captions: {description.no_text}")
    quick_gelu = bool(find_checkpoint(parts).published.get("quick_gelu", False))
    image = loader.image_tower()
    towers = Towers(image, loader.text_tower() if text else None, loader.model())
    if head:
        towers = Towers(Projected(image, description.dim, head), None, loader.model())
    tokens = OpenClipTokens(loader.tokenizer, description.end, description.end_id) if text else None
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


def exported_tokens(exported: ExportedEncoder) -> Tokens:
    """Return the tokenizer of an exported encoder of this family."""
    import open_clip

    return OpenClipTokens(lambda: open_clip.get_tokenizer(exported.architecture.model), exported.end, exported.end_id)
