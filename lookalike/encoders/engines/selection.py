"""Options -> engine, precision and device that this machine can run.

    CUDA                                torch, bf16 (fp16 before compute capability 8.0, and for convolutional models)
    CPU on which bf16 is faster         OpenVINO, bf16
    other CPU                           OpenVINO, fp32

Whether bf16 is faster is measured: with AMX it multiplies at four times the rate of fp32, with AVX-512 bf16 alone (on
some Xeons, or where a hypervisor hides AMX) at half of it.

OpenVINO's f16 on a CPU is never chosen: where there is AVX-512 fp16 it still ran at a third to a tenth of the speed
of bf16 and strayed further from fp32 (`benchmarks/history/encoders.md`).
"""

from __future__ import annotations

import ctypes
import logging
import time
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from lookalike.cores import available_cores
from lookalike.encoders.engines.options import DEVICES, ENGINES, PRECISIONS, EngineOptions
from lookalike.errors import EncoderError

logger = logging.getLogger(__name__)

_ROUNDS, _SIDE, _MIN_SPEEDUP = 50, 384, 4 / 3
_STREAMS = 2


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine that runs the towers.

    Attributes:
        engine: `torch` or `openvino`.
        precision: `fp32`, `bf16` or `fp16`.
        device: `cpu` or `cuda`.
        threads: CPU threads; None for all cores.
    """

    engine: str
    precision: str
    device: str
    threads: int | None = None

    @property
    def streams(self) -> int:
        """Batches that run concurrently, each on its share of the cores."""
        cores = self.threads or available_cores()
        return _STREAMS if self.engine == "openvino" and cores >= _STREAMS else 1


def choose_engine(options: EngineOptions = EngineOptions(), *, cuda_precision: str = "bf16") -> EngineChoice:
    """Resolve `auto` for this machine, and log the choice.

    Args:
        options: as the caller gave them.
        cuda_precision: the model's better precision on CUDA, where bf16 and fp16 are equally fast.

    Raises:
        EncoderError: an unknown value, or a combination that this machine can't run.
    """
    require_options(options)
    device = _device(options.device, options.engine)
    engine = _engine(options.engine, device)
    precision = _precision(options.precision, engine, device, cuda_precision)
    choice = EngineChoice(engine, precision, device, options.threads)
    logger.info(
        "engine_chosen engine=%s precision=%s device=%s threads=%s",
        choice.engine,
        choice.precision,
        choice.device,
        choice.threads or "all",
    )
    return choice


def require_options(options: EngineOptions) -> None:
    """Raise EncoderError for an unknown value, or for CUDA where there is none."""
    for value, allowed, what in ((options.engine, ENGINES, "engine"), (options.precision, PRECISIONS, "precision")):
        _require(value in allowed, f"unknown {what} {value!r}; use {', '.join(allowed)}")
    require_device(options.device)
    _require(options.threads is None or options.threads >= 1, f"threads is {options.threads}; it must be 1 or more")


def require_device(device: str) -> None:
    """Raise EncoderError for an unknown device, or for CUDA where there is none."""
    _require(device in DEVICES, f"unknown device {device!r}; use {', '.join(DEVICES)}")
    if device == "cuda":
        _require(cuda_available(), "device is 'cuda', but torch sees no CUDA device; use 'auto' or 'cpu'")


def _device(device: str, engine: str) -> str:
    if device == "cuda":
        _require(engine != "openvino", "OpenVINO runs on the CPU here; use engine 'torch' with device 'cuda'")
    if device == "auto":
        return "cuda" if engine != "openvino" and cuda_available() else "cpu"
    return device


def _engine(engine: str, device: str) -> str:
    if engine == "openvino":
        _require(_has_openvino(), "engine is 'openvino', but it is not installed: pip install openvino")
    if engine == "auto":
        return "openvino" if device == "cpu" and _has_openvino() else "torch"
    return engine


def _precision(precision: str, engine: str, device: str, cuda_precision: str) -> str:
    if device == "cuda":
        best = _cuda_precision(cuda_precision) if precision == "auto" else precision
    elif engine == "openvino":
        capable = cpu_precisions()
        best = ("bf16" if bf16_is_faster() else "fp32") if precision == "auto" else precision
        _require(best in capable, f"this CPU does not compute in {best}; it has {', '.join(capable)}")
    else:
        best = "fp32" if precision == "auto" else precision
        _require(best != "fp16", "torch does not compute in fp16 on a CPU at a useful speed; use bf16 or fp32")
    return best


@cache
def cpu_precisions() -> tuple[str, ...]:
    """Return the precisions that OpenVINO computes in natively on this CPU."""
    import openvino

    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(
        ours for ours, theirs in (("fp32", "FP32"), ("bf16", "BF16"), ("fp16", "FP16")) if theirs in capabilities
    )


@cache
def bf16_is_faster() -> bool:
    """Return whether this CPU multiplies matrices at least a third faster in bf16 than in fp32.

    Measured once, in 0.1 s, on one core and in steps of half a millisecond: some of them run undisturbed on a busy
    machine, too.
    """
    if "bf16" not in cpu_precisions():
        return False
    import numpy as np
    import openvino
    from openvino import opset13

    rows = np.ones((_SIDE, _SIDE), np.float32)
    left, right = opset13.parameter([_SIDE, _SIDE], np.float32), opset13.constant(rows)
    graph = openvino.Model([opset13.matmul(left, right, transpose_a=False, transpose_b=False)], [left])
    core, alone = openvino.Core(), {"INFERENCE_NUM_THREADS": 1}
    requests = [
        core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": hint, **alone}).create_infer_request()
        for hint in ("f32", "bf16")
    ]
    seconds: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for request, times in zip(requests, seconds, strict=True):
            started = time.perf_counter()
            request.infer([rows], share_inputs=True, share_outputs=True)
            times.append(time.perf_counter() - started)
    in_fp32, in_bf16 = map(min, seconds)  # other processes can only add to them
    logger.info("bf16_measured gain=%.2f", in_fp32 / in_bf16)
    return in_fp32 > _MIN_SPEEDUP * in_bf16


@cache
def cuda_available() -> bool:
    """Return whether torch can use a CUDA device; torch is imported only where a driver is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()


def _cuda_precision(preferred: str) -> str:
    import torch

    return preferred if torch.cuda.get_device_capability() >= (8, 0) else "fp16"


def _has_openvino() -> bool:
    return find_spec("openvino") is not None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise EncoderError(message)
