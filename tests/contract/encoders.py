"""The encoders that the contract suite runs over, and checkpoints of random weights made for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXAMPLES = {"open_clip": ("tiny", "tiny-eos", "tiny-bidirectional"), "folder": ("exported",)}
"""By kind: encoders of those kinds whose names take an argument. `conftest.py` makes them."""

TINY = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
"""A CLIP small enough to be built in a moment; the vocabulary is the tokenizer's."""


def add_tiny_models(folder: Path) -> None:
    """Register tiny models: causal, with an `eos` pool and a tower of its own, not causal, all tokens read."""
    import open_clip

    text, vision = TINY["text_cfg"], TINY["vision_cfg"]
    assert isinstance(text, dict)
    assert isinstance(vision, dict)
    configs: dict[str, dict[str, Any]] = {
        "tiny": TINY,
        "tiny-eos": {**TINY, "custom_text": True, "text_cfg": {**text, "pool_type": "eos", "eos_id": 49407}},
        "tiny-bidirectional": {
            **TINY,
            "custom_text": True,
            "text_cfg": {**text, "no_causal_mask": True, "pool_type": "last"},
        },
        "tiny-cls": {**TINY, "custom_text": True, "text_cfg": {**text, "embed_cls": True}},
        "tiny-average": {**TINY, "vision_cfg": {**vision, "pool_type": "avg", "ls_init_value": 0.5}},
        "tiny-attention": {**TINY, "vision_cfg": {**vision, "attentional_pool": True, "attn_pooler_heads": 2}},
    }
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def save_random(model: str, path: Path) -> Path:
    """Save a checkpoint of random weights, `.safetensors` or `.pt`."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    tensors = {name: tensor.contiguous() for name, tensor in open_clip.create_model(model).state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "epoch": 3}, path)
    return path


def export_from(name: str, folder: Path) -> Path:
    """Export an encoder as `lookalike train` does, without training it."""
    from training.bases.registry import load_base
    from training.run.export import export_encoder
    from training.settings import Base

    model = load_base(Base(encoder=name), text=True)
    assert model.towers.text is not None
    towers = {"image": model.towers.image, "text": model.towers.text}
    weights = {f"{side}.{key}": value for side, tower in towers.items() for key, value in tower.state_dict().items()}
    export_encoder(folder, model, weights, base=name, extra={})
    return folder
