"""The accepted image formats: their file names, and which one some bytes are of."""

from __future__ import annotations

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "HEIC", "AVIF", "JPEG 2000")
"""Formats that every installation reads. JPEG includes MPO, a JPEG with further images that many cameras write."""

_NAMES = (
    ".jpg .jpeg .jpe .jfif .pjpeg .pjp .mpo .png .apng .webp .gif .bmp .tif .tiff"
    " .heic .heif .hif .avif .jp2 .j2k .jpf .jpx .jxl"
)
_NAMES_OF_RAW = (
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .rw2"
    " .rwl .sr2 .srf .srw .x3f"
)

EXTENSIONS = frozenset([*_NAMES.split(), *_NAMES_OF_RAW.split()])
"""File name extensions of images, lower case. They only select files: the content decides what a file is."""

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),  # a bare codestream
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"\xff\x0a", "JXL"),  # a bare codestream
    (b"FUJIFILMCCD-RAW", "RAW"),
    (b"IIRO", "RAW"),  # Olympus
    (b"IIRS", "RAW"),
    (b"MMOR", "RAW"),
    (b"IIU\0", "RAW"),  # Panasonic
    (b"II\x1a\0\0\0HEAPCCDR", "RAW"),  # Canon's CRW
    (b"\0MRM", "RAW"),  # Minolta
    (b"FOVb", "RAW"),  # Sigma
)
_MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "HEIF": "image/heic",
    "AVIF": "image/avif",
    "JPEG2000": "image/jp2",
    "JXL": "image/jxl",
    "RAW": "image/x-dcraw",
}
_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
)


def content_format(head: bytes) -> str | None:
    """Return the format of a file by its first 32 bytes or more, None where it is not of an accepted one.

    The names are Pillow's: `JPEG`, `PNG`, `WEBP`, `GIF`, `BMP`, `TIFF`, `HEIF`, `AVIF`, `JPEG2000`, `JXL`; `RAW` stands
    for camera RAW. Most RAW files begin as a TIFF does, and are `TIFF` here.
    """
    if head[4:8] == b"ftyp":
        end = min(len(head), int.from_bytes(head[:4], "big"))
        return _format_of_brands({head[8:12], *(head[at : at + 4] for at in range(16, end, 4))})
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else None
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def is_image_start(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is of an accepted format; the first 32 bytes suffice."""
    return content_format(head) is not None


def media_type(head: bytes) -> str | None:
    """Return the media type of an image by its first 64 bytes, None for what is no image.

    It is stricter than `content_format` about the two formats that text may begin as: "BM" and "GIF8".

    >>> media_type(b"GIF89a"), media_type(b"BMW is a make of cars."), media_type(b"<svg/>")
    ('image/gif', None, None)
    """
    kind = content_format(head)
    if kind == "BMP" and int.from_bytes(head[14:18], "little") not in _BMP_HEADER_SIZES:
        return None
    if kind == "GIF" and head[:6] not in (b"GIF87a", b"GIF89a"):
        return None
    return None if kind is None else _MEDIA_TYPES[kind]


def _format_of_brands(brands: set[bytes]) -> str | None:
    """Return the format that the brands of an ISO base media file name; videos have others."""
    if b"crx " in brands:
        return "RAW"  # Canon's CR3
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & _HEIF_BRANDS else None
