"""The errors that Lookalike raises, in one tree.

    LookalikeError
    ├── ImageError         image_too_large  image_undecodable  image_unsupported
    ├── CollectionError    collection_not_found  manifest_invalid  encoder_mismatch  format_too_new  checksum_mismatch
    │                      collection_busy  collection_unwritable
    ├── StoreError         store_unavailable  dimension_mismatch  unknown_store  budget_impossible
    ├── EncoderError       unknown_encoder  weights_missing  weights_invalid  text_unsupported
    ├── QueryError         unknown_item  invalid_limit  text_empty  text_too_long  query_invalid
    │                      filter_invalid
    ├── ExtraMissing       extra_missing
    └── SourceError        source_not_found  source_invalid  duplicate_id  disk_full
                           config_invalid  vector_invalid

`code` is stable: the same word is used in `rejected.parquet`, in the JSON problem's `type`, in the service's telemetry
and as a heading in `docs/reference/errors.md`. Messages name the offending value and how to fix it.
"""

from __future__ import annotations

from typing import ClassVar


class LookalikeError(Exception):
    """The base class; never raised itself."""

    code: ClassVar[str] = "error"


class ImageError(LookalikeError):
    """Bytes that do not become an image."""

    code = "image_error"


class ImageTooLarge(ImageError):
    """The header declares more pixels than the limit; nothing was decompressed."""

    code = "image_too_large"


class ImageUndecodable(ImageError):
    """Empty, truncated or corrupt bytes."""

    code = "image_undecodable"


class ImageUnsupported(ImageError):
    """Not an image, or an image format that is not accepted."""

    code = "image_unsupported"


class CollectionError(LookalikeError):
    """A collection folder that can't be opened or published."""

    code = "collection_error"


class CollectionNotFound(CollectionError):
    """There is no collection at the path."""

    code = "collection_not_found"


class ManifestInvalid(CollectionError):
    """`manifest.json` is missing, unreadable or contradicts the files beside it."""

    code = "manifest_invalid"


class EncoderMismatch(CollectionError):
    """The collection was made by another encoder than the one that is used."""

    code = "encoder_mismatch"


class FormatTooNew(CollectionError):
    """The collection was written by a later release."""

    code = "format_too_new"


class ChecksumMismatch(CollectionError):
    """A file's SHA-256 differs from the manifest's."""

    code = "checksum_mismatch"


class CollectionBusy(CollectionError):
    """Another job is writing to the collection."""

    code = "collection_busy"


class CollectionUnwritable(CollectionError):
    """The folder can't be written to, or holds other things than a collection."""

    code = "collection_unwritable"


class StoreError(LookalikeError):
    """The vector store failed."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The store can't be opened, or its library failed."""

    code = "store_unavailable"


class DimensionMismatch(StoreError):
    """Vectors of another width than the store's."""

    code = "dimension_mismatch"


class UnknownStore(StoreError):
    """No store has that name."""

    code = "unknown_store"


class BudgetImpossible(StoreError):
    """No index meets the requested memory, recall and time."""

    code = "budget_impossible"


class EncoderError(LookalikeError):
    """The encoder failed."""

    code = "encoder_error"


class UnknownEncoder(EncoderError):
    """No encoder has that name."""

    code = "unknown_encoder"


class WeightsMissing(EncoderError):
    """The weights are not installed and can't be fetched."""

    code = "weights_missing"


class WeightsInvalid(EncoderError):
    """The weights are installed, but are not the expected ones."""

    code = "weights_invalid"


class TextUnsupported(EncoderError):
    """A text was given to an encoder that has no text tower here."""

    code = "text_unsupported"


class QueryError(LookalikeError):
    """A query that is invalid."""

    code = "query_invalid"


class UnknownItem(QueryError):
    """No item of the collection has that id."""

    code = "unknown_item"


class InvalidLimit(QueryError):
    """`limit` is out of range."""

    code = "invalid_limit"


class FilterInvalid(QueryError):
    """A filter that names an unknown column, compares with a value of another type, or is no filter at all."""

    code = "filter_invalid"


class TextEmpty(QueryError):
    """The text query is empty or white space."""

    code = "text_empty"


class TextTooLong(QueryError):
    """The text query is longer than the limit."""

    code = "text_too_long"


class SourceError(LookalikeError):
    """The input of the indexing job, or the place that it writes to."""

    code = "source_invalid"


class SourceNotFound(SourceError):
    """There is nothing at the path."""

    code = "source_not_found"


class DuplicateId(SourceError):
    """Two items claim the same id; the first one keeps it."""

    code = "duplicate_id"


class DiskFull(SourceError):
    """The disk filled up; what was written before is kept and the job resumes from it."""

    code = "disk_full"


class ConfigInvalid(SourceError):
    """A configuration file with an unknown key, a value of the wrong type or out of range."""

    code = "config_invalid"


class VectorInvalid(SourceError):
    """An imported vector that is zero, or holds a value that is not finite."""

    code = "vector_invalid"


class ExtraMissing(LookalikeError):
    """A package of an extra (train, demo, ...) is needed and not installed."""

    code = "extra_missing"
