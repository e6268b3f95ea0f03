"""`lookalike fields`: what the items of a collection can be filtered by."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.tables import bars, fitting, one_line
from lookalike.messages import number_of

if TYPE_CHECKING:
    from lookalike.facets import Facet

_MAX_SHOWN_VALUES = 10
_BINS = 12


def fields(
    collection: Annotated[Path, typer.Argument(help="Folder of the collection that `lookalike index` wrote.")],
    filter_json: Annotated[
        str | None,
        typer.Option(
            "--filter", help="Count only items that pass this filter, as JSON; docs/reference/filters.md describes it."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON: the response of the HTTP API.")
    ] = False,
) -> None:
    """List the metadata columns of a collection: what there is to filter and to sort by.

    A line has the column's name, its type, and the number of items that have a value. Texts, booleans and lists show
    their most frequent values with the number of items. Numbers and dates show their range and a histogram.

    Example:  lookalike fields images

    Example:  lookalike fields images --filter '{"must": [{"field": "format", "equals": "JPEG"}]}'
    """
    from lookalike.collection import open_collection  # imports Arrow: not for `--help`
    from lookalike.facets import DEFAULT_BINS
    from lookalike.filters import parse_filter
    from lookalike.item_table import ItemTable

    condition = parse_filter(filter_json) if filter_json else None
    opened = open_collection(collection)
    table = ItemTable(opened.metadata)
    found = table.facets(condition, bins=DEFAULT_BINS if as_json else _BINS)
    count, total = table.count(condition), len(table)
    if not as_json:
        typer.echo(_table(found, count, total))
        return
    manifest = opened.manifest
    source = {"collection": manifest.name, "version": manifest.version, "encoder": manifest.encoder.name}
    typer.echo(json.dumps({"fields": [asdict(each) for each in found], "count": count, "total": total, **source}))


def _table(fields: list[Facet], count: int, total: int) -> str:
    rows = [("column", "type", "items", "values"), *((f.name, f.type, f"{f.count:,}", _values(f)) for f in fields)]
    name, kind, number = (max(len(row[i]) for row in rows) for i in range(3))
    lines = [fitting(f"{row[0]:<{name}}  {row[1]:<{kind}}  {row[2]:>{number}}  {row[3]}") for row in rows]
    return "\n".join([*lines, number_of(count, "item") + ("" if count == total else f" of {total:,}")])


def _values(field: Facet) -> str:
    """Return the range and the histogram of a column, or its most frequent values."""
    if field.minimum is not None:
        histogram = f"  |{bars(field.histogram.counts)}|" if field.histogram else ""
        return f"{one_line(field.minimum)} to {one_line(field.maximum)}{histogram}"
    if not field.values:
        return ""
    if field.values[0].count == 1:
        shown, heading = [one_line(each.value) for each in field.values], "all distinct: "
    else:
        shown, heading = [f"{one_line(each.value)} {each.count:,}" for each in field.values], ""
    more = ", ..." if (field.distinct or 0) > _MAX_SHOWN_VALUES else ""
    return heading + ", ".join(shown[:_MAX_SHOWN_VALUES]) + more
