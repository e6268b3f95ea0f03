"""A tower as an OpenVINO graph: traced and converted once, cached on disk, compiled for a few batch sizes.

A start from the cached graph imports no torch. The graph is stored in fp32, and the compiler applies the precision;
only weights that a tower rounding to bf16 itself are stored rounded.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
from numpy.typing import NDArray

from lookalike.encoders.engines.batch_sizes import padded, steps
from lookalike.encoders.engines.cache import find_folder, publish_folder
from lookalike.encoders.engines.fp32_layers import mark_fp32
from lookalike.encoders.engines.selection import EngineChoice
from lookalike.encoders.engines.tower import Arrays, Tower
from lookalike.types import Float32

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

_FILE = "graph.xml"
CONVERSION = 2  # incremented when a change to the conversion changes what is stored
_MIN_STREAM_ROWS = 8
"""Rows from which a batch runs in a stream, not on all cores, even if it is the only one
(benchmarks/history/encoders.md)."""
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}

# The first array that a process converts: two first ones at once, in two threads, would wait for each other forever.
openvino.Tensor(np.zeros(1, np.float32))


class OpenVINOEngine:
    """Runs a tower on the CPU, from as many threads concurrently as there are streams.

    A few rows with no other batch running use all cores, for the lowest latency. Everything else runs in streams of
    half the cores each: cores that share a batch wait for each other at every layer, and longer on a busy machine.

    A graph of convolutions is compiled for each row count of `Tower.batches`, since one of dynamic shape takes more
    than twice as long; a transformer is compiled once.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, tower: Tower, choice: EngineChoice) -> None:
        """Read the cached graph, or build, convert and cache it."""
        self.precision = choice.precision
        self._tower = tower
        self._core = openvino.Core()
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[choice.precision]}
        if choice.threads is not None:  # other processes have the other cores: pinned, all would take the first ones
            self._settings |= {"INFERENCE_NUM_THREADS": choice.threads, "ENABLE_CPU_PINNING": False}
        self._streams = choice.streams
        self._graph = _load_graph(self._core, tower, choice.precision)
        kinds = [operation.get_type_name() for operation in self._graph.get_ops()]
        self._fixed = (
            sum(kinds.count(kind) for kind in _CONVOLUTIONS) > 1
        )  # a vision transformer has one, for its patches
        self._batches = tower.batches if self._fixed else tuple(range(1, tower.batches[-1] + 1))
        self._min_stream_rows = 2 if self._fixed else _MIN_STREAM_ROWS
        self.weight_bytes = sum(op.get_byte_size() for op in self._graph.get_ops() if op.get_type_name() == "Constant")
        self._running_lock, self._compile_lock = threading.Lock(), threading.Lock()
        self._running = 0
        self._idle: dict[tuple[int, int], SimpleQueue[openvino.InferRequest]] = {}
        self._pool = ThreadPoolExecutor(self._streams, thread_name_prefix="stream")

    def __call__(self, *inputs: NDArray[Any]) -> Float32:
        """Run the tower: one array for each input, n rows each -> (n, d) float32."""
        jobs = list(steps(self._tower, inputs, self._batches))
        gathered = np.empty((len(inputs[0]), self._tower.dim), np.float32)

        def run(job: tuple[int, int, int], streams: int) -> None:
            start, stop, size = job
            self._infer(tuple(padded(array[start:stop], size) for array in inputs), streams, gathered[start:stop])

        with self._running_lock:
            idle = self._running == 0
            self._running += 1
        try:
            if self._streams == 1 or len(jobs) <= 1:
                for job in jobs:
                    run(job, 1 if idle and job[2] < self._min_stream_rows else self._streams)
            else:
                list(self._pool.map(lambda job: run(job, self._streams), jobs))
        finally:
            with self._running_lock:
                self._running -= 1
        return gathered

    def _infer(self, rows: Arrays, streams: int, out: Float32) -> None:
        """Run one batch, and write all but its padding to `out`."""
        idle = self._requests(len(rows[0]) if self._fixed else 0, streams)
        request = idle.get()
        try:
            out[:] = request.infer(list(rows), share_inputs=True, share_outputs=True)[0][: len(out)]
        finally:
            idle.put(request)

    def _requests(self, rows: int, streams: int) -> SimpleQueue[openvino.InferRequest]:
        """Return the idle requests of a graph for so many rows (0: any number); compile it at the first call."""
        if requests := self._idle.get((rows, streams)):
            return requests
        with self._compile_lock:
            if (rows, streams) not in self._idle:
                compiled = self._compile(rows, streams)
                idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()
                for _ in range(streams):
                    idle.put(compiled.create_infer_request())
                self._idle[rows, streams] = idle
            return self._idle[rows, streams]

    def _compile(self, rows: int, streams: int) -> openvino.CompiledModel:
        graph = self._graph
        if rows:
            graph = graph.clone()
            graph.reshape({i: [rows, *array.shape[1:]] for i, array in enumerate(self._tower.example)})
        shared = (
            {"PERFORMANCE_HINT": "LATENCY"} if streams == 1 else {"NUM_STREAMS": streams, "ENABLE_CPU_PINNING": False}
        )
        return self._core.compile_model(graph, "CPU", self._settings | shared)


def _load_graph(core: openvino.Core, tower: Tower, precision: str) -> openvino.Model:
    rounding = tower.round_to_bf16 if precision == "bf16" else None
    variant = f"{CONVERSION}-{'-'.join(map(str, tower.fp32_layers))}{'-rounded' if rounding else ''}"
    name = f"{tower.name}-{tower.key[:24]}-openvino-{_version()}-{variant}"
    folder = find_folder(name)
    if folder is None:
        graph = _convert(tower, rounding)
        folder = publish_folder(name, lambda scratch: _save(graph, tower, scratch))
        if folder is None:
            return _without_cache(core, graph, tower)
    return core.read_model(folder / _FILE)  # from the file: torch's copy of the weights is freed


def _without_cache(core: openvino.Core, graph: openvino.Model, tower: Tower) -> openvino.Model:
    """Return the graph as read from a cache; its file is mapped into memory and may be deleted immediately."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            _save(graph, tower, Path(folder))
            return core.read_model(Path(folder) / _FILE)
    except (OSError, RuntimeError):  # no disk at all; OpenVINO reports that as RuntimeError
        return graph


def _save(graph: openvino.Model, tower: Tower, folder: Path) -> None:
    openvino.save_model(graph, folder / _FILE, compress_to_fp16=False)
    mark_fp32(folder / _FILE, *tower.fp32_layers)


def _convert(tower: Tower, rounding: Callable[[nn.Module], None] | None) -> openvino.Model:
    import torch

    logger.info("tower_converting tower=%s", tower.name)
    module = tower.build()
    if rounding:
        rounding(module)
    return _typed(convert(module, tuple(torch.from_numpy(array) for array in tower.example)), tower)


def convert(module: Any, example: tuple[Any, ...]) -> openvino.Model:
    """Trace a torch module in eval mode on example tensors, and translate.

    The front end is called directly: `openvino.convert_model` would send telemetry.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every Python-level shape check in a library's model
        decoder = TorchScriptPythonDecoder(module.eval(), example_input=example)
        frontend = FrontEndManager().load_by_framework("pytorch")
        return frontend.convert(frontend.load(decoder))


def _typed(graph: openvino.Model, tower: Tower) -> openvino.Model:
    """Give the inputs the example's element types and shapes, free where they vary."""
    free = 2 if tower.sequence else 1
    for parameter, array in zip(graph.get_parameters(), tower.example, strict=True):
        parameter.set_element_type(openvino.Type(array.dtype))
        parameter.set_partial_shape(openvino.PartialShape([*[-1] * free, *array.shape[free:]]))
    graph.validate_nodes_and_infer_types()
    return graph


def _version() -> str:
    return str(openvino.__version__).split("-")[0]
