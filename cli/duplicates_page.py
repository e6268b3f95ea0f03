"""The HTML page of `lookalike duplicates`: groups of near-identical images, in one self-contained file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from lookalike.collection import Collection
from lookalike.duplicates import DuplicateGroup

MAX_GROUPS = 500
MAX_IMAGES_PER_GROUP = 24
"""Limits that keep the page small enough for a browser; the JSON output lists everything."""

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2937;background:#fff;max-width:1180px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}section{border-top:1px solid #e5e7eb;padding:.8rem 0}h2{font-size:1rem;margin:0 0 .4rem}
.row{display:flex;flex-wrap:wrap;gap:.6rem}figure{margin:0;width:180px;font-size:.75rem;overflow-wrap:anywhere}
img,.none{width:180px;height:180px;object-fit:contain;background:#f3f4f6;border-radius:6px;display:block}
p{color:#6b7280;margin:.3rem 0}
"""


def duplicates_page(collection: Collection, groups: Sequence[DuplicateGroup], threshold: float) -> str:
    """Return the page.

    Args:
        collection: source of the thumbnails.
        groups: all groups; the page shows the first `MAX_GROUPS`.
        threshold: minimum cosine, for the heading.
    """
    name = escape(collection.manifest.name)
    duplicates = sum(len(group.rows) - 1 for group in groups)
    head = (
        f"{len(groups):,} groups with {duplicates:,} duplicates; cosine at least {threshold:g}; "
        f"version {escape(collection.manifest.version)}"
    )
    shown = "".join(_section(collection, group) for group in groups[:MAX_GROUPS])
    rest = f"<p>and {len(groups) - MAX_GROUPS:,} more groups</p>" if len(groups) > MAX_GROUPS else ""
    start = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    )
    top = f"{start}<title>{name}: duplicates</title><style>{_STYLE}</style></head>"
    return f"{top}<body><h1>Near-identical images in {name}</h1><p>{head}</p>{shown}{rest}</body></html>\n"


def _section(collection: Collection, group: DuplicateGroup) -> str:
    rows = group.rows[:MAX_IMAGES_PER_GROUP]
    records = collection.metadata.records(rows)
    figures = "".join(_figure(collection, row, str(record["id"])) for row, record in zip(rows, records, strict=True))
    more = f"<p>and {len(group.rows) - len(rows):,} more</p>" if len(rows) < len(group.rows) else ""
    title = f"{len(group.rows)} images, cosine {group.cosine:.4f}"
    return f'<section><h2>{title}</h2><div class="row">{figures}</div>{more}</section>'


def _figure(collection: Collection, row: int, item_id: str) -> str:
    data = collection.thumbnails.get(row)
    image = '<div class="none"></div>'
    if data is not None:
        image = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
    return f"<figure>{image}{escape(item_id)}</figure>"
