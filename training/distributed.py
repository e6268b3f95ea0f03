"""Data-parallel training under `torchrun`: each process embeds its part of the batch, all compare the whole batch.

It is independent of data, towers and objectives. The gradients equal those of one process with the whole batch: every
process computes the same loss over the gathered rows, and `gather` gives each row the sum of its gradients in all
processes, which is the world size times the loss's gradient. `average_gradients` (or DistributedDataParallel) takes the
mean over processes. A parameter of the objective has the same gradient in every process, and the mean keeps it.

Dimension letters: w processes, n rows in each, d embedding width.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.objectives.base import Embedded

_MAX_BUCKET_VALUES = 8_000_000
"""Values in one message between processes: 32 MB in fp32."""


@dataclass(frozen=True, slots=True)
class Process:
    """One of the processes that train together.

    Attributes:
        rank: its number, from 0; the first process writes files and shows progress.
        count: number of processes.
        local_rank: its number on this machine, which is also the number of its GPU.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0


@contextmanager
def process_group(backend: str | None = None) -> Iterator[Process]:
    """Join the processes that `torchrun` started, and leave them at the end; without `torchrun`, do nothing.

    Args:
        backend: gloo or nccl; None for nccl where there is a GPU.

    Yields:
        This process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Process()
        return
    dist.init_process_group(backend or ("nccl" if torch.cuda.is_available() else "gloo"))
    try:
        yield Process(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()


def gather(batch: Embedded) -> Embedded:
    """Return the rows of all processes, ordered by rank, with gradients into this process's own rows.

    Args:
        batch: n rows, the same n in every process.

    Returns:
        w n rows, the same in every process; the batch itself without a process group.

    Raises:
        ValueError: the processes hold different numbers of rows.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return batch
    _require_equal(batch)
    labels = None if batch.labels is None else torch.cat(_collect(batch.labels))
    texts = None if batch.texts is None else _gather_rows(batch.texts)
    return Embedded(_gather_rows(batch.images), labels, texts)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes; nothing happens without a process group.

    It replaces DistributedDataParallel, whose hooks expect one backward pass for each step; cached gradients need many.
    A parameter that has a gradient in other processes only counts as 0 here. One without a gradient in any process
    keeps none, so that the optimizer does not decay it.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        return
    present = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.float32)
    present = present.to(trained[0].device)
    dist.all_reduce(present)
    for bucket in _buckets([p for p, count in zip(trained, present.tolist(), strict=True) if count]):
        _average(bucket)


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield consecutive parameters of one dtype up to the size of a message: hundreds of small messages are slow."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        full = sum(p.numel() for p in bucket) + parameter.numel() > _MAX_BUCKET_VALUES
        if bucket and (full or bucket[0].dtype != parameter.dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _average(bucket: Sequence[nn.Parameter]) -> None:
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
    flat = torch.cat([gradient.ravel() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, gradient, part in zip(
        bucket, gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True
    ):
        parameter.grad = gradient.copy_(part.view_as(gradient))


def broadcast(module: nn.Module) -> None:
    """Copy the first process's weights and buffers to all processes."""
    if dist.is_available() and dist.is_initialized():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


class _Gather(torch.autograd.Function):
    """All-gather whose gradient is the sum over processes; torch's own is deprecated, its successor is private."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        """(n, d) -> (w n, d)."""
        ctx.count = len(rows)
        return torch.cat(_collect(rows))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """(w n, d) -> (n, d)."""
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        start = dist.get_rank() * int(ctx.count)
        return total[start : start + int(ctx.count)]


def _gather_rows(rows: Tensor) -> Tensor:
    result: Tensor = _Gather.apply(rows)
    return result


def _collect(rows: Tensor) -> list[Tensor]:
    rows = rows.detach().contiguous()
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows)
    return parts


def _require_equal(batch: Embedded) -> None:
    """Raise ValueError where the numbers of rows differ: gloo would hang or mix up rows."""
    counts = torch.cat(_collect(torch.tensor([len(batch)], device=batch.images.device))).tolist()
    if len(set(counts)) > 1:
        raise ValueError(f"every process must embed the same number of rows; got {counts}")
