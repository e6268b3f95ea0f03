"""A run of the recipe: progress on the terminal, losses as JSON lines, weights as safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
from tqdm import tqdm

from training.lite.config import LiteConfig
from training.lite.data import load_data
from training.lite.heads import Heads, HeadStep, train_heads


def run_lite(config: LiteConfig, data: Sequence[Path], out: Path, metrics: Path, cache: Path) -> str:
    """Train `lite`'s heads and write them.

    Args:
        config: the hyper-parameters.
        data: folders with train.tar, one or more.
        out: the safetensors file to write; replaced only once training is done.
        metrics: JSON-lines file: the configuration first, then one line a step.
        cache: folder of computed features.

    Returns:
        SHA-256 of the written file, hex.

    Raises:
        SourceError: the data is missing or unreadable.
        TextUnsupported: the text packages are not installed.
    """
    frozen = load_data(data, config, cache)
    metrics.parent.mkdir(parents=True, exist_ok=True)
    with metrics.open("w", encoding="utf-8") as log, tqdm(desc="train", unit=" steps", disable=None) as bar:
        log.write(
            json.dumps({"config": asdict(config), "images": [images.views.shape[1] for images in frozen.sets]}) + "\n"
        )

        def report(step: HeadStep) -> None:
            log.write(json.dumps(asdict(step)) + "\n")
            bar.total = step.total
            bar.set_postfix(loss=f"{step.loss:.3f}", temperature=f"{step.temperature:.4f}", refresh=False)
            bar.update()

        heads = train_heads(frozen, config, report)
    return write_heads(heads, out)


def write_heads(heads: Heads, out: Path) -> str:
    """Write both heads as float16 safetensors, by renaming; return the file's SHA-256, hex."""
    content = safetensors.torch.save(heads.tensors())  # no metadata: its order in the file would be random
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_bytes(content)
    part.replace(out)
    return hashlib.sha256(content).hexdigest()
