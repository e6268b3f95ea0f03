"""`lookalike delete`: items out of a collection, in its folder or through a running service."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from cli.write_options import CollectionOption, KeyOption, UrlOption, compact_hint, json_object, require_service
from cli.write_report import WriteReport


def delete(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="COLLECTION", help="Folder of the collection. It is left out with `--url`.", show_default=False
        ),
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Id of an item. Repeatable.", show_default=False)
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    collection: CollectionOption = None,
    filter_json: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="JSON",
            help="Delete the items that pass this filter on metadata, instead of ids; docs/reference/filters.md "
            "describes it.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be deleted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts and errors as one line of JSON.")] = False,
) -> None:
    """Delete items of a collection, by their ids or by a filter.

    A deleted item stays deleted when the collection is indexed again, although its image is still there. An id that no
    item has is named on stderr, and the exit status is 1.

    In a folder, no other process may write to the collection meanwhile. A writable service does, all the time: write
    through it with `--url`.

    Example:  lookalike delete images shoes/4711.jpg shoes/4712.jpg

    Example:  lookalike delete images --filter '{"must": [{"field": "brand", "equals": "acme"}]}' --dry-run

    Example:  lookalike delete --url http://127.0.0.1:8000 shoes/4711.jpg
    """
    root = None if url is not None or target is None else Path(target)
    given = [each for each in (target if root is None else None, *(ids or [])) if each is not None]
    require_service(url, collection)
    if root is None and url is None:
        raise typer.BadParameter("pass the folder of a collection, and ids of items")
    if bool(given) == (filter_json is not None):
        raise typer.BadParameter("pass ids of items, or --filter JSON: one of them")

    from lookalike.errors import FilterInvalid  # imports Arrow: not for `--help`
    from lookalike.filters import parse_filter

    condition = None
    if filter_json is not None:
        json_object(filter_json, "--filter")
        condition = parse_filter(filter_json)
        if not (condition.must or condition.should or condition.must_not):
            raise FilterInvalid("filter: it has no condition, and would delete every item; give at least one")
    report = WriteReport()
    with ExitStack() as opened:
        if root is None:
            from cli import service_writes

            client = opened.enter_context(service_writes.opened_service(str(url), key, collection))
            if filter_json is not None:
                report.counts["deleted"] = service_writes.delete_matching(filter_json, client, dry_run=dry_run)
            batches = service_writes.delete_ids(given, client, dry_run=dry_run)
        else:
            from cli import folder_writes

            _, writer = opened.enter_context(folder_writes.opened_writer(root))
            if condition is not None:
                report.counts["deleted"] = folder_writes.delete_matching(condition, writer, dry_run=dry_run)
            batches = folder_writes.delete_ids(given, writer, dry_run=dry_run)
        for batch in batches:
            for outcome in batch:
                report.add(outcome)
    report.print_errors()
    if as_json:
        typer.echo(report.as_json(("deleted", "failed"), dry_run=dry_run))
    else:
        typer.echo(report.deleted(dry_run=dry_run))
        if root is not None and report.counts["deleted"] and not dry_run:
            typer.echo(compact_hint(root))
    if report.failed:
        raise typer.Exit(1)
