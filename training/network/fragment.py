"""A part of a network as OpenVINO graphs, for whom torch runs the rest: traced for each size of image, kept nowhere.

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

_ROWS = 16
"""Rows at once, so that what passes between layers stays in cache."""


class Fragment:
    """Modules one after the other, in fp32: (n, c, h, w) float32 or uint8 -> (n, d, i, j) float32.

    Args:
        parts: in eval mode, each taking what the one before gives; they are copied, so later changes don't count.
        threads: CPU threads.
    """

    def __init__(self, parts: list[nn.Module], threads: int) -> None:
        self._module = copy.deepcopy(nn.Sequential(*parts)).float().eval()
        self._settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }
        self._core = openvino.Core()
        self._requests: dict[tuple[int, ...], openvino.InferRequest] = {}

    def __call__(self, rows: Float32 | UInt8) -> Float32:
        """See the class."""
        parts = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
        found: Float32 = np.concatenate([self._run(part) for part in parts])
        return found

    def _run(self, rows: Float32 | UInt8) -> Float32:
        if rows.shape not in self._requests:
            if any(shape[1:] != rows.shape[1:] for shape in self._requests):
                self._requests.clear()  # images that grow never come back to a smaller size
            with torch.autocast("cpu", enabled=False):
                graph = convert(self._module, (torch.from_numpy(rows),))  # padding may depend on the sides
            graph.reshape(rows.shape)
            self._requests[rows.shape] = self._core.compile_model(graph, "CPU", self._settings).create_infer_request()
        result: Float32 = self._requests[rows.shape].infer([rows], share_inputs=True)[0]
        return result
