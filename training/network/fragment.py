"""A part of a network that OpenVINO runs while torch runs the rest; traced for each input size, kept in memory only.

Dimension letters: n rows, c, d channels, h, w, i, j sides.
"""

from __future__ import annotations

import copy

import numpy as np
import openvino
import torch
from torch import nn

from lookalike.encoders.engines.openvino import convert
from lookalike.types import Float32, UInt8

_BATCH_ROWS = 16
"""Rows of a batch: few, so that activations stay in the CPU's cache."""


class Fragment:
    """Modules in sequence, in fp32: (n, c, h, w) float32 or uint8 -> (n, d, i, j) float32.

    Args:
        modules: in eval mode; each takes the output of the one before. They are copied: later changes have no effect.
        threads: CPU threads.
    """

    def __init__(self, modules: list[nn.Module], threads: int) -> None:
        self._module = copy.deepcopy(nn.Sequential(*modules)).float().eval()
        self._settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }
        self._core = openvino.Core()
        self._graph: openvino.Model | None = None
        self._requests: dict[tuple[int, ...], openvino.InferRequest] = {}

    def __call__(self, rows: Float32 | UInt8) -> Float32:
        """(n, c, h, w) -> (n, d, i, j)."""
        parts = [rows[start : start + _BATCH_ROWS] for start in range(0, len(rows), _BATCH_ROWS)]
        outputs: Float32 = np.concatenate([self._run(part) for part in parts])
        return outputs

    def _run(self, rows: Float32 | UInt8) -> Float32:
        if rows.shape not in self._requests:
            self._compile(rows)
        outputs: Float32 = self._requests[rows.shape].infer([rows], share_inputs=True)[0]
        return outputs

    def _compile(self, rows: Float32 | UInt8) -> None:
        if any(shape[1:] != rows.shape[1:] for shape in self._requests):
            self._graph = None  # padding may depend on the sides
            self._requests.clear()  # inputs only grow during a run: smaller sizes are not needed again
        if self._graph is None:
            with torch.autocast("cpu", enabled=False):
                self._graph = convert(self._module, (torch.from_numpy(rows),))
        graph = self._graph.clone()
        graph.reshape(rows.shape)
        self._requests[rows.shape] = self._core.compile_model(graph, "CPU", self._settings).create_infer_request()
