"""The indexing job as a function: the options of `lookalike index`, from Python."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from indexing.build.budget import parse_budget
from indexing.ingest.ray_runner.cluster import AUTO, ClusterSettings
from indexing.job import IndexSettings, IndexSummary, run_index
from indexing.progress import Progress
from lookalike.bootstrap import EngineOptions
from lookalike.errors import ConfigInvalid, SourceError
from lookalike.images import DEFAULT_MAX_PIXELS
from lookalike.sources.item import ColumnNames

__all__ = ["IndexSummary", "index"]

SourcePath = str | os.PathLike[str]


def index(
    sources: SourcePath | Iterable[SourcePath],
    out: SourcePath,
    *,
    encoder: str | None = None,
    store: str = "auto",
    memory: str | None = None,
    recall: float = 0.95,
    latency: str | None = None,
    explain: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    id_column: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    device: str = "auto",
    engine: str = "auto",
    replace: bool = False,
    verify_content: bool = False,
    allow_dropping: bool = False,
    exclude: str | Iterable[str] | None = None,
    shards: str | None = None,
    runner: str = "local",
    address: str | None = None,
    gpus_per_worker: float | None = None,
    progress: bool = False,
) -> IndexSummary:
    """Encode images into a searchable collection; call it again to update the collection.

    Unchanged images are not encoded again, nor are renamed, moved and copied ones, which are recognised by their
    content. An interrupted job resumes where it stopped. Images that can't be read
    are counted in the summary and listed in `rejected.parquet`.

    Args:
        sources: one or several folders of images, webdataset `.tar` files, Parquet files, images, or glob patterns of
            these, on a local disk or in a bucket as `s3://BUCKET/KEY`; `NAME=PATH` prefixes the ids with `NAME/`.
        out: the collection's folder; created if it does not exist.
        encoder: name of the encoder; None for the collection's, or `lite` for a new one.
        store: `auto`, `exact`, `faiss`, `torch-exact`, or a preset of `faiss`.
        memory: maximum memory of the index while it is searched, such as `300MB`.
        recall: minimum share of the true ten nearest that an approximate index finds, in [0.5, 1].
        latency: maximum time of one search (median, on this machine), such as `5ms`.
        explain: whether to try every preset on a sample; the summary's `recall["plan"]` is the table.
        batch_size: images per batch of the encoder; None for 32, or 256 on a GPU.
        workers: threads that read and decode; None for one per core, from a bucket at least 16.
        id_column: of Parquet, the column of unique ids; None for id, key, path or url, else a hash.
        image_column: of Parquet, the column of image bytes or paths; None to find it by type.
        caption_column: of Parquet and JSON, the column of captions; None for caption or text.
        max_pixels: maximum width x height; larger images are rejected without decoding.
        device: `auto`, `cpu` or `cuda`.
        engine: `auto`, `torch` or `openvino`.
        replace: whether sources that share no image with the existing collection may replace it.
        verify_content: whether to read all files, and encode those whose content changed although size and modification
            time did not.
        allow_dropping: whether more than a tenth of the collection's images may be removed, if these are at least 20.
        exclude: patterns of files and folders to leave out of folders, in gitignore syntax, relative to the folder.
        shards: `s3://BUCKET/PATH` where encoded images are kept until the version is published; None for `out`.
        runner: `local` to encode in this process, `ray` to encode on a Ray cluster.
        address: `HOST:PORT` of the cluster; None for the one that runs on this machine, or that `RAY_ADDRESS` names.
        gpus_per_worker: GPUs of each process that encodes on the cluster, which may be a fraction; 0 to encode on CPUs;
            None for 1 where the cluster has GPUs.
        progress: whether to show progress on stderr.

    Returns:
        A summary: counts, the encoder, the store and its measured recall.

    Raises:
        SourceError: a source can't be read at all, nothing could be indexed, too many of the collection's images would
            be removed, a pattern is invalid, or the disk is full.
        ConfigInvalid: an option is out of range.
        BucketUnavailable: a bucket can't be reached; what was encoded is kept.
        ExtraMissing: a bucket is named, and the extra `s3` is not installed; or a cluster, and not `ray`.
        ClusterUnavailable: the cluster can't be used; what was encoded is kept.
        CollectionError: another job writes to the collection, or its folder can't be written to.
        EncoderError: the encoder can't be loaded, or failed; what was encoded is kept.
        StoreError: the store is unknown or can't be built, or no index meets the limits.
    """
    _require_between("recall", recall, 0.5, 1)
    for name, number in (("batch_size", batch_size), ("workers", workers), ("max_pixels", max_pixels)):
        _require_between(name, number, 1)
    settings = IndexSettings(
        sources=_source_names(sources),
        out=Path(out).expanduser(),
        encoder=encoder,
        store=store,
        batch_size=batch_size,
        workers=workers,
        columns=ColumnNames(id_column, image_column, caption_column),
        max_pixels=max_pixels,
        engine_options=EngineOptions(device, engine),
        budget=parse_budget(recall, memory, latency, explain),
        replace=replace,
        verify_content=verify_content,
        allow_dropping=allow_dropping,
        exclude=(exclude,) if isinstance(exclude, str) else tuple(exclude or ()),
        shards=shards,
        cluster=_cluster(runner, address, gpus_per_worker),
    )
    return run_index(settings, Progress(quiet=not progress))


def _cluster(runner: str, address: str | None, gpus_per_worker: float | None) -> ClusterSettings | None:
    if runner not in ("local", "ray"):
        raise ConfigInvalid(f"runner is {runner!r}; it must be local or ray")
    if runner == "ray":
        return ClusterSettings(address or AUTO, gpus_per_worker)
    for name, value in (("address", address), ("gpus_per_worker", gpus_per_worker)):
        if value is not None:
            raise ConfigInvalid(f"{name} is {value}, and the runner is local; it is for the runner ray")
    return None


def _source_names(sources: SourcePath | Iterable[SourcePath]) -> tuple[str, ...]:
    several = [sources] if isinstance(sources, str | os.PathLike) else sources
    names = tuple(os.fspath(source) for source in several)
    if not names:
        raise SourceError("there are no sources; pass a folder, a .tar or .parquet file, an image, or several of them")
    return names


def _require_between(name: str, value: float | None, low: float, high: float | None = None) -> None:
    if value is not None and not (low <= value and (high is None or value <= high)):
        limits = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise ConfigInvalid(f"{name} is {value}; it must be {limits}")
