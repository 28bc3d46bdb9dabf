"""The image loader: every format, orientation and pixel type, and everything that is no image."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from rdlite import image as image_module
from rdlite.errors import ImageError, OptionError
from rdlite.image import load, resize
from rdlite.imageheader import read_header

LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "BMP": {},
    "TIFF": {},
}


def picture(width: int = 48, height: int = 32) -> np.ndarray:
    """RGB blocks of 16 pixels, each quarter another colour: any turn or flip shows."""
    rng = np.random.default_rng(7)
    blocks = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((16, 16, 1), np.uint8))[:height, :width]


def encode(rgb: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    given = Image.fromarray(rgb) if isinstance(rgb, np.ndarray) else rgb
    given.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", LOSSLESS)
def test_path_and_bytes_give_the_same_bgr_pixels(kind: str, tmp_path: Path) -> None:
    data = encode(picture(), kind, **LOSSLESS[kind])
    path = tmp_path / "image"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data)):
        result = load(source)
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result, picture()[..., ::-1])


def test_jpeg_pixels_are_close() -> None:
    result = load(encode(picture(), "JPEG", quality=95, subsampling=0))
    assert np.abs(result.astype(int) - picture()[..., ::-1]).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else LOSSLESS[kind]
    data = encode(picture(), kind, exif=exif, **options)
    opened = Image.open(io.BytesIO(data))
    upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))[..., ::-1]
    for source in (data, opened):
        result = load(source)
        assert result.shape == upright.shape
        assert np.abs(result.astype(int) - upright).mean() < 3


def test_webp_is_refused_where_opencv_would_leave_it_sideways(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cv2, "__version__", "4.12.0")
    with pytest.raises(ImageError, match="WebP needs OpenCV 5 or later"):
        load(encode(picture(), "WEBP"))


def test_gray_palette_one_bit_and_alpha_become_bgr() -> None:
    rgb = Image.fromarray(picture())
    gray = np.asarray(rgb.convert("L"))
    three = np.dstack([gray] * 3)
    np.testing.assert_array_equal(load(encode(rgb.convert("L"), "PNG")), three)
    np.testing.assert_array_equal(load(encode(rgb.convert("LA"), "PNG")), three)
    np.testing.assert_array_equal(load(encode(rgb.convert("1"), "PNG"))[..., 0] % 255, 0)
    np.testing.assert_array_equal(
        load(encode(rgb.quantize(64), "PNG")),
        np.asarray(rgb.quantize(64).convert("RGB"))[..., ::-1],
    )


@pytest.mark.parametrize("alpha", [0, 128])
def test_alpha_is_dropped_and_not_blended(alpha: int) -> None:
    rgba = Image.fromarray(picture()).copy()
    rgba.putalpha(alpha)
    for source in (encode(rgba, "PNG"), rgba):
        np.testing.assert_array_equal(load(source), picture()[..., ::-1])


LONG = 1 << 16


def tiff(pixels: np.ndarray, order: str = "<", **changes: int) -> bytes:
    """An uncompressed TIFF of `(H, W, C)`; `changes` are tags, "t338" being the kind of alpha.

    What is above 65,535 is stored as LONG, with the high half taken off: `LONG + 2`.
    """
    height, width, channels = pixels.shape
    stored = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    kinds = {"u": 1, "i": 2, "f": 3}
    tags = {
        256: width,
        257: height,
        258: 8 * pixels.itemsize,
        259: 1,
        262: 2 if channels > 2 else 1,
    }
    tags |= {273: 0, 274: 1, 277: channels, 278: height, 279: len(stored)}
    tags |= {339: kinds[pixels.dtype.kind]} | {
        int(key[1:]): value for key, value in changes.items()
    }
    behind = 8 + 2 + 12 * len(tags) + 4
    tags[273] = behind + 2 * 2 * channels
    content, extra = struct.pack(order + "HIH", 42, 8, len(tags)), b""
    for tag, value in sorted(tags.items()):
        if tag in (258, 339) and channels > 2:
            content += struct.pack(order + "HHII", tag, 3, channels, behind + len(extra))
            extra += struct.pack(f"{order}{channels}H", *[value] * channels)
        elif tag in (273, 279) or value >= LONG:
            content += struct.pack(order + "HHII", tag, 4, 1, value % LONG)
        else:
            content += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
    mark = b"II" if order == "<" else b"MM"
    return mark + content + bytes(4) + extra.ljust(2 * 2 * channels, b"\0") + stored


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_of_a_tiff_is_dropped_however_it_is_stored(
    dtype: Any, orientation: int, order: str
) -> None:
    opacity = np.full((32, 48, 1), 255)
    opacity[:, 16:, :], opacity[:, 32:, :] = 128, 0
    upright = np.rot90(picture()[..., ::-1], -1 if orientation == 6 else 0)
    full = np.iinfo(dtype).max // 255
    blended = picture() * (opacity / 255)
    stored = {0: picture(), 1: blended, 2: picture(), LONG + 1: blended, LONG + 2: picture()}
    for alpha, rgb in stored.items():
        pixels = np.rint(np.dstack([rgb, opacity]) * full).astype(dtype)
        result = load(tiff(pixels, order, t274=orientation, t338=alpha))
        expected = upright
        if rgb is blended:  # what is blended with nothing of it is black
            seen = np.rot90(opacity, -1 if orientation == 6 else 0) > 0
            expected = np.where(seen, upright, 0)
        np.testing.assert_allclose(result, expected, atol=1 if rgb is blended else 0)
    gray = np.dstack([picture()[..., :1], opacity]).astype(np.uint8)
    for alpha in (0, 2, LONG + 2):
        np.testing.assert_array_equal(load(tiff(gray, order, t338=alpha))[..., 0], gray[..., 0])
    for alpha in (1, LONG + 1):
        with pytest.raises(ImageError, match="its gray values are stored multiplied by"):
            load(tiff(gray, order, t338=alpha))


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("f4", "32-bit floating-point numbers"),
        ("f8", "64-bit floating-point numbers"),
        ("i2", "16-bit signed whole numbers"),
        ("u4", "32-bit whole numbers"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_pixels_without_a_fixed_range_are_refused(
    channels: int, dtype: str, kind: str
) -> None:
    data = tiff(picture()[..., :channels].astype(dtype))
    with pytest.raises(ImageError, match=f"its pixels are {kind}, and only .*; scale them to"):
        load(data)


def test_cmyk_is_close_to_rgb() -> None:
    cmyk = Image.fromarray(picture()).convert("CMYK")
    for source in (encode(cmyk, "JPEG", quality=95), cmyk):
        assert np.abs(load(source).astype(int) - picture()[..., ::-1]).mean() < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_the_high_byte(kind: str) -> None:
    deep = Image.fromarray(np.full((4, 5), 40_000, np.uint16))
    assert deep.mode == "I;16"
    for source in (encode(deep, kind), deep):
        np.testing.assert_array_equal(load(source), np.full((4, 5, 3), 40_000 >> 8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_the_pixel_limit_holds_for_every_format(kind: str) -> None:
    data = encode(picture(48, 32), kind)
    assert load(data, max_pixels=48 * 32).shape == (32, 48, 3)
    with pytest.raises(ImageError, match="too many pixels, 48x32; the limit is 1,535"):
        load(data, max_pixels=48 * 32 - 1)
    with pytest.raises(ImageError, match="too many pixels"):
        load(Image.open(io.BytesIO(data)), max_pixels=48 * 32 - 1)


def test_the_byte_limit_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.bmp"
    path.write_bytes(encode(picture(), "BMP"))
    monkeypatch.setattr(image_module, "MAX_BYTES", 100)
    with pytest.raises(ImageError, match=r"big\.bmp: has 4,662 bytes; the limit is 100"):
        load(path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0" + Image.Exif().tobytes()}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_headers_tell_the_size_without_decoding(kind: str, options: dict[str, Any]) -> None:
    header = read_header(encode(picture(37, 23), kind, **options))
    assert header == (kind.lower(), 37, 23)


def test_arrays_of_every_accepted_shape() -> None:
    bgr = picture()[..., ::-1].copy()
    gray = bgr[..., 0]
    bgra = np.dstack([bgr, np.full(bgr.shape[:2], 9, np.uint8)])
    assert load(bgr) is bgr
    np.testing.assert_array_equal(load(picture(), color="rgb"), bgr)
    np.testing.assert_array_equal(load(bgra), bgr)
    np.testing.assert_array_equal(load(bgra[..., [2, 1, 0, 3]], color="rgb"), bgr)
    for flat in (gray, gray[..., None]):
        np.testing.assert_array_equal(load(flat), np.dstack([gray] * 3))
        np.testing.assert_array_equal(load(flat, color="rgb"), np.dstack([gray] * 3))


@pytest.mark.parametrize(
    "view",
    [np.s_[:, ::-1], np.s_[::-1], np.s_[..., ::-1], np.s_[::2, ::3], np.s_[5:20, 3:40]],
)
@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_views_of_arrays_are_copied_correctly(view: Any, color: str) -> None:
    array = picture()[view]
    result = load(array, color=color)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, array if color == "bgr" else array[..., ::-1])


def test_read_only_and_fortran_arrays_work() -> None:
    array = picture()
    array.flags.writeable = False
    np.testing.assert_array_equal(load(array, color="rgb"), array[..., ::-1])
    np.testing.assert_array_equal(load(np.asfortranarray(array)), array)


@pytest.mark.parametrize("source", [None, 3, 2.5, object(), {"a": 1}])
def test_other_types_are_refused_by_name(source: Any) -> None:
    with pytest.raises(ImageError, match=f"got {type(source).__name__}"):
        load(source)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pil_images_of_every_mode_are_converted(mode: str) -> None:
    source = Image.fromarray(picture()).convert(mode)
    np.testing.assert_array_equal(load(source), np.asarray(source.convert("RGB"))[..., ::-1])


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pil_modes_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(ImageError, match=f"PIL mode {mode} has no fixed range"):
        load(Image.new(mode, (4, 4)))


def test_a_truncated_pil_image_is_an_image_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(encode(picture(640, 480), "PNG")[:400])
    with Image.open(path) as opened, pytest.raises(ImageError, match=r"cut\.png: cannot be dec"):
        load(opened)


def test_a_closed_pil_image_is_an_image_error() -> None:
    opened = Image.open(io.BytesIO(encode(picture(), "PNG")))
    opened.close()
    with pytest.raises(ImageError, match="PIL image: cannot be decoded"):
        load(opened)


def test_an_unknown_colour_order_is_an_option_error() -> None:
    with pytest.raises(OptionError, match="color must be 'bgr' or 'rgb', got 'rgba'"):
        load(picture(), color="rgba")


def test_resize_stretches_to_height_and_width_bilinearly() -> None:
    step = np.zeros((1, 2, 3), np.uint8)
    step[0, 1] = 200
    result = resize(step, (1, 4))
    np.testing.assert_array_equal(result[0, :, 0], [0, 50, 150, 200])
    assert resize(picture(), (10, 20)).shape == (10, 20, 3)


def test_opencv_does_not_print_about_bad_files() -> None:
    code = (
        "import sys; from rdlite.image import load; from rdlite.errors import ImageError\n"
        "try: load(sys.stdin.buffer.read())\n"
        "except ImageError: print('refused')"
    )
    cut = encode(picture(), "TIFF")[:-50]
    done = subprocess.run([sys.executable, "-c", code], input=cut, capture_output=True)
    assert (done.stdout.strip(), done.stderr) == (b"refused", b"")
