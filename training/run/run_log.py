"""Progress of a run: a progress bar, metrics as JSON lines, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from training.loop.training_loop import StepResult
from training.validation.promotion import CandidateScore


class RunLog:
    """Writes the figures of every step.

    Args:
        metrics: the JSON-lines file, appended to.
        board: TensorBoard's folder.
        done: steps taken before.
        total: steps of the run.
        quiet: write and show nothing, as all but the first of several processes should.
    """

    def __init__(self, metrics: Path, board: Path, done: int, total: int, *, quiet: bool = False) -> None:
        self._quiet = quiet
        if quiet:
            return
        metrics.parent.mkdir(parents=True, exist_ok=True)
        self._file = metrics.open("a", encoding="utf-8")
        self._bar = tqdm(desc="train", unit=" steps", initial=done, total=total, disable=None, dynamic_ncols=True)
        self._board: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(board), purge_step=done)

    def step(self, result: StepResult) -> None:
        """Log a step's figures."""
        if self._quiet:
            return
        figures = {
            "loss": result.loss,
            "learning_rate": result.learning_rate,
            "spread": result.spread,
            "gradient_norm": result.gradient_norm,
            "images_per_second": round(result.images_per_second, 1),
            **result.stats,
        }
        self._write(result.step, {"epoch": round(result.epoch, 4), **figures})
        shown = {"loss": f"{result.loss:.4f}", "images/s": f"{result.images_per_second:.0f}"}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def validation(self, step: int, name: str, value: float, loss: float | None) -> None:
        """Log a validation figure and, where it is defined, the objective's loss on the validation images."""
        if self._quiet:
            return
        self._write(step, {f"validation.{name}": value} | ({} if loss is None else {"validation.loss": loss}))
        self.print(
            f"step {step:,}: {name} {value:.4f}{'' if loss is None else f', loss {loss:.4f}'} on held-out images"
        )

    def base(self, name: str, figure: str, score: CandidateScore) -> None:
        """Log the base's figures, which the trained weights must reach."""
        unseen = {} if score.unseen is None else {f"base.unseen.{figure}": score.unseen}
        if not self._quiet:
            self._write(0, {f"base.{figure}": score.seen} | unseen)
        also = "" if score.unseen is None else f", {score.unseen:.4f} on classes held out whole"
        self.print(f"the base, {name}: {figure} {score.seen:.4f}{also}")

    def warn(self, step: int, text: str) -> None:
        """Log and print a warning."""
        if self._quiet:
            return
        self._write(step, {"warning": text})
        self.print(f"warning: {text}")

    def print(self, text: str) -> None:
        """Print a line above the progress bar."""
        if not self._quiet:
            tqdm.write(text, file=sys.stderr)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._quiet:
            return
        self._bar.close()
        self._file.close()
        if self._board is not None:
            self._board.close()

    def _write(self, step: int, figures: dict[str, Any]) -> None:
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in figures.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)
