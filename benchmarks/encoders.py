"""`python -m benchmarks.encoders`: the speed of an encoder under each engine, in one run.

Decoding is excluded: images are preprocessed beforehand. All engines are measured in turn, in several rounds, and
medians are reported, so that a machine that is slow for a while affects all of them. Accuracy is the smallest cosine to
torch in fp32 over the batch.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import ImageOps

from cli.gallery import write_gallery
from lookalike.encoders.engines import EngineOptions
from lookalike.encoders.protocol import Encoder, TextEncoder
from lookalike.encoders.registry import load_encoder
from lookalike.images import decode
from lookalike.types import Float32, UInt8

BATCH_SIZE = 32
ENGINES = (("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"))
_WORDS = ("a", "brown", "dog", "runs", "through", "the", "tall", "green", "grass", "with", "one", "red", "ball")


@dataclass
class Figures:
    """One engine's medians; NaN for texts where there is no text tower."""

    engine: str
    precision: str
    images_per_second: float
    image_ms: float
    texts_per_second: float
    text_ms: float
    image_cosine: float
    text_cosine: float
    alone_cosine: float


class Candidate:
    """An encoder under one engine, with its measured times."""

    def __init__(self, name: str, engine: str, precision: str, threads: int | None) -> None:
        self.encoder: Encoder = load_encoder(name, EngineOptions("cpu", engine, precision, threads))
        self.engine, self.precision = engine, precision
        self.times: dict[str, list[float]] = {"images": [], "image": [], "texts": [], "text": []}

    def text_encoder(self) -> TextEncoder | None:
        """Return the encoder if it encodes texts, else None."""
        return self.encoder if self.encoder.spec.text and isinstance(self.encoder, TextEncoder) else None

    def measure(self, images: UInt8, texts: list[str], seconds: float) -> None:
        """Run one round: repeat each kind of call for `seconds`."""
        self._time("images", lambda: self.encoder.encode_images(images), seconds)
        self._time("image", lambda: self.encoder.encode_images(images[:1]), seconds)
        text_encoder = self.text_encoder()
        if text_encoder is not None:
            self._time("texts", lambda: text_encoder.encode_texts(texts), seconds)
            self._time("text", lambda: text_encoder.encode_texts(texts[:1]), seconds)

    def _time(self, kind: str, call: Callable[[], object], seconds: float) -> None:
        call()  # warm
        end = time.perf_counter() + seconds
        while True:
            started = time.perf_counter()
            call()
            self.times[kind].append(time.perf_counter() - started)
            if time.perf_counter() > end:
                return

    def figures(self, images: UInt8, texts: list[str], reference: Encoder) -> Figures:
        """Return medians over all rounds, and cosines to the reference."""
        vectors = self.encoder.encode_images(images)
        singles = np.concatenate([self.encoder.encode_images(images[i : i + 1]) for i in range(len(images))])
        median = {kind: statistics.median(times) if times else float("nan") for kind, times in self.times.items()}
        return Figures(
            engine=self.engine,
            precision=self.precision,
            images_per_second=BATCH_SIZE / median["images"],
            image_ms=median["image"] * 1000,
            texts_per_second=BATCH_SIZE / median["texts"],
            text_ms=median["text"] * 1000,
            image_cosine=_cosine(vectors, reference.encode_images(images)),
            text_cosine=_text_cosine(self.encoder, reference, texts),
            alone_cosine=_cosine(vectors, singles),
        )


def run(name: str, engines: list[tuple[str, str]], rounds: int, seconds: float, threads: int | None) -> list[Figures]:
    """Measure an encoder under several engines, in turn."""
    candidates = [Candidate(name, engine, precision, threads) for engine, precision in engines]
    reference = load_encoder(name, EngineOptions("cpu", "torch", "fp32", threads))
    images, texts = _images(reference), _texts()
    for _ in range(rounds):
        for candidate in candidates:
            candidate.measure(images, texts, seconds)
    return [candidate.figures(images, texts, reference) for candidate in candidates]


def machine() -> str:
    """Describe this machine: processor, cores, Python, commit."""
    names = (line.split(":", 1)[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name"))
    cores = sum(line.startswith("processor") for line in _lines(Path("/proc/cpuinfo")))
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"{next(names, platform.processor())}, {cores} cores, Python {platform.python_version()}, commit {commit}"


def _lines(path: Path) -> Iterator[str]:
    return iter(path.read_text().splitlines()) if path.is_file() else iter(())


def _images(encoder: Encoder) -> UInt8:
    """Return the sample gallery's photographs, and mirrored ones up to 32: (32, 3, S, S)."""
    with tempfile.TemporaryDirectory() as folder:
        write_gallery(Path(folder))
        files = sorted(path for path in Path(folder).iterdir() if path.suffix != ".txt")
        photographs = [decode(path.read_bytes()).image for path in files]
    mirrored = [ImageOps.mirror(photograph) for photograph in photographs]
    return np.stack([encoder.preprocess(image) for image in (photographs + mirrored)[:BATCH_SIZE]])


def _texts() -> list[str]:
    """Return 32 captions of 6 to 14 words."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(_WORDS, rng.integers(6, 15))) for _ in range(BATCH_SIZE)]


def _text_cosine(encoder: Encoder, reference: Encoder, texts: list[str]) -> float:
    if not (encoder.spec.text and isinstance(encoder, TextEncoder) and isinstance(reference, TextEncoder)):
        return float("nan")
    return _cosine(encoder.encode_texts(texts), reference.encode_texts(texts))


def _cosine(a: Float32, b: Float32) -> float:
    return float((a * b).sum(axis=1).min())


def _table(figures: list[Figures]) -> str:
    lines = [
        "| engine | images/s (32) | one image, ms | texts/s (32) | one text, ms | cosine to fp32, images | texts "
        "| alone vs. in a batch |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {f.engine} {f.precision} | {f.images_per_second:.0f} | {f.image_ms:.1f} | {f.texts_per_second:.0f} "
        f"| {f.text_ms:.1f} | {f.image_cosine:.6f} | {f.text_cosine:.6f} | {f.alone_cosine:.7f} |"
        for f in figures
    ]
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", default="lite", help="encoder's name")
    parser.add_argument("--engines", nargs="+", default=["/".join(pair) for pair in ENGINES], help="engine/precision")
    parser.add_argument("--rounds", type=int, default=5, help="rounds over all engines")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each measurement")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; all cores if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    pairs = [(engine, precision) for engine, _, precision in (text.partition("/") for text in options.engines)]
    figures = run(options.encoder, pairs, options.rounds, options.seconds, options.threads)
    if options.json:
        records = [asdict(f) for f in figures]
        print(json.dumps({"encoder": options.encoder, "machine": machine(), "batch": BATCH_SIZE, "engines": records}))
    else:
        print(f"{options.encoder}: {machine()}\n\n{_table(figures)}")


if __name__ == "__main__":
    main()
