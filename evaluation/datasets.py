"""Data sets for training and evaluation: the images of any source, with labels and captions.

Sources are those of the indexing job. Images are read by `load`; those of Parquet files and compressed tars are held in
memory as encoded bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lookalike.errors import SourceError
from lookalike.sources.folder import FolderSource
from lookalike.sources.item import ColumnNames, Item, Source
from lookalike.sources.registry import open_sources
from lookalike.sources.scan_report import ScanReport, no_images

LABEL_COLUMNS = ("label_name", "class_name", "category", "class", "label", "cls")
"""Names of a label's column, in this order, where the user names none."""


@dataclass(frozen=True, slots=True)
class Example:
    """An image with its class and captions, where known.

    Attributes:
        key: the item's id in its source.
        load: returns the encoded bytes (JPEG, PNG, ...); raises LookalikeError. Thread-safe.
        label: the name of its class.
        captions: may be empty.
        fingerprint: 64 bits that change when the file may have changed, see `lookalike.sources.item`; 0 if unknown.
    """

    key: str
    load: Callable[[], bytes]
    label: str | None = None
    captions: tuple[str, ...] = ()
    fingerprint: int = 0


def read_examples(
    sources: Sequence[str],
    *,
    label_column: str | None = None,
    caption_column: str | None = None,
    image_column: str | None = None,
    limit: int | None = None,
) -> list[Example]:
    """Read the examples of sources, in their order.

    Args:
        sources: folders, tars, Parquet files, patterns of them, as `lookalike index` takes them.
        label_column: column of the label; the first of LABEL_COLUMNS if None, and in a folder the first folder
            of an image's path, if it has none of these.
        caption_column: column of the caption; found by its name if None.
        image_column: column of the image; found by its name or type if None.
        limit: maximum number, evenly spaced so that a table sorted by class keeps all classes.

    Returns:
        One example per item. The `load` of an unreadable item raises.

    Raises:
        SourceNotFound: a path does not exist.
        SourceError: a source or a folder in it can't be read, no item has a named column, or there is no image.
        ValueError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1")
    opened = open_sources(sources, ColumnNames(image=image_column, caption=caption_column))
    examples = [example for source in opened for example in _examples(source, label_column)]
    if not examples:
        report = ScanReport()
        for source in opened:
            report.add(source.report)
        raise SourceError(no_images(sources, report))
    if label_column is not None and all(example.label is None for example in examples):
        raise SourceError(f"{', '.join(sources)}: no image has a label in column {label_column!r} (--label-column)")
    return examples if limit is None else subsample(examples, limit)


def subsample(examples: Sequence[Example], limit: int) -> list[Example]:
    """Return at most `limit` examples, evenly spaced, in their order."""
    if len(examples) <= limit:
        return list(examples)
    return [examples[i] for i in np.linspace(0, len(examples) - 1, limit).round().astype(int)]


def _examples(source: Source, label_column: str | None) -> Iterator[Example]:
    folders = isinstance(source, FolderSource)
    for item in source:
        if item.unavailable and (item.stands_for is not None or str(item.columns.get("path", "")).endswith("/")):
            item.load()  # raises why: many images can't be reached
        label = _label(item.columns, label_column)
        if label is None and folders and label_column is None:
            label = _first_folder(item.columns)
        yield Example(item.id, item.load, label, _captions(item), item.fingerprint)


def _label(columns: Mapping[str, Any], named: str | None) -> str | None:
    # A table's own `path` or `source` is renamed, see `lookalike.sources.columns`.
    names = LABEL_COLUMNS if named is None else (f"source_{named}", named)
    value = next((columns[name] for name in names if columns.get(name) is not None), None)
    if value is None or value != value or isinstance(value, dict | list | tuple):  # NaN is a null in tables
        return None
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _first_folder(columns: Mapping[str, Any]) -> str | None:
    folder, slash, _ = str(columns.get("path", "")).partition("/")
    return folder if slash and folder else None


def _captions(item: Item) -> tuple[str, ...]:
    captions = item.columns.get("captions")
    if captions is None:
        caption = item.columns.get("caption")
        captions = [] if caption is None else [caption]
    return tuple(captions)
