"""What a run tells while it goes on: a progress bar, metrics as JSON lines, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from training.loop.loop import Step
from training.validation.promotion import Standing


class Telemetry:
    """Writes every step; only the first of several processes does.

    Args:
        metrics: the JSON-lines file, appended to.
        board: TensorBoard's folder.
        done: steps taken before.
        total: steps of the run.
        quiet: write nothing and show nothing.
    """

    def __init__(self, metrics: Path, board: Path, done: int, total: int, *, quiet: bool = False) -> None:
        self._quiet = quiet
        if quiet:
            return
        metrics.parent.mkdir(parents=True, exist_ok=True)
        self._log = metrics.open("a", encoding="utf-8")
        self._bar = tqdm(desc="train", unit=" steps", initial=done, total=total, disable=None, dynamic_ncols=True)
        self._board: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(board), purge_step=done)

    def step(self, step: Step) -> None:
        """One step's figures."""
        if self._quiet:
            return
        figures = {
            "loss": step.loss,
            "learning_rate": step.learning_rate,
            "spread": step.spread,
            "gradient_norm": step.gradient_norm,
            "images_per_second": round(step.images_per_second, 1),
            **step.stats,
        }
        self._write(step.step, {"epoch": round(step.epoch, 4), **figures})
        shown = {"loss": f"{step.loss:.4f}", "images/s": f"{step.images_per_second:.0f}"}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def validation(self, step: int, name: str, value: float, loss: float | None) -> None:
        """A figure and, where it has one there, the objective's loss on the held-out images."""
        if self._quiet:
            return
        self._write(step, {f"validation.{name}": value} | ({} if loss is None else {"validation.loss": loss}))
        self.say(f"step {step:,}: {name} {value:.4f}{'' if loss is None else f', loss {loss:.4f}'} on held-out images")

    def base(self, name: str, figure: str, standing: Standing) -> None:
        """What the trained weights will have to hold against."""
        unseen = {} if standing.unseen is None else {f"base.unseen.{figure}": standing.unseen}
        if not self._quiet:
            self._write(0, {f"base.{figure}": standing.seen} | unseen)
        also = "" if standing.unseen is None else f", {standing.unseen:.4f} on classes held out whole"
        self.say(f"the base, {name}: {figure} {standing.seen:.4f}{also}")

    def warn(self, step: int, text: str) -> None:
        """Something that a person should know now."""
        if self._quiet:
            return
        self._write(step, {"warning": text})
        self.say(f"warning: {text}")

    def say(self, text: str) -> None:
        """A line above the progress bar."""
        if not self._quiet:
            tqdm.write(text, file=sys.stderr)

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._quiet:
            return
        self._bar.close()
        self._log.close()
        if self._board is not None:
            self._board.close()

    def _write(self, step: int, figures: dict[str, Any]) -> None:
        self._log.write(json.dumps({"step": step, **figures}) + "\n")
        self._log.flush()
        if self._board is not None:
            for name, value in figures.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)
