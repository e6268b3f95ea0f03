"""open_clip's transformers for inference: the same states, at the tokens that are used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from open_clip.transformer import Transformer, VisionTransformer
from torch import nn

from lookalike.encoders.open_clip.inference import InferenceTransformer, optimize_for_inference


def transformer(heads: int, **more: Any) -> Transformer:
    torch.manual_seed(0)
    made = Transformer(width=48, layers=3, heads=heads, **more).eval()
    for parameter in made.parameters():  # norms and biases begin as ones and zeros, which would hide their loss
        nn.init.normal_(parameter, std=0.3)
    return made


def states() -> torch.Tensor:
    return torch.randn(4, 7, 48, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("heads", "scale"), [(3, None), (4, 0.5), (1, None)])  # heads of 16, 12 and 48 channels
@torch.inference_mode()
def test_states_equal_open_clips(heads: int, scale: float | None, batch_first: bool) -> None:
    theirs = transformer(heads, ls_init_value=scale, batch_first=batch_first)
    mask = torch.full((7, 7), float("-inf")).triu_(1)
    expected, free = theirs(states(), attn_mask=mask), theirs(states())
    every, first = (InferenceTransformer(theirs, only_first=only) for only in (False, True))
    ends = torch.tensor([6, 0, 3])

    torch.testing.assert_close(every(states(), mask), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(every.at(ends, states(), mask), expected[:, ends], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first(states()), free[:, :1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("more", "tokens"), [({}, 1), ({"pool_type": "avg"}, 5), ({"attentional_pool": True}, 5)])
@torch.inference_mode()
def test_image_transformer_keeps_what_its_pool_reads(more: dict[str, Any], tokens: int) -> None:
    made: dict[str, Any] = {
        "image_size": 16,
        "patch_size": 8,
        "width": 48,
        "layers": 2,
        "heads": 3,
        "mlp_ratio": 2.0,
        "output_dim": 8,
    }
    visual = VisionTransformer(**made, **more).eval()
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = visual(pixels)
    optimize_for_inference(visual)
    assert visual.transformer(torch.randn(2, 5, 48)).shape == (2, tokens, 48)
    torch.testing.assert_close(visual(pixels), expected, rtol=1e-4, atol=1e-5)


def test_other_blocks_are_not_replaced() -> None:
    holder = nn.Module()
    holder.transformer = transformer(3, qk_norm=True)
    assert type(optimize_for_inference(holder).transformer) is Transformer
