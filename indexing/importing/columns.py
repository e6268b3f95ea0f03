"""The mapping of an import's columns: which is the id, the path, the caption, and what the others are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from indexing.importing.content_ids import ContentIds
from indexing.importing.embeddings import EmbeddingBatch
from lookalike.errors import SourceError
from lookalike.messages import listed, quoted
from lookalike.sources.columns import RESERVED_COLUMNS
from lookalike.sources.item import ColumnNames, composed
from lookalike.sources.table_columns import CAPTION_COLUMNS, ID_COLUMNS, PATH_COLUMNS

_ID_COLUMNS = (*ID_COLUMNS, "image_path")
_SIZE_COLUMNS = ("width", "height")


class ColumnMapping:
    """The source's columns under the collection's names.

    Args:
        schema: the source's.
        names: the columns that the user named.
        source: for messages.
        has_metadata: whether the source has metadata, not only row numbers.
        number_rows: make the ids from the rows' numbers.

    Attributes:
        schema: of the mapped metadata, without the sizes of images.

    Raises:
        SourceError: a named column is missing, there is metadata and none of its columns holds ids, or ids are asked
            for both from a column and from row numbers.
    """

    def __init__(
        self, schema: pa.Schema, names: ColumnNames, source: Path, has_metadata: bool, number_rows: bool = False
    ) -> None:
        _require_columns(schema, names, source)
        if number_rows and names.id is not None:
            raise SourceError(f"--id-column {quoted(names.id)} and --number-rows both make the ids; give one of them")
        self._content_ids = ContentIds()
        self._number_rows = number_rows
        self._id = None if number_rows else names.id or _first(_ID_COLUMNS, schema.names)
        if self._id is None and has_metadata and not number_rows:
            raise SourceError(
                f"{source}: no column holds ids; name one with --id-column, or number the rows with --number-rows; "
                f"the columns are {listed(schema.names)}"
            )
        texts = [
            field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        path = names.image or _first(PATH_COLUMNS, texts)
        caption = names.caption or _first(CAPTION_COLUMNS, texts)
        self._names = self._mapped_names(schema, {path: "path", caption: "caption"})
        kept = [
            pa.field(mapped, schema.field(name).type)
            for name, mapped in self._names.items()
            if not mapped.startswith("_")
        ]
        self.schema = pa.schema([pa.field("id", pa.string()), *kept])

    def apply(self, batch: EmbeddingBatch) -> pa.Table:
        """Return `id` and the mapped columns; `_width` and `_height` where the source has them."""
        rest = {mapped: batch.metadata.column(name) for name, mapped in self._names.items()}
        return pa.table({"id": pa.array(self._ids(batch), pa.string()), **rest})

    def _ids(self, batch: EmbeddingBatch) -> list[str | None]:
        if self._number_rows:
            return [str(number) for number in batch.numbers]
        if self._id is None:
            return [*self._content_ids.next_ids(batch.vectors)]
        return [_id_text(value) for value in batch.metadata.column(self._id).to_pylist()]

    def _mapped_names(self, schema: pa.Schema, own: dict[str | None, str]) -> dict[str, str]:
        """Return the source's name -> the collection's; `own` are the columns that the collection knows."""
        names: dict[str, str] = {}
        for name in schema.names:
            if name == self._id and name not in own:
                continue
            reserved = name in RESERVED_COLUMNS or name.startswith("_")
            mapped = own.get(name) or (f"source_{name.lstrip('_')}" if reserved else name) or "unnamed"
            while mapped in {"id", *names.values()}:
                mapped += "_"
            names[name] = f"_{name}" if name in _SIZE_COLUMNS else mapped
        return names


def _id_text(value: object) -> str | None:
    if value is None:
        return None
    return composed(value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value))


def _require_columns(schema: pa.Schema, names: ColumnNames, source: Path) -> None:
    for option, name in (("id", names.id), ("image", names.image), ("caption", names.caption)):
        if name is not None and name not in schema.names:
            raise SourceError(f"{source} has no column {name!r} (--{option}-column); it has {listed(schema.names)}")


def _first(names: Sequence[str], available: Sequence[str]) -> str | None:
    return next((name for name in names if name in available), None)
