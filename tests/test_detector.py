"""The detector: what it accepts, what it refuses, and that it can be shared and moved."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import rdlite
from rdlite import Detections, Detector, ImageError, ModelError, OptionError, VideoError
from tests.conftest import CATEGORY_IDS, NAMES, constant_model

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


def test_rgb_taken_for_bgr_finds_other_things_and_color_restores_them(
    detector: Detector, squares: np.ndarray
) -> None:
    rgb = squares[..., ::-1]
    assert found_in(detector(rgb)) == {"car": PERSON, "person": CAR}
    assert same(detector(rgb, color="rgb"), detector(squares))


def test_sideways_photos_are_found_upright(
    detector: Detector, squares: np.ndarray, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned left; a viewer turns it right
    stored = np.rot90(squares)
    path = tmp_path / "phone.png"
    Image.fromarray(stored[..., ::-1]).save(path, exif=exif)
    assert same(detector(path), detector(squares))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 2), (1, 4000), (4000, 1)])
def test_boxes_stay_inside_images_of_extreme_shape(
    detector: Detector, width: int, height: int
) -> None:
    found = detector(np.full((height, width, 3), (250, 20, 20), np.uint8))
    assert len(found) > 0
    assert (found.xyxy[:, :2] >= 0).all()
    assert (found.xyxy[:, 2:] <= (width, height)).all()
    assert (found.xyxy[:, :2] < found.xyxy[:, 2:]).all()


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
    for classes in ("car", 2, ["car"], [2], ("dog", 2), np.array([2])):
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
        ({"classes": 5}, "an index must be from 0 to 4, got 5"),
        ({"classes": [-1]}, "an index must be from 0 to 4, got -1"),
        ({"classes": [1.5]}, "classes must be names or indices, got 1.5"),
        ({"classes": 1.5}, "classes must be names or indices, got float"),
        ({"classes": []}, "classes is empty"),
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


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, None])
def test_threads_must_be_a_positive_number(tiny_model: Path, threads: Any) -> None:
    with pytest.raises(OptionError, match="threads must be a whole number of at least 1"):
        Detector(tiny_model, threads=threads)


def test_numpy_numbers_are_options_too(tiny_model: Path, squares: np.ndarray) -> None:
    detector = Detector(tiny_model, conf=np.float32(0.25), max_det=np.int64(1))
    assert len(detector(squares)) == 1


def test_the_model_is_described(tiny_model: Path, detector: Detector) -> None:
    assert detector.names == NAMES
    assert detector.category_ids == CATEGORY_IDS
    assert detector.spec.input_size == (32, 48)
    assert len(detector.model_sha256) == 64
    assert detector.options["conf"] == 0.25
    assert str(tiny_model) in repr(detector)


def test_a_model_that_cannot_be_used_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx"):
        Detector(tmp_path / "none.onnx")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("head", ["arm_loc", "arm_conf", "odm_loc", "odm_conf"])
def test_what_is_not_finite_is_dropped_and_counted(
    head: str, value: float, write_model: WriteModel, squares: np.ndarray
) -> None:
    heads = {"arm_conf": np.zeros((1, 24, 2)), "odm_conf": np.zeros((1, 24, 6))}
    heads["arm_conf"][..., 1] = heads["odm_conf"][..., 1] = 10
    heads = {name: np.zeros((1, 24, 4)) for name in ("arm_loc", "odm_loc")} | heads
    heads[head][0, 5] = value
    found = Detector(write_model(constant_model(**heads)))(squares)
    assert found.dropped_nonfinite == 1
    assert len(found) == 23
    assert np.isfinite(found.xyxy).all()
    assert np.isfinite(found.confidence).all()


def test_huge_offsets_leave_no_box_outside_the_image(
    write_model: WriteModel, squares: np.ndarray
) -> None:
    heads = {"arm_conf": np.zeros((1, 24, 2)), "odm_conf": np.zeros((1, 24, 6))}
    heads["arm_conf"][..., 1] = heads["odm_conf"][..., 1] = 10
    rng = np.random.default_rng(0)
    for name in ("arm_loc", "odm_loc"):
        heads[name] = rng.choice([-1e30, -1e4, 0, 1e4, 1e30], (1, 24, 4))
    found = Detector(write_model(constant_model(**heads)))(squares)
    assert np.isfinite(found.xyxy).all()
    assert (found.xyxy >= 0).all()
    assert (found.xyxy[:, 2:] <= (96, 64)).all()


@pytest.mark.parametrize("nms", ["hard", "linear", "gaussian"])
def test_everything_above_the_threshold_still_respects_max_det(
    nms: str, write_model: WriteModel, squares: np.ndarray
) -> None:
    heads = {"arm_conf": np.full((1, 24, 2), [0, 10.0]), "odm_conf": np.zeros((1, 24, 6))}
    detector = Detector(write_model(constant_model(**heads)), conf=0.01, nms=nms)
    assert len(detector(squares)) == 100
    assert len(detector(squares, max_det=7)) == 7


def test_several_threads_get_the_serial_results(detector: Detector, squares: np.ndarray) -> None:
    images = [np.roll(squares, 16 * n, axis=1) for n in range(6)]
    wanted = [detector(image) for image in images]
    wrong: list[int] = []

    def work(first: int) -> None:
        for n in range(60):
            which = (first + n) % len(images)
            if not same(detector(images[which]), wanted[which]):
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_pickle_keeps_model_and_options(
    tiny_model: Path, squares: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model.parent)
    detector = Detector(tiny_model.name, conf=0.4, nms="hard", classes=["car"], threads=2)
    content = pickle.dumps(detector)
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(content)
    assert repr(again) == repr(detector)
    assert again.model_sha256 == detector.model_sha256
    assert same(again(squares), detector(squares))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_process_pools_give_the_same_results(
    method: str, detector: Detector, squares: np.ndarray
) -> None:
    # Large enough for OpenCV's own threads to have been started before the fork.
    image = np.kron(squares, np.ones((12, 12, 1), np.uint8))
    wanted = detector(image)
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.map_async(detector, [image] * 4).get(timeout=60)
    assert all(same(found, wanted) for found in results)


def test_making_many_detectors_keeps_memory_and_threads_flat(
    tiny_model: Path, squares: np.ndarray
) -> None:
    def resident_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    for _ in range(30):
        Detector(tiny_model)(squares)
    memory, tasks = resident_mib(), len(os.listdir("/proc/self/task"))
    for _ in range(300):
        Detector(tiny_model)(squares)
    assert resident_mib() - memory < 20
    assert len(os.listdir("/proc/self/task")) == tasks


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


def test_the_default_model_prefers_the_right_colour_order(
    default_model: Path, street: np.ndarray
) -> None:
    detector = Detector()
    right = detector(street)
    assert same(detector(street[..., ::-1], color="rgb"), right)
    assert not same(detector(street[..., ::-1]), right)


def test_the_default_model_is_found_again_by_pickle(
    default_model: Path, street: np.ndarray
) -> None:
    detector = Detector(conf=0.3)
    assert same(pickle.loads(pickle.dumps(detector))(street), detector(street))


def test_a_detector_works_offline_without_home_in_a_read_only_directory(
    tiny_model: Path, tmp_path: Path
) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "import numpy as np, rdlite\n"
        "rdlite.Detector(sys.argv[1])(np.zeros((9, 9, 3), np.uint8)); print('done')"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    environment["PYTHONPATH"] = str(Path(rdlite.__file__).parents[1])
    folder = tmp_path / "read only"
    folder.mkdir(mode=0o555)
    command = [sys.executable, "-c", code, str(tiny_model)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
