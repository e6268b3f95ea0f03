"""`lookalike items`: the items of a collection with their metadata, filtered and sorted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.tables import column_names, fitting, one_line


def items(
    collection: Annotated[Path, typer.Argument(help="Folder of the collection that `lookalike index` wrote.")],
    filter_json: Annotated[
        str | None,
        typer.Option("--filter", help="Filter on metadata as JSON; docs/reference/filters.md describes it."),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column to sort by, such as width; -width is descending. Items without a value are last.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of items.", min=1)] = 20,
    offset: Annotated[int, typer.Option(help="Number of items to skip.", min=0)] = 0,
    fields: Annotated[
        str | None,
        typer.Option(help="Metadata columns to show, separated by commas; empty for none. JSON has all by default."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one line of JSON: the response of the HTTP API, without thumbnail_url."),
    ] = False,
) -> None:
    """List the items of a collection, without a search.

    `lookalike fields` lists the columns. A line shows the item's id, and the chosen columns: by default, the one of
    `--sort` and the caption.

    Example:  lookalike items images --sort -width --limit 5

    Example:  lookalike items images --filter '{"must": [{"field": "format", "equals": "JPEG"}]}' --fields width,height
    """
    from lookalike.collection import open_collection  # imports Arrow: not for `--help`
    from lookalike.filters import parse_filter
    from lookalike.item_table import ItemTable

    condition = parse_filter(filter_json) if filter_json else None
    opened = open_collection(collection)
    table = ItemTable(opened.metadata)
    columns = table.columns(column_names(fields))
    found = table.rows(condition, sort)
    records = opened.metadata.records([int(row) for row in found[offset : offset + limit]], columns)
    if not as_json:
        shown = _default_columns(sort) if columns is None else columns[1:]
        typer.echo(_table(records, shown, offset, len(found)))
        return
    manifest = opened.manifest
    source = {"collection": manifest.name, "version": manifest.version, "encoder": manifest.encoder.name}
    listed = [{"id": str(record.pop("id")), "metadata": record} for record in records]
    typer.echo(json.dumps({"items": listed, "offset": offset, "total": len(found), **source}))


def _default_columns(sort: str | None) -> list[str]:
    sorted_by = [] if sort is None else [sort.removeprefix("-")]
    return [name for name in dict.fromkeys([*sorted_by, "caption"]) if name != "id"]


def _table(records: list[dict[str, Any]], columns: list[str], offset: int, total: int) -> str:
    if not records:
        return f"no item after the first {offset:,}: there are {total:,}" if total else "no items"
    rows = [[one_line(_value(record, name)) for name in ("id", *columns)] for record in records]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [fitting("  ".join(map(str.ljust, row, widths))) for row in rows]
    return "\n".join([*lines, f"{offset + 1:,} to {offset + len(records):,} of {total:,} items"])


def _value(record: Any, name: str) -> object:
    """Return the value of a column, or of a field of a column of records; empty without one."""
    if name in record:
        return record[name]
    for step in name.split("."):
        record = record.get(step) if isinstance(record, dict) else None
    return "" if record is None else record
