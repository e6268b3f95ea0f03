"""A tower as an OpenVINO graph: traced and converted once, kept on disk, compiled for a few row counts.

A start from the kept graph imports no torch. The graph is stored in fp32; the precision is the compiler's affair.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from retrieval.encoders.engines.batching import padded, plan, run_batched
from retrieval.encoders.engines.cache import find_folder, publish_folder
from retrieval.encoders.engines.choice import EngineChoice
from retrieval.encoders.engines.exact import mark_exact
from retrieval.encoders.engines.tower import Arrays, Tower
from retrieval.types import Float32

logger = logging.getLogger(__name__)

_FILE = "graph.xml"
CONVERSION = 2  # raised whenever the way of converting changes what is stored
_STREAMS = 2
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVINOEngine:
    """Runs a tower on the CPU.

    A single batch, or texts, get one stream over all cores. Several batches of pictures go through two streams of half
    the cores: a batch that no core has to wait for another in gives a tenth more pictures a second.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, tower: Tower, choice: EngineChoice) -> None:
        """Reads the kept graph, or builds, converts and keeps it."""
        self.precision = choice.precision
        self._tower = tower
        self._core = openvino.Core()
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[choice.precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if choice.threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = choice.threads
        self._streams = _STREAMS if (choice.threads or len(os.sched_getaffinity(0))) >= _STREAMS else 1
        self._graph = _load_graph(self._core, tower)
        self.weight_bytes = sum(op.get_byte_size() for op in self._graph.get_ops() if op.get_type_name() == "Constant")
        self._requests: dict[int, openvino.InferRequest] = {}
        self._queues: dict[int, openvino.AsyncInferQueue] = {}

    def __call__(self, *inputs: NDArray[Any]) -> Float32:
        """See `Engine`."""
        jobs = list(plan(len(inputs[0]), self._tower.batches))
        if self._tower.sequence or self._streams == 1 or sum(size > 1 for _, _, size in jobs) < self._streams:
            return run_batched(self._run, inputs, self._tower.batches, self._tower.dim)
        return self._run_side_by_side(inputs, jobs)

    def _run_side_by_side(self, inputs: Arrays, jobs: list[tuple[int, int, int]]) -> Float32:
        """As `run_batched`, with as many batches under way as there are streams."""
        gathered = np.empty((len(inputs[0]), self._tower.dim), np.float32)
        queues = []
        for start, stop, size in jobs:
            rows = tuple(padded(array[start:stop], size) for array in inputs)
            if size == 1:
                gathered[start:stop] = self._run(rows)
            else:
                queue = self._queue(size)
                queue.start_async(list(rows), (gathered, start, stop), share_inputs=True)
                queues.append(queue)
        for queue in queues:
            queue.wait_all()
        return gathered

    def _queue(self, rows: int) -> openvino.AsyncInferQueue:
        if rows not in self._queues:
            self._queues[rows] = openvino.AsyncInferQueue(self._compile(rows, self._streams), self._streams)
            self._queues[rows].set_callback(_collect)
        return self._queues[rows]

    def _run(self, inputs: Arrays) -> Float32:
        request = self._request(len(inputs[0]))
        result: Float32 = request.infer(list(inputs), share_inputs=True, share_outputs=True)[0]
        return result

    def _request(self, rows: int) -> openvino.InferRequest:
        shape = 0 if self._tower.sequence else rows  # one graph of free shape serves all token counts
        if shape not in self._requests:
            self._requests[shape] = self._compile(shape).create_infer_request()
        return self._requests[shape]

    def _compile(self, rows: int, streams: int = 1) -> openvino.CompiledModel:
        graph = self._graph
        if rows:
            graph = graph.clone()
            graph.reshape({i: [rows, *array.shape[1:]] for i, array in enumerate(self._tower.example)})
        settings = self._settings
        if streams > 1:
            settings = {k: v for k, v in settings.items() if k != "PERFORMANCE_HINT"} | {"NUM_STREAMS": streams}
        return self._core.compile_model(graph, "CPU", settings)


def _collect(request: openvino.InferRequest, place: tuple[Float32, int, int]) -> None:
    """A finished batch -> its rows of the result."""
    gathered, start, stop = place
    gathered[start:stop] = request.get_output_tensor(0).data[: stop - start]


def _load_graph(core: openvino.Core, tower: Tower) -> openvino.Model:
    name = f"{tower.name}-{tower.key[:24]}-openvino-{_version()}-{CONVERSION}-{'-'.join(map(str, tower.exact))}"
    folder = find_folder(name)
    if folder is None:
        graph = _convert(tower)
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
    mark_exact(folder / _FILE, *tower.exact)


def _convert(tower: Tower) -> openvino.Model:
    import torch

    logger.info("tower_converting tower=%s", tower.name)
    return _typed(convert(tower.build(), tuple(torch.from_numpy(array) for array in tower.example)), tower)


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
