"""Writes through a running service: `lookalike add --url` and `lookalike delete --url`."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any

import typer

from cli.folder_writes import failure
from cli.new_items import NewItem
from cli.write_report import WriteOutcome
from indexing.ingest.batches import outcome_batches
from lookalike.cores import available_cores
from lookalike.errors import LookalikeError
from lookalike_client import ApiError, Client, Delete, Put, WrittenItem
from lookalike_client import LookalikeError as ClientError

_IMAGES_PER_REQUEST = 32
_DELETIONS_PER_REQUEST = 1_000
_TIMEOUT_SECONDS = 120.0
"""The response to a request comes once its images are encoded, which a large encoder on CPUs takes long for."""
_RETRY_SECONDS = (1, 2, 4, 8, 16)
"""Waits before an operation is sent again that the service has no capacity for, such as one that is compacting."""
_IDS_PER_PAGE = 32


@contextmanager
def opened_service(url: str, key: str | None, collection: str | None) -> Iterator[Client]:
    """Open a client; print an error of a whole request, and end the command with status 1."""
    try:
        with Client(url, key, collection, timeout=_TIMEOUT_SECONDS) as client:
            yield client
    except ClientError as error:
        text = f"{error.detail} [{error.code}]" if isinstance(error, ApiError) and error.code else str(error)
        typer.echo(f"error: {text}", err=True)
        raise typer.Exit(1) from error


def add_images(items: Iterable[NewItem], client: Client, *, if_new: bool) -> Generator[list[WriteOutcome], None, None]:
    """Send images in requests of several, and yield the outcomes of each request."""
    existing: set[str] = set()
    remaining, workers = _marked(iter(items), client, existing) if if_new else items, available_cores()

    def read(item: NewItem) -> tuple[NewItem, bytes | LookalikeError | None]:
        if item.id in existing:
            return item, None
        try:
            return item, item.load()
        except LookalikeError as error:
            return item, error

    with (
        ThreadPoolExecutor(workers, thread_name_prefix="read") as pool,
        closing(outcome_batches(remaining, read, pool, workers, _IMAGES_PER_REQUEST)) as batches,
    ):
        for batch in batches:
            yield _sent(batch, client, if_new=if_new)


def _marked(items: Iterator[NewItem], client: Client, existing: set[str]) -> Iterator[NewItem]:
    """Yield the items; those of the service's are in `existing` by then."""
    while chunk := list(islice(items, _IDS_PER_PAGE)):
        existing |= _existing([item.id for item in chunk], client)
        yield from chunk


def _existing(ids: Sequence[str], client: Client) -> set[str]:
    """Return those of the ids that the collection has."""
    found: set[str] = set()
    for start in range(0, len(ids), _IDS_PER_PAGE):
        page = list(ids[start : start + _IDS_PER_PAGE])
        condition = {"must": [{"field": "id", "in": page}]}
        found |= {item.id for item in client.items(filter=condition, limit=len(page), fields=[])}
    return found


def _sent(
    batch: Sequence[tuple[NewItem, bytes | LookalikeError | None]], client: Client, *, if_new: bool
) -> list[WriteOutcome]:
    condition = "*" if if_new else None
    puts = [
        Put(id=item.id, image=data, metadata=item.metadata, if_none_match=condition)
        for item, data in batch
        if isinstance(data, bytes)
    ]
    results = iter(_written(puts, client))
    return [_outcome(item, next(results) if isinstance(data, bytes) else data) for item, data in batch]


def _outcome(item: NewItem, result: WrittenItem | ApiError | LookalikeError | None) -> WriteOutcome:
    if result is None or (isinstance(result, ApiError) and result.code == "precondition_failed"):
        return WriteOutcome(item.id, "skipped")
    if isinstance(result, LookalikeError):
        return failure(item.id, result)
    return _of_service(item.id, result)


def _of_service(item_id: str, result: WrittenItem | ApiError) -> WriteOutcome:
    if isinstance(result, ApiError):
        return WriteOutcome(item_id, "failed", result.code, result.detail)
    return WriteOutcome(item_id, result.result)


def _written(operations: Sequence[Put | Delete], client: Client) -> list[WrittenItem | ApiError]:
    """Write items; send those again, after a while, that the service has no capacity for."""
    results = client.write_items(operations)
    for seconds in _RETRY_SECONDS:
        refused = [number for number, each in enumerate(results) if isinstance(each, ApiError) and each.status == 503]
        if not refused:
            break
        time.sleep(seconds)
        again = client.write_items([operations[number] for number in refused])
        for number, result in zip(refused, again, strict=True):
            results[number] = result
    return results


def delete_ids(ids: Sequence[str], client: Client, *, dry_run: bool) -> Iterator[list[WriteOutcome]]:
    """Delete items, and yield the outcomes of each request; with `dry_run`, only look for them."""
    for start in range(0, len(ids), _DELETIONS_PER_REQUEST):
        batch = ids[start : start + _DELETIONS_PER_REQUEST]
        if dry_run:
            existing = _existing(batch, client)
            yield [
                WriteOutcome(item_id, "deleted")
                if item_id in existing
                else WriteOutcome(
                    item_id, "failed", "unknown_item", f"no item has the id {item_id!r} in this collection"
                )
                for item_id in batch
            ]
        else:
            results = _written([Delete(id=item_id) for item_id in batch], client)
            yield [_of_service(item_id, result) for item_id, result in zip(batch, results, strict=True)]


def delete_matching(condition: str, client: Client, *, dry_run: bool) -> int:
    """Delete the items that pass a filter in JSON, and return their number; with `dry_run`, only count them."""
    parsed: dict[str, Any] = json.loads(condition)
    return client.delete_items(parsed, dry_run=dry_run).count
