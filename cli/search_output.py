"""What `lookalike search` prints: the response of the HTTP API as JSON, or a table."""

from __future__ import annotations

from typing import Any

from cli.tables import fitting, one_line
from lookalike.types import Hit, SearchResult

_EMBEDDING_DECIMALS = 7
NO_MATCH = "nothing in this collection matches well"


def response(result: SearchResult, total: float, source: dict[str, str], optional: set[str]) -> dict[str, Any]:
    """Return the response of the HTTP API, without `thumbnail_url`.

    Args:
        result: of the search.
        total: milliseconds that it took.
        source: collection, version and encoder.
        optional: which of `group` and `duplicates` the results have.
    """
    from lookalike.stopwatch import STAGES

    took = {stage: round(result.took_ms.get(stage, 0.0), 3) for stage in STAGES}
    return {
        "results": [_hit(hit, optional) for hit in result.hits],
        "no_match": result.no_match,
        **({"warnings": result.warnings} if result.warnings else {}),
        "truncated_tokens": result.truncated_tokens,
        "took_ms": {**took, "total": round(total, 3)},
        **source,
    }


def _hit(hit: Hit, optional: set[str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": hit.id,
        "score": min(1.0, max(-1.0, round(hit.score, 6))),
        "probability": None if hit.probability is None else round(hit.probability, 4),
        "metadata": dict(hit.metadata),
        **{name: getattr(hit, name) for name in ("group", "duplicates") if name in optional},
    }
    if hit.embedding is not None:
        body["embedding"] = hit.embedding.astype(float).round(_EMBEDDING_DECIMALS).tolist()
    return body


def table(result: SearchResult, total: float, offset: int, fields: str | None) -> str:
    """Return a line for each result: rank, score, probability where there is one, id, and metadata."""
    width = max((len(hit.id) for hit in result.hits), default=0)
    lines = [
        fitting(f"{rank:>3}  {hit.score:7.4f}  {_probability(hit)}{hit.id:<{width}}  {_values(hit, fields)}")
        for rank, hit in enumerate(result.hits, offset + 1)
    ]
    return "\n".join([*lines, f"{len(lines)} items in {total:.1f} ms"])


def _probability(hit: Hit) -> str:
    return "" if hit.probability is None else f"{hit.probability:6.1%}  "


def _values(hit: Hit, fields: str | None) -> str:
    """Return the values of the chosen columns, or the caption; then the number of near-identical items."""
    values = [hit.metadata.get("caption", "")] if fields is None else hit.metadata.values()
    duplicates = f"  (+{hit.duplicates:,} near-identical)" if hit.duplicates else ""
    return "  ".join(map(one_line, values)) + duplicates
