"""The detector: what it accepts, what it refuses, and that it can be shared and moved."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from rdlite import Detections, Detector, ImageError, ModelError, OptionError, VideoError
from tests.conftest import CATEGORY_IDS, NAMES

WriteModel = Callable[..., Path]
PERSON, CAR = (16.0, 16.0, 32.0, 32.0), (64.0, 32.0, 80.0, 48.0)


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    return Detector(tiny_model)


def found_in(detections: Detections) -> dict[str, tuple[float, ...]]:
    """Class name to box, rounded to what float32 arithmetic can promise."""
    return {one.name: tuple(round(side, 3) for side in one.xyxy) for one in detections}


def same(one: Detections, other: Detections) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("xyxy", "confidence", "class_id", "image_size")
    )


def png(bgr: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(bgr[..., ::-1]).save(stream, "PNG")
    return stream.getvalue()


def test_boxes_are_in_pixels_of_the_given_image(detector: Detector, squares: np.ndarray) -> None:
    found = detector(squares)
    assert found_in(found) == {"person": PERSON, "car": CAR}
    assert found.image_size == (96, 64)
    assert found.names == NAMES
    assert found.category_ids == CATEGORY_IDS
    assert (found.confidence > 0.99).all()
    larger = detector(np.kron(squares, np.ones((3, 2, 1), np.uint8)))
    assert found_in(larger)["person"] == (32.0, 48.0, 64.0, 96.0)


def test_speed_names_the_three_stages(detector: Detector, squares: np.ndarray) -> None:
    speed = detector(squares).speed
    assert list(speed) == ["preprocess", "inference", "postprocess"]
    assert all(0 < milliseconds < 60_000 for milliseconds in speed.values())


def test_every_kind_of_source_gives_the_same_result(
    detector: Detector, squares: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "squares.png"
    path.write_bytes(png(squares))
    wanted = detector(squares)
    alpha = np.dstack([squares, np.zeros(squares.shape[:2], np.uint8)])
    for source in (
        path,
        str(path),
        png(squares),
        Image.fromarray(squares[..., ::-1]),
        alpha,
        squares[:, ::-1][:, ::-1],
    ):
        assert same(detector(source), wanted)


def test_nothing_found_is_an_empty_result(detector: Detector) -> None:
    found = detector(np.full((64, 96, 3), 90, np.uint8))
    assert len(found) == 0
    assert found.image_size == (96, 64)


def test_a_list_gives_a_list_in_order(detector: Detector, squares: np.ndarray) -> None:
    gray = np.full((10, 10, 3), 90, np.uint8)
    results = detector([squares, gray, png(squares)])
    assert [len(found) for found in results] == [2, 0, 2]
    assert [len(found) for found in detector((gray, squares))] == [0, 2]
    assert detector([]) == []


def test_a_bad_image_in_a_list_is_named(detector: Detector, squares: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"image 1 of the list: gone\.jpg: cannot be read"):
        detector([squares, "gone.jpg"])


def test_classes_keep_only_those_wanted(tiny_model: Path, squares: np.ndarray) -> None:
    for classes in ("car", 2, "2", ["car"], [2], ("dog", 2), np.array([2])):
        assert found_in(Detector(tiny_model, classes=classes)(squares)) == {"car": CAR}
    detector = Detector(tiny_model, classes=["car"])
    assert found_in(detector(squares, classes=["person", 2])).keys() == {"person", "car"}
    assert found_in(detector(squares)) == {"car": CAR}


def test_options_of_a_call_hold_for_that_call_only(detector: Detector, squares: np.ndarray) -> None:
    assert len(detector(squares, max_det=1)) == 1
    assert len(detector(squares, conf=1)) == 0
    assert len(detector(squares)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conf": 25}, r"^conf must be between 0 and 1, got 25; did you mean 0\.25\?$"),
        ({"conf": -0.1}, r"^conf must be between 0 and 1, got -0\.1$"),
        ({"conf": 1000}, r"^conf must be between 0 and 1, got 1000$"),
        ({"conf": float("nan")}, "conf must be a number between 0 and 1, got nan"),
        ({"conf": "0.5"}, "conf must be a number between 0 and 1, got '0.5'"),
        ({"conf": True}, "conf must be a number between 0 and 1, got True"),
        ({"iou": 50}, r"iou must be between 0 and 1, got 50; did you mean 0\.5\?"),
        ({"nms": "soft"}, "nms must be one of hard, linear, gaussian, got 'soft'"),
        ({"max_det": 0}, "max_det must be a whole number of at least 1, got 0"),
        ({"max_det": 2.5}, "max_det must be a whole number of at least 1, got 2.5"),
        ({"classes": "persn"}, "no class 'persn'; did you mean person?"),
        ({"classes": ["car", "zebra"]}, "no class 'zebra'; it knows person, bicycle, car"),
        ({"classes": ["Dog"]}, "no class 'Dog'; did you mean dog?"),
        ({"classes": "1_0"}, "no class '1_0'"),
        ({"classes": 5}, "an index must be from 0 to 4, got 5"),
        ({"classes": [-1]}, "an index must be from 0 to 4, got -1"),
        ({"classes": [1.5]}, "classes must be names or indices, got 1.5"),
        ({"classes": 1.5}, "classes must be names or indices, got float"),
        ({"classes": []}, "classes is empty"),
        ({"classes": np.array(0)}, r"^classes must be names or indices, got array\(0\)$"),
        ({"classes": "9" * 5000}, "the model has no class '999"),
    ],
)
def test_bad_options_are_refused_by_constructor_and_call(
    options: dict[str, Any], message: str, tiny_model: Path, detector: Detector, squares: np.ndarray
) -> None:
    pattern = message if message.startswith("^") else message.replace("?", r"\?")
    with pytest.raises(OptionError, match=pattern):
        Detector(tiny_model, **options)
    with pytest.raises(OptionError, match=pattern):
        detector(squares, **options)


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, None, 99_999])
def test_threads_must_be_a_number_that_a_machine_bears(tiny_model: Path, threads: Any) -> None:
    with pytest.raises(OptionError, match="threads must be a whole number from 1 to 256"):
        Detector(tiny_model, threads=threads)


def test_numpy_numbers_are_options_too(tiny_model: Path, squares: np.ndarray) -> None:
    detector = Detector(tiny_model, conf=np.float32(0.25), max_det=np.int64(1))
    assert len(detector(squares)) == 1


def test_the_model_is_described(tiny_model: Path, detector: Detector) -> None:
    assert detector.names == NAMES
    assert detector.category_ids == CATEGORY_IDS
    assert detector.spec.input_size == (32, 48)
    assert len(detector.model_sha256) == 64
    assert detector.options["conf"] == 0.4
    assert str(tiny_model) in repr(detector)


def test_a_model_that_cannot_be_used_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx"):
        Detector(tmp_path / "none.onnx")


def write_clip(path: Path, picture: np.ndarray, frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
        stream.bit_rate = 4_000_000
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())


def test_stream_yields_frames_with_their_objects(
    detector: Detector, squares: np.ndarray, tmp_path: Path
) -> None:
    write_clip(tmp_path / "clip.mp4", squares, 6)
    pairs = list(detector.stream(tmp_path / "clip.mp4", stride=2, classes="car"))
    assert [frame.index for frame, _ in pairs] == [0, 2, 4]
    assert all(found_in(found) == {"car": CAR} for _, found in pairs)
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        detector.stream(tmp_path / "gone.mp4")


def test_annotate_video_writes_a_video_and_its_detections(
    detector: Detector, squares: np.ndarray, tmp_path: Path
) -> None:
    write_clip(tmp_path / "clip.mp4", squares, 6)
    detector.annotate_video(tmp_path / "clip.mp4", tmp_path / "boxes.mp4", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "boxes.jsonl",
        "boxes.mp4",
        "clip.mp4",
    ]
    with av.open(str(tmp_path / "boxes.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 6


def test_the_default_model_finds_the_cyclist(default_model: Path, street: np.ndarray) -> None:
    found = Detector()(street)
    assert len(found.names) == 80
    people = [box.xyxy for box in found if box.name == "person"]
    assert people
    x1, y1, x2, y2 = people[0]
    assert 340 < (x1 + x2) / 2 < 460 and y2 - y1 > 120


def test_the_default_model_is_found_again_by_pickle(
    default_model: Path, street: np.ndarray
) -> None:
    detector = Detector(conf=0.3)
    assert same(pickle.loads(pickle.dumps(detector))(street), detector(street))
