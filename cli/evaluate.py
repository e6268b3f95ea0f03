"""`lookalike evaluate`: an encoder's retrieval and pair measures, as a table, JSON or an HTML report."""

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
    from lookalike.calibration import Calibration
    from lookalike.encoders.protocol import Encoder
    from lookalike.types import EncoderSpec


def evaluate(
    encoder: Annotated[str, typer.Argument(help="Name of the encoder; `lookalike encoders` lists them.")],
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            help="Images with labels or captions: a folder of class folders, a tar or a Parquet file. Or pairs: a "
            ".csv or Parquet file with the columns a, b or text, and same. Repeatable.",
        ),
    ],
    gallery: Annotated[
        list[str] | None,
        typer.Option(
            "--gallery",
            help="Labelled images to search in. In DATA, an image does not find itself. Repeatable.",
            show_default="DATA",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Another encoder to compare with on the same data; `none` for no comparison.",
            show_default="with --out, the encoder that a trained one started from",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write report.html and figures.json to.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of the table.")] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="JSON file to write the calibrations of pairs and searches to; or a collection's folder, to store "
            "there how probable its search results are."
        ),
    ] = None,
    only: Annotated[
        str, typer.Option(help="What to measure, separated by commas.")
    ] = "labels,captions,zero_shot,pairs,search",
    unseen: Annotated[
        str | None,
        typer.Option(
            help="Classes that training did not see, to measure separately: names separated by commas, or a share."
        ),
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(
            help="Metrics file of a training run, for the curves in the report.", show_default="a trained encoder's own"
        ),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of the label.", show_default="found by its name")
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="Column of the caption.", show_default="found by its name")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of the image.", show_default="found by its type")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum number of images of DATA, evenly spaced. The gallery is not limited.",
            show_default="all",
        ),
    ] = None,
    pairs: Annotated[int, typer.Option(min=8, help="Maximum number of pairs of each kind.")] = 20_000,
    views: Annotated[
        bool,
        typer.Option("--views", help="Make image pairs of two views of an image, not of two images of a class."),
    ] = False,
    platt: Annotated[
        bool, typer.Option("--platt", help="Calibrate by a sigmoid (Platt) instead of isotonic regression.")
    ] = False,
    prompt: Annotated[str, typer.Option(help="Text query for a class; `{}` stands for its name.")] = "a photo of a {}",
    resamples: Annotated[
        int, typer.Option(min=0, help="Number of bootstrap resamples for confidence intervals; 0 for none.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Random seed of the pairs and resamples.")] = 0,
    device: Annotated[str, typer.Option(help="Device of the encoder: auto, cpu or cuda.")] = "auto",
    engine: Annotated[str, typer.Option(help="Runtime of the encoder: auto, torch or openvino.")] = "auto",
    precision: Annotated[str, typer.Option(help="Precision of the encoder: auto, fp32, bf16 or fp16.")] = "auto",
) -> None:
    """Measure how well an encoder retrieves images and recognizes pairs.

    - labels: Precision@1, R-precision, MAP@R, hit rate and recall.

    - zero_shot: classification by texts such as "a photo of a CLASS".

    - captions: R@1, R@5 and R@10 in both directions.

    - pairs: a threshold with its F1, and calibrated probabilities.

    - search: how well the probability of a text's first result tells right ones from wrong ones.

    It measures what the data has labels or captions for. docs/reference/evaluation-measures.md defines the measures.

    Example:  lookalike evaluate lite --data flickr8k/val.tar

    Example:  lookalike evaluate lite --data products/ --only search --calibrate my-collection

    Example:  lookalike evaluate folder:mine --baseline lite --data products/ --unseen 0.5 --out report
    """
    from evaluation.datasets import read_examples
    from evaluation.extras import REPORT, require_packages
    from evaluation.text_report import as_json, as_table
    from lookalike.bootstrap import EngineOptions, load_encoder

    if out is not None:
        require_packages(REPORT, "the report")
    _require_writable(out, calibrate)
    options = _options(only, unseen, prompt, pairs, views, platt, resamples, seed)
    read = partial(read_examples, label_column=label_column, caption_column=caption_column, image_column=image_column)
    baseline_name = _baseline(baseline, encoder, reported=out is not None)
    load = partial(load_encoder, options=EngineOptions(device, engine, precision))
    encoders = [load(encoder)]
    if calibrate is not None and calibrate.is_dir():
        _require_same_encoder(calibrate, encoders[0].spec)
    if baseline_name is not None:
        encoders.append(load(baseline_name) if baseline is not None else _load_base(baseline_name, encoder, load))
    dataset = _Dataset(data, gallery, read, limit, options)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    evaluations = [dataset.measure(each) for each in encoders]
    for each in evaluations:
        each.metrics |= {"started": started, "command": shlex.join(["lookalike", *sys.argv[1:]])}
    results = [each.metrics for each in evaluations]
    typer.echo(as_json(*results) if json else as_table(*results))
    if calibrate is not None:
        _store_calibration(evaluations[0].calibration, encoders[0].spec, calibrate)
    if out is not None:
        from evaluation.html_report import write_report

        other = evaluations[1] if baseline_name else None
        write_report(out, evaluations[0], other, training_log=metrics or _own_metrics(encoder), seed=seed)
    if out is not None and not json:
        typer.echo(f"report: {out / 'report.html'}")


def _require_writable(out: Path | None, calibrate: Path | None) -> None:
    """Create the folders of the results; raise SourceError before minutes of work if one can't be written."""
    from lookalike.errors import SourceError

    for option, folder in (
        ("--out", out),
        ("--calibrate", calibrate and (calibrate if calibrate.is_dir() else calibrate.parent)),
    ):
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise SourceError(f"{option}: {folder} can't be written: {error.strerror}; choose another") from error


def _require_same_encoder(calibrate: Path, spec: EncoderSpec) -> None:
    """Check that the folder `calibrate` holds a collection that the encoder made."""
    from lookalike.collection import current_manifest
    from lookalike.errors import EncoderMismatch

    own = current_manifest(calibrate).encoder
    if own.identity != spec.identity:
        raise EncoderMismatch(
            f"collection {calibrate} was made by encoder {own.name!r} (weights {own.weights[:12]}), not by "
            f"{spec.name!r} (weights {spec.weights[:12]}); calibrate it with its own encoder"
        )


def _store_calibration(calibration: Calibration, spec: EncoderSpec, target: Path) -> None:
    """Write to a file, or the part about searches to a collection."""
    from lookalike.calibration import Calibration, write_calibration
    from lookalike.collection import store_calibration
    from lookalike.errors import SourceError

    if not target.is_dir():
        write_calibration(calibration, target)
        return
    if calibration.text_search is None and calibration.image_search is None:
        raise SourceError(
            "--calibrate: the data does not show which results match; it needs class names, best with "
            "captions, and at least 50 queries with a right and 50 with a wrong first result in each half"
        )
    searches = Calibration(text_search=calibration.text_search, image_search=calibration.image_search)
    store_calibration(target, searches, spec)


def _baseline(option: str | None, encoder: str, *, reported: bool) -> str | None:
    """Return the baseline's name; by default, in the report of a trained encoder, the encoder it was trained from."""
    if option is not None or not (reported and encoder.startswith("folder:")):
        return None if option == "none" else option
    from lookalike.encoders.exported.format import read_encoder

    return read_encoder(Path(encoder.removeprefix("folder:")).expanduser()).base


def _load_base(base: str, encoder: str, load: Callable[[str], Encoder]) -> Encoder:
    """Load the encoder that another was trained from; its errors explain why it is needed."""
    from lookalike.errors import EncoderError

    try:
        return load(base)
    except EncoderError as error:
        raise type(error)(f"{error}. {encoder} was trained from it; --baseline none omits the comparison") from error


def _own_metrics(encoder: str) -> Path | None:
    """Return the metrics file in a trained encoder's folder, if there is one."""
    path = Path(encoder.removeprefix("folder:")).expanduser() / "metrics.jsonl"
    return path if encoder.startswith("folder:") and path.is_file() else None


class _Dataset:
    """Examples or pairs to evaluate on: read once, embedded by each encoder."""

    def __init__(
        self,
        data: list[str],
        gallery: list[str] | None,
        read: Callable[..., list[Example]],
        limit: int | None,
        options: Options,
    ) -> None:
        from evaluation.pair_list import is_pair_list, read_pair_list

        is_pairs = len(data) == 1 and is_pair_list(Path(data[0]))
        if is_pairs and (gallery or limit or options.unseen is not None or options.views):
            raise typer.BadParameter(
                f"{data[0]} is a list of pairs: --gallery, --limit, --unseen and --views don't apply to it"
            )
        self._options = options
        self._pairs = read_pair_list(Path(data[0])) if is_pairs else None
        self._examples = [] if self._pairs else read(data, limit=limit)
        self._gallery = read(gallery) if gallery else None

    def measure(self, encoder: Encoder) -> Evaluation:
        from evaluation.evaluate import measure
        from evaluation.pair_list import measure_pair_list

        if self._pairs is not None:
            with _progress(len(self._pairs.images)) as advance:
                return measure_pair_list(encoder, self._pairs, options=self._options, progress=advance)
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
