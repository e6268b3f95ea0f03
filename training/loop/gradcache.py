"""Cached gradients: the gradient of one large contrastive batch in the memory of a small one.

A contrastive loss couples all rows of a batch, but only through their embeddings. So the batch is embedded chunk by
chunk without a graph, the loss's gradient by the embeddings is computed, and each chunk is embedded again with a graph
that its rows' gradients are sent through. This works with any objective, tower and optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lookalike.errors import ConfigInvalid
from training.objectives.base import Embedded, Objective, Outcome, concat

Chunk = TypeVar("Chunk")


def cached_step(
    embed: Callable[[Chunk], Embedded],
    chunks: Sequence[Chunk],
    objective: Objective,
    memory: Embedded | None = None,
    gather: Callable[[Embedded], Embedded] | None = None,
) -> Outcome:
    """Run forward and backward pass over a batch in chunks (Gao, Zhang, Han and Callan 2021, GradCache).

    With the loss L over the embeddings e(1), ..., e(k) of k chunks and the towers' weights w:

        dL/dw = sum over chunks c of dL/de(c) * de(c)/dw

    The gradients added to `.grad`, also those of the objective's own parameters, equal those of the whole batch (to
    rounding) if a row's embedding depends on no other row of its chunk: see `require_rowwise`. Each chunk's random
    numbers (dropout) are the same in both passes. The cost is a second forward pass.

    Args:
        embed: one chunk of inputs -> its rows; called twice for each chunk; deterministic except for torch's random
            numbers.
        chunks: the batch's inputs, cut so that one fits into memory.
        objective: the loss to minimize.
        memory: older rows that join the references.
        gather: `training.distributed.gather` where a batch is spread over processes.

    Returns:
        The whole batch's loss, without a graph since its backward pass is done, and figures.

    Raises:
        ValueError: no chunks.
    """
    if not chunks:
        raise ValueError("a batch of no chunks has no loss")
    random_states, parts = [], []
    for chunk in chunks:
        random_states.append(_random_state())
        with torch.no_grad():
            parts.append(embed(chunk))
    batch = _leaves(concat(parts))
    outcome = objective(batch if gather is None else gather(batch), memory)
    outcome.loss.backward()
    _backward_chunks(embed, chunks, random_states, batch)
    return Outcome(outcome.loss.detach(), outcome.stats)


def require_rowwise(towers: nn.Module) -> None:
    """Check that no layer mixes the rows of a batch, which would change the result of a batch in chunks.

    Raises:
        ConfigInvalid: a batch normalization in training mode; the message names the layer.
    """
    for name, layer in towers.named_modules():
        if isinstance(layer, _BatchNorm) and layer.training:
            raise ConfigInvalid(
                f"cached gradients need layers that treat each image separately, but {name} normalizes over the "
                "batch: freeze its statistics (eval mode) or train without chunks"
            )


def _backward_chunks(
    embed: Callable[[Chunk], Embedded], chunks: Sequence[Chunk], random_states: list[_RandomState], batch: Embedded
) -> None:
    """Embed each chunk again, with a graph, and send the rows' gradients through it."""
    start = 0
    for chunk, state in zip(chunks, random_states, strict=True):
        _set_random_state(state)
        part = embed(chunk)
        rows = slice(start, start + len(part))
        pairs = [(part.images, _gradient_rows(batch.images, rows)), (part.texts, _gradient_rows(batch.texts, rows))]
        used = [(out, grad) for out, grad in pairs if out is not None and grad is not None and out.requires_grad]
        if used:
            torch.autograd.backward([out for out, _ in used], [grad for _, grad in used])
        start += len(part)


def _leaves(batch: Embedded) -> Embedded:
    """Return the same values as leaves that collect a gradient."""
    texts = None if batch.texts is None else batch.texts.detach().requires_grad_()
    return Embedded(batch.images.detach().requires_grad_(), batch.labels, texts)


def _gradient_rows(leaf: Tensor | None, rows: slice) -> Tensor | None:
    return None if leaf is None or leaf.grad is None else leaf.grad[rows]


_RandomState = tuple[Tensor, list[Tensor]]


def _random_state() -> _RandomState:
    """Return the states of the generators of the CPU and of every GPU in use."""
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if used else []


def _set_random_state(state: _RandomState) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
