"""The contract of every encoder in the registry, under every engine."""

from __future__ import annotations

import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.encoders.engines import EngineOptions
from lookalike.encoders.engines.selection import cpu_precisions
from lookalike.encoders.protocol import TextEncoder
from lookalike.encoders.registry import EncoderKind, encoder_kinds, load_encoder
from lookalike.types import UInt8
from tests.contract.encoders import EXAMPLES

_OPENVINO = [("openvino", precision) for precision in cpu_precisions() if precision != "fp16"]
ON_ENGINES = {
    "lite": [("torch", "fp32"), *_OPENVINO],
    "tiny": _OPENVINO,
    "tiny-eos": [("torch", "fp32")],
    "tiny-bidirectional": [("openvino", "fp32")],
}
"""Engines and precisions of the encoders that do not run on the default ones alone."""


def _names(kind: EncoderKind) -> tuple[str, ...]:
    """Names of a kind's encoders; a kind without an example fails the collection of this file."""
    return EXAMPLES[kind.name] if kind.argument else (kind.name,)


CASES = [
    (name, *options)
    for kind in encoder_kinds()
    for name in _names(kind)
    for options in ON_ENGINES.get(name, [("auto", "auto")])
]

every_encoder = pytest.mark.parametrize("encoder", CASES, ids="-".join, indirect=True)

TEXTS = ["red", "a photo of a blue bird on a green branch, seen from below", "green", "", "blue blue blue", "a cat"]


def _images(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(7)
    patches = rng.integers(0, 256, (count, 5, 6, 3), dtype=np.uint8)
    return [Image.fromarray(patch).resize((90, 70), Image.Resampling.BICUBIC) for patch in patches]


def _batch(encoder: TextEncoder, count: int) -> UInt8:
    return np.stack([encoder.preprocess(image) for image in _images(count)])


@every_encoder
def test_preprocess_gives_what_encode_images_takes(encoder: TextEncoder) -> None:
    side = encoder.spec.image_size
    for size in ((side, side), (1, 1), (333, 20), (31, 500)):
        pixels = encoder.preprocess(Image.new("RGB", size, (10, 200, 30)))
        assert pixels.shape == (3, side, side)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert (pixels == np.array([10, 200, 30], np.uint8)[:, None, None]).all()


@every_encoder
@pytest.mark.parametrize("count", [0, 1, 3, 41])
def test_images_become_float32_unit_rows(encoder: TextEncoder, count: int) -> None:
    side = encoder.spec.image_size
    batch = _batch(encoder, count) if count else np.empty((0, 3, side, side), np.uint8)
    vectors = encoder.encode_images(batch)
    assert vectors.shape == (count, encoder.spec.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


@every_encoder
@pytest.mark.parametrize("count", [0, 1, 3, 41])
def test_texts_become_float32_unit_rows(encoder: TextEncoder, count: int) -> None:
    vectors = encoder.encode_texts([f"{word} {i}" for i, word in zip(range(count), TEXTS * 9, strict=False)])
    assert vectors.shape == (count, encoder.spec.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


@every_encoder
def test_row_i_depends_on_image_i_alone(encoder: TextEncoder) -> None:
    batch = _batch(encoder, 19)
    together = encoder.encode_images(batch)
    order = np.random.default_rng(1).permutation(19)
    alone = np.concatenate([encoder.encode_images(batch[i : i + 1]) for i in range(19)])
    # bf16: one row and eight rows add up in another order
    assert (encoder.encode_images(batch[order]) * together[order]).sum(axis=1).min() > 0.9999
    assert (alone * together).sum(axis=1).min() > 0.9999
    assert len(np.unique(together.round(5), axis=0)) == 19  # else any order would have passed


@every_encoder
def test_row_i_depends_on_text_i_alone(encoder: TextEncoder) -> None:
    together = encoder.encode_texts(TEXTS)
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    assert (alone * together).sum(axis=1).min() > 0.9999  # bf16: another width adds up in another order
    backwards = encoder.encode_texts(TEXTS[::-1])
    assert (backwards[::-1] * together).sum(axis=1).min() > 0.9999
    assert len(np.unique(together[:3].round(4), axis=0)) == 3


@every_encoder
def test_long_texts_are_cut_and_odd_ones_accepted(encoder: TextEncoder) -> None:
    vectors = encoder.encode_texts(["word " * 1000, "", " ", "naïve 日本 🙂", "<end_of_text> a"])
    assert np.isfinite(vectors).all()


@every_encoder
def test_truncated_tokens_are_those_that_change_nothing(encoder: TextEncoder) -> None:
    def truncated(words: int) -> int:
        return encoder.truncated_tokens("blue " * words)

    read = 200 - truncated(200)
    assert [truncated(words) for words in (0, 1, read, read + 1, 400)] == [0, 0, 0, 1, 400 - read]
    assert 8 < read < 200
    whole, cut = encoder.encode_texts(["blue " * read, "blue " * read + "red green"])
    assert whole @ cut > 0.9999
    assert encoder.truncated_tokens("naïve é " * 500) > encoder.truncated_tokens("naïve é " * 400) > 0
    assert encoder.truncated_tokens("naïve é") == 0
    assert encoder.max_tokens is not None
    shortest_tokens = "1!a." * encoder.max_tokens
    assert (
        encoder.truncated_tokens(shortest_tokens[: encoder.max_tokens - 4]) == 0
    )  # `Searcher.reads_whole` relies on it


@every_encoder
def test_token_counts_are_those_that_are_read(encoder: TextEncoder) -> None:
    assert encoder.max_tokens is not None
    empty, one, three, long = encoder.token_counts(["", "blue", "blue blue blue", "blue " * 1000])
    assert (one - empty, three - one, long) == (1, 2, encoder.max_tokens)
    assert encoder.token_counts([]) == []


@every_encoder
def test_inputs_are_not_modified(encoder: TextEncoder) -> None:
    batch, texts = _batch(encoder, 5), list(TEXTS)
    before = batch.copy()
    batch.flags.writeable = False  # a read-only array, such as a memory map gives, is accepted
    encoder.encode_images(batch)
    encoder.encode_texts(texts)
    np.testing.assert_array_equal(batch, before)
    assert texts == TEXTS


@every_encoder
def test_spec_is_constant_and_consistent(encoder: TextEncoder) -> None:
    before = encoder.spec
    encoder.encode_images(_batch(encoder, 2))
    assert encoder.spec == before
    assert before.text
    assert before.preprocessing == encoder.preprocessing.digest
    assert before.image_size == encoder.preprocessing.size
    assert (before.engine, before.device) in {("numpy", "cpu"), ("torch", "cpu"), ("openvino", "cpu")}
    assert len(before.weights) == 64
    assert before.temperature > 0


@every_encoder
def test_preprocessing_is_pickled_and_safe_in_threads(encoder: TextEncoder) -> None:
    images = _images(24)
    expected = [encoder.preprocess(image) for image in images]
    copied = pickle.loads(pickle.dumps(encoder.preprocessing))
    with ThreadPoolExecutor(8) as pool:
        for threaded in (pool.map(copied, images), pool.map(encoder.preprocess, images)):
            for got, single in zip(threaded, expected, strict=True):
                np.testing.assert_array_equal(got, single)


@every_encoder
def test_batch_of_another_shape_is_rejected(encoder: TextEncoder) -> None:
    side = encoder.spec.image_size
    for wrong in (np.zeros((1, 3, side, side + 1), np.uint8), np.zeros((1, 3, side, side), np.float32)):
        with pytest.raises(ValueError, match="uint8"):
            encoder.encode_images(wrong)


@pytest.mark.parametrize("encoder", [case for case in CASES if case[0] == "lite"], ids="-".join, indirect=True)
def test_lite_finds_a_colour_by_its_name(encoder: TextEncoder) -> None:
    """Texts and images lie in one space: of two plain images a text is nearer to the one that it names."""
    plain = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    images = encoder.encode_images(np.stack([encoder.preprocess(image) for image in plain]))
    scores = encoder.encode_texts(["the colour red", "the colour blue"]) @ images.T
    assert scores[0, 0] - scores[1, 0] > scores[0, 1] - scores[1, 1]


@pytest.mark.parametrize("precision", [p for p in cpu_precisions() if p != "fp16"])
def test_engines_agree_with_torch_on_lite(precision: str) -> None:
    reference = load_encoder("lite", EngineOptions(device="cpu", engine="torch"))
    fast = load_encoder("lite", EngineOptions(engine="openvino", precision=precision))
    assert isinstance(reference, TextEncoder)
    assert isinstance(fast, TextEncoder)
    floor = 0.99999 if precision == "fp32" else 0.999
    batch = _batch(reference, 16)
    assert (reference.encode_images(batch) * fast.encode_images(batch)).sum(axis=1).mean() >= floor
    assert (reference.encode_texts(TEXTS) * fast.encode_texts(TEXTS)).sum(axis=1).min() >= floor


def test_engines_agree_with_torch_on_photographs(shared_data: Path) -> None:
    """Needs the shared data folder: synthetic images don't excite the class posterior as photographs do."""
    with tarfile.open(shared_data / "flickr8k" / "val.tar") as tar:
        files = [tar.extractfile(m) for m in tar.getmembers()[:320] if m.name.endswith(".jpg")]
        images = [Image.open(BytesIO(file.read())).convert("RGB") for file in files[:64] if file is not None]
    reference = load_encoder("lite", EngineOptions(device="cpu", engine="torch"))
    fast = load_encoder("lite", EngineOptions(device="cpu"))
    batch = np.stack([reference.preprocess(image) for image in images])
    cosines = (reference.encode_images(batch) * fast.encode_images(batch)).sum(axis=1)
    assert len(cosines) == 64
    assert cosines.mean() >= 0.9995
    assert cosines.min() >= 0.999
