"""What an image file claims to be, read from its first bytes without decoding it."""

from __future__ import annotations

import struct
import zlib
from typing import Final, NamedTuple

from rdlite.errors import ImageError

FORMATS: Final = "JPEG, PNG, WebP, GIF, BMP or TIFF"
"""The formats `read_header` knows, for messages."""

# Start-of-frame markers: C0-CF without DHT (C4), JPG (C8) and DAC (CC).
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
# Those before the frame of a JPEG; a long colour profile fills a few hundred. Without a limit a
# file of nothing but markers would take minutes.
_MOST_SEGMENTS: Final = 10_000
_TIFF_TYPES: Final = {1: "B", 3: "H", 4: "I"}
_WIDTH, _HEIGHT, _BITS, _ALPHA, _KIND = 256, 257, 258, 338, 339  # tags of a TIFF
_TIFF_KINDS: Final = {
    2: "signed whole numbers",
    3: "floating-point numbers",
    5: "complex numbers",
    6: "complex numbers",
}


class Header(NamedTuple):
    """Attributes of an encoded image.

    Attributes:
        format: "jpeg", "png", "webp", "gif", "bmp" or "tiff".
        width: Pixels, as stored (before any EXIF rotation).
        height: Pixels, as stored.
    """

    format: str
    width: int
    height: int


def read_header(data: bytes) -> Header:
    """Return the format and size that an encoded image states in its header.

    Args:
        data: The file's bytes; only the header is looked at.

    Raises:
        ImageError: The bytes are none of the known formats, or end inside the header.
    """
    for signature, name, size in _SNIFFERS:
        if data.startswith(signature) and (name != "webp" or data[8:12] == b"WEBP"):
            try:
                width, height = size(data)
            except (struct.error, IndexError, ValueError):
                raise ImageError(f"the {name.upper()} header is incomplete or damaged") from None
            if width < 1 or height < 1:
                raise ImageError(f"the {name.upper()} header says {width}x{height} pixels")
            return Header(name, width, height)
    raise ImageError(f"the content is not a {FORMATS} image")


def check_png(data: bytes) -> None:
    """Refuse a PNG with a chunk that is cut off or whose checksum is wrong.

    The decoder would use damaged pixels, and set aside what a damaged length asks for.

    Args:
        data: The whole file.

    Raises:
        ImageError: The file is truncated or damaged.
    """
    view, at, kind = memoryview(data), 8, b""
    while kind != b"IEND" and at < len(data):
        kind = bytes(view[at + 4 : at + 8])
        end = at + 8 + int.from_bytes(view[at : at + 4])
        checksum = int.from_bytes(view[end : end + 4])
        if end + 4 > len(data) or checksum != zlib.crc32(view[at + 4 : end]):
            raise ImageError(f"the PNG data is truncated or damaged at byte {at:,}")
        at = end + 4


class TiffAlpha(NamedTuple):
    """How a TIFF stores transparency.

    Attributes:
        blended: Whether colours are stored multiplied by it ("associated alpha").
        at: Where the bytes are that say so; zeros make it a channel without a meaning.
    """

    blended: bool
    at: slice


def check_tiff(data: bytes) -> TiffAlpha | None:
    """Refuse a TIFF whose pixels are no whole numbers of up to 16 bits without a sign.

    Args:
        data: The whole file.

    Returns:
        Its transparency, None if it has none.

    Raises:
        ImageError: It has other pixels, which have no fixed range.
    """
    try:
        tags = _tiff_tags(data, _BITS, _ALPHA, _KIND)
    except struct.error:
        raise ImageError("the TIFF header is incomplete or damaged") from None
    bits, kind = (tags[tag][0] if tag in tags else 1 for tag in (_BITS, _KIND))
    if kind in _TIFF_KINDS or bits > 16:
        raise ImageError(
            f"its pixels are {bits}-bit {_TIFF_KINDS.get(kind, 'whole numbers')}, and only whole "
            "numbers of up to 16 bits without a sign are read; scale them to 0-255 and save 8 bits"
        )
    alpha, at = tags.get(_ALPHA, (0, slice(0)))
    return TiffAlpha(alpha == 1, at) if alpha in (1, 2) else None


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        at = data.index(0xFF, at)  # stray bytes between segments, which decoders skip as well
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        else:
            at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    raise ValueError("no frame")


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> tuple[int, int]:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return width, abs(height)  # a negative height means rows stored from the top


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return _u24(data, 24) + 1, _u24(data, 27) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _u24(data: bytes, at: int) -> int:
    return data[at] | data[at + 1] << 8 | data[at + 2] << 16


def _tiff(data: bytes) -> tuple[int, int]:
    tags = _tiff_tags(data, _WIDTH, _HEIGHT)
    width, height = (tags[tag][0] if tag in tags else 0 for tag in (_WIDTH, _HEIGHT))
    return width, height


def _tiff_tags(data: bytes, *wanted: int) -> dict[int, tuple[int, slice]]:
    """Return the first number of each tag wanted that is there, and where it is."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    tags: dict[int, tuple[int, slice]] = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, at)
        if tag in wanted and kind in _TIFF_TYPES:
            place, code = at + 8, order + _TIFF_TYPES[kind]
            size = struct.calcsize(code)
            if values * size > 4:  # more than there is room for
                (place,) = struct.unpack_from(order + "I", data, place)
            (value,) = struct.unpack_from(code, data, place)
            # Of a tag stated twice, decoders take the first.
            tags.setdefault(tag, (value, slice(place, place + size)))
    return tags


_SNIFFERS: Final = (
    (b"\xff\xd8\xff", "jpeg", _jpeg),
    (b"\x89PNG\r\n\x1a\n", "png", _png),
    (b"RIFF", "webp", _webp),
    (b"GIF87a", "gif", _gif),
    (b"GIF89a", "gif", _gif),
    (b"BM", "bmp", _bmp),
    (b"II*\0", "tiff", _tiff),
    (b"MM\0*", "tiff", _tiff),
)
