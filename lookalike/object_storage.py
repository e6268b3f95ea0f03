"""Objects in S3-compatible storage: list, read, write and remove them, by fsspec's S3 file system.

Credentials, region and endpoint are those that botocore finds, as in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_DEFAULT_REGION` and `AWS_ENDPOINT_URL`. The library is imported when the first object is used.
"""

from __future__ import annotations

import errno
import io
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from typing_extensions import Buffer, override

from lookalike.errors import (
    BucketUnavailable,
    CollectionUnwritable,
    ConfigInvalid,
    ExtraMissing,
    LookalikeError,
    SourceError,
    SourceNotFound,
)

SCHEME = "s3://"
KEYS_PER_PAGE = 1_000
"""Most keys that a server lists at once, and that it removes at once."""
_BUFFER_BYTES = 4 << 20
_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 4
_SHA256 = "sha256"
_QUERY_STRING = re.compile(r"\?[\w-]+=[^\"\s]*")
_CREDENTIAL_CODES = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_BUSY_ERRNOS = {errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO)}
_READ, _WRITE, _LIST, _DELETE = "s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:DeleteObject"


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a bucket: the key of an object, or the start of keys.

    >>> place = Location.parse("s3://photos/2024/a.jpg")
    >>> place.bucket, place.key, place.name, str(place)
    ('photos', '2024/a.jpg', 'a.jpg', 's3://photos/2024/a.jpg')
    """

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, url: str) -> Location:
        """Return the place that a URL `s3://bucket/key` names.

        Raises:
            SourceNotFound: it has no bucket.
        """
        bucket, _, key = url.removeprefix(SCHEME).partition("/")
        if not is_object_url(url) or not bucket:
            raise SourceNotFound(f"{url!r} names no bucket; write s3://BUCKET/KEY")
        return cls(bucket, key)

    @property
    def name(self) -> str:
        """The last part of the key; the bucket if there is no key."""
        return self.key.rstrip("/").rpartition("/")[2] or self.bucket

    def below(self, name: str) -> Location:
        """Return a place below this one, as if it were a folder."""
        start = self.key.rstrip("/")
        return Location(self.bucket, f"{start}/{name}" if start else name)

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing describes it.

    Attributes:
        location: its bucket and key.
        size: in bytes.
        etag: the server's tag of the content, which changes with it; the time stamp of a server without tags.
    """

    location: Location
    size: int
    etag: str


def is_object_url(text: str) -> bool:
    """Return whether a text is a URL of an object or of a prefix in a bucket."""
    return text.startswith(SCHEME)


def list_objects(location: Location, *, after: str = "", most: int = KEYS_PER_PAGE) -> Iterator[StoredObject]:
    """Yield the objects whose keys begin with the location's, in the order of the keys' UTF-8 bytes.

    Memory holds one page. The next page begins after the last key, so a listing may take hours.

    Args:
        location: the bucket and the start of the keys.
        after: keys up to this one are left out.
        most: keys in a page.

    Raises:
        ExtraMissing: s3fs is not installed.
        SourceNotFound: there is no such bucket.
        SourceError: a permission is missing.
        BucketUnavailable: the endpoint can't be reached, or there are no valid credentials.
    """
    while True:
        with _translated(location, _LIST):
            begin = {"StartAfter": after} if after else {}
            page = _filesystem().call_s3(
                "list_objects_v2", Bucket=location.bucket, Prefix=location.key, MaxKeys=most, **begin
            )
        for entry in page.get("Contents", ()):
            after = entry["Key"]
            tag = entry.get("ETag") or str(entry.get("LastModified"))
            yield StoredObject(Location(location.bucket, after), entry["Size"], tag.strip('"'))
        if not page.get("IsTruncated"):
            return


def find_object(location: Location) -> StoredObject | None:
    """Return an object; None if there is none with this key. It raises the errors of `list_objects`."""
    first = next(list_objects(location, most=1), None) if location.key else None
    return first if first is not None and first.location == location else None


def has_objects(location: Location) -> bool:
    """Return whether any key begins with the location's. It raises the errors of `list_objects`."""
    return next(list_objects(location, most=1), None) is not None


def read_object(location: Location, offset: int = 0, size: int | None = None) -> bytes:
    """Return bytes of an object in one request.

    Args:
        location: of the object.
        offset: first byte; it must be 0 where no size is given.
        size: number of bytes, None for all; fewer are returned if the object ends earlier.

    Raises:
        ExtraMissing: s3fs is not installed.
        SourceNotFound: there is no such object or bucket.
        SourceError: a permission is missing.
        BucketUnavailable: the endpoint can't be reached, or there are no valid credentials.
    """
    if size is not None and size <= 0:
        return b""
    limits = {"max_concurrency": 1} if size is None else {"start": offset, "end": offset + size}
    with _translated(location, _READ):  # without a limit on its requests, it asks for the size first
        return bytes(_filesystem().cat_file(_path(location), **limits))


def read_objects(objects: Sequence[StoredObject], size: int | None = None) -> list[bytes | None]:
    """Return the content of objects, which are read at the same time; None for each that can't be read.

    Args:
        objects: to read.
        size: number of bytes from the start of each, None for all.

    Raises:
        ExtraMissing: s3fs is not installed.
        BucketUnavailable: the endpoint can't be reached, or there are no valid credentials.
    """
    filled = [found for found in objects if found.size]
    if not filled:
        return [b""] * len(objects)
    paths = [_path(found.location) for found in filled]
    ends = [found.size if size is None else min(size, found.size) for found in filled]
    with _translated(filled[0].location, _READ):
        results = _filesystem().cat_ranges(paths, [0] * len(paths), ends, on_error="return")
    contents = iter([_content(result, found.location) for result, found in zip(results, filled, strict=True)])
    return [next(contents) if found.size else b"" for found in objects]


def write_object(location: Location, data: bytes) -> None:
    """Write an object: of less than 100 MB in one PUT, which either replaces the object or changes nothing.

    Raises:
        ExtraMissing: s3fs is not installed.
        SourceNotFound: there is no such bucket.
        CollectionUnwritable: a permission is missing.
        BucketUnavailable: the endpoint can't be reached, or there are no valid credentials.
    """
    with _translated(location, _WRITE):
        _filesystem().pipe_file(_path(location), data)


def upload_file(path: Path, location: Location, sha256: str) -> None:
    """Write a file's content to an object, a large one in parts; it raises the errors of `write_object`.

    Args:
        path: the file.
        location: of the object.
        sha256: of the content in hexadecimal, which is stored with the object for `stored_sha256`.
    """
    with _translated(location, _WRITE):
        _filesystem().put_file(str(path), _path(location), Metadata={_SHA256: sha256})


def stored_sha256(location: Location) -> str | None:
    """Return the checksum that `upload_file` stored with an object; it raises the errors of `read_object`."""
    with _translated(location, _READ):
        head = _filesystem().call_s3("head_object", Bucket=location.bucket, Key=location.key)
    return {name.lower(): value for name, value in head["Metadata"].items()}.get(_SHA256)


def read_parts(found: StoredObject) -> Iterator[bytes]:
    """Yield the content of an object in parts; the next ones are requested meanwhile.

    It raises the errors of `read_object`.
    """
    with ThreadPoolExecutor(_PARTS_AT_ONCE, thread_name_prefix="read") as executor:
        offsets = iter(range(0, found.size, _PART_BYTES))
        requested: deque[Future[bytes]] = deque()
        while True:
            for offset in itertools.islice(offsets, _PARTS_AT_ONCE - len(requested)):
                size = min(_PART_BYTES, found.size - offset)
                requested.append(executor.submit(read_object, found.location, offset, size))
            if not requested:
                return
            yield requested.popleft().result()


def remove_objects(locations: Iterable[Location]) -> None:
    """Remove objects of one bucket; those that don't exist are no error.

    Raises:
        CollectionUnwritable: a permission is missing.
        BucketUnavailable: the endpoint can't be reached, or there are no valid credentials.
    """
    waiting = list(locations)
    for begin in range(0, len(waiting), KEYS_PER_PAGE):
        page = waiting[begin : begin + KEYS_PER_PAGE]
        keys = {"Objects": [{"Key": place.key} for place in page], "Quiet": True}
        with _translated(page[0], _DELETE):
            reply = _filesystem().call_s3("delete_objects", Bucket=page[0].bucket, Delete=keys)
        for refused in reply.get("Errors", ())[:1]:  # a request succeeds as a whole even if each key is refused
            raise CollectionUnwritable(
                f"{Location(page[0].bucket, refused['Key'])} can't be removed ({refused['Code']}): these credentials "
                f"need {_DELETE}"
            )


def open_object(found: StoredObject) -> BinaryIO:
    """Return the content of an object as a seekable stream that reads ahead; errors are those of `read_object`."""
    return io.BufferedReader(_ObjectStream(found), _BUFFER_BYTES)


class _ObjectStream(io.RawIOBase):
    """The bytes of an object: each read is one request."""

    def __init__(self, found: StoredObject) -> None:
        self._object = found
        self._position = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._object.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    @override
    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._object.size - self._position))
        data = read_object(self._object.location, self._position, wanted)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _filesystem() -> Any:
    """Return the file system of this process, which fsspec keeps."""
    try:
        import s3fs
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            f"s3:// needs {error.name}, which is not installed: pip install '.[s3]' in Lookalike's source folder"
        ) from error
    return s3fs.S3FileSystem(use_listings_cache=False)


def _path(location: Location) -> str:
    return f"{location.bucket}/{location.key}"


def _content(result: bytes | Exception, location: Location) -> bytes | None:
    if isinstance(result, Exception):
        error = _as_error(result, location, _READ)
        if isinstance(error, BucketUnavailable):
            raise error from result
        return None
    return bytes(result)


@contextmanager
def _translated(location: Location, permission: str) -> Iterator[None]:
    """Raise this project's errors for those of fsspec, botocore and aiohttp.

    Args:
        location: for the message.
        permission: the one that the request needs.
    """
    try:
        yield
    except LookalikeError:
        raise
    except Exception as error:  # botocore's and aiohttp's errors have no common base but this one
        raise _as_error(error, location, permission) from error


def _as_error(error: Exception, location: Location, permission: str) -> LookalikeError:
    from botocore.exceptions import NoCredentialsError, ParamValidationError, PartialCredentialsError

    code, text = _response_code(error), _QUERY_STRING.sub("", " ".join(str(error).split()))
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return BucketUnavailable(
            f"no credentials for {location}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if code in _CREDENTIAL_CODES:
        return BucketUnavailable(f"the credentials for {location} are refused ({code}): {text}")
    if isinstance(error, FileNotFoundError):
        missing = f"bucket {location.bucket!r}" if code == "NoSuchBucket" else f"object {location}"
        return SourceNotFound(f"there is no {missing}; check its name and AWS_ENDPOINT_URL")
    if isinstance(error, PermissionError):
        kind = CollectionUnwritable if permission in (_WRITE, _DELETE) else SourceError
        return kind(f"no permission for {location} ({code or 'denied'}): these credentials need {permission}")
    if isinstance(error, ParamValidationError) or code == "InvalidBucketName":
        return SourceNotFound(f"{str(location)!r} is not valid: {text}")
    if isinstance(error, ValueError) and "endpoint" in text:
        return ConfigInvalid(f"AWS_ENDPOINT_URL is not a URL: {text}; write it as https://HOST or http://HOST:PORT")
    if isinstance(error, OSError) and error.errno is not None and error.errno not in _BUSY_ERRNOS:
        return SourceError(f"{location} can't be used: {error.strerror or text}")
    return BucketUnavailable(
        f"{location} can't be reached: {text or type(error).__name__}; check the network and AWS_ENDPOINT_URL, "
        "then run the same command again"
    )


def _response_code(error: Exception) -> str:
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
