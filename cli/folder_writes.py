"""Writes to a collection in a folder: `lookalike add` and `lookalike delete` without a service."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cli.new_items import NewItem
from cli.write_report import WriteOutcome
from indexing.ingest.batches import encode_pixels, outcome_batches
from lookalike.bootstrap import EngineOptions, load_encoder, require_current_edition
from lookalike.collection import Collection, open_collection
from lookalike.cores import available_cores
from lookalike.encoders.protocol import Encoder
from lookalike.errors import (
    CollectionBusy,
    EncoderError,
    ImageUndecodable,
    LookalikeError,
    PendingFull,
    PreconditionFailed,
    UnknownItem,
)
from lookalike.filters import Filter, filter_mask
from lookalike.prepared_image import PreparedImage, prepare
from lookalike.types import Float32
from lookalike.writes.operations import Delete, Operation, Precondition, Put, Written
from lookalike.writes.writer import Writer

_MIN_IMAGES_PER_BATCH = 64
"""Images of a transaction: each waits for the disk once."""
_DELETIONS_PER_BATCH = 1_000
_IF_NEW = Precondition(if_none_match=frozenset({"*"}))


@dataclass(frozen=True, slots=True)
class _Skipped:
    """An item that exists, and is not to be replaced."""


@contextmanager
def opened_writer(root: Path) -> Iterator[tuple[Collection, Writer]]:
    """Open a collection and take its lock.

    Raises:
        CollectionError: there is no collection, it can't be written to, or another process writes to it.
    """
    collection = open_collection(root, verify=False)  # reading it all would take longer than most writes
    try:
        writer = Writer(collection)
    except CollectionBusy as error:
        raise CollectionBusy(f"{error}, or, if it is a service, write through it with --url") from error
    with writer:
        yield collection, writer


def collection_encoder(collection: Collection, name: str | None, options: EngineOptions) -> Encoder:
    """Return the encoder of a collection; raises EncoderError and EncoderMismatch."""
    require_current_edition(collection)
    encoder = load_encoder(name or collection.manifest.encoder.name, options)
    collection.require_encoder(encoder.spec)
    return encoder


def add_images(
    items: Iterable[NewItem], writer: Writer, encoder: Encoder, *, if_new: bool, max_pixels: int
) -> Generator[list[WriteOutcome], None, None]:
    """Add images in batches, and yield the outcomes of each once it is on the disk.

    Raises:
        EncoderError: the encoder failed on every image of a batch, so that the images are not the cause.
        PendingFull: the collection must be compacted first.
        DiskFull, CollectionUnwritable, WritesDamaged: the batch was not added.
    """
    workers = available_cores()
    read = partial(_read, writer=writer, encoder=encoder, if_new=if_new, max_pixels=max_pixels)
    size = max(_MIN_IMAGES_PER_BATCH, encoder.image_batch_size)
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool,
        closing(outcome_batches(items, read, pool, 2 * workers, size)) as batches,
    ):
        for batch in batches:
            outcomes = _add_batch(batch, writer, encoder, if_new=if_new)
            yield outcomes
            if any(outcome.code == PendingFull.code for outcome in outcomes):
                raise PendingFull(
                    f"{writer.pending:,} writes are pending: run `lookalike compact`, and then the same command again "
                    "with --if-new"
                )


def _read(
    item: NewItem, *, writer: Writer, encoder: Encoder, if_new: bool, max_pixels: int
) -> tuple[NewItem, PreparedImage | _Skipped | LookalikeError]:
    if if_new and exists(writer, item.id):
        return item, _Skipped()
    try:
        return item, prepare(item.load(), encoder, max_pixels)
    except LookalikeError as error:
        return item, error
    except Exception as error:  # an odd image that trips Pillow or a codec must not stop the others
        return item, ImageUndecodable(f"{type(error).__name__}: {error}")


def _add_batch(
    batch: Sequence[tuple[NewItem, PreparedImage | _Skipped | LookalikeError]],
    writer: Writer,
    encoder: Encoder,
    *,
    if_new: bool,
) -> list[WriteOutcome]:
    images = [image for _, image in batch if isinstance(image, PreparedImage)]
    vectors = iter(encode_pixels(encoder, np.stack([image.pixels for image in images])) if images else ())
    puts: list[Operation] = []
    outcomes: list[WriteOutcome | None] = []
    for item, image in batch:
        prepared = _put(item, image, next(vectors), if_new) if isinstance(image, PreparedImage) else image
        if isinstance(prepared, Put):
            puts.append(prepared)
            outcomes.append(None)
        elif isinstance(prepared, _Skipped):
            outcomes.append(WriteOutcome(item.id, "skipped"))
        else:
            outcomes.append(failure(item.id, prepared))
    written = iter(_applied(puts, writer))
    return [next(written) if outcome is None else outcome for outcome in outcomes]


def _put(item: NewItem, image: PreparedImage, vector: Float32, if_new: bool) -> Put | EncoderError:
    if not np.isfinite(vector).all():
        return EncoderError("the encoder's vector for this image is not finite; try another --engine")
    return Put(
        item.id,
        vector,
        item.metadata,
        image.measured,
        image.thumbnail,
        image.content_hash,
        _IF_NEW if if_new else Precondition(),
    )


def _applied(operations: Sequence[Operation], writer: Writer) -> Iterator[WriteOutcome]:
    for operation, outcome in zip(operations, writer.apply(operations), strict=True):
        if isinstance(outcome, Written):
            yield WriteOutcome(outcome.id, outcome.result)
        elif isinstance(outcome, PreconditionFailed):  # another image of this run has the id in another Unicode form
            yield WriteOutcome(operation.id, "skipped")
        else:
            yield failure(operation.id, outcome)


def delete_ids(ids: Sequence[str], writer: Writer, *, dry_run: bool) -> Iterator[list[WriteOutcome]]:
    """Delete items, and yield the outcomes of each batch once it is on the disk; with `dry_run`, only look for them."""
    for start in range(0, len(ids), _DELETIONS_PER_BATCH):
        batch = ids[start : start + _DELETIONS_PER_BATCH]
        if dry_run:
            yield [_would_delete(item_id, writer) for item_id in batch]
        else:
            yield list(_applied([Delete(item_id) for item_id in batch], writer))


def _would_delete(item_id: str, writer: Writer) -> WriteOutcome:
    try:
        writer.view.metadata.row_of(item_id)
    except UnknownItem as error:
        return failure(item_id, error)
    return WriteOutcome(item_id, "deleted")


def delete_matching(condition: Filter, writer: Writer, *, dry_run: bool) -> int:
    """Delete the items that pass a filter, and return their number; with `dry_run`, only count them."""
    if not dry_run:
        return writer.delete_matching(condition)
    view = writer.view
    return int(np.count_nonzero(filter_mask(condition, view.metadata) & view.live))


def exists(writer: Writer, item_id: str) -> bool:
    """Return whether the collection has an item."""
    try:
        writer.view.metadata.row_of(item_id)
    except UnknownItem:
        return False
    return True


def failure(item_id: str, error: LookalikeError) -> WriteOutcome:
    """Return the outcome of an item that failed."""
    return WriteOutcome(item_id, "failed", error.code, str(error))
