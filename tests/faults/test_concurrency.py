"""One detector in many threads and processes, errors in every stage, and nothing left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite import Detections, Detector
from rdlite.video.pipeline import annotate_video, stream
from tests.media import TwoBoxes, clip


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    return Detector(tiny_model)


def same(one: Detections, other: Detections) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("xyxy", "confidence", "class_id", "image_size")
    )


@pytest.mark.fault(44)
def test_several_threads_get_the_serial_results(detector: Detector, squares: np.ndarray) -> None:
    images = [np.roll(squares, 16 * n, axis=1) for n in range(6)]
    wanted = [detector(image) for image in images]

    def work(first: int) -> list[bool]:
        order = [(first + n) % len(images) for n in range(200)]
        return [same(detector(images[n]), wanted[n]) for n in order]

    with ThreadPoolExecutor(8) as pool:
        assert all(all(results) for results in pool.map(work, range(8)))


@pytest.mark.fault(45)
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


@pytest.mark.fault(45)
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


def in_use() -> tuple[int, int]:
    """Threads of this process, those of libraries included, and open files."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """After the test all threads have ended within 5 seconds, and all files are closed."""
    before = in_use()
    yield
    gc.collect()
    deadline = time.monotonic() + 5
    while in_use() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert in_use() == before, [thread.name for thread in threading.enumerate()]


class Failing(TwoBoxes):
    """A detector that fails after some frames."""

    def __init__(self, after: int, error: BaseException) -> None:
        super().__init__()
        self.after, self.error = after, error

    def __call__(self, image: Any, **options: Any) -> Detections:
        if len(self.sizes) == self.after:
            raise self.error
        return super().__call__(image, **options)


def noisy_clip(path: Path, frames: int = 90) -> Path:
    """A clip whose every frame is a packet of some size of its own."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(frames)]
    return clip(path, images, gop_size=1)


def spoil_packets(path: Path, first: int, count: int) -> None:
    """Overwrite some packets of a video."""
    import av

    with av.open(str(path)) as source:
        packets = [(p.pos, p.size) for p in source.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[first : first + count]:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)


@pytest.mark.fault(46)
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("stage", ["read", "detect", "interrupt", "progress", "write"])
def test_an_error_in_any_stage_of_annotation_leaves_nothing_behind(
    stage: str, tmp_path: Path
) -> None:
    source = noisy_clip(tmp_path / "a.mp4")
    # tqdm, which shows progress where a function does not, keeps a thread of its own.
    options: dict[str, Any] = {"crf": 10, "progress": lambda done, total: None}
    detector, error, limit = TwoBoxes(), "boom", resource.getrlimit(resource.RLIMIT_FSIZE)
    if stage == "read":
        spoil_packets(source, 40, 40)
        error = "33 packets in a row"
    elif stage == "detect":
        detector = Failing(40, RuntimeError("boom"))
    elif stage == "interrupt":
        detector = Failing(40, KeyboardInterrupt("boom"))
    elif stage == "progress":
        options["progress"] = lambda done, total: 1 / 0 if done > 40 else None
        error = "division by zero"
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
        error = "file too large"
    try:
        with pytest.raises(BaseException, match=error):
            annotate_video(detector, source, tmp_path / "out.mp4", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.fault(46)
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("stage", ["read", "detect", "consumer", "closed", "forgotten", "unbegun"])
def test_a_stream_that_ends_early_leaves_nothing_behind(stage: str, tmp_path: Path) -> None:
    source = noisy_clip(tmp_path / "a.mp4")
    if stage == "read":
        spoil_packets(source, 40, 40)
    detector = Failing(40, RuntimeError("boom")) if stage == "detect" else TwoBoxes()
    frames = stream(detector, source)
    if stage in ("read", "detect"):
        with pytest.raises((RuntimeError, OSError), match=r"boom|33 packets in a row"):
            list(frames)
    elif stage == "consumer":
        with pytest.raises(ZeroDivisionError):
            for frame, _ in frames:
                _ = 1 / (5 - frame.index)
    elif stage != "unbegun":
        next(frames)
        if stage == "closed":
            frames.close()


@pytest.mark.fault(47)
def test_making_many_detectors_keeps_memory_and_threads_flat(
    tiny_model: Path, squares: np.ndarray
) -> None:
    def resident_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    for _ in range(30):
        Detector(tiny_model)(squares)
    memory, used = resident_mib(), in_use()
    for _ in range(300):
        Detector(tiny_model)(squares)
    assert resident_mib() - memory < 20
    assert in_use() == used


@pytest.mark.fault(48)
def test_a_detector_works_offline_without_home_in_a_read_only_directory(
    tiny_model: Path, tmp_path: Path
) -> None:
    code = """if True:
        import sys
        def watch(event, _):
            if event.startswith('socket.'): raise SystemExit('a socket was used: ' + event)
        sys.addaudithook(watch)
        import rdlite
        print(*sorted(set(sys.modules) & {'cv2', 'av', 'torch', 'onnxruntime'}))
        detector = rdlite.Detector(sys.argv[1])
        import numpy as np
        detector(np.zeros((9, 9, 3), np.uint8))
        print('done')
    """
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    folder = tmp_path / "read only"
    folder.mkdir(mode=0o555)
    command = [sys.executable, "-P", "-c", code, str(tiny_model)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\ndone\n", "")
