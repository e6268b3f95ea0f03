"""A training run, from its configuration to an exported encoder.

The order: read the data, measure the base, run the loop with validations in between, and export the best weights,
unless the base is better. A run can be stopped at any time; the same command resumes at the last checkpoint.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from evaluation.evaluate import Evaluation, measure
from evaluation.options import Options
from lookalike.disk_errors import translated_disk_errors
from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.engines.selection import cuda_available, require_device
from lookalike.encoders.registry import load_encoder
from lookalike.errors import ConfigInvalid, SourceError
from training.bases.registry import load_base
from training.data.augment import make_augmentation
from training.data.batches import Batches, fit_batch_size
from training.data.dataset import TrainingData, load_data
from training.data.image_cache import digest_of
from training.data.views import Views
from training.distributed import Process, broadcast, process_group
from training.loop.guard import TrainingGuard, learning_rate_warning
from training.loop.training_loop import TrainingLoop
from training.network.batch_norm import reparametrize_batch_norm, trains_batch_norm
from training.network.frozen import run_frozen_stages
from training.network.new_head import initialize_head
from training.network.stages import freeze
from training.network.trainable import Trainable, require_compatible
from training.objectives import Objective, make_objective
from training.run.allocator import keep_freed_memory
from training.run.checkpoint import load_checkpoint, save_checkpoint, trim_metrics
from training.run.export import export_encoder, require_replaceable
from training.run.interrupt import DeferredInterrupt
from training.run.result import METRICS_FILE, TrainingResult, run_report, text_files
from training.run.run_log import RunLog
from training.run.work_folder import locked_work_folder, work_folder
from training.settings import Settings
from training.validation.live_encoder import LiveEncoder
from training.validation.promotion import SHARES, CandidateScore, interpolate, try_shares, within_chance
from training.validation.validator import Validator, measure_encoder

BEST_FILE = "best.safetensors"
_CHECKPOINT_SECONDS = 300.0
_MIN_ISOTONIC_IMAGES = 2000
"""Validation images, which give about as many pairs; with fewer, isotonic regression is too certain."""


def run_training(
    settings: Settings,
    out: Path,
    *,
    command: str,
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
) -> TrainingResult:
    """Train and export an encoder, or resume a stopped run.

    Args:
        settings: the configuration, with sources.
        out: the encoder's folder; the run keeps its work in `OUT.work` beside it.
        command: what the user typed, for the model card.
        device: `auto`, `cpu` or `cuda`.
        workers: processes that draw views; None for at most two.
        force: export also an encoder that is worse than the base.

    Raises:
        ConfigInvalid: the configuration contradicts itself, the base or the data.
        SourceError: the data can't be read, `out` holds something else, or another run uses its work folder.
        DiskFull: the disk is full; what was done is kept.
        EncoderError: the device is not available, or the base's weights are missing or invalid.
    """
    require_replaceable(out)
    require_device(device)
    keep_freed_memory()
    with process_group() as process, translated_disk_errors(out.parent), locked_work_folder(work_folder(out), process):
        run = _TrainingRun(settings, out, _device(device, process), workers, process)
        result = run.train(force)
        if result.promoted and process.first:
            run.export(result, command)
        return result


class _TrainingRun:
    """One run.

    Attributes:
        figures: validation figure by step; the start's is under "0".
        candidate: the model that is measured and exported; `loop` trains another copy.
    """

    def __init__(
        self, settings: Settings, out: Path, device: torch.device, workers: int | None, process: Process
    ) -> None:
        self.out, self.device, self.process = out, device, process
        self.workers = min(2, os.cpu_count() or 1) if workers is None else workers
        self.work = work_folder(out)
        self.started = time.monotonic()
        self.figures: dict[str, float] = {}
        self.base: CandidateScore | None = None
        self.shares: list[CandidateScore] = []
        torch.manual_seed(settings.seed)
        self.objective: Objective = make_objective(settings.objective.name, **settings.objective.options)
        model = load_base(settings.base, text=self.objective.needs == "captions")
        require_compatible(model, settings.augment)
        self.data: TrainingData = load_data(settings, model.preprocessing, self.objective.needs, self.work, process)
        self.settings, batch_warning = fit_batch_size(settings, len(self.data.pixels), self.data.labels)
        self.warnings = [*([batch_warning] if batch_warning else []), *_data_warnings(settings, self.data)]
        _require_equal_parts(self.settings.optimizer.batch_size, process.count)
        self._prepare(model)
        self.candidate = copy.deepcopy(model)
        if device.type == "cpu":
            run_frozen_stages(self.candidate, freeze(self.candidate, settings.base), half=False)
        self.start = _copy_weights(self.candidate) if settings.data.unseen else {}
        self.loop = TrainingLoop(model, self.objective, self._batches(model), self.settings, device, process)
        self.seen = Validator(self.data.seen, self.loop.autocast, device)
        self.unseen = Validator(self.data.unseen, self.loop.autocast, device) if self.data.unseen else None

    def train(self, force: bool) -> TrainingResult:
        """Run to the end, and compare the result with the base."""
        state = load_checkpoint(self.work, self._identity())
        if state is not None:
            self._restore(state)
        trim_metrics(self.work / METRICS_FILE, self.loop.step)
        files = self.work / METRICS_FILE, self.work / "tensorboard"
        with RunLog(*files, self.loop.step, self.loop.total, quiet=not self.process.first) as log:
            try:
                with DeferredInterrupt() as interrupt:
                    self._run_loop(log, interrupt, resumed=state is not None)
            except KeyboardInterrupt:
                self._save()
                raise
            return self._judge(log, force)

    def export(self, result: TrainingResult, command: str) -> None:
        """Write the encoder's folder."""
        evaluation = _evaluate(LiveEncoder(self.candidate, self.out.name, self.device), self.data)
        report = {
            **run_report(result, self.settings, self.data),
            "name": self.out.name,
            "by_step": self.figures,
            "shares": [asdict(score) for score in self.shares],
            "command": command,
            "evaluation": evaluation.metrics if evaluation else {},
        }
        export_encoder(
            self.out,
            self.candidate,
            self.candidate.modules().state_dict(),
            base=self.settings.base.encoder,
            extra=text_files(report, self.settings, self.work / METRICS_FILE),
            calibration=evaluation.calibration if evaluation else None,
            temperature=self.objective.text_temperature,
        )

    def _prepare(self, model: Trainable) -> None:
        """Adapt the base's weights to the training images, and put the modules on the device of every process."""
        if trains_batch_norm(self.settings):
            side = self.settings.augment.grow_from or model.preprocessing.size
            reparametrize_batch_norm(model.towers.image, self.data.pixels, side)
        if self.settings.base.head:
            initialize_head(model, self.data.pixels)
        for module in (model.modules(), self.objective, model.projector or nn.Identity()):
            module.to(self.device)
            broadcast(module)
        model.towers.image.to(memory_format=torch.channels_last)

    def _batches(self, model: Trainable) -> Batches:
        compares_views = self.objective.needs == "views"
        transform = make_augmentation(self.settings.augment, model.preprocessing.size)
        return Batches(
            Views(self.data.pixels, transform, 2 if compares_views else 1),
            self.data.labels if self.objective.needs == "labels" else None,
            self.data.captions,
            batch_size=self.settings.optimizer.batch_size,
            per_class=self.settings.sampling.per_class,
            seed=self.settings.seed,
            workers=self.workers,
            by_image=compares_views,
        )

    def _run_loop(self, log: RunLog, interrupt: DeferredInterrupt, *, resumed: bool) -> None:
        if not resumed:
            for text in [*self.warnings, *self._rate_warning()]:
                self._warn(log, 0, text)
        if "0" not in self.figures:
            self._validate(log)
        if self.base is None:
            self.base = self._measure_base()
            log.base(self.settings.base.encoder, self.data.seen.figure, self.base)
        guard = TrainingGuard(self.objective, self.loop.total)
        saved = time.monotonic()
        while self.loop.step < self.loop.total:
            for result in self.loop.run(self._next_validation()):
                log.step(result)
                for text in guard.check(result.loss, result.spread, result.stats):
                    self._warn(log, result.step, text)
                if not math.isfinite(result.loss):
                    return self._require_best(result.step)  # the weights can't recover
                interrupt.deliver()
                if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.monotonic()
            self._validate(log)
            self._save()
            saved = time.monotonic()

    def _require_best(self, step: int) -> None:
        """Check that there are weights from before the loss became infinite.

        Raises:
            ConfigInvalid: no validation took place before this step.
        """
        if max(map(int, self.figures)) == 0:
            raise ConfigInvalid(
                f"the loss was not finite any more at step {step:,}, before the first validation: "
                f"lower optimizer.learning_rate = {self.settings.optimizer.learning_rate:g}, or set "
                "optimizer.precision to fp32"
            )

    def _next_validation(self) -> int:
        """Return the step of the next validation."""
        interval = max(1, round(self.settings.evaluate_every * self.loop.total / self.settings.optimizer.epochs))
        return min(self.loop.total, (self.loop.step // interval + 1) * interval)

    def _validate(self, log: RunLog) -> None:
        """Measure the weights that would be exported now, and save them if they are the best so far."""
        weights = self.loop.weights()
        self.candidate.modules().load_state_dict(weights)
        self.candidate.projector = self.loop.model.projector
        size = self.settings.optimizer.batch_size
        figure, loss = self.seen.measure_with_loss(self.candidate, self.objective, size)
        best = max((value for step, value in self.figures.items() if step != "0"), default=float("-inf"))
        self.figures[str(self.loop.step)] = figure
        log.validation(self.loop.step, self.data.seen.figure, figure, loss)
        if self.process.first and self.loop.step and figure > best:
            tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in weights.items()}
            safetensors.torch.save_file(tensors, self.work / f"{BEST_FILE}.part")
            (self.work / f"{BEST_FILE}.part").replace(self.work / BEST_FILE)

    def _judge(self, log: RunLog, force: bool) -> TrainingResult:
        """Compare the best weights with the base, and load the selected weights into `candidate`."""
        base = self.base or self._measure_base()
        trained = CandidateScore(max(value for step, value in self.figures.items() if step != "0"))
        if self.process.first:
            best = self._load_best()
            if self.start:
                trained = self._select_share(log, best, base)
                best = interpolate(best, self.start, trained.share)
            self.candidate.modules().load_state_dict(best)
        if within_chance(base.seen, trained.seen, self.data.seen.count):
            self._warn(
                log,
                max(map(int, self.figures)),
                f"{base.seen:.4f} and {trained.seen:.4f} on {self.data.seen.count:,} held-out images differ by no "
                "more than chance; measure on more of them (data.holdout, --validation)",
            )
        return TrainingResult(
            out=str(self.out),
            promoted=force or trained.no_worse_than(base),
            figure=self.data.seen.figure,
            base=base,
            trained=trained,
            seconds=time.monotonic() - self.started,
            steps=max(map(int, self.figures)),
            warnings=tuple(self.warnings),
        )

    def _select_share(self, log: RunLog, best: dict[str, Tensor], base: CandidateScore) -> CandidateScore:
        log.print(f"measuring {', '.join(f'{share:.0%}' for share in SHARES)} of the trained weights ...")
        selected, self.shares = try_shares(best, self.start, base, self._measure)
        for score in self.shares:
            unseen = "" if score.unseen is None else f", unseen {score.unseen:.4f}"
            log.print(f"trained weights {score.share:.0%}: seen {score.seen:.4f}{unseen}")
        return selected

    def _load_best(self) -> dict[str, Tensor]:
        path = self.work / BEST_FILE
        try:
            return safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise SourceError(f"{path} can't be read ({error}); remove {self.work} to start over") from error

    def _measure_base(self) -> CandidateScore:
        """Measure the base encoder on the same images, at its own input size and in its own joint space.

        Where the trained encoder shares both, the base is the start itself, and is measured as the trained weights are.
        """
        base = self.settings.base
        if not base.head and not base.size:
            return self._measure(self.start, 0.0) if self.start else CandidateScore(self.figures["0"], None, 0.0)
        encoder = load_encoder(base.encoder, EngineOptions(self.device.type))
        captions = self.data.captions is not None
        seen = measure_encoder(encoder, self.data.seen.examples, captions=captions)
        if not self.data.unseen:
            return CandidateScore(seen, None, 0.0)
        return CandidateScore(seen, measure_encoder(encoder, self.data.unseen.examples, captions=captions), 0.0)

    def _measure(self, weights: dict[str, Tensor], share: float) -> CandidateScore:
        self.candidate.modules().load_state_dict(weights)
        seen = self.seen.measure(self.candidate)
        return CandidateScore(seen, self.unseen.measure(self.candidate) if self.unseen else None, share)

    def _identity(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with for the run to resume."""
        return {
            "settings": self.settings.model_dump(exclude={"data": {"train", "validation"}}),
            "data": digest_of([*self.data.examples, *self.data.validation_examples]),
            "ranks": self.process.count,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.figures, self.started = state["figures"], self.started - state["seconds"]
        base = state.get("base")  # older checkpoints have none: the base is measured again
        self.base = CandidateScore(**base) if base else None
        self.warnings = list(state["warnings"])
        try:
            self.loop.restore(state["loop"])
        except (RuntimeError, ValueError, KeyError) as error:  # what torch raises for the state of other modules
            raise ConfigInvalid(
                f"{self.work} holds a run of another base, such as an earlier edition of 'lite': remove it to start "
                "over, or use another --out"
            ) from error

    def _save(self) -> None:
        if self.process.first:
            state = {
                "settings": json.dumps(self._identity(), sort_keys=True),
                "loop": self.loop.state(),
                "figures": self.figures,
                "base": asdict(self.base) if self.base else None,
                "seconds": time.monotonic() - self.started,
                "warnings": self.warnings,
            }
            save_checkpoint(self.work, state)

    def _rate_warning(self) -> list[str]:
        rate, limit = self.settings.optimizer.learning_rate, self.loop.model.traits.max_learning_rate
        text = learning_rate_warning(rate, limit, self.settings.base.freeze)
        return [text] if text else []

    def _warn(self, log: RunLog, step: int, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
        log.warn(step, text)


def _data_warnings(settings: Settings, data: TrainingData) -> list[str]:
    warnings = []
    if data.rejected:
        warnings.append(
            f"{data.rejected:,} of {data.rejected + len(data.pixels):,} training images can't be "
            "read and are left out; `lookalike index` lists such images with the reason"
        )
    if settings.data.unseen and not data.unseen:
        warnings.append(
            f"data.unseen = {settings.data.unseen:g} needs at least four classes, and two images in at least two of "
            "the classes to hold out, which are the last by name: no class is held out whole, and at most half of the "
            "trained weights are taken nevertheless"
        )
    return warnings


def _require_equal_parts(batch_size: int, processes: int) -> None:
    if batch_size % processes:
        raise ConfigInvalid(
            f"a batch of {batch_size} can't be divided equally among {processes} processes; change "
            "optimizer.batch_size, or their number"
        )


def _evaluate(encoder: LiveEncoder, data: TrainingData) -> Evaluation | None:
    """Return the full evaluation; images without classes are paired by their views. None where they are too few."""
    examples = data.validation_examples
    try:
        views = not any(example.label for example in examples)
        few = len(examples) < _MIN_ISOTONIC_IMAGES
        return measure(encoder, examples, options=Options(views=views, calibration="platt" if few else "isotonic"))
    except SourceError:
        return None


def _copy_weights(model: Trainable) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.modules().state_dict().items()}


def _device(name: str, process: Process) -> torch.device:
    if name == "cuda" or (name == "auto" and cuda_available()):
        return torch.device("cuda", process.local_rank)
    return torch.device("cpu")
