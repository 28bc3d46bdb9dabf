"""Images that are damaged, dishonest, unusual or no images, given to a detector."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdlite import Detector, ImageError
from tests.command import PLAIN_USER, cli, command, lines, script
from tests.faults.expected import CAR, PERSON, found_in
from tests.faults.fuzz import fuzz

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# The transposition that a stored picture must have for its EXIF orientation to undo it.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    return Detector(tiny_model)


def encode(image: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    """A BGR array or a PIL image as the bytes of a file."""
    stream = io.BytesIO()
    given = Image.fromarray(image[..., ::-1]) if isinstance(image, np.ndarray) else image
    given.save(stream, kind, **options)
    return stream.getvalue()


def noise(width: int = 64, height: int = 64) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, with right lengths and checksums."""
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        data += struct.pack(">I", len(content)) + name + content
        data += struct.pack(">I", zlib.crc32(name + content))
    return data


def png_header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


@pytest.mark.fault(1, 2)
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (np.random.default_rng(0).bytes(5000), "is not a JPEG, PNG, WebP")],
)
def test_content_that_is_no_image_is_refused_by_name(
    content: bytes, reason: str, detector: Detector, tmp_path: Path
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"photo\.jpg: .*{reason}"):
        detector(path)
    with pytest.raises(ImageError, match=f"image bytes: .*{reason}"):
        detector(content)


@pytest.mark.fault(3, 4)
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_an_error_that_names_it(
    kind: str, share: float, detector: Detector, tmp_path: Path
) -> None:
    data = encode(noise(), kind)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"cut\.img: .*(truncated|damaged|incomplete)"):
        detector(path)


@pytest.mark.fault(3, 4)
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_bytes_give_pixels_or_an_image_error(kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "whole.img"
    path.write_bytes(encode(np.kron(noise(6, 4), np.ones((8, 8, 1), np.uint8)), kind, exif=exif))
    read, refused = fuzz("load_image", path, "(*damaged_heads(data), *damaged_anywhere(data, 500))")
    assert refused > 200 and read + refused > 1400


@pytest.mark.fault(4)
def test_every_changed_bit_of_a_png_is_noticed(detector: Detector) -> None:
    data = encode(noise(8, 8), "PNG")
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        with pytest.raises(ImageError):
            detector(changed)


HUGE = {
    "too many pixels": png(png_header(60_000, 60_000), (b"IDAT", zlib.compress(b""))),
    # The chunk says that 4 GB follow, which the decoder would make room for.
    "truncated or damaged": png(png_header(64, 64)) + b"\xff\xff\xff\xf0IDAT" + bytes(100),
    "header is incomplete": b"\xff\xd8\xff\xe0\0\2" + b"\xff" * 5_000_000,
}


@pytest.mark.fault(5)
@pytest.mark.parametrize("reason", HUGE)
def test_a_header_that_claims_too_much_takes_no_memory(reason: str, tmp_path: Path) -> None:
    (tmp_path / "bomb.img").write_bytes(HUGE[reason])
    # The peak of this process alone; getrusage would count the one it was started from.
    code = """if True:
        import re
        import numpy as np
        from rdlite.errors import ImageError
        from rdlite.image import load
        def peak():
            return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
        load(np.zeros((9, 9), np.uint8))
        before = peak()
        try: load(sys.argv[1])
        except ImageError as error: print(error)
        print((peak() - before) // 1024)
    """
    done = subprocess.run(script(code, tmp_path / "bomb.img"), capture_output=True, text=True)
    error, grown = done.stdout.splitlines()
    assert reason in error
    assert int(grown) < 50


@pytest.mark.fault(5)
def test_the_first_of_two_sizes_in_a_tiff_is_the_one_checked(detector: Detector) -> None:
    sizes = [(256, 60_000), (256, 8), (257, 60_000), (257, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sizes)
    with pytest.raises(ImageError, match="too many pixels, 60000x60000"):
        detector(struct.pack("<2sHIH", b"II", 42, 8, len(sizes)) + entries + bytes(100))


@pytest.mark.fault(6)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 2), (1, 4000), (4000, 1)])
def test_boxes_stay_inside_images_of_extreme_shape(
    detector: Detector, width: int, height: int
) -> None:
    found = detector(encode(np.full((height, width, 3), (250, 20, 20), np.uint8), "PNG"))
    assert len(found) > 0
    assert (found.xyxy[:, :2] >= 0).all()
    assert (found.xyxy[:, 2:] <= (width, height)).all()
    assert (found.xyxy[:, :2] < found.xyxy[:, 2:]).all()


def deep(image: Image.Image) -> Image.Image:
    """A gray picture with 16 bits, whose low bits are of no account."""
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256 + 77)


@pytest.mark.fault(7)
@pytest.mark.usefixtures("default_model")
def test_every_kind_of_pixel_gives_the_boxes_of_the_rgb_picture(street: np.ndarray) -> None:
    detector, rgb = Detector(conf=0.1), Image.fromarray(street[..., ::-1])
    kinds = {mode: rgb.convert(mode) for mode in ("L", "LA", "RGBA", "1")} | {"P": rgb.quantize()}
    wanted = {mode: detector(image.convert("RGB")) for mode, image in kinds.items()}
    kinds["I;16"], wanted["I;16"] = deep(rgb), wanted["L"]
    for mode, image in kinds.items():
        for container in ("PNG", "TIFF"):
            found = detector(encode(image, container))
            assert len(found) > 0, mode
            np.testing.assert_array_equal(found.xyxy, wanted[mode].xyxy, err_msg=mode)
    picture = encode(rgb.convert("CMYK"), "JPEG", quality=98, subsampling=0)
    lossy, plain = (detector(one, conf=0.5) for one in (picture, street))
    assert len(plain) > 0
    assert lossy.class_names == plain.class_names
    np.testing.assert_allclose(lossy.xyxy, plain.xyxy, atol=4)


@pytest.mark.fault(8)
@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_sideways_photos_are_found_upright(
    kind: str, orientation: int, detector: Detector, squares: np.ndarray
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(squares[..., ::-1])
    if orientation > 1:
        stored = stored.transpose(STORED[orientation])
    found = detector(encode(stored, kind, exif=exif))
    assert found.image_size == (96, 64)
    assert found_in(found) == {"person": PERSON, "car": CAR}


@pytest.mark.fault(9)
@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_animation_gives_its_first_frame(
    kind: str, detector: Detector, squares: np.ndarray
) -> None:
    first = Image.fromarray(squares[..., ::-1])
    others = [first.transpose(Image.Transpose.ROTATE_180), first]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(first, kind, save_all=True, append_images=others, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert found_in(detector(data)) == {"person": PERSON, "car": CAR}


@pytest.mark.fault(10)
def test_any_file_name_is_read_written_and_recorded(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path
) -> None:
    names = ["n" * 200 + ".png", "new\nline.png", "with spaces.png", "ß漢字.png"]
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(encode(squares, "PNG"))
    assert cli("detect", folder, "-o", out, "--model", tiny_model) == 0
    _, *found = lines(out / "detections.jsonl")
    assert sorted(line["image"] for line in found) == [str(folder / n) for n in sorted(names)]
    assert all(len(line["detections"]) == 2 for line in found)
    assert {p.name for p in out.glob("*.png")} == set(names)


@pytest.mark.fault(11)
def test_what_is_no_readable_file_fails_by_name_and_stops_nothing(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path
) -> None:
    for name in ("good.png", "secret.png"):
        (tmp_path / name).write_bytes(encode(squares, "PNG"))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone")
    (tmp_path / "secret.png").chmod(0)
    sources = [tmp_path / f"{name}.png" for name in ("pipe", "link", "gone", "secret", "good")]
    out = tmp_path / "out"
    run = [*PLAIN_USER, *command("detect", *sources, "-o", out, "--model", tiny_model)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stderr
    failed = {Path(line["input"]).stem: line["error"] for line in lines(out / "errors.jsonl")}
    assert failed.keys() == {"pipe", "link", "gone", "secret"}
    assert "not a regular file" in failed["pipe"]
    assert "Permission denied" in failed["secret"]
    assert len(lines(out / "detections.jsonl")) == 2


@pytest.mark.fault(11)
def test_a_detector_names_what_is_no_readable_file(detector: Detector, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name, reason in [
        ("", "is a directory"),
        ("pipe", "is not a regular file"),
        ("link", "No such file"),
        ("missing.jpg", "No such file"),
    ]:
        with pytest.raises(ImageError, match=reason) as caught:
            detector(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(ImageError, match="null"):
        detector("a\0b.jpg")


READ = {
    "negative strides": lambda image: image[::-1, ::-1].copy()[::-1, ::-1],
    "Fortran order": np.asfortranarray,
    "every second pixel": lambda image: np.kron(image, np.ones((2, 2, 1), np.uint8))[::2, ::2],
    "alpha": lambda image: np.dstack([image, image[..., 0]]),
    "read-only": lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
}


@pytest.mark.fault(12)
@pytest.mark.parametrize("kind", READ)
def test_arrays_of_every_layout_give_the_same_boxes(
    kind: str, detector: Detector, squares: np.ndarray
) -> None:
    assert found_in(detector(READ[kind](squares))) == {"person": PERSON, "car": CAR}


@pytest.mark.fault(12)
@pytest.mark.parametrize("shape", [(64, 96), (64, 96, 1)])
def test_gray_arrays_are_gray_pictures(
    shape: tuple[int, ...], detector: Detector, squares: np.ndarray
) -> None:
    gray = squares[..., 0]
    found, wanted = detector(gray.reshape(shape), conf=0.0), detector(np.dstack([gray] * 3), conf=0)
    assert len(wanted) > 0
    np.testing.assert_array_equal(found.confidence, wanted.confidence)
    np.testing.assert_array_equal(found.xyxy, wanted.xyxy)


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3)), "must be uint8, got float64"),
        (np.zeros((4, 4, 3), bool), "must be uint8, got bool"),
        (np.zeros((4, 4, 3), np.int64), "must be uint8, got int64"),
        (np.zeros((4, 4, 3), object), "must be uint8, got object"),
        (np.zeros((0, 0, 3), np.uint8), r"must have pixels, got shape \(0, 0, 3\)"),
        (np.zeros((4, 0), np.uint8), "must have pixels"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"got \(2, 4, 4, 3\); pass several images as a list"),
        (np.zeros(12, np.uint8), r"got \(12,\)"),
    ],
)
def test_arrays_that_are_no_image_are_refused(array: Any, message: str, detector: Detector) -> None:
    with pytest.raises(ImageError, match=message):
        detector(array)


@pytest.mark.fault(13)
def test_rgb_taken_for_bgr_finds_other_things_and_color_restores_them(
    detector: Detector, squares: np.ndarray
) -> None:
    rgb = squares[..., ::-1]
    assert found_in(detector(rgb)) == {"car": PERSON, "person": CAR}
    assert found_in(detector(rgb, color="rgb")) == {"person": PERSON, "car": CAR}


@pytest.mark.fault(13)
@pytest.mark.usefixtures("default_model")
def test_the_default_model_prefers_the_right_colour_order(street: np.ndarray) -> None:
    detector = Detector()
    right, wrong = detector(street), detector(street[..., ::-1])
    np.testing.assert_array_equal(detector(street[..., ::-1], color="rgb").xyxy, right.xyxy)
    assert len(wrong) != len(right) or not np.array_equal(wrong.xyxy, right.xyxy)
