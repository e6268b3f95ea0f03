"""Texts packed into one sequence: every text's vector equals the one that it has alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transformer import Transformer
from torch import Tensor, nn

from lookalike.encoders.engines import EngineChoice, Tower, create_engine
from lookalike.encoders.engines.selection import cpu_precisions
from lookalike.encoders.open_clip.inference import optimize_for_inference
from lookalike.encoders.open_clip.packing import pack
from lookalike.encoders.open_clip.towers import CausalTextTower

CONTEXT, WIDTH, END, START = 16, 32, 99, 98
CAUSAL = torch.full((CONTEXT, CONTEXT), float("-inf")).triu_(1)


class Parts(nn.Module):
    """What a causal tower of open_clip's holds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.token_embedding = nn.Embedding(100, WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, WIDTH))
        self.transformer: Any = Transformer(width=WIDTH, layers=3, heads=4)
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.randn(WIDTH, 8))
        self.attn_mask = CAUSAL


def tower(pool: str, *, packed: bool) -> nn.Module:
    made = CausalTextTower(Parts().eval(), pool, END)
    return optimize_for_inference(made) if packed else made


def written(texts: list[list[int]]) -> Tensor:
    """Texts as a tokenizer pads them: what follows the end token is nothing's affair, and is no zero here."""
    longest = max(map(len, texts)) + 1
    ids = torch.full((len(texts), longest), 7)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text) + 1] = torch.tensor([*text, END])
    return ids


words = st.lists(st.integers(1, 90), max_size=CONTEXT - 2)
begun = st.tuples(st.sampled_from([START, START, START, 5]), words).map(lambda pair: [pair[0], *pair[1]])
texts = st.lists(begun | st.just([]), min_size=1, max_size=9)


@pytest.mark.parametrize("pool", ["argmax", "eos"])
@settings(max_examples=60, deadline=None)
@given(texts)
def test_packed_texts_equal_single_padded_ones(pool: str, given: list[list[int]]) -> None:
    reference, ours = tower(pool, packed=False), tower(pool, packed=True)
    ids = written(given)
    with torch.inference_mode():
        together, padded = ours(ids), reference(ids)
        alone = torch.cat([reference(ids[i : i + 1]) for i in range(len(ids))])
    torch.testing.assert_close(together, padded, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_sequence_holds_each_text_and_one_start() -> None:
    ids = written([[START, 1, 2, 3], [START, 4], [START], [5, 6]])
    ends = torch.tensor([4, 2, 1, 2])
    packed = pack(ids, ends, CAUSAL[:5, :5])
    taken = ids.flatten()[packed.places].tolist()
    assert taken[:11] == [START, 1, 2, 3, END, 4, END, END, 5, 6, END]
    assert len(taken) == 12  # a multiple of four
    assert packed.ends.tolist() == [4, 6, 7, 10]
    assert packed.columns.tolist()[:11] == [0, 1, 2, 3, 4, 1, 2, 1, 0, 1, 2]
    seen = torch.isfinite(packed.mask)
    assert seen[6].nonzero()[:, 0].tolist() == [0, 5, 6]  # the second text's end: the start, its word and itself
    assert seen[10].nonzero()[:, 0].tolist() == [8, 9, 10]  # the fourth begins otherwise
    assert not seen[:11, 11].any()  # nobody sees what only fills up


@pytest.mark.parametrize("precision", [p for p in cpu_precisions() if p != "fp16"])
def test_engines_run_packed_texts_of_any_length(precision: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in runs of 24 tokens at most, where a text longer than that still comes whole."""
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path))
    made = Tower(
        "packed",
        "d" * 64,
        8,
        lambda: tower("argmax", packed=True),
        (np.ones((2, 8), np.int64),),
        sequence=True,
        batches=(1, 2, 4, 8, 16),
        max_packed_tokens=24,
    )
    rng = np.random.default_rng(0)
    fast = create_engine(made, EngineChoice("openvino", precision, "cpu"))
    slow = create_engine(made, EngineChoice("torch", "fp32", "cpu"))
    reference = tower("argmax", packed=False)
    for n, longest in ((1, 1), (5, 3), (16, 7), (3, 14)):
        ids = written([[START, *rng.integers(1, 90, rng.integers(0, longest + 1))] for _ in range(n)])
        with torch.inference_mode():
            expected = reference(ids).numpy()
        tolerance = 1e-4 if precision == "fp32" else 0.1 * float(np.abs(expected).max())
        np.testing.assert_allclose(slow(ids.numpy()), expected, atol=1e-4)
        np.testing.assert_allclose(fast(ids.numpy()), expected, atol=tolerance)
