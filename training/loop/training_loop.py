"""The training loop: the order of a step, and the state that a checkpoint saves.

It is independent of where images come from and of how an encoder is exported. Dimension letters: b images of a batch,
v views of each, d joint width.
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
from training.loop.optimizer import input_side, make_optimizer, set_learning_rate
from training.loop.precision import uses_bf16
from training.network.batch_norm import trains_batch_norm
from training.network.depthwise import DepthwiseGradients
from training.network.frozen import run_frozen_stages
from training.network.memory_passes import reduce_memory_passes
from training.network.stages import freeze
from training.network.trainable import Trainable
from training.objectives import Embedded, Objective, Outcome
from training.settings import Settings


@dataclass(frozen=True, slots=True)
class StepResult:
    """The figures of one step.

    Attributes:
        step: counted from 1.
        total: of the whole run.
        epoch: passes over the data so far, with fraction.
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


class TrainingLoop:
    """A run in progress.

    Args:
        model: the towers; trained in place.
        objective: the loss to minimize.
        batches: of the training images.
        settings: the configuration.
        device: where the towers are.
        process: this one of the processes that train together.
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
        self._start: dict[str, Tensor] = {}
        if settings.optimizer.wise < 1:
            self._start = {name: value.clone() for name, value in self._modules.state_dict().items()}
        self._eval_modules = freeze(model, settings.base)
        if not trains_batch_norm(settings):
            self._eval_modules += [module for module in self._modules.modules() if isinstance(module, _BatchNorm)]
        reduce_memory_passes(model.towers.image)
        self._runs_frozen_stages = (
            device.type == "cpu" and run_frozen_stages(model, self._eval_modules, half=self._uses_bf16()) > 0
        )
        self._optimizer = make_optimizer(model, objective, settings.base, settings.optimizer)
        self._average = self._moving_average()
        self._memory = self._cross_batch_memory()
        self.step = 0
        self.total = max(1, round(settings.optimizer.epochs * batches.steps_per_epoch))

    def run(self, until: int) -> Iterator[StepResult]:
        """Take the steps up to number `until`, and yield the result of each."""
        while self.step < until:
            epoch, first = divmod(self.step, self._batches.steps_per_epoch)
            for batch in self._batches.epoch(epoch, first, self._process.rank, self._process.count):
                yield self._advance(batch)
                if self.step >= until:
                    return

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Enter the precision that the towers compute in."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._uses_bf16()), DepthwiseGradients():
            yield

    def _uses_bf16(self) -> bool:
        return uses_bf16(self.settings.optimizer.precision, self._device.type)

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the weights to export: moving average or current, interpolated with the start by `wise`."""
        source = self._modules if self._average is None else self._average.module
        share = self.settings.optimizer.wise
        current = {name: value.detach().clone() for name, value in source.state_dict().items()}
        if share == 1:
            return current
        floats = (name for name, value in current.items() if value.is_floating_point())
        return current | {name: share * current[name] + (1 - share) * self._start[name] for name in floats}

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs."""
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
        """Continue from a state that `state` returned."""
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

    def _advance(self, batch: Batch) -> StepResult:
        started = time.perf_counter()
        self._modules.train()
        for module in self._eval_modules:
            module.eval()
        settings = self.settings.optimizer
        factor = set_learning_rate(self._optimizer, self.step, self.total, settings.warmup)
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
        return StepResult(
            step=self.step,
            total=self.total,
            epoch=self.step / self._batches.steps_per_epoch,
            loss=float(outcome.loss.detach()),
            learning_rate=settings.learning_rate * factor,
            spread=spread(embedded.images),
            gradient_norm=float(norm),
            images_per_second=len(batch.pixels) * self._process.count / (time.perf_counter() - started),
            stats=outcome.stats,
        )

    def _backward(self, batch: Batch) -> tuple[Outcome, Embedded]:
        """Run forward and backward pass, whole or in chunks; return the outcome and the detached rows."""
        settings = self.settings.optimizer
        warming_up = self.step < settings.warmup * self.total  # old rows are stale while the weights change fastest
        memory = None if self._memory is None or warming_up else self._memory.contents()
        gathered: list[Embedded] = []

        def gather_rows(rows: Embedded) -> Embedded:
            all_rows = gather(rows)
            gathered.append(all_rows.detached())
            return all_rows

        if settings.chunk:
            outcome = cached_step(self._embed, batch.split(settings.chunk), self.objective, memory, gather_rows)
        else:
            outcome = self.objective(gather_rows(self._embed(batch)), memory)
            outcome.loss.backward()
        return outcome, gathered[0]

    def _embed(self, batch: Batch) -> Embedded:
        pixels = self._resize(batch.pixels.to(self._device, non_blocking=True))
        if not self._runs_frozen_stages:  # OpenVINO takes images in any memory format
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            images = self.model.project_images(pixels)
            texts = None
            if batch.texts is not None:
                texts = self.model.encode_texts(self.model.tokenize(batch.texts, self._device))
        labels = None if batch.labels is None else batch.labels.to(self._device)
        return Embedded(images, labels, texts)

    def _resize(self, pixels: Tensor) -> Tensor:
        """Return the images at the input side of this step."""
        side = input_side(self.step, self.total, self.settings.augment.grow_from, self.model.preprocessing.size)
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
