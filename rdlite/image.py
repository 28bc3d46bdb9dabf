"""The one image loader, and the one resize, of detection and of training."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from rdlite.errors import ImageError, OptionError
from rdlite.imageheader import TiffAlpha, check_png, check_tiff, read_header
from rdlite.storage.regular import read_regular

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["Bgr", "ImageSource", "load"]

Pixels: TypeAlias = npt.NDArray[Any]
"""An array that should hold an image; `load` checks."""

Bgr: TypeAlias = npt.NDArray[np.uint8]
"""uint8 `(H, W, 3)`, blue green red, C-contiguous."""

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | Pixels | PIL.Image.Image"
)
"""What `load` accepts as one image."""

MAX_PIXELS: Final = 178_956_970
"""Largest image decoded, in pixels; the number at which Pillow refuses an image."""

MAX_BYTES: Final = 1 << 30
"""Largest image file read, in bytes."""


def load(source: ImageSource, *, color: str = "bgr", max_pixels: int = MAX_PIXELS) -> Bgr:
    """Return one image, upright, as uint8 `(H, W, 3)` BGR, C-contiguous.

    Files and bytes may be JPEG, PNG, WebP, GIF, BMP or TIFF. EXIF orientation is applied,
    alpha is dropped (not blended), gray, palette, 1-bit and CMYK become BGR, 16 bits become
    8, and of an animation the first frame is used.

    Args:
        source: A path, the bytes of an image file, a uint8 array `(H, W)`, `(H, W, 1)`,
            `(H, W, 3)` or `(H, W, 4)`, or a PIL image. A BGR array that is already
            contiguous is returned as it is, not copied.
        color: Channel order of a 3- or 4-channel array, "bgr" or "rgb"; not used for
            anything else, whose order is known.
        max_pixels: Refuse files, bytes and PIL images with more pixels, before decoding.

    Raises:
        ImageError: The image is missing, damaged, too large or of a kind that is not read;
            the text names the file.
        OptionError: `color` is neither "bgr" nor "rgb".
    """
    if color not in ("bgr", "rgb"):
        raise OptionError(f"color must be 'bgr' or 'rgb', got {color!r}")
    if isinstance(source, np.ndarray):
        return _from_array(source, color)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        data = read_regular(path, max_bytes=MAX_BYTES, error=ImageError)
        return _decode(data, str(path), max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), "image bytes", max_pixels)
    if _is_pil(source):
        return _from_pil(source, max_pixels)
    raise ImageError(
        f"an image must be a path, bytes, a uint8 array or a PIL image, got {type(source).__name__}"
    )


def resize(image: Bgr, size_hw: tuple[int, int]) -> Bgr:
    """Return `image` stretched to the network's input: bilinear, aspect ratio not kept.

    Args:
        image: uint8 `(H, W, 3)`.
        size_hw: Height and width of the result, pixels.
    """
    height, width = size_hw
    cv2 = _cv2()
    resized: Bgr = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


@functools.cache
def _cv2() -> Any:
    import cv2

    # OpenCV would print what the ImageError says already, once per bad file.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def _decode(data: bytes, name: str, max_pixels: int) -> Bgr:
    cv2 = _cv2()
    if not data:
        raise ImageError(f"{name}: is empty")
    alpha = None
    try:
        header = read_header(data)
        if header.format == "png":
            check_png(data)
        if header.format == "tiff":
            alpha = check_tiff(data)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    _check_pixels(header.width, header.height, name, max_pixels)
    if header.format == "webp" and int(cv2.__version__.split(".")[0]) < 5:
        # Older releases ignore EXIF orientation in WebP and would return it sideways.
        raise ImageError(f"{name}: WebP needs OpenCV 5 or later, found {cv2.__version__}")
    try:
        image = _decode_opaque(np.frombuffer(data, np.uint8), alpha)
    except cv2.error as error:
        raise ImageError(f"{name}: cannot be decoded ({str(error.err).strip()})") from error
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    if image is None:
        raise ImageError(f"{name}: the {header.format.upper()} data is truncated or damaged")
    return image


def _decode_opaque(content: Bgr, alpha: TiffAlpha | None) -> Bgr | None:
    """Return the colours without transparency, None if they are damaged."""
    cv2 = _cv2()
    if alpha is not None and alpha.blended:
        return _unblended(cv2.imdecode(content, cv2.IMREAD_UNCHANGED))
    if alpha is not None:  # OpenCV blends with black, unless the channel has no meaning
        content = content.copy()
        content[alpha.at] = 0
    decoded: Bgr | None = cv2.imdecode(content, cv2.IMREAD_COLOR)
    return decoded


def _unblended(image: Pixels | None) -> Bgr | None:
    """Return the colours of what is stored multiplied by its transparency."""
    if image is None:
        return None
    if image.shape[2:] != (4,):  # of gray, OpenCV gives no alpha to divide by
        raise ImageError(
            "its gray values are stored multiplied by their transparency, which is undone for "
            "colours alone; save it without transparency"
        )
    cv2 = _cv2()
    *colors, opacity = cv2.split(image)
    full = np.iinfo(image.dtype).max
    straight: Pixels = cv2.merge([cv2.divide(color, opacity, scale=full) for color in colors])
    return straight if full == 255 else (straight >> 8).astype(np.uint8)


def _check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: has too many pixels, {width}x{height}; the limit is {max_pixels:,}"
        )


def _from_array(array: npt.NDArray[Any], color: str) -> Bgr:
    if array.dtype != np.uint8:
        raise ImageError(
            f"an image array must be uint8, got {array.dtype}; scale to 0-255 and convert"
        )
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ImageError(
            "an image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), "
            f"got {array.shape}; pass several images as a list"
        )
    if not array.size:
        raise ImageError(f"an image array must have pixels, got shape {array.shape}")
    array = np.ascontiguousarray(array)
    if channels == 3 and color == "bgr":
        return array
    cv2 = _cv2()
    conversion = {
        (1, "bgr"): cv2.COLOR_GRAY2BGR,
        (1, "rgb"): cv2.COLOR_GRAY2BGR,
        (3, "rgb"): cv2.COLOR_RGB2BGR,
        (4, "bgr"): cv2.COLOR_BGRA2BGR,
        (4, "rgb"): cv2.COLOR_RGBA2BGR,
    }
    converted: Bgr = cv2.cvtColor(array, conversion[channels, color])
    return converted


def _is_pil(source: object) -> bool:
    # A PIL image can only exist where its module has been imported already.
    module: ModuleType | None = sys.modules.get("PIL.Image")
    return module is not None and isinstance(source, module.Image)


def _from_pil(image: PIL.Image.Image, max_pixels: int) -> Bgr:
    from PIL import ImageOps

    name = str(getattr(image, "filename", "")) or "PIL image"
    _check_pixels(image.width, image.height, name, max_pixels)
    if image.mode in ("I", "F"):
        raise ImageError(
            f"{name}: PIL mode {image.mode} has no fixed range; convert it to 'L' or 'RGB'"
        )
    deep = image.mode.startswith("I;16")
    try:
        upright = ImageOps.exif_transpose(image)
        pixels = np.asarray(upright if deep else upright.convert("RGB"))
    except Exception as error:  # Pillow raises whatever its reader of the format ran into
        raise ImageError(f"{name}: cannot be decoded ({error})") from error
    if deep:
        # Pillow would clip 16-bit values; keep the high byte, as OpenCV does for files.
        return _from_array((pixels >> 8).astype(np.uint8), "bgr")
    return _from_array(pixels, "rgb")
