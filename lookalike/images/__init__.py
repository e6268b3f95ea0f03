"""Bytes -> RGB image, for the indexing job and the service alike.

decoder       any accepted file -> an upright 8-bit RGB image
formats       accepted formats, their file names, and which one some bytes are of
opening       the header of a file of any accepted format, and which error each other kind of bytes raises
opened        what all of them share: sizes, orientation, and how many pixels decoding holds
jpeg          JPEG at a fraction of its size, and as far as it goes where its end is missing; jpeg_structure: its scans
jxl, raw      JPEG XL and camera RAW, by libraries of extras
color         pixels of any mode -> 8-bit RGB in sRGB
icc           the conversion of an image's colours to sRGB, by its profile or by what else it declares
color_spaces  colour spaces that files name without a profile, as profiles
transparency  transparent images -> opaque ones, on a background that their content is visible on
depth         samples of more than 8 bits -> 8 bits
deep_tiff     TIFFs of such samples
png           significant bits of a PNG, and the lower half of its 16-bit colours
strips        an image in strips
in_memory     a Pillow image or an array of pixels -> an upright 8-bit RGB image
pixel_budget  a bound on the pixels that all threads hold together
thumbnail     RGB image -> JPEG bytes
"""

from lookalike.images.decoder import DEFAULT_MAX_PIXELS, DecodedImage, decode, open_decoded
from lookalike.images.formats import EXTENSIONS, FORMATS, is_image_start, media_type
from lookalike.images.in_memory import PillowImage, from_array, from_pillow
from lookalike.images.thumbnail import THUMBNAIL_SIDE, encode_thumbnail

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "EXTENSIONS",
    "FORMATS",
    "THUMBNAIL_SIDE",
    "DecodedImage",
    "PillowImage",
    "decode",
    "encode_thumbnail",
    "from_array",
    "from_pillow",
    "is_image_start",
    "media_type",
    "open_decoded",
]
