"""A process of test_distributed.py: `torchrun ... training_process.py FOLDER` writes its results to the folder.

Results are, for every objective with and without cached gradients, the loss and the averaged gradients.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from training.distributed import average_gradients, broadcast, gather, process_group
from training.loop.gradcache import cached_step
from training.objectives import Embedded, make_objective, objective_names

ROWS = 24


def towers(seed=0):
    torch.manual_seed(seed)
    return nn.ModuleList([nn.Linear(10, 6), nn.Linear(7, 6)])


def inputs(name):
    """Return images, texts and labels of the whole batch; rows of one label are in different halves."""
    generator = torch.Generator().manual_seed(1)
    images, texts = torch.randn(ROWS, 10, generator=generator), torch.randn(ROWS, 7, generator=generator)
    return images, texts, torch.arange(ROWS) % (ROWS // 2 if name == "simclr" else 5)


def embed(model, chunk):
    images, texts, labels = chunk
    return Embedded(F.normalize(model[0](images), dim=1), labels, F.normalize(model[1](texts), dim=1))


def gradients(*modules):
    return [p.grad.clone() for module in modules for p in module.parameters() if p.grad is not None]


def compute(name, process, cached):
    """Compute this process's share of a step; return loss and averaged gradients."""
    model, objective = towers(seed=process.rank), make_objective(name)  # other weights, until they are broadcast
    broadcast(model)
    own = tuple(part.chunk(process.count)[process.rank] for part in inputs(name))
    if cached:
        chunks = list(zip(*(part.split(5) for part in own), strict=True))
        loss = cached_step(lambda chunk: embed(model, chunk), chunks, objective, gather=gather).loss
    else:
        loss = objective(gather(embed(model, own))).loss
        loss.backward()
    average_gradients([*model.parameters(), *objective.parameters()])
    return loss.item(), gradients(model, objective)


def row_count_error(process):
    """Return the error of `gather` for different numbers of rows."""
    try:
        gather(Embedded(torch.eye(3)[: 2 + process.rank]))
    except ValueError as error:
        return str(error)
    return "no error"


def one_sided(process):
    """Return averaged gradients of two parameters: one has a gradient in the first process only, one has none."""
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    if process.first:
        first.grad = torch.tensor([1.0, 3.0])
    average_gradients([first, second])
    return first.grad, second.grad


def main():
    with process_group("gloo") as process:
        results = {
            f"{name} {cached}": compute(name, process, cached) for name in objective_names() for cached in (0, 1)
        }
        results["one-sided"] = one_sided(process)
        results["row count error"] = row_count_error(process)
        torch.save(results, Path(sys.argv[1]) / f"{process.rank}.pt")


if __name__ == "__main__":
    main()
