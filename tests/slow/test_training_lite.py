"""The recipe of `lite` on synthetic data: it learns, is reproducible bit by bit, and writes loadable heads."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lookalike.encoders.lite.constants import CLASSES, IMAGE_FEATURES, LITE_PREPROCESSING, MINILM, POOLED, TEXT_FEATURES
from lookalike.encoders.lite.heads import ImageHead, TextHead
from lookalike.encoders.lite.loading import read_heads
from lookalike.errors import LookalikeError, SourceError, SourceNotFound
from training.lite.classes import class_texts, concept_space
from training.lite.config import LiteConfig
from training.lite.data import TextNumbers, load_data, read_split
from training.lite.features import image_features, take_view, text_features
from training.lite.heads import LiteData, TextGroups, TrainingSet, new_heads, train_heads
from training.lite.run import run_lite, write_heads

PHOTOGRAPHS = 48
SMALL = LiteConfig(steps=18, images_per_step=(12, 12), classes_per_step=8, views=2, warmup_steps=2, dropout=0.1)


@pytest.fixture(scope="module")
def world():
    """Photographs and captions that share a hidden cause; classes that are directions in feature space."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    cause = normal(PHOTOGRAPHS, 8)
    to_images, to_texts = normal(8, IMAGE_FEATURES), normal(8, TEXT_FEATURES)
    sets, numbers = [], itertools.count()
    for rows in cause.split(PHOTOGRAPHS // 2):
        views = torch.stack([rows @ to_images + 0.1 * normal(len(rows), IMAGE_FEATURES) for _ in range(2)])
        captions = [row @ to_texts + 0.1 * normal(1 + i % 3, TEXT_FEATURES) for i, row in enumerate(rows)]
        sets.append(TrainingSet(views, groups(captions, numbers)))
    texts = class_texts()
    prompts = [normal(TEXT_FEATURES) + 0.1 * normal(len(text.prompts), TEXT_FEATURES) for text in texts]
    return LiteData(
        sets=sets,
        prompts=groups(prompts, numbers),
        concepts=concept_space(texts, prompts),
        classifier_weight=normal(CLASSES, POOLED) / 10,
        classifier_bias=torch.zeros(CLASSES),
    )


def groups(rows, numbers):
    """Texts that are all different."""
    return TextGroups(rows, [torch.tensor([next(numbers) for _ in group]) for group in rows])


def hits(world, heads):
    """Share of photographs whose first caption finds them first."""
    views = torch.cat([images.views[0] for images in world.sets])
    texts = torch.stack([captions[0] for images in world.sets for captions in images.captions.features])
    with torch.inference_mode():
        images = heads.image.joint(views, views[:, :POOLED] @ world.classifier_weight.T)
        words = heads.text.joint(texts, torch.ones(len(texts), 1))
    return ((words @ images.T).argmax(1) == torch.arange(PHOTOGRAPHS)).float().mean().item()


def test_training_finds_the_hidden_cause(world):
    steps = []
    before = new_heads(world, SMALL)
    before.image.eval()
    before.text.eval()
    after = train_heads(world, SMALL, steps.append)
    assert hits(world, after) > 0.9 > 0.3 > hits(world, before)
    assert steps[-1].loss < steps[0].loss
    assert [step.number for step in steps] == list(range(1, 19))
    assert {step.total for step in steps} == {18}
    assert not after.image.training


def test_heads_are_a_function_of_the_seed(world, tmp_path):
    digests = [
        write_heads(train_heads(world, replace(SMALL, steps=3, seed=seed)), tmp_path / "h") for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_temperature_stays_above_its_minimum(world):
    steps = []
    train_heads(world, replace(SMALL, temperature=0.02, min_temperature=0.05, steps=3), steps.append)
    assert min(step.temperature for step in steps) == pytest.approx(0.05)


def test_training_works_without_classes(world):
    train_heads(world, replace(SMALL, classes_per_step=0, steps=3))


def test_constant_features_are_not_divided_by_zero(world):
    first = world.sets[0]
    views = first.views.clone()
    views[:, :, 5] = 3.0
    captions = [torch.cat([rows[:, :-1], torch.zeros(len(rows), 1)], dim=1) for rows in first.captions.features]
    constant = TrainingSet(views, TextGroups(captions, first.captions.numbers))
    heads = new_heads(replace(world, sets=[constant]), SMALL)
    assert all(tensor.isfinite().all() for tensor in heads.tensors().values())


def test_equal_captions_are_no_negatives_of_each_other(world):
    def loss(numbers):
        steps = []
        captions = [TextGroups(images.captions.features, numbers(images.captions.numbers)) for images in world.sets]
        sets = [TrainingSet(images.views, texts) for images, texts in zip(world.sets, captions, strict=True)]
        train_heads(replace(world, sets=sets), replace(SMALL, steps=1, classes_per_step=0), steps.append)
        return steps[0].loss

    assert loss(lambda numbers: [torch.zeros_like(group) for group in numbers]) == pytest.approx(0.0, abs=1e-5)
    assert loss(lambda numbers: numbers) > 1.0


def test_equal_texts_get_equal_numbers():
    numbers = TextNumbers()
    assert [numbers(text) for text in ("A dog", "a  dog ", "a cat", "a dog")] == [0, 0, 1, 0]


def test_minilm_counts_by_its_agreement(world):
    heads = new_heads(world, SMALL)
    texts = torch.cat(world.sets[0].captions.features)
    shuffled = torch.cat([texts[:, :MINILM].flip(0), texts[:, MINILM:]], dim=1)
    assert heads.text.share_of_minilm(texts).mean() > 0.9 > 0.5 > heads.text.share_of_minilm(shuffled).mean()


def test_written_heads_load_as_they_were(world, tmp_path):
    heads = train_heads(world, replace(SMALL, steps=3))
    write_heads(heads, tmp_path / "lite.safetensors")
    tensors = read_heads(tmp_path / "lite.safetensors")
    for side, loaded, trained in (("image", ImageHead(), heads.image), ("text", TextHead(), heads.text)):
        loaded.load_state_dict({k.removeprefix(f"{side}."): v for k, v in tensors.items() if k.startswith(side)})
        for name, value in trained.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], value.half().float(), atol=0, rtol=0)


def write_archive(path, count, size=64):
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(buffer, "PNG")
            for name, data in ((f"{number}.png", buffer.getvalue()), (f"{number}.txt", f"image {number}".encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def test_features_are_computed_once(tmp_path, monkeypatch):
    from evaluation.datasets import read_examples
    from training.lite import features

    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    write_archive(tmp_path / "train.tar", 3)
    items = read_examples([str(tmp_path / "train.tar")])
    whole = image_features(items, 0, seed=0, cache=tmp_path / "c")
    mirrored = image_features(items, 1, seed=0, cache=tmp_path / "c")
    texts = text_features(["one", "two words"], tmp_path / "c")
    assert whole.shape == (3, IMAGE_FEATURES)
    assert texts.shape == (2, TEXT_FEATURES)
    assert not torch.equal(whole, mirrored)

    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(features, "_encode_images", refuse)
    monkeypatch.setattr(features, "_encode_texts", refuse)
    assert torch.equal(image_features(items, 0, seed=9, cache=tmp_path / "c"), whole)
    assert torch.equal(text_features(["one", "two words"], tmp_path / "c"), texts)
    with pytest.raises(AssertionError, match="computed again"):
        image_features(items[:2], 0, seed=0, cache=tmp_path / "c")


def test_views_are_the_image_its_mirror_image_and_crops():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    assert take_view(image, 0, np.random.default_rng(0)) is image
    mirrored = np.asarray(take_view(image, 1, np.random.default_rng(0)))
    np.testing.assert_array_equal(mirrored[:, ::-1], np.asarray(image))
    crops = [take_view(image, 2, np.random.default_rng(seed)) for seed in range(5)]
    assert {crop.size for crop in crops} == {(LITE_PREPROCESSING.size, LITE_PREPROCESSING.size)}
    assert len({crop.tobytes() for crop in crops}) == 5
    assert take_view(image, 2, np.random.default_rng(3)).tobytes() == crops[3].tobytes()


def test_crops_keep_at_least_about_half_of_the_image():
    ramp = Image.fromarray(np.linspace(0, 255, 400).astype(np.uint8)[None].repeat(400, 0)).convert("RGB")
    rng = np.random.default_rng(0)
    spans = [float(np.ptp(np.asarray(take_view(ramp, 2, rng))[..., 0])) / 255 for _ in range(60)]
    assert min(spans) > 0.6  # sqrt(0.5 / 1.2) = 0.65, less what rounding takes
    assert max(spans) <= 1


def test_missing_data_is_named_in_the_error(tmp_path):
    with pytest.raises(SourceNotFound, match=r"no train\.tar in"):
        load_data([tmp_path] * 2, SMALL, tmp_path / "cache")
    write_archive(tmp_path / "train.tar", 0)
    with pytest.raises(SourceError, match=r"no images found in .*train\.tar"):
        load_data([tmp_path] * 2, SMALL, tmp_path / "cache")


def test_truncated_archive_is_rejected(tmp_path):
    write_archive(tmp_path / "train.tar", 4)
    whole = read_split(tmp_path, "train.tar")
    assert [example.key for example in whole] == [f"train/{number}" for number in range(4)]
    (tmp_path / "train.tar").write_bytes((tmp_path / "train.tar").read_bytes()[:-30_000])
    with pytest.raises(LookalikeError, match=r"train\.tar (ends within|is truncated)"):
        read_split(tmp_path, "train.tar")


def test_run_writes_weights_and_a_log_of_losses(world, tmp_path, monkeypatch):
    from training.lite import run

    monkeypatch.setattr(run, "load_data", lambda *_: world)
    out, log = tmp_path / "deep" / "lite.safetensors", tmp_path / "deep" / "m.jsonl"
    digest = run_lite(replace(SMALL, steps=6), [tmp_path], out, log, tmp_path / "cache")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["config"]["steps"] == 6
    assert len(lines) == 1 + 6
    assert {"loss", "temperature", "learning_rate"} <= lines[1].keys()
    assert len(digest) == 64
    assert sorted(path.name for path in out.parent.iterdir()) == ["lite.safetensors", "m.jsonl"]
