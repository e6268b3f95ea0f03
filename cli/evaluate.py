"""`lookalike evaluate`: how well an encoder finds and tells apart images, as a table, a line of JSON or a report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evaluation.datasets import Example
    from evaluation.evaluate import Evaluation
    from evaluation.options import Options
    from lookalike.encoders.protocol import Encoder


def evaluate(
    encoder: Annotated[str, typer.Argument(help="The encoder's name; `lookalike encoders` lists them.")],
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            help="Labelled or captioned images: a folder of class folders, a tar, a Parquet file; or a .csv or "
            "Parquet file of pairs (a, b or text, same). May be given again.",
        ),
    ],
    gallery: Annotated[
        list[str] | None,
        typer.Option(
            "--gallery", help="Images to search in, judged by labels; default: DATA itself, each without itself."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Another encoder, measured on the same beside it; none for none.",
            show_default="in a trained encoder's report what it was trained from",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html and figures.json.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of the table.")] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="JSON file to write thresholds and probabilities of pairs to.")
    ] = None,
    only: Annotated[
        str, typer.Option(help="What to measure, of labels, captions, zero_shot and pairs, between commas.")
    ] = "labels,captions,zero_shot,pairs",
    unseen: Annotated[
        str | None,
        typer.Option(help="Classes that training did not see, measured apart: names between commas, or a share."),
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(
            help="A training run's JSON lines, for curves in the report.", show_default="a trained encoder's own"
        ),
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the label; found by its name if absent.")] = None,
    caption_column: Annotated[str | None, typer.Option(help="Column of the caption.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of the image.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many images of DATA, at even distances; the gallery stays whole."),
    ] = None,
    pairs: Annotated[int, typer.Option(min=8, help="At most so many pairs of each kind.")] = 20_000,
    views: Annotated[
        bool, typer.Option("--views", help="Pairs that belong together are two views of an image, not two of a class.")
    ] = False,
    platt: Annotated[bool, typer.Option("--platt", help="A sigmoid for probabilities, not isotonic.")] = False,
    prompt: Annotated[str, typer.Option(help="What asks for a class; {} stands for its name.")] = "a photo of a {}",
    resamples: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap; 0 leaves intervals out.")] = 1000,
    seed: Annotated[int, typer.Option(help="Decides pairs and draws.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, torch or openvino.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
) -> None:
    """Measure how well an encoder finds and tells apart images.

    Labels: Precision@1, R-precision, MAP@R, hit rate and recall; "a photo of a CLASS" names each image's class.
    Captions: R@1, R@5, R@10 both ways. Pairs: a threshold, its F1 and more, probabilities and how far they err.

    Example:  lookalike evaluate lite --data flickr8k/val.tar

    Example:  lookalike evaluate folder:mine --baseline lite --data products/ --unseen 0.5 --out report
    """
    from evaluation.datasets import read_examples
    from evaluation.extras import REPORT, require_packages
    from evaluation.text_report import as_json, as_table
    from lookalike.bootstrap import EngineOptions, load_encoder
    from lookalike.calibration import write_calibration

    if out is not None:
        require_packages(REPORT, "the report")
    _require_writable(out, calibrate)
    options = _options(only, unseen, prompt, pairs, views, platt, resamples, seed)
    read = partial(read_examples, label_column=label_column, caption_column=caption_column, image_column=image_column)
    beside = _baseline(baseline, encoder, reported=out is not None)
    load = partial(load_encoder, options=EngineOptions(device, engine, precision))
    encoders = [load(encoder)]
    if beside is not None:
        encoders.append(load(beside) if baseline is not None else _beginning(beside, encoder, load))
    subject = _Subject(data, gallery, read, limit, options)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    found = [subject.measure(each) for each in encoders]
    for each in found:
        each.metrics |= {"started": started, "command": shlex.join(["lookalike", *sys.argv[1:]])}
    results = [each.metrics for each in found]
    typer.echo(as_json(*results) if json else as_table(*results))
    if calibrate is not None:
        write_calibration(found[0].calibration, calibrate)
    if out is not None:
        from evaluation.html_report import write_report

        other = found[1] if beside else None
        write_report(out, found[0], other, training_log=metrics or _own_metrics(encoder), seed=seed)
    if out is not None and not json:
        typer.echo(f"report: {out / 'report.html'}")


def _require_writable(out: Path | None, calibrate: Path | None) -> None:
    """Makes the folders that results go to: what can't be written must come to light before minutes of work."""
    from lookalike.errors import SourceError

    for option, folder in (("--out", out), ("--calibrate", calibrate and calibrate.parent)):
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise SourceError(f"{option}: {folder} can't be written: {error.strerror}; name another") from error


def _baseline(wanted: str | None, encoder: str, *, reported: bool) -> str | None:
    """What stands beside the encoder: in a report on a trained one, if nothing else is said, what it began as."""
    if wanted is not None or not (reported and encoder.startswith("folder:")):
        return None if wanted == "none" else wanted
    from lookalike.encoders.exported.model import read_encoder

    return read_encoder(Path(encoder.removeprefix("folder:")).expanduser()).base


def _beginning(base: str, encoder: str, load: Callable[[str], Encoder]) -> Encoder:
    """What a trained encoder began as, which nobody asked for by name."""
    from lookalike.errors import EncoderError

    try:
        return load(base)
    except EncoderError as error:
        raise type(error)(f"{error}. It is what {encoder} began as: --baseline none leaves it out") from error


def _own_metrics(encoder: str) -> Path | None:
    """The losses that lie beside a trained encoder's weights."""
    path = Path(encoder.removeprefix("folder:")).expanduser() / "metrics.jsonl"
    return path if encoder.startswith("folder:") and path.is_file() else None


class _Subject:
    """What is measured: read once, embedded by each encoder."""

    def __init__(
        self,
        data: list[str],
        gallery: list[str] | None,
        read: Callable[..., list[Example]],
        limit: int | None,
        options: Options,
    ) -> None:
        from evaluation.pair_list import is_pair_list, read_pair_list

        listed = len(data) == 1 and is_pair_list(Path(data[0]))
        if listed and (gallery or limit or options.unseen is not None or options.views):
            raise typer.BadParameter(
                f"{data[0]} is a list of pairs: --gallery, --limit, --unseen and --views mean nothing"
            )
        self._options = options
        self._listed = read_pair_list(Path(data[0])) if listed else None
        self._examples = [] if self._listed else read(data, limit=limit)
        self._gallery = read(gallery) if gallery else None

    def measure(self, encoder: Encoder) -> Evaluation:
        from evaluation.evaluate import measure
        from evaluation.pair_list import measure_pair_list

        if self._listed is not None:
            with _progress(len(self._listed.images)) as advance:
                return measure_pair_list(encoder, self._listed, options=self._options, progress=advance)
        views = 2 if self._options.views else 0
        with _progress((1 + views) * len(self._examples) + len(self._gallery or ())) as advance:
            return measure(encoder, self._examples, gallery=self._gallery, options=self._options, progress=advance)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    with tqdm(total=total, unit=" images", desc="encode", leave=False, disable=None) as bar:
        yield bar.update


def _options(
    only: str, unseen: str | None, prompt: str, pairs: int, views: bool, platt: bool, resamples: int, seed: int
) -> Options:
    from evaluation.classes import parse_unseen
    from evaluation.options import Options

    try:
        return Options(
            measures=tuple(name.strip().replace("-", "_") for name in only.split(",")),
            unseen=None if unseen is None else parse_unseen(unseen),
            prompt=prompt,
            pairs=pairs,
            views=views,
            calibration="platt" if platt else "isotonic",
            resamples=resamples,
            seed=seed,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
