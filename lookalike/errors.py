"""The errors that Lookalike raises, in one tree.

    LookalikeError
    ├── ImageError         image_too_large  image_undecodable  image_unsupported
    ├── CollectionError    collection_not_found  manifest_invalid  encoder_mismatch  format_too_new  checksum_mismatch
    │                      collection_busy  collection_unwritable  writes_damaged  pending_full
    ├── StoreError         store_unavailable  store_unreachable  dimension_mismatch  unknown_store  budget_impossible
    ├── EncoderError       unknown_encoder  weights_missing  weights_invalid  text_unsupported  cluster_unavailable
    ├── QueryError         unknown_item  invalid_limit  text_empty  text_too_long  query_invalid
    │                      filter_invalid  id_invalid  metadata_invalid  precondition_failed
    ├── ExtraMissing       extra_missing
    └── SourceError        source_not_found  source_invalid  duplicate_id  disk_full
                           config_invalid  vector_invalid  bucket_unavailable

`code` is stable: the same word is used in `rejected.parquet`, in the JSON problem's `type`, in the service's telemetry
and as a heading in `docs/reference/errors.md`. That page is generated from the docstrings of these classes: the error,
then what to do. Messages name the offending value and how to fix it.
"""

from __future__ import annotations

import re
from typing import ClassVar

MAX_VALUE_CHARACTERS = 200
"""Characters of a value that a message shows, quotes included; the middle of a longer one is left out."""

_LONG_VALUE = re.compile(
    rf"""(?<!\w)'(?:[^'\\]|\\.){{{MAX_VALUE_CHARACTERS - 1},}}'(?!\w)"""  # a quoted one, as repr writes it
    rf"""|(?<!\w)"(?:[^"\\]|\\.){{{MAX_VALUE_CHARACTERS - 1},}}"(?!\w)"""
    rf"""|\S{{{MAX_VALUE_CHARACTERS + 1},}}""",
    re.DOTALL,
)


def shortened(message: str) -> str:
    """Return the message without the middle of values of more than MAX_VALUE_CHARACTERS.

    A value is quoted, or has no white space.
    """
    return _LONG_VALUE.sub(lambda match: f"{match[0][:150]}...{match[0][-40:]}", message)


class LookalikeError(Exception):
    """The base class; never raised itself. Long values in its message are shortened."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(message) if len(message) > MAX_VALUE_CHARACTERS else message)


class ImageError(LookalikeError):
    """Bytes that do not become an image; the family of the codes below.

    Never raised itself.
    """

    code = "image_error"


class ImageTooLarge(ImageError):
    """An image with too many pixels or bytes; nothing was decompressed.

    The limit on pixels is `--max-pixels` of a command and `LOOKALIKE_MAX_PIXELS` of the service: 64 million by
    default. A JPEG that is decoded at a fraction of its size, unless it is progressive, counts with that fraction.
    A file may hold at most 512 MiB.

    Scale the image down, or raise the limit. Decoding takes four to sixteen bytes of memory a pixel.
    """

    code = "image_too_large"


class ImageUndecodable(ImageError):
    """An image that is empty, truncated or corrupt, or a row of a table without an image.

    A JPEG of which at least half is there is read as far as it goes instead. Fetch or export the file
    again. The indexing job skips this one image and continues.
    """

    code = "image_undecodable"


class ImageUnsupported(ImageError):
    """Bytes that are not an image, or an image of a format that is not supported.

    JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF and JPEG 2000 are supported. JPEG XL and camera RAW
    need an extra, which the message names. The content decides, not the file extension. Convert other images.
    """

    code = "image_unsupported"


class CollectionError(LookalikeError):
    """A collection that can't be opened or published; the family of the codes below.

    Never raised itself.
    """

    code = "collection_error"


class CollectionNotFound(CollectionError):
    """No collection at the path.

    Make one with `lookalike index SOURCE --out PATH`.
    """

    code = "collection_not_found"


class ManifestInvalid(CollectionError):
    """A `manifest.json`, or a file beside it, that is missing, unreadable or contradicts the others.

    Index again: embeddings that are sound are reused. Or restore the folder from a copy.
    """

    code = "manifest_invalid"


class EncoderMismatch(CollectionError):
    """A collection that was made by another encoder than the one in use.

    Vectors of two encoders can't be compared. The message names both encoders. Serve the collection with the encoder
    that made it, or index again with the new one. If an earlier edition of `lite` made it, the message has the command
    that encodes its images again: a release has one edition.
    """

    code = "encoder_mismatch"


class FormatTooNew(CollectionError):
    """A collection that a later release of Lookalike wrote.

    Upgrade Lookalike.
    """

    code = "format_too_new"


class ChecksumMismatch(CollectionError):
    """A file whose SHA-256 differs from the manifest's.

    A bad disk, an interrupted copy or an edit is the usual cause. Restore the file from a copy, or index again. A
    damaged version is never copied from.
    """

    code = "checksum_mismatch"


class CollectionBusy(CollectionError):
    """A collection that another job is writing to; the message names its process.

    Wait for that job, or stop it. The kernel releases the lock when the process ends, so a leftover lock file is
    harmless.
    """

    code = "collection_busy"


class CollectionUnwritable(CollectionError):
    """An output folder that can't be written to, is a file, or holds other files than a collection's.

    Pass a new or empty folder to `--out`, or give the process write permission.
    """

    code = "collection_unwritable"


class WritesDamaged(CollectionError):
    """A log of writes (`writes.sqlite`) that is damaged, incomplete or does not fit the collection's version.

    The message says which. Nothing is served, since acknowledged writes would be missing. Restore the collection from a
    snapshot (`lookalike restore`).
    """

    code = "writes_damaged"


class PendingFull(CollectionError):
    """More pending writes than `LOOKALIKE_MAX_PENDING` allows.

    Retry once the writes are compacted, which a writable service begins by itself; `lookalike compact` does it, too.
    Deletions are still possible.
    """

    code = "pending_full"


class StoreError(LookalikeError):
    """A failure of the vector store; the family of the codes below.

    Never raised itself.
    """

    code = "store_error"


class StoreUnavailable(StoreError):
    """A vector store that can't be opened, or whose library failed.

    Its files are missing or damaged: index again. If the message names a GPU, its memory is too small or used up: set
    `LOOKALIKE_STORE_DEVICE=cpu`.
    """

    code = "store_unavailable"


class StoreUnreachable(StoreUnavailable):
    """A Milvus server that does not answer.

    The message names its address. Start the server, or check the network; the service connects again by itself.
    `LOOKALIKE_MILVUS_TOKEN` and `LOOKALIKE_MILVUS_CA` are its credentials and certificate authority.
    """

    code = "store_unreachable"


class DimensionMismatch(StoreError):
    """Vectors of another width than the store's.

    The usual cause is a wrong encoder: use the one that the collection's manifest names.
    """

    code = "dimension_mismatch"


class UnknownStore(StoreError):
    """A store's name that does not exist.

    The message lists the known ones.
    """

    code = "unknown_store"


class BudgetImpossible(StoreError):
    """Limits on memory, recall and latency that no index meets on these vectors.

    The message says what each preset lacks, and which single change would suffice: a larger `--memory`, a longer
    `--latency` or a lower `--recall`. The encoded images are kept: run the same command again with the change.
    """

    code = "budget_impossible"


class EncoderError(LookalikeError):
    """A failure of the encoder while it ran, most often out of memory; also the family of the codes below.

    Encoded images are kept. Run the same command again with a smaller `--batch-size`. In `rejected.parquet`, the
    vector of this one image was not finite.
    """

    code = "encoder_error"


class ClusterUnavailable(EncoderError):
    """A Ray cluster that does not run at the address, or that has no free CPU or GPU.

    What was encoded is kept. Check `--address`, `ray status` and `--gpus-per-worker`. Then run the same command again.
    """

    code = "cluster_unavailable"


class UnknownEncoder(EncoderError):
    """An encoder's name that does not exist; the message suggests similar names.

    `lookalike encoders` lists the names.
    """

    code = "unknown_encoder"


class WeightsMissing(EncoderError):
    """Weights that are not installed and can't be downloaded.

    The message says where to put them and how to get them.
    """

    code = "weights_missing"


class WeightsInvalid(EncoderError):
    """Weights with another checksum or shape than expected, or a file that is not a checkpoint.

    Download the weights again.
    """

    code = "weights_invalid"


class TextUnsupported(EncoderError):
    """A text for an encoder without a text tower.

    Some encoders take images only. For `lite`, install the text tower: `pip install '.[text]'` in Lookalike's source
    folder.
    """

    code = "text_unsupported"


class QueryError(LookalikeError):
    """A query that is invalid; the message says why. Also the family of the codes below.

    For example, the collection's index has no search parameter of this name, or `fields` names an unknown column.
    """

    code = "query_invalid"


class UnknownItem(QueryError):
    """No item of the collection has this id.

    Ids are case-sensitive and contain the file extension.
    """

    code = "unknown_item"


class IdInvalid(QueryError):
    """An id that a new item can't have.

    An id has 1 to 1,024 bytes of UTF-8 and no control characters. It does not end in `/thumbnail` or `/original`,
    and no part between slashes is empty, `.` or `..`.
    """

    code = "id_invalid"


class MetadataInvalid(QueryError):
    """Metadata of a written item that does not fit the collection's columns, or is too large.

    The message names the column, its type and the value. Metadata has at most 64 KiB of JSON, nested at most 5 deep.
    `docs/guides/update-a-collection.md` describes how values fit types.
    """

    code = "metadata_invalid"


class PreconditionFailed(QueryError):
    """A write whose `If-Match` or `If-None-Match` does not hold: the item has changed, exists or does not exist.

    Get the item again, decide whether the write still makes sense, and send it with the item's new `ETag`.
    """

    code = "precondition_failed"


class InvalidLimit(QueryError):
    """A `limit` that is not a whole number, is below 1, or is above the service's limit.

    That limit is `LOOKALIKE_MAX_RESULTS`: 1,000 by default.
    """

    code = "invalid_limit"


class FilterInvalid(QueryError):
    """A filter that has another form, names an unknown column, or compares it with a value of another type.

    The message names the place, the column's type and the value. `docs/reference/filters.md` describes filters.
    """

    code = "filter_invalid"


class TextEmpty(QueryError):
    """A text query without a visible character.

    Send at least one word.
    """

    code = "text_empty"


class TextTooLong(QueryError):
    """A text query that is longer than the limit.

    The limit is `LOOKALIKE_MAX_TEXT`: 1,000 characters by default. Encoders read far less: CLIP reads 77 tokens.
    """

    code = "text_too_long"


class SourceError(LookalikeError):
    """A source or path that can't be read, or a run that would remove many images; also the family of the codes below.

    The message says which. `docs/guides/index-images.md` explains when `--allow-dropping` is needed.

    In `rejected.parquet`, it is a file that could not be opened, a folder that can't be listed, a row without an id, or
    a damaged tar or Parquet file. Everything before the damage is indexed.
    """

    code = "source_invalid"


class SourceNotFound(SourceError):
    """Nothing at the path, or no file that fits the pattern.

    In `rejected.parquet`, it is a broken link, a path in a table without a file, or a file that vanished.
    """

    code = "source_not_found"


class DuplicateId(SourceError):
    """Two items with the same id; the first one in the order of the sources keeps it.

    Pass sources as `NAME=PATH`, which puts `NAME/` before the ids. Or name a column of unique values with
    `--id-column`.
    """

    code = "duplicate_id"


class DiskFull(SourceError):
    """A disk that filled up.

    Encoded images are kept, and so is the version that is being served. Free some space and run the same command
    again.
    """

    code = "disk_full"


class ConfigInvalid(SourceError):
    """A configuration file with an unknown key, or with a value of the wrong type or out of range.

    The message names the key and the file. An invalid `--memory` or `--latency` has this code, too.
    """

    code = "config_invalid"


class VectorInvalid(SourceError):
    """An imported vector that is zero, or that has a value that is not finite.

    It has no direction to compare. The row is left out and listed in `rejected.parquet`.
    """

    code = "vector_invalid"


class BucketUnavailable(SourceError):
    """A bucket that can't be reached, or that refuses the credentials.

    The run stops, and no image is rejected for it; what was encoded is kept. Check the network, `AWS_ENDPOINT_URL`
    and the credentials. Then run the same command again.
    """

    code = "bucket_unavailable"


class ExtraMissing(LookalikeError):
    """A package that a command needs and that is not installed.

    Install the extra that the message names, such as `pip install '.[train]'` in Lookalike's source folder.
    """

    code = "extra_missing"
