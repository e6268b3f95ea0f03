"""A tower as its torch module: the reference on a CPU, and the engine on CUDA."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from numpy.typing import NDArray

from lookalike.encoders.engines.batch_sizes import plan, run_batched, steps
from lookalike.encoders.engines.selection import EngineChoice
from lookalike.encoders.engines.tower import Arrays, Tower
from lookalike.types import Float32

_MAX_ROWS = {"cpu": 32, "cuda": 256}  # a call: bounds the memory of activations
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """Runs a tower in eager mode; half precisions by autocast, which keeps norms and softmax in fp32."""

    name = "torch"

    def __init__(self, tower: Tower, choice: EngineChoice) -> None:
        """Build the module and move it to its device."""
        self.precision = choice.precision
        self.device = choice.device
        self._tower = tower
        if choice.threads is not None and choice.device == "cpu":
            torch.set_num_threads(choice.threads)
        self._module = tower.build().eval().to(choice.device)
        self._module = self._module.to(memory_format=torch.channels_last)  # for convolutions; it changes no other layer

    @property
    def weight_bytes(self) -> int:
        """Bytes of the module's weights."""
        return sum(tensor.nbytes for tensor in self._module.state_dict().values())

    def __call__(self, *inputs: NDArray[Any]) -> Float32:
        """Run the tower: one array for each input, n rows each -> (n, d) float32."""
        batches = tuple(range(1, _MAX_ROWS[self.device] + 1))
        planned = steps(self._tower, inputs, batches) if self.device == "cpu" else plan(len(inputs[0]), batches)
        return run_batched(self._run, inputs, planned, self._tower.dim)

    def _run(self, inputs: Arrays) -> Float32:
        with torch.inference_mode(), self._autocast():
            # a copy: torch refuses to wrap read-only arrays without a warning
            output = self._module(*(torch.tensor(array, device=self.device) for array in inputs))
        result: Float32 = output.float().cpu().numpy()
        return result

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device, dtype=_DTYPES[self.precision])
