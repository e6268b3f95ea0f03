"""A run from its configuration to an exported encoder: the order of the steps, and when a result is not promoted.

Data is read, the base is measured, the loop runs with looks at the held-out images in between, and what did best is
exported, unless the base was better. Stopped at any time, the same command goes on where the last checkpoint stands.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from evaluation.datasets import Example
from evaluation.evaluate import Evaluation, measure
from evaluation.options import Options
from lookalike.disk_errors import translated_disk_errors
from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.engines.selection import cuda_available, require_device
from lookalike.encoders.registry import load_encoder
from lookalike.errors import ConfigInvalid, SourceError
from training.data.augment import make_augmentation
from training.data.batches import Batches, fitting
from training.data.dataset import TrainingData, read_data
from training.data.image_cache import Views, digest_of
from training.distributed import Process, broadcast, process_group
from training.loop.guard import Watch, learning_rate_warning
from training.loop.loop import Loop
from training.loop.schedule import freeze
from training.network.batch_norm import norms_learn, restate_norms
from training.network.frozen import run_frozen_stages
from training.network.head import start_head
from training.network.model import Trainable, load_base, require_fitting
from training.objectives import Objective, make_objective
from training.run.allocator import keep_freed_memory
from training.run.checkpoint import load_checkpoint, save_checkpoint, trim_metrics
from training.run.export import export_encoder, require_free
from training.run.interrupt import HeldBack
from training.run.result import METRICS_FILE, Result, records, run_report
from training.run.telemetry import Telemetry
from training.run.work_folder import alone, work_folder
from training.settings import Settings
from training.validation.live_encoder import LiveEncoder
from training.validation.promotion import SHARES, Standing, mixed, try_shares, within_chance
from training.validation.validation import measure_encoder

_CHECKPOINT_SECONDS = 300.0
BEST = "best.safetensors"
_ISOTONIC_FROM = 2000
"""Held-out images, which give about as many pairs; with fewer, isotonic regression claims too much certainty."""


def run_training(
    settings: Settings,
    out: Path,
    *,
    command: str,
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
) -> Result:
    """Trains and exports, or resumes.

    Args:
        settings: the configuration, sources included.
        out: the encoder's folder; work is kept in `OUT.work` beside it.
        command: what the user typed, for the model card.
        device: `auto`, `cpu` or `cuda`; EncoderError where there is no such thing here.
        workers: processes that draw views; None for two at most.
        force: export even what is worse than the base.

    Raises:
        ConfigInvalid: the configuration does not fit itself, the base or the data.
        SourceError: the data can't be read, `out` holds something else, another run is at work there, or the disk is
            full; what was done is kept.
        EncoderError: the base's weights are missing or invalid.
    """
    require_free(out)
    require_device(device)
    keep_freed_memory()
    with process_group() as process, translated_disk_errors(out.parent), alone(work_folder(out), process):
        run = _Run(settings, out, _device(device, process), workers, process)
        result = run.train(force)
        if result.promoted and process.first:
            run.export(result, command)
        return result


class _Run:
    """One run; `figures` holds the held-out figure by step, the start's under "0"."""

    def __init__(
        self, settings: Settings, out: Path, device: torch.device, workers: int | None, process: Process
    ) -> None:
        self.out, self.device, self.process = out, device, process
        self.workers = min(2, os.cpu_count() or 1) if workers is None else workers
        self.work = work_folder(out)
        self.begun = time.monotonic()
        self.warnings: list[str] = []
        self.figures: dict[str, float] = {}
        self.base: Standing | None = None
        self.tried: list[Standing] = []
        torch.manual_seed(settings.seed)
        self.objective: Objective = make_objective(settings.objective.name, **settings.objective.options)
        model = load_base(settings.base, text=self.objective.needs == "captions")
        require_fitting(model, settings.augment)
        self.data: TrainingData = read_data(settings, model, self.objective.needs, self.work, process)
        self.settings, shrunk = fitting(settings, len(self.data.pixels), self.data.labels)
        self.warnings += [shrunk] if shrunk else []
        if self.data.rejected:
            self.warnings.append(
                f"{self.data.rejected:,} of {self.data.rejected + len(self.data.pixels):,} training images can't be "
                "read and are left out; `lookalike index` lists such images with the reason"
            )
        if settings.data.unseen and not self.data.unseen:
            self.warnings.append(
                f"data.unseen = {settings.data.unseen:g} wants four classes or more, some with two images: no class "
                "is held out whole, and half of the weights at most is the trained ones' all the same"
            )
        if self.settings.optimizer.batch_size % process.count:
            raise ConfigInvalid(
                f"a batch of {self.settings.optimizer.batch_size} can't be shared alike by {process.count} processes; "
                "change optimizer.batch_size, or their number"
            )
        if norms_learn(settings):
            side = settings.augment.grow_from or model.preprocessing.size
            restate_norms(model.towers.image, self.data.pixels, side)
        if settings.base.head:
            start_head(model, self.data.pixels)
        for module in (model.modules(), self.objective, model.projector or nn.Identity()):
            module.to(device)
            broadcast(module)
        model.towers.image.to(memory_format=torch.channels_last)
        self.shown = copy.deepcopy(model)  # what is measured and exported, while `loop` trains on
        if device.type == "cpu":
            run_frozen_stages(self.shown.towers.image, freeze(self.shown, settings.base), half=False)
        self.start = _copied(self.shown) if settings.data.unseen else {}
        self.loop = Loop(model, self.objective, self._batches(model), self.settings, device, process)

    def train(self, force: bool) -> Result:
        """Runs to the end and judges the result."""
        state = load_checkpoint(self.work, self._identity())
        if state is not None:
            self.figures, self.begun = state["figures"], self.begun - state["seconds"]
            before = state.get("base")  # checkpoints of earlier versions have none: it is measured again
            self.base = Standing(**before) if before else None
            self.warnings = list(state["warnings"])
            self.loop.restore(state["loop"])
        trim_metrics(self.work / METRICS_FILE, self.loop.step)
        files = self.work / METRICS_FILE, self.work / "tensorboard"
        with Telemetry(*files, self.loop.step, self.loop.total, quiet=not self.process.first) as telemetry:
            try:
                with HeldBack() as signals:
                    self._steps(telemetry, signals, fresh=state is None)
            except KeyboardInterrupt:
                self._save()
                raise
            return self._judge(telemetry, force)

    def export(self, result: Result, command: str) -> None:
        """Writes the encoder's folder."""
        encoder = LiveEncoder(self.shown, self.out.name, self.device)
        found = _measured(encoder, self.data.held_out)
        report = {
            **run_report(result, self.settings, self.data),
            "name": self.out.name,
            "by_step": self.figures,
            "shares": [asdict(standing) for standing in self.tried],
            "command": command,
            "evaluation": found.metrics if found else {},
        }
        extra = records(report, self.settings, self.work / METRICS_FILE)
        base, calibration = self.settings.base.encoder, found.calibration if found else None
        weights = self.shown.modules().state_dict()
        export_encoder(self.out, self.shown, weights, base=base, extra=extra, calibration=calibration)

    def _steps(self, telemetry: Telemetry, signals: HeldBack, *, fresh: bool) -> None:
        if fresh:
            for text in [*self.warnings, *self._rate_warning()]:
                self._warn(telemetry, 0, text)
        if "0" not in self.figures:
            self._look(telemetry)
        if self.base is None:
            self.base = self._base()
            telemetry.base(self.settings.base.encoder, self.data.seen.figure, self.base)
        watch = Watch(self.objective, self.loop.total)
        saved = time.monotonic()
        while self.loop.step < self.loop.total:
            for step in self.loop.run(self._next_look()):
                telemetry.step(step)
                for text in watch.look(step.loss, step.spread, step.stats):
                    self._warn(telemetry, step.step, text)
                if not math.isfinite(step.loss):
                    return self._require_best(step.step)  # no weights come back from there
                signals.deliver()
                if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.monotonic()
            self._look(telemetry)
            self._save()
            saved = time.monotonic()

    def _require_best(self, step: int) -> None:
        """Weights from before the loss became infinite may be good; where there are none, the run has failed."""
        if max(map(int, self.figures)) == 0:
            raise ConfigInvalid(
                f"the loss was not finite any more at step {step:,}, before the first look at held-out images: "
                f"lower optimizer.learning_rate = {self.settings.optimizer.learning_rate:g}, or set "
                "optimizer.precision to fp32"
            )

    def _next_look(self) -> int:
        every = max(1, round(self.settings.evaluate_every * self.loop.total / self.settings.optimizer.epochs))
        return min(self.loop.total, (self.loop.step // every + 1) * every)

    def _look(self, telemetry: Telemetry) -> None:
        """Measures what would be exported now, and keeps it where it is the best so far."""
        weights = self.loop.weights()
        self.shown.modules().load_state_dict(weights)
        self.shown.projector = self.loop.model.projector
        size = self.settings.optimizer.batch_size
        value, loss = self.data.seen.look(self.shown, self.loop.autocast, self.device, self.objective, size)
        best = max((v for step, v in self.figures.items() if step != "0"), default=float("-inf"))
        self.figures[str(self.loop.step)] = value
        telemetry.validation(self.loop.step, self.data.seen.figure, value, loss)
        if self.process.first and self.loop.step and value > best:
            tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in weights.items()}
            safetensors.torch.save_file(tensors, self.work / f"{BEST}.part")
            (self.work / f"{BEST}.part").replace(self.work / BEST)

    def _judge(self, telemetry: Telemetry, force: bool) -> Result:
        """The base's and the best weights' standing; `shown` holds the chosen weights afterwards."""
        base = self.base or self._base()
        trained = Standing(max(value for step, value in self.figures.items() if step != "0"))
        if self.process.first:
            best = self._load_best()
            if self.start:
                telemetry.say(f"measuring {', '.join(f'{share:.0%}' for share in SHARES)} of the trained weights ...")
                trained, self.tried = try_shares(best, self.start, base, self._measure)
                for each in self.tried:
                    unseen = "" if each.unseen is None else f", unseen {each.unseen:.4f}"
                    telemetry.say(f"trained weights {each.share:.0%}: seen {each.seen:.4f}{unseen}")
                best = mixed(best, self.start, trained.share)
            self.shown.modules().load_state_dict(best)
        if within_chance(base.seen, trained.seen, self.data.seen.count):
            self._warn(
                telemetry,
                max(map(int, self.figures)),
                f"{base.seen:.4f} and {trained.seen:.4f} on {self.data.seen.count:,} held-out images differ by no "
                "more than chance does; more of them (data.holdout, --validation) would tell",
            )
        promoted = force or trained.holds_against(base)
        seconds, steps = time.monotonic() - self.begun, max(map(int, self.figures))
        figure = self.data.seen.figure
        return Result(str(self.out), promoted, figure, base, trained, seconds, steps, tuple(self.warnings))

    def _load_best(self) -> dict[str, Tensor]:
        path = self.work / BEST
        try:
            return safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise SourceError(f"{path} can't be read ({error}); remove {self.work} to start over") from error

    def _base(self) -> Standing:
        """The base encoder on the same images, at its own input size and in its own space.

        Where the trained one shares both, it is the start itself, measured as the trained weights will be.
        """
        base = self.settings.base
        if not base.head and not base.size:
            return self._measure(self.start, 0.0) if self.start else Standing(self.figures["0"], None, 0.0)
        encoder = load_encoder(base.encoder, EngineOptions(self.device.type))
        captions = self.data.captions is not None
        seen = measure_encoder(encoder, self.data.seen_examples, captions=captions)
        if not self.data.unseen:
            return Standing(seen, None, 0.0)
        return Standing(seen, measure_encoder(encoder, self.data.unseen_examples, captions=captions), 0.0)

    def _measure(self, weights: dict[str, Tensor], share: float) -> Standing:
        self.shown.modules().load_state_dict(weights)
        seen = self.data.seen.measure(self.shown, self.loop.autocast, self.device)
        if not self.data.unseen:
            return Standing(seen, None, share)
        return Standing(seen, self.data.unseen.measure(self.shown, self.loop.autocast, self.device), share)

    def _batches(self, model: Trainable) -> Batches:
        pairs = self.objective.needs == "views"
        transform = make_augmentation(self.settings.augment, model.preprocessing.size)
        return Batches(
            Views(self.data.pixels, transform, 2 if pairs else 1),
            self.data.labels if self.objective.needs == "labels" else None,
            self.data.captions,
            batch_size=self.settings.optimizer.batch_size,
            per_class=self.settings.sampling.per_class,
            seed=self.settings.seed,
            workers=self.workers,
            by_image=pairs,
        )

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        return {
            "settings": self.settings.model_dump(exclude={"data": {"train", "validation"}}),
            "data": digest_of([*self.data.examples, *self.data.held_out]),
            "ranks": self.process.count,
        }

    def _save(self) -> None:
        if self.process.first:
            state = {
                "settings": json.dumps(self._identity(), sort_keys=True),
                "loop": self.loop.state(),
                "figures": self.figures,
                "base": asdict(self.base) if self.base else None,
                "seconds": time.monotonic() - self.begun,
                "warnings": self.warnings,
            }
            save_checkpoint(self.work, state)

    def _rate_warning(self) -> list[str]:
        base, settings = self.settings.base, self.settings.optimizer
        text = learning_rate_warning(self.loop.model.architecture.family, settings.learning_rate, base.freeze)
        return [text] if text else []

    def _warn(self, telemetry: Telemetry, step: int, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
        telemetry.warn(step, text)


def _measured(encoder: LiveEncoder, examples: Sequence[Example]) -> Evaluation | None:
    """The full evaluation; images without classes are paired by their views. None where they are too few for that."""
    try:
        views = not any(example.label for example in examples)
        few = len(examples) < _ISOTONIC_FROM
        return measure(encoder, examples, options=Options(views=views, calibration="platt" if few else "isotonic"))
    except SourceError:
        return None


def _copied(model: Trainable) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.modules().state_dict().items()}


def _device(wanted: str, process: Process) -> torch.device:
    if wanted == "cuda" or (wanted == "auto" and cuda_available()):
        return torch.device("cuda", process.local_rank)
    return torch.device("cpu")
