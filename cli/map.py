"""`lookalike map`: places the items of a collection in the plane, for the map of the search page."""

from __future__ import annotations

import json
import shlex
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lookalike.errors import CollectionUnwritable, SourceError
from lookalike.messages import number_of

if TYPE_CHECKING:
    from evaluation.collection_map import MapSettings
    from lookalike.collection import Collection
    from lookalike.collection_map import CollectionMap

_INTERRUPTED = 130
_MAX_PLOTTED_IMAGES = 60


def map_collection(
    collection: Annotated[
        Path, typer.Argument(metavar="COLLECTION", help="Folder of the collection that `lookalike index` wrote.")
    ],
    method: Annotated[
        Literal["umap", "tsne"],
        typer.Option(help="UMAP shows groups and how they relate. t-SNE takes longer, and separates more."),
    ] = "umap",
    neighbors: Annotated[
        int, typer.Option(help="UMAP: neighbours of an item that count. Few show small groups, many the whole.", min=2)
    ] = 15,
    min_dist: Annotated[
        float, typer.Option("--min-dist", help="UMAP: how close together items may lie.", min=0.0, max=1.0)
    ] = 0.1,
    perplexity: Annotated[
        float, typer.Option(help="t-SNE: about how many neighbours of an item count.", min=2.0, max=1000.0)
    ] = 30.0,
    seed: Annotated[int, typer.Option(help="Random seed: the same one gives the same map.", min=0, max=2**32 - 1)] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="PNG file to draw the map to, with some of the images.", dir_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one line of JSON.")] = False,
) -> None:
    """Make the map of a collection: items that look alike lie close together.

    The search page shows it, and `GET /v1/map` returns it. A service that runs finds it without a restart. It is kept
    with the current version of the collection, and replaces an earlier one. A new version needs a new map. No image is
    encoded. Distances between far groups mean little.

    It needs the extra `train`. docs/guides/map.md is the guide.

    Example:  lookalike map images

    Example:  lookalike map images --neighbors 50 --plot map.png
    """
    from evaluation.collection_map import MapSettings
    from lookalike.collection import open_collection, store_map  # imports Arrow: not for `--help`
    from lookalike.disk_errors import translated_disk_errors

    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a script's background job ignores it
        signal.signal(number, signal.default_int_handler)
    started = time.perf_counter()
    settings = MapSettings(method, neighbors, min_dist, perplexity, seed)
    opened = open_collection(collection)
    _require_writable(opened.folder, plot)
    try:
        made = _make(opened, settings)
        with translated_disk_errors(collection, "the earlier map is kept"):
            _require_version(opened)
            store_map(opened.folder, made)
            if plot is not None:
                plot.write_bytes(_plot(opened, made))
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was changed", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    facts = {
        "collection": str(collection),
        "version": made.version,
        "items": len(opened),
        "method": made.method,
        **made.params,
        "seconds": round(time.perf_counter() - started, 3),
    }
    typer.echo(json.dumps(facts) if as_json else _summary(facts, made, plot))


def _make(opened: Collection, settings: MapSettings) -> CollectionMap:
    from tqdm import tqdm

    from evaluation.collection_map import make_map

    with tqdm(total=len(opened), unit=" images", desc="neighbours", disable=None, leave=False) as bar:

        def advance(rows: int) -> None:
            bar.update(rows)
            if bar.n >= len(opened):  # the projection has no steps that can be counted
                bar.set_description_str("placing them")

        return make_map(opened, settings, advance)


def _require_writable(folder: Path, plot: Path | None) -> None:
    """Raise before minutes of work rather than after them."""
    probe = folder / ".map.writable"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CollectionUnwritable(f"{folder} can't be written to: {error.strerror}") from error
    if plot is not None:
        try:
            plot.open("a").close()
        except OSError as error:
            raise SourceError(f"{plot} can't be written: {error.strerror}") from error


def _require_version(opened: Collection) -> None:
    if not opened.folder.is_dir():
        raise SourceError(
            f"version {opened.manifest.version} of {opened.root} was replaced and removed meanwhile; run the same "
            "command again"
        )


def _plot(opened: Collection, made: CollectionMap) -> bytes:
    """Draw the map, with the thumbnails of items in different places."""
    import numpy as np

    from evaluation.plots import map_plot
    from evaluation.thumbnails import plot_pixels

    side = max(1, round(_MAX_PLOTTED_IMAGES**0.5))
    cells = np.minimum((made.points * side).astype(int), side - 1)
    _, rows = np.unique(cells[:, 0] * side + cells[:, 1], return_index=True)
    found = {int(row): opened.thumbnails.get(int(row)) for row in rows}
    images = {row: plot_pixels(data) for row, data in found.items() if data is not None}
    title = f"{opened.manifest.name}: {len(opened):,} images, {made.method}"
    return map_plot(made.points.astype(float), [None] * len(opened), images, title)


def _summary(facts: dict[str, Any], made: CollectionMap, plot: Path | None) -> str:
    params = "".join(f", {name} {value:g}" for name, value in made.params.items())
    lines = [
        f"made the map of {number_of(facts['items'], 'image')} in {facts['collection']}, version {made.version}",
        f"  {made.method}{params}; {facts['seconds']:.1f} s",
        *([f"  plot: {plot}"] if plot else []),
    ]
    return "\n".join([*lines, f"next:  lookalike serve {shlex.quote(facts['collection'])}"])
