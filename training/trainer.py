"""A run from its configuration to an exported encoder: the order of the steps, and when a result is not promoted.

Data is read, the base is measured, the loop runs with looks at the held-out pictures in between, and what did best is
exported, unless the base was better. Stopped at any time, the same command goes on where the last checkpoint stands.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from evaluation.datasets import Example, read_examples
from evaluation.evaluate import Evaluation, measure
from retrieval.encoders.preprocessing import Preprocessing
from retrieval.errors import SourceError
from retrieval.types import Int64, UInt8
from training.augment import cached_side, make_augmentation
from training.batches import Batches
from training.checkpoint import load_checkpoint, save_checkpoint, trim_metrics
from training.distributed import Process, broadcast, process_group
from training.export import (
    CARD_FILE,
    CONFIG_FILE,
    METRICS_FILE,
    REPORT_FILE,
    as_json,
    export_encoder,
    model_card,
    require_free,
)
from training.guard import Watch, learning_rate_warning
from training.live import LiveEncoder
from training.loop import Loop
from training.model import Trainable, load_base, start_head
from training.objectives import Objective, make_objective
from training.pictures import Views, cache_pictures
from training.settings import Settings
from training.telemetry import Telemetry
from training.validation import Validation, label_rows, prepare_validation

_HEAD_SAMPLE = 2048
_CHECKPOINT_SECONDS = 300.0
BEST = "best.safetensors"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run.

    Attributes:
        out: the encoder's folder.
        promoted: whether it was written; False where the base is better.
        figure: what was measured on held-out pictures.
        before: of the base.
        after: of the best weights.
        seconds: of the whole run, earlier parts of a resumed one included.
        steps: taken.
        warnings: said on the way.
    """

    out: str
    promoted: bool
    figure: str
    before: float
    after: float
    seconds: float
    steps: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Data:
    """What is trained on, and what is looked at in between."""

    examples: list[Example]
    held_out: list[Example]
    pixels: UInt8
    labels: Int64 | None
    captions: list[tuple[str, ...]] | None
    validation: Validation


def run_training(
    settings: Settings,
    out: Path,
    *,
    config: str,
    command: str,
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
) -> Result:
    """Trains and exports, or resumes.

    Args:
        settings: the configuration, sources included.
        out: the encoder's folder; work is kept in `OUT.work` beside it.
        config: the configuration's text, for the export.
        command: what the user typed, for the model card.
        device: `auto`, `cpu` or `cuda`.
        workers: processes that draw views; None for two at most.
        force: export even what is worse than the base.

    Raises:
        ConfigInvalid: the configuration does not fit itself, the base or the data.
        SourceError: the data can't be read, or `out` holds something else.
        EncoderError: the base's weights are missing or invalid.
    """
    require_free(out)
    with process_group() as process:
        return _Run(settings, out, config, command, _device(device, process), workers, process).go(force)


class _Run:
    def __init__(
        self,
        settings: Settings,
        out: Path,
        config: str,
        command: str,
        device: torch.device,
        workers: int | None,
        process: Process,
    ) -> None:
        self.settings, self.out, self.config, self.command = settings, out, config, command
        self.device, self.process = device, process
        self.workers = min(2, os.cpu_count() or 1) if workers is None else workers
        self.work = out.with_name(f"{out.name}.work")
        self.warnings: list[str] = []
        self.begun = time.monotonic()

    def go(self, force: bool) -> Result:
        """See `run_training`."""
        torch.manual_seed(self.settings.seed)
        objective = make_objective(self.settings.objective.name, **self.settings.objective.options)
        model = load_base(self.settings.base, text=objective.needs == "captions")
        self.work.mkdir(parents=True, exist_ok=True)
        data = self._read(model, objective)
        if self.settings.base.head:
            self._start_head(model, data.pixels)
        for module in (model.modules(), objective, model.projector or nn.Identity()):
            module.to(self.device)
            broadcast(module)
        model.towers.image.to(memory_format=torch.channels_last)
        loop = Loop(model, objective, self._batches(data, model, objective), self.settings, self.device, self.process)
        shown = copy.deepcopy(model)
        best = self._train(loop, shown, data, objective)
        return self._finish(shown, data, best, objective, force)

    def _read(self, model: Trainable, objective: Objective) -> _Data:
        table = self.settings.data
        if not table.train:
            raise SourceError("no training data: name it with --data, or in the configuration as [data] train = [...]")
        column = table.label_column or None
        examples = read_examples(table.train, label_column=column)
        held_out = read_examples(table.validation, label_column=column) if table.validation else []
        if not held_out:
            examples, held_out = split(examples, table.holdout, self.settings.seed)
        examples = _chosen(examples, table.classes, table.limit)
        captions = objective.needs == "captions"
        if captions:
            examples = [example for example in examples if example.captions]
        if not examples:
            raise SourceError(f"{', '.join(table.train)}: no picture that this configuration can train on")
        side = cached_side(self.settings.augment, model.preprocessing.size)
        preprocessing = _of_side(model, side)
        with _bar(len(examples) + len(held_out), self.process) as bar:
            if not self.process.first:  # the first process decodes for all of them
                dist.barrier()
            pixels, kept = cache_pictures(examples, preprocessing, self.work / "pictures", bar.update)
            validation = prepare_validation(held_out, model, self.work / "validation", bar.update, captions=captions)
        if self.process.first and self.process.count > 1:
            dist.barrier()
        read = [examples[row] for row in kept]
        labels = label_rows(read)
        if objective.needs == "labels" and labels is None:
            raise SourceError(
                f"the objective {self.settings.objective.name} needs a class for every picture: a folder of class "
                "folders, or a column (data.label_column)"
            )
        return _Data(read, held_out, pixels, labels, [e.captions for e in read] if captions else None, validation)

    def _start_head(self, model: Trainable, pixels: UInt8) -> None:
        """The new head starts as the principal axes of what the network says of some training pictures."""
        head, network = model.towers.image.head, model.towers.image.network
        assert isinstance(head, nn.Linear)
        assert isinstance(network, nn.Module)
        rows = np.linspace(0, len(pixels) - 1, min(_HEAD_SAMPLE, len(pixels))).astype(int)
        side = model.preprocessing.size
        network.eval()
        parts = []
        with torch.inference_mode():
            for chunk in np.array_split(rows, max(1, len(rows) // 64)):
                batch = torch.from_numpy(np.array(pixels[chunk]))
                parts.append(network(nn.functional.interpolate(batch, (side, side), mode="bilinear", antialias=True)))
        start_head(head, torch.cat(parts))

    def _batches(self, data: _Data, model: Trainable, objective: Objective) -> Batches:
        pairs = objective.needs == "views"
        transform = make_augmentation(self.settings.augment, model.preprocessing.size)
        return Batches(
            Views(data.pixels, transform, 2 if pairs else 1),
            data.labels if objective.needs == "labels" else None,
            data.captions,
            batch_size=self.settings.optimizer.batch_size,
            per_class=self.settings.sampling.per_class,
            seed=self.settings.seed,
            workers=self.workers,
            by_picture=pairs,
        )

    def _identity(self, data: _Data) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        return {
            "settings": self.settings.model_dump(exclude={"data": {"train", "validation"}}),
            "pictures": len(data.pixels),
            "ranks": self.process.count,
        }

    def _train(self, loop: Loop, shown: Trainable, data: _Data, objective: Objective) -> dict[str, float]:
        """Runs to the end; returns the figures by step, the base's under 0."""
        state = load_checkpoint(self.work, self._identity(data))
        figures: dict[str, float] = {}
        if state is not None:
            figures, self.begun = state["figures"], self.begun - state["seconds"]
            self.warnings = list(state["warnings"])
            loop.restore(state["loop"])
        trim_metrics(self.work / METRICS_FILE, loop.step)
        quiet = not self.process.first
        metrics, board = self.work / METRICS_FILE, self.work / "tensorboard"
        with Telemetry(metrics, board, loop.step, loop.total, quiet=quiet) as telemetry:
            if state is None:
                self._warn_of_rate(loop, telemetry)
            if "0" not in figures:
                self._look(loop, shown, data, figures, telemetry)
            watch = _watch(objective)
            saved = time.monotonic()
            try:
                while loop.step < loop.total:
                    for step in loop.run(self._next_look(loop)):
                        telemetry.step(step)
                        for text in watch.look(step.loss, step.spread, step.stats):
                            self._warn(telemetry, step.step, text)
                        if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                            self._save(loop, data, figures)
                            saved = time.monotonic()
                    self._look(loop, shown, data, figures, telemetry)
                    self._save(loop, data, figures)
                    saved = time.monotonic()
            except KeyboardInterrupt:
                self._save(loop, data, figures)
                raise
        return figures

    def _next_look(self, loop: Loop) -> int:
        every = max(1, round(self.settings.evaluate_every * loop.total / self.settings.optimizer.epochs))
        return min(loop.total, (loop.step // every + 1) * every)

    def _look(self, loop: Loop, shown: Trainable, data: _Data, figures: dict[str, float], telemetry: Telemetry) -> None:
        """Measures what would be exported now, and keeps it where it is the best so far."""
        weights = loop.weights()
        shown.modules().load_state_dict(weights)
        value = data.validation.measure(shown, loop.autocast, self.device)
        best = max((v for step, v in figures.items() if step != "0"), default=float("-inf"))
        figures[str(loop.step)] = value
        telemetry.validation(loop.step, data.validation.figure, value)
        if self.process.first and loop.step and value > best:
            tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in weights.items()}
            safetensors.torch.save_file(tensors, self.work / f"{BEST}.part")
            (self.work / f"{BEST}.part").replace(self.work / BEST)

    def _save(self, loop: Loop, data: _Data, figures: dict[str, float]) -> None:
        if self.process.first:
            save_checkpoint(
                self.work,
                {
                    "settings": json.dumps(self._identity(data), sort_keys=True),
                    "loop": loop.state(),
                    "figures": figures,
                    "seconds": time.monotonic() - self.begun,
                    "warnings": self.warnings,
                },
            )

    def _warn_of_rate(self, loop: Loop, telemetry: Telemetry) -> None:
        base, rate = self.settings.base, self.settings.optimizer.learning_rate
        text = learning_rate_warning(loop.model.architecture.family, rate, base.freeze)
        if text and self.settings.optimizer.wise == 1:
            self._warn(telemetry, 0, text)

    def _warn(self, telemetry: Telemetry, step: int, text: str) -> None:
        self.warnings.append(text)
        telemetry.warn(step, text)

    def _finish(
        self, shown: Trainable, data: _Data, figures: dict[str, float], objective: Objective, force: bool
    ) -> Result:
        before = figures["0"]
        steps = max(map(int, figures))
        after = max(value for step, value in figures.items() if step != "0")
        promoted = force or after >= before
        seconds = time.monotonic() - self.begun
        result = Result(
            str(self.out), promoted, data.validation.figure, before, after, seconds, steps, tuple(self.warnings)
        )
        if promoted and self.process.first:
            self._export(shown, data, result, figures)
        return result

    def _export(self, shown: Trainable, data: _Data, result: Result, figures: dict[str, float]) -> None:
        weights = safetensors.torch.load_file(self.work / BEST)
        shown.modules().load_state_dict(weights)
        encoder = LiveEncoder(shown, self.out.name, self.device)
        found = _measured(encoder, data.held_out)
        report = {
            "name": self.out.name,
            "base": self.settings.base.encoder,
            "objective": self.settings.objective.name,
            "sources": [Path(source).name for source in self.settings.data.train],
            "training_pictures": len(data.examples),
            "classes": 0 if data.labels is None else len(np.unique(data.labels)),
            "validation_pictures": len(data.validation.pixels),
            "figure": result.figure,
            "before": result.before,
            "after": result.after,
            "by_step": figures,
            "steps": result.steps,
            "seconds": round(result.seconds, 1),
            "seed": self.settings.seed,
            "command": self.command,
            "warnings": list(result.warnings),
            "evaluation": found.figures if found else {},
        }
        extra = {
            CARD_FILE: model_card(report, self.config),
            REPORT_FILE: as_json(report),
            CONFIG_FILE: self.config,
            METRICS_FILE: (self.work / METRICS_FILE).read_text("utf-8"),
        }
        calibration = found.calibration if found else None
        export_encoder(self.out, shown, weights, base=self.settings.base.encoder, extra=extra, calibration=calibration)


def _measured(encoder: LiveEncoder, examples: Sequence[Example]) -> Evaluation | None:
    """The full evaluation; None for pictures without labels or captions, which leave nothing to measure by."""
    if not any(example.label or (example.captions and encoder.spec.text) for example in examples):
        return None
    return measure(encoder, examples)


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and held-out pictures, the same ones in every run; of each class alike, at least two of each held out.

    Args:
        examples: all of them.
        share: of the held-out ones, in (0, 1).
        seed: of the run.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(examples))
    by_class: dict[str | None, list[int]] = {}
    for row in order.tolist():
        by_class.setdefault(examples[row].label, []).append(row)
    held = {row for rows in by_class.values() for row in rows[: _held(len(rows), share)]}
    rows = range(len(examples))
    return [examples[i] for i in rows if i not in held], [examples[i] for i in rows if i in held]


def _held(count: int, share: float) -> int:
    """Two at least, so that each has another of its class to find; none where too few would be left to train on."""
    wanted = max(2, round(count * share))
    return wanted if count - wanted >= 2 else 0


def _chosen(examples: list[Example], classes: Sequence[str], limit: int) -> list[Example]:
    if classes:
        unknown = sorted(set(classes) - {example.label for example in examples if example.label})
        if unknown:
            raise SourceError(f"data.classes names {unknown[0]!r}, which no training picture is of")
        examples = [example for example in examples if example.label in set(classes)]
    if limit and limit < len(examples):
        rows = np.linspace(0, len(examples) - 1, limit).round().astype(int)
        examples = [examples[row] for row in rows]
    return examples


def _of_side(model: Trainable, side: int) -> Preprocessing:
    return replace(model.preprocessing, size=side, resize=side)


def _watch(objective: Objective) -> Watch:
    margin = getattr(objective, "margin", None)
    mining = getattr(objective, "mining", "all") != "all" or hasattr(objective, "margin")
    return Watch(margin if hasattr(objective, "mining") else None, mining=mining)


def _device(wanted: str, process: Process) -> torch.device:
    if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()):
        return torch.device("cuda", process.local_rank)
    return torch.device("cpu")


def _bar(total: int, process: Process) -> Any:
    return tqdm(total=total, desc="decode", unit=" pictures", leave=False, disable=None if process.first else True)
