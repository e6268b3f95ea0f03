"""open_clip's models as encoders: the vectors of open_clip's own calls, and one clear error for each mistake."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lookalike.encoders.dual_encoder import DualEncoder
from lookalike.encoders.engines import EngineOptions
from lookalike.encoders.engines.selection import cpu_precisions
from lookalike.encoders.open_clip import weights
from lookalike.encoders.open_clip.encoder import open_clip_encoder
from lookalike.encoders.open_clip.tokenizer import trim
from lookalike.encoders.open_clip.weights import OpenClipName, parse_name
from lookalike.encoders.registry import load_encoder
from lookalike.errors import EncoderError, UnknownEncoder, WeightsInvalid, WeightsMissing
from lookalike.types import Float32
from tests.contract.encoders import add_tiny_models, save_random

TEXTS = ["a cat", "a very long caption about two dogs that run " * 4, "", "a rocket launch at night"]
MODELS = ["tiny", "tiny-eos", "tiny-bidirectional", "tiny-cls", "tiny-average", "tiny-attention"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    add_tiny_models(tmp_path_factory.mktemp("configs"))
    made = {name: save_random(name, folder / f"{name}.safetensors") for name in MODELS}
    return {**made, "ViT-B-32": save_random("ViT-B-32", folder / "vit.pt")}


@pytest.fixture(scope="module")
def _cache_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(_cache_of_the_module: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(_cache_of_the_module))
    return _cache_of_the_module


def name_of(model: str, checkpoints: dict[str, Path]) -> str:
    return f"open_clip:{model}/{checkpoints[model]}"


def make_images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(300, 200), (201, 333), (224, 224), (32, 32), (97, 31), (640, 479)]
    return [
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        for size in sizes
    ]


def direct(model: str, checkpoint: Path) -> tuple[Float32, Float32]:
    """Image and text vectors as open_clip's documentation computes them."""
    net, _, transform = open_clip.create_model_and_transforms(model, pretrained=str(checkpoint))
    net.eval()
    with torch.inference_mode():
        images = net.encode_image(torch.stack([transform(image) for image in make_images()]), normalize=True)
        texts = net.encode_text(open_clip.get_tokenizer(model)(TEXTS), normalize=True)
    return images.numpy(), texts.numpy()


def ours(encoder: DualEncoder) -> tuple[Float32, Float32]:
    batch = np.stack([encoder.preprocess(image) for image in make_images()])
    return encoder.encode_images(batch), encoder.encode_texts(TEXTS)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("model", [*MODELS, "ViT-B-32"])
def test_fp32_equals_open_clip(model: str, engine: str, checkpoints: dict[str, Path]) -> None:
    encoder = open_clip_encoder(name_of(model, checkpoints) + "@fp32", EngineOptions(device="cpu", engine=engine))
    for got, expected in zip(ours(encoder), direct(model, checkpoints[model]), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    assert (encoder.spec.engine, encoder.spec.precision, encoder.spec.device) == (engine, "fp32", "cpu")


@pytest.mark.skipif("bf16" not in cpu_precisions(), reason="this CPU has no bf16")
def test_bf16_is_close_to_open_clip(checkpoints: dict[str, Path]) -> None:
    encoder = open_clip_encoder(name_of("ViT-B-32", checkpoints), EngineOptions(device="cpu", precision="bf16"))
    assert encoder.spec.precision == "bf16"
    for got, expected in zip(ours(encoder), direct("ViT-B-32", checkpoints["ViT-B-32"]), strict=True):
        assert (got * expected).sum(axis=1).min() >= 0.999


@pytest.mark.parametrize(
    ("model", "tag"),
    [("ViT-B-32", "laion2b_s34b_b79k"), ("ViT-B-16-SigLIP", "webli"), ("ViT-L-14-CLIPA", "datacomp1b")],
)
def test_preprocessing_is_the_tags_own(
    model: str, tag: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crop or squash, bicubic or bilinear, mean and deviation: bit for bit open_clip's evaluation transform."""
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    from lookalike.encoders.open_clip.model import preprocessing_of

    published = open_clip.get_pretrained_cfg(model, tag)
    size = open_clip.get_model_config(model)["vision_cfg"]["image_size"]
    merged = merge_preprocess_dict(PreprocessCfg(size=size), published)
    net = type("Model", (), {"visual": type("Visual", (), {"preprocess_cfg": {**merged}})})
    checkpoint = weights.Checkpoint(tmp_path / "none", published)
    preprocessing = preprocessing_of(model, net, checkpoint)
    transform = image_transform_v2(PreprocessCfg(**merged), is_train=False)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    for image in make_images():
        normalised = (preprocessing(image).astype(np.float32) / 255 - mean) / std
        np.testing.assert_allclose(normalised, transform(image).numpy(), atol=1e-6)


def test_configuration_beside_a_checkpoint_is_used(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = Path(shutil.copy(checkpoints["tiny"], tmp_path / "own.safetensors"))
    plain = open_clip_encoder(f"open_clip:tiny/{path}").preprocessing
    config = {"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    os.utime(path)
    heeded = open_clip_encoder(f"open_clip:tiny/{path}").preprocessing
    assert (plain.mode, heeded.mode, heeded.mean, heeded.std) == ("crop", "squash", (0.5,) * 3, (0.25,) * 3)


def test_trim_rounds_up_after_the_last_end_token() -> None:
    ids = np.zeros((2, 16), np.int64)
    ids[0, [0, 1, 2]] = [7, 3, 9]
    ids[1, [0, 1, 2, 3, 4]] = [7, 3, 4, 5, 9]
    np.testing.assert_array_equal(trim(ids, "argmax", 0), ids[:, :8])
    np.testing.assert_array_equal(trim(ids, "eos", 9), ids[:, :8])
    np.testing.assert_array_equal(trim(ids[:1], "argmax", 0), ids[:1, :4])
    np.testing.assert_array_equal(trim(ids, None, 0), ids)
    full = np.full((1, 15), 3)
    full[0, 14] = 9
    np.testing.assert_array_equal(trim(full, "argmax", 0), full)


def test_second_start_needs_neither_torch_nor_open_clip(checkpoints: dict[str, Path]) -> None:
    folder = Path(open_clip.__file__).parent / "model_configs"
    assert (folder / "ViT-B-32.json").is_file()
    name = name_of("ViT-B-32", checkpoints)
    expected = open_clip_encoder(name, EngineOptions(device="cpu")).spec
    script = """
import sys
import numpy as np
from lookalike.encoders.engines import EngineOptions
from lookalike.encoders.registry import load_encoder
encoder = load_encoder(sys.argv[1], EngineOptions(device="cpu"))
encoder.encode_images(np.zeros((1, 3, 224, 224), np.uint8))
assert not {"torch", "open_clip"} & set(sys.modules)
print(encoder.spec)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script, name], check=True, capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == str(expected)


def test_changed_weights_are_detected(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = Path(shutil.copy(checkpoints["tiny"], tmp_path / "own.safetensors"))
    before = open_clip_encoder(f"open_clip:tiny/{path}")
    shutil.copy(checkpoints["tiny"], path)
    same = open_clip_encoder(f"open_clip:tiny/{path}")
    assert same.spec == before.spec
    torch.manual_seed(5)
    net = open_clip.create_model("tiny")
    torch.save(net.state_dict(), tmp_path / "other.pt")
    after = open_clip_encoder(f"open_clip:tiny/{tmp_path / 'other.pt'}")
    assert after.spec.identity != before.spec.identity
    assert not np.allclose(ours(after)[0], ours(before)[0], atol=1e-2)


def test_temperature_is_the_learned_one(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    tensors = load_file(checkpoints["tiny"])
    save_file({**tensors, "logit_scale": torch.tensor(25.0).log()}, tmp_path / "own.safetensors")
    for _ in ("from the model", "from the cache"):
        spec = open_clip_encoder(f"open_clip:tiny/{tmp_path / 'own.safetensors'}").spec
        assert spec.temperature == pytest.approx(1 / 25)


def test_choice_is_logged(checkpoints: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        open_clip_encoder(name_of("tiny", checkpoints) + "@fp32", EngineOptions(device="cpu"))
    assert "engine_chosen engine=openvino precision=fp32 device=cpu" in caplog.text


def test_names_are_parsed() -> None:
    assert parse_name("open_clip:ViT-B-32/openai") == OpenClipName("ViT-B-32", "openai")
    assert parse_name("open_clip:ViT-B-32/openai@bf16") == OpenClipName("ViT-B-32", "openai", "bf16")
    assert parse_name("open_clip:ViT-B-32//a@b/c.pt@fp32") == OpenClipName("ViT-B-32", "/a@b/c.pt", "fp32")
    assert parse_name("open_clip:ViT-B-32/~/x@y.pt") == OpenClipName("ViT-B-32", "~/x@y.pt")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("open_clip", UnknownEncoder, "open_clip:<model>/<pretrained>"),
        ("open_clip:ViT-B-32", UnknownEncoder, "not of the form"),
        ("open_clip:ViT-B32/openai", UnknownEncoder, "close are 'ViT-B-32'"),
        ("open_clip:ViT-B-32/no_such_tag", UnknownEncoder, "laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32//nowhere/x.pt", WeightsMissing, "/nowhere/x.pt"),
        ("open_clip:ViT-B-32//etc/passwd", WeightsInvalid, "/etc/passwd"),
        ("ViT-B-32/openai", UnknownEncoder, "open_clip:ViT-B-32/<pretrained>"),
        ("lyte", UnknownEncoder, "'lite'"),
        ("lite:x", UnknownEncoder, "lite"),
    ],
)
def test_wrong_name_is_one_clear_error(name: str, kind: type[EncoderError], words: str) -> None:
    with pytest.raises(kind) as caught:
        load_encoder(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", "other"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_file_that_is_no_checkpoint_is_one_clear_error(
    content: bytes | str, suffix: str, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    path = tmp_path / f"bad{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_random("tiny-eos", path)
    with pytest.raises(WeightsInvalid) as caught:
        open_clip_encoder(f"open_clip:tiny/{path}")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_checkpoint_cannot_run_code(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"visual.proj": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(WeightsInvalid):
        open_clip_encoder(f"open_clip:tiny/{tmp_path / 'trap.pt'}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("offline", [True, False])
def test_error_of_missing_weights_names_file_and_place(
    offline: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens on the discard port
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsMissing) as caught:
        load_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k")
    message = str(caught.value)
    assert "laion/CLIP-ViT-B-32-laion2B-s34B-b79K/resolve/main/open_clip_model.safetensors" in message
    assert str(tmp_path / "open_clip" / "ViT-B-32" / "laion2b_s34b_b79k.safetensors") in message
    assert ("HF_HUB_OFFLINE is set" in message) == offline
    assert "\n" not in message


def test_fetched_file_has_its_tags_preprocessing(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path))
    place = tmp_path / "open_clip" / "ViT-B-32" / "openai.pt"
    place.parent.mkdir(parents=True)
    place.symlink_to(checkpoints["ViT-B-32"])
    tagged = load_encoder("open_clip:ViT-B-32/openai", EngineOptions(device="cpu", engine="torch"))
    by_path = load_encoder(name_of("ViT-B-32", checkpoints), EngineOptions(device="cpu", engine="torch"))
    assert tagged.spec.weights != by_path.spec.weights  # OpenAI's weights were trained with quick GELU
    assert tagged.preprocessing.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)


def test_contradicting_precision_is_rejected(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(EncoderError, match="drop one"):
        open_clip_encoder(name_of("tiny", checkpoints) + "@fp32", EngineOptions(precision="bf16"))
