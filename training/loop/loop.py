"""The training loop: batches in, better weights out; the order of a step, and what stops a run without losing it.

It knows objectives, schedules and checkpoints by their names; where images come from and what an encoder's folder
looks like are others'. Dimension letters: b images of a batch, v views of each, d joint width.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.data.batches import Batch, Batches
from training.distributed import Process, average_gradients, gather
from training.loop.cross_batch_memory import CrossBatchMemory
from training.loop.gradcache import cached_step
from training.loop.guard import spread
from training.loop.precision import computes_in_bf16
from training.loop.schedule import freeze, make_optimizer, set_rate, side_at
from training.network.batch_norm import norms_learn
from training.network.depthwise import DepthwiseGradients
from training.network.frozen import run_frozen_stages
from training.network.memory_passes import spare_passes
from training.network.model import Trainable
from training.objectives import Embedded, Objective, Outcome
from training.settings import Settings
from training.validation.validation import tokenized


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did.

    Attributes:
        step: counted from 1.
        total: of the whole run.
        epoch: how far through the data, in passes.
        loss: of the whole batch.
        learning_rate: of the network's last stage.
        spread: see `training.loop.guard.spread`.
        gradient_norm: before it was clipped.
        images_per_second: of this step, all processes together.
        stats: the objective's own figures.
    """

    step: int
    total: int
    epoch: float
    loss: float
    learning_rate: float
    spread: float
    gradient_norm: float
    images_per_second: float
    stats: dict[str, float] = field(default_factory=dict)


class Loop:
    """A run in progress.

    Args:
        model: the towers; trained in place.
        objective: what to minimise.
        batches: where batches come from.
        settings: the configuration.
        device: where the towers are.
        process: which of the processes that train together this is.
    """

    def __init__(
        self,
        model: Trainable,
        objective: Objective,
        batches: Batches,
        settings: Settings,
        device: torch.device,
        process: Process,
    ) -> None:
        self.model, self.objective, self.settings = model, objective, settings
        self._batches, self._device, self._process = batches, device, process
        self._modules = model.modules()
        mixed = settings.optimizer.wise < 1
        self._start = {name: value.clone() for name, value in self._modules.state_dict().items()} if mixed else {}
        self._still = freeze(model, settings.base)
        if not norms_learn(settings):
            self._still += [module for module in self._modules.modules() if isinstance(module, _BatchNorm)]
        spare_passes(model.towers.image)
        on_cpu = device.type == "cpu"
        self._prefixed = on_cpu and run_frozen_stages(model.towers.image, self._still, half=self._half()) > 0
        self._optimizer = make_optimizer(model, objective, settings.base, settings.optimizer)
        self._average = self._moving_average()
        self._memory = self._cross_batch_memory()
        self.step = 0
        self.total = max(1, round(settings.optimizer.epochs * batches.steps_per_epoch))

    def run(self, until: int) -> Iterator[Step]:
        """Steps up to the given one; each is done by the time it is yielded."""
        while self.step < until:
            epoch, first = divmod(self.step, self._batches.steps_per_epoch)
            for batch in self._batches.epoch(epoch, first, self._process.rank, self._process.count):
                yield self._advance(batch)
                if self.step >= until:
                    return

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The towers' precision."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half()), DepthwiseGradients():
            yield

    def _half(self) -> bool:
        return computes_in_bf16(self.settings.optimizer.precision, self._device.type)

    def weights(self) -> dict[str, Tensor]:
        """What would be exported now: moving average or weights, mixed with the start's as `wise` says; copies."""
        source = self._modules if self._average is None else self._average.module
        share = self.settings.optimizer.wise
        now = {name: value.detach().clone() for name, value in source.state_dict().items()}
        if share == 1:
            return now
        floats = (name for name, value in now.items() if value.is_floating_point())
        return now | {name: share * now[name] + (1 - share) * self._start[name] for name in floats}

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "step": self.step,
            "modules": self._modules.state_dict(),
            "projector": None if self.model.projector is None else self.model.projector.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "memory": None if self._memory is None else self._memory.state_dict(),
            "random": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self._modules.load_state_dict(state["modules"])
        self.objective.load_state_dict(state["objective"])
        if self.model.projector is not None:
            self.model.projector.load_state_dict(state["projector"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        if self._memory is not None:
            self._memory.load_state_dict(state["memory"])
        torch.set_rng_state(state["random"])
        self.step = int(state["step"])

    def _advance(self, batch: Batch) -> Step:
        begun = time.perf_counter()
        self._modules.train()
        for module in self._still:
            module.eval()
        settings = self.settings.optimizer
        factor = set_rate(self._optimizer, self.step, self.total, settings.warmup)
        self._optimizer.zero_grad()
        outcome, embedded = self._backward(batch)
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, settings.clip_norm or float("inf"))
        self._optimizer.step()
        self.step += 1
        if self._average is not None:
            self._average.update_parameters(self._modules)
        if self._memory is not None:
            self._memory.add(embedded)
        return Step(
            step=self.step,
            total=self.total,
            epoch=self.step / self._batches.steps_per_epoch,
            loss=float(outcome.loss.detach()),
            learning_rate=settings.learning_rate * factor,
            spread=spread(embedded.images),
            gradient_norm=float(norm),
            images_per_second=len(batch.pixels) * self._process.count / (time.perf_counter() - begun),
            stats=outcome.stats,
        )

    def _backward(self, batch: Batch) -> tuple[Outcome, Embedded]:
        """Forward and backward pass, whole or in chunks; the rows are detached."""
        settings = self.settings.optimizer
        rising = self.step < settings.warmup * self.total  # old rows are stale while the weights change fastest
        memory = None if self._memory is None or rising else self._memory.contents()
        seen: list[Embedded] = []

        def gathered(rows: Embedded) -> Embedded:
            everything = gather(rows)
            seen.append(everything.detached())
            return everything

        if settings.chunk:
            outcome = cached_step(self._embed, _cut(batch, settings.chunk), self.objective, memory, gathered)
        else:
            outcome = self.objective(gathered(self._embed(batch)), memory)
            outcome.loss.backward()
        return outcome, seen[0]

    def _embed(self, batch: Batch) -> Embedded:
        pixels = self._sized(batch.pixels.to(self._device, non_blocking=True))
        if not self._prefixed:  # what runs frozen stages takes images as they come
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            images = self.model.compare_images(pixels)
            texts = None
            if batch.texts is not None:
                texts = self.model.encode_texts(tokenized(self.model, batch.texts, self._device))
        labels = None if batch.labels is None else batch.labels.to(self._device)
        return Embedded(images, labels, texts)

    def _sized(self, pixels: Tensor) -> Tensor:
        """Images at the side that this step trains at."""
        side = side_at(self.step, self.total, self.settings.augment.grow_from, self.model.preprocessing.size)
        if side == pixels.shape[-1]:
            return pixels
        return nn.functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)

    def _moving_average(self) -> AveragedModel | None:
        decay = self.settings.optimizer.ema
        if not decay:
            return None
        mean = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        return AveragedModel(self._modules, multi_avg_fn=mean, use_buffers=True)

    def _cross_batch_memory(self) -> CrossBatchMemory | None:
        size = self.settings.optimizer.memory
        if not size:
            return None
        texts = self.objective.needs == "captions"
        width = self.settings.base.projection or self.model.dim
        return CrossBatchMemory(size, width, labels=not texts, texts=texts).to(self._device)


def _cut(batch: Batch, size: int) -> list[Batch]:
    """A batch -> batches of at most `size` rows."""
    pieces = []
    for start in range(0, len(batch.pixels), size):
        rows = slice(start, start + size)
        labels = None if batch.labels is None else batch.labels[rows]
        pieces.append(Batch(batch.pixels[rows], labels, None if batch.texts is None else batch.texts[rows]))
    return pieces
