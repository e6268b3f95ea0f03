"""Engines: selection, batch sizes, the cache of converted graphs, and OpenVINO against torch on small towers."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lookalike.encoders.engines import EngineChoice, EngineOptions, Tower, choose_engine, create_engine
from lookalike.encoders.engines import selection as choice_module
from lookalike.encoders.engines.batch_sizes import plan, plan_tokens, run_batched, steps
from lookalike.encoders.engines.cache import find_folder, publish_folder, recall, remember
from lookalike.encoders.engines.selection import bf16_is_faster, cpu_precisions
from lookalike.errors import EncoderError

FP32 = EngineChoice("openvino", "fp32", "cpu")


class Small(nn.Module):
    """(n, 3, 4, 4) uint8 -> (n, 5)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.out = nn.Linear(16, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.out(self.conv(pixels.float() / 255).flatten(1))
        return features


class Words(nn.Module):
    """Ids and mask (n, t) -> (n, 6): the mean of the kept tokens' vectors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(50, 6)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        kept = mask[:, :, None].float()
        mean: Tensor = (self.table(ids) * kept).sum(1) / kept.sum(1)
        return mean


def image_tower(build: Callable[[], nn.Module] = Small, key: str = "a" * 64) -> Tower:
    return Tower("small", key, 5, build, (np.zeros((2, 3, 4, 4), np.uint8),), False, (1, 8))


def refuse() -> nn.Module:
    raise AssertionError("the tower was built although its graph is cached")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@given(st.integers(0, 200), st.sets(st.integers(2, 40), max_size=4))
def test_plan_covers_each_row_and_pads_less_than_half(n: int, sizes: set[int]) -> None:
    batches = (1, *sorted(sizes))
    steps = list(plan(n, batches))
    assert [row for start, stop, _ in steps for row in range(start, stop)] == list(range(n))
    for start, stop, size in steps:
        assert size in batches
        assert stop - start <= size < 2 * (stop - start) or size == stop - start


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 60), st.integers(1, 9))
def test_calls_stay_within_the_towers_token_limit(lengths: list[int], tokens: int, rows: int) -> None:
    ids = np.array([[7] * length + [0] * (30 - length) for length in lengths], np.int64).reshape(-1, 30)
    planned = list(plan_tokens(ids, tokens, rows))
    assert [row for start, stop, _ in planned for row in range(start, stop)] == list(range(len(lengths)))
    for start, stop, size in planned:
        assert size == stop - start <= rows
        assert size == 1 or sum(lengths[start:stop]) <= tokens
        assert size == rows or stop == len(ids) or sum(lengths[start : stop + 1]) > tokens  # no run too many


def test_only_packing_towers_are_split_by_tokens() -> None:
    bounded = Tower("words", "b" * 64, 6, Words, (np.ones((2, 8), np.int64),), True, (1, 2, 4, 8), max_packed_tokens=24)
    ids = np.ones((10, 12), np.int64)
    assert list(steps(bounded, (ids,), (1, 2, 4, 8))) == [(i, i + 2, 2) for i in range(0, 10, 2)]
    assert list(steps(image_tower(), (np.zeros((9, 3, 4, 4), np.uint8),), (1, 8))) == [(0, 8, 8), (8, 9, 1)]


def test_run_batched_drops_padding() -> None:
    seen: list[tuple[int, bool]] = []

    def double(inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        seen.append((len(inputs[0]), inputs[0].flags.c_contiguous))
        return (inputs[0] * 2).astype(np.float32)

    rows = np.arange(26).reshape(13, 2)[:, ::-1]
    np.testing.assert_array_equal(run_batched(double, (rows,), plan(13, (1, 8)), 2), rows * 2)
    assert seen == [(8, True), (8, True)]


@pytest.mark.parametrize("precision", [p for p in cpu_precisions() if p != "fp16"])
@pytest.mark.parametrize("n", [0, 1, 5, 8, 19])
def test_openvino_equals_torch_on_images(n: int, precision: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 4, 4), dtype=np.uint8)
    fast = create_engine(image_tower(), EngineChoice("openvino", precision, "cpu"))(pixels)
    slow = create_engine(image_tower(), EngineChoice("torch", "fp32", "cpu"))(pixels)
    assert fast.shape == (n, 5)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, slow, atol=1e-6 if precision == "fp32" else 2e-2)


def test_one_graph_serves_every_token_count() -> None:
    rng = np.random.default_rng(0)
    tower = Tower("words", "b" * 64, 6, Words, (np.ones((2, 8), np.int64),) * 2, True, (1, 2, 4))
    fast, slow = create_engine(tower, FP32), create_engine(tower, EngineChoice("torch", "fp32", "cpu"))
    for n, t in ((1, 1), (3, 8), (7, 31)):
        ids, mask = rng.integers(0, 50, (n, t)), np.ones((n, t), np.int64)
        mask[0, t // 2 + 1 :] = 0
        np.testing.assert_allclose(fast(ids, mask), slow(ids, mask), atol=1e-6)


def test_cached_graph_is_used_for_its_key_only() -> None:
    pixels = np.full((1, 3, 4, 4), 7, np.uint8)
    first = create_engine(image_tower(), FP32)(pixels)
    np.testing.assert_array_equal(create_engine(image_tower(refuse), FP32)(pixels), first)
    with pytest.raises(AssertionError, match="although"):
        create_engine(image_tower(refuse, key="c" * 64), FP32)


@pytest.mark.skipif("bf16" not in cpu_precisions(), reason="this CPU has no bf16")
def test_fp32_layers_stay_in_fp32() -> None:
    """With both convolutions marked the network errs less than half as much."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Flatten())

        def forward(self, pixels: Tensor) -> Tensor:
            features: Tensor = self.layers(pixels.float() / 255)[:, :5]
            return features

    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 4, 4), dtype=np.uint8)
    reference = create_engine(image_tower(Deep), EngineChoice("torch", "fp32", "cpu"))(pixels)
    bf16 = EngineChoice("openvino", "bf16", "cpu")
    errors = [
        np.abs(create_engine(replace(image_tower(Deep), fp32_layers=exact), bf16)(pixels) - reference).max()
        for exact in ((0, 0), (2, 2))
    ]
    assert 0 < errors[1] < errors[0] / 2


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "missing"])
def test_corrupt_graph_is_converted_again(folder: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.full((1, 3, 4, 4), 7, np.uint8)
    first = create_engine(image_tower(), FP32)(pixels)
    binary = next(folder.glob("towers/*/graph.bin"))
    content = bytearray(binary.read_bytes())
    binary.unlink()  # a mapped file must not shrink under its reader
    content[len(content) // 2] ^= 0xFF
    if damage != "missing":
        binary.write_bytes({"truncate": content[:10], "flip": content, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(create_engine(image_tower(), FP32)(pixels), first)
    assert "cache_corrupt" in caplog.text
    create_engine(image_tower(refuse), FP32)


def test_unwritable_cache_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setenv("LOOKALIKE_CACHE", str(file / "cache"))
    remember(["a"], {"b": 1})
    assert recall(["a"]) is None
    pixels = np.full((9, 3, 4, 4), 7, np.uint8)
    slow = create_engine(image_tower(), EngineChoice("torch", "fp32", "cpu"))(pixels)
    np.testing.assert_allclose(create_engine(image_tower(), FP32)(pixels), slow, atol=1e-6)
    assert caplog.text.count("cache_unwritable") == 2


def test_two_writers_of_one_entry_agree(folder: Path) -> None:
    def write(scratch: Path) -> None:
        (scratch / "a").write_text("x")

    def write_after_another(scratch: Path) -> None:
        publish_folder("entry", write)
        write(scratch)

    assert publish_folder("entry", write_after_another) == find_folder("entry") == folder / "towers" / "entry"
    assert [path.name for path in (folder / "towers").iterdir()] == ["entry"]


def test_failed_write_leaves_nothing(folder: Path) -> None:
    def fail(scratch: Path) -> None:
        (scratch / "half").write_text("x")
        raise OSError(28, "No space left on device")

    assert publish_folder("entry", fail) is None
    assert find_folder("entry") is None
    assert not list((folder / "towers").iterdir())


def test_valid_records_are_read_back(folder: Path) -> None:
    remember(["lite", 1], {"dim": 640})
    assert recall(["lite", 1]) == {"dim": 640}
    assert recall(["lite", 2]) is None
    for path in (folder / "records").iterdir():
        path.write_text(json.dumps({"key": ["other"], "record": {}}))
    assert recall(["lite", 1]) is None


def test_auto_is_openvino_in_the_best_precision(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        chosen = choose_engine(EngineOptions(device="cpu", threads=1))
    best = "bf16" if bf16_is_faster() else "fp32"
    assert chosen == EngineChoice("openvino", best, "cpu", 1)
    assert f"engine_chosen engine=openvino precision={best} device=cpu threads=1" in caplog.text
    assert choose_engine(EngineOptions(device="cpu", engine="torch")).precision == "fp32"


def test_fp32_is_chosen_where_the_cpu_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice_module, "cpu_precisions", lambda: ("fp32",))
    assert not bf16_is_faster.__wrapped__()
    monkeypatch.setattr(choice_module, "bf16_is_faster", bf16_is_faster.__wrapped__)
    assert choose_engine(EngineOptions(device="cpu")).precision == "fp32"
    with pytest.raises(EncoderError, match="does not compute in bf16"):
        choose_engine(EngineOptions(device="cpu", precision="bf16"))


@pytest.mark.skipif("bf16" not in cpu_precisions(), reason="this CPU has no bf16")
@pytest.mark.parametrize(("pays", "precision"), [(True, "bf16"), (False, "fp32")])
def test_bf16_is_chosen_if_faster_and_used_if_requested(
    pays: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice_module, "bf16_is_faster", lambda: pays)
    assert choose_engine(EngineOptions(device="cpu")).precision == precision
    assert choose_engine(EngineOptions(device="cpu", precision="bf16")).precision == "bf16"


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_cuda_is_run_by_torch(capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice_module, "cuda_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert choose_engine() == EngineChoice("torch", precision, "cuda")
    assert choose_engine(EngineOptions(engine="openvino")).device == "cpu"
    with pytest.raises(EncoderError, match="OpenVINO runs on the CPU"):
        choose_engine(EngineOptions(engine="openvino", device="cuda"))


@pytest.mark.parametrize(
    "wrong",
    [{"engine": "onnx"}, {"precision": "int8"}, {"device": "tpu"}, {"engine": "torch", "precision": "fp16"}],
)
def test_invalid_options_are_one_clear_error(wrong: dict[str, str]) -> None:
    with pytest.raises(EncoderError, match=next(reversed(wrong.values()))):
        choose_engine(EngineOptions(**{"device": "cpu", **wrong}))
    with pytest.raises(EncoderError, match="threads"):
        choose_engine(EngineOptions(device="cpu", threads=0))


def test_cuda_without_a_device_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice_module, "cuda_available", lambda: False)
    with pytest.raises(EncoderError, match="no CUDA device"):
        choose_engine(EngineOptions(device="cuda"))


def test_start_from_the_cache_imports_no_torch(folder: Path) -> None:
    create_engine(image_tower(), FP32)
    script = """
import sys
import numpy as np
from lookalike.encoders.engines import EngineChoice, Tower, create_engine
tower = Tower("small", "a" * 64, 5, None, (np.zeros((2, 3, 4, 4), np.uint8),), False, (1, 8))
assert create_engine(tower, EngineChoice("openvino", "fp32", "cpu"))(np.zeros((3, 3, 4, 4), np.uint8)).shape == (3, 5)
assert "torch" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


FIRST_BATCHES_AT_ONCE = """
import sys, threading
import numpy as np
import openvino
from openvino import opset13
import lookalike.encoders.engines.openvino

sys.setswitchinterval(1e-6)
given = opset13.parameter([-1, 4], np.float32)
compiled = openvino.Core().compile_model(openvino.Model([opset13.relu(given)], [given]), "CPU")
start = threading.Barrier(8)

def run(request):
    start.wait()
    request.infer([np.ones((2, 4), np.float32)], share_inputs=True, share_outputs=True)

threads = [threading.Thread(target=run, args=(compiled.create_infer_request(),)) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_first_batches_of_a_process_may_run_at_once() -> None:
    for _ in range(3):  # without the engine's conversion at import, six of seven runs hang
        subprocess.run([sys.executable, "-c", FIRST_BATCHES_AT_ONCE], check=True, timeout=60)
