"""A tower as an OpenVINO graph: traced and converted once, kept on disk, compiled for a few row counts.

A start from the kept graph imports no torch. The graph is stored in fp32; the precision is the compiler's affair,
but for weights that a tower rounds to bf16 by itself.
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
CONVERSION = 2  # raised whenever the way of converting changes what is stored
_MANY = 8
"""Rows from which a batch gets one core to itself even where nothing else is under way (benchmarks/RESULTS.md)."""
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVINOEngine:
    """Runs a tower on the CPU, from as many threads at once as there are streams.

    A few rows that come alone get all cores, for the least time. Everything else goes through streams of half the cores
    each: cores that divide one batch wait for each other at every layer, and wait long where something else wants one.

    A graph of convolutions is compiled for each row count of `Tower.batches`, since one of free shape takes more than
    twice as long; transformers are compiled once for all.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, tower: Tower, choice: EngineChoice) -> None:
        """Reads the kept graph, or builds, converts and keeps it."""
        self.precision = choice.precision
        self._tower = tower
        self._core = openvino.Core()
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[choice.precision]}
        if choice.threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = choice.threads
        self._streams = choice.streams
        self._graph = _load_graph(self._core, tower, choice.precision)
        kinds = [operation.get_type_name() for operation in self._graph.get_ops()]
        self._fixed = sum(kinds.count(kind) for kind in _CONVOLUTIONS) > 1  # more than what cuts an image into patches
        self._batches = tower.batches if self._fixed else tuple(range(1, tower.batches[-1] + 1))
        self._few = 2 if self._fixed else _MANY
        self.weight_bytes = sum(op.get_byte_size() for op in self._graph.get_ops() if op.get_type_name() == "Constant")
        self._counting, self._compiling = threading.Lock(), threading.Lock()
        self._under_way = 0
        self._idle: dict[tuple[int, int], SimpleQueue[openvino.InferRequest]] = {}
        self._side_by_side = ThreadPoolExecutor(self._streams, thread_name_prefix="stream")

    def __call__(self, *inputs: NDArray[Any]) -> Float32:
        """See `Engine`."""
        jobs = list(steps(self._tower, inputs, self._batches))
        gathered = np.empty((len(inputs[0]), self._tower.dim), np.float32)

        def run(job: tuple[int, int, int], streams: int) -> None:
            start, stop, size = job
            self._infer(tuple(padded(array[start:stop], size) for array in inputs), streams, gathered[start:stop])

        with self._counting:
            alone = self._under_way == 0
            self._under_way += 1
        try:
            if self._streams == 1 or len(jobs) <= 1:
                for job in jobs:
                    run(job, 1 if alone and job[2] < self._few else self._streams)
            else:
                list(self._side_by_side.map(lambda job: run(job, self._streams), jobs))
        finally:
            with self._counting:
                self._under_way -= 1
        return gathered

    def _infer(self, rows: Arrays, streams: int, out: Float32) -> None:
        """Runs one batch and keeps what is no padding."""
        idle = self._requests(len(rows[0]) if self._fixed else 0, streams)
        request = idle.get()
        try:
            out[:] = request.infer(list(rows), share_inputs=True, share_outputs=True)[0][: len(out)]
        finally:
            idle.put(request)

    def _requests(self, rows: int, streams: int) -> SimpleQueue[openvino.InferRequest]:
        """Those that nobody uses of a graph for so many rows (0: any number), compiled where it was not yet."""
        if found := self._idle.get((rows, streams)):
            return found
        with self._compiling:
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
    rounds = tower.round_to_bf16 if precision == "bf16" else None
    kept = f"{CONVERSION}-{'-'.join(map(str, tower.fp32_layers))}{'-rounded' if rounds else ''}"
    name = f"{tower.name}-{tower.key[:24]}-openvino-{_version()}-{kept}"
    folder = find_folder(name)
    if folder is None:
        graph = _convert(tower, rounds)
        folder = publish_folder(name, lambda scratch: _save(graph, tower, scratch))
        if folder is None:
            return _without_cache(core, graph, tower)
    return core.read_model(folder / _FILE)  # from the file: torch's copy of the weights is freed


def _without_cache(core: openvino.Core, graph: openvino.Model, tower: Tower) -> openvino.Model:
    """The graph as it would have been kept; the file is mapped into memory and may go at once."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            _save(graph, tower, Path(folder))
            return core.read_model(Path(folder) / _FILE)
    except (OSError, RuntimeError):  # no disk at all; OpenVINO reports that as RuntimeError
        return graph


def _save(graph: openvino.Model, tower: Tower, folder: Path) -> None:
    openvino.save_model(graph, folder / _FILE, compress_to_fp16=False)
    mark_fp32(folder / _FILE, *tower.fp32_layers)


def _convert(tower: Tower, rounds: Callable[[nn.Module], None] | None) -> openvino.Model:
    import torch

    logger.info("tower_converting tower=%s", tower.name)
    module = tower.build()
    if rounds:
        rounds(module)
    return _typed(convert(module, tuple(torch.from_numpy(array) for array in tower.example)), tower)


def convert(module: Any, example: tuple[Any, ...]) -> openvino.Model:
    """Trace a torch module in eval mode on example tensors, and translate.

    The front end is called by itself: `openvino.convert_model` would report to its makers.
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
