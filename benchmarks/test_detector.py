"""What a user waits for: the call, what it adds to the network, memory and start-up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import pytest

from rdlite import Detector
from rdlite.bench import synthetic_image
from rdlite.image import load, resize

OVERHEAD_TARGET_MS = 1.5
STARTUP_TARGET_MS = 1000
MEMORY_TARGET_MIB = 5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


def overhead_ms(detector: Detector, image: np.ndarray, calls: int = 60) -> float:
    """Median of a whole call minus its `session.run`."""
    times = []
    for _ in range(calls):
        start = perf_counter()
        inference = detector(image).speed["inference"]
        times.append((perf_counter() - start) * 1e3 - inference)
    return median(times)


def test_resize_720p(measure: Callable[..., Any]) -> None:
    image = synthetic_image()
    assert measure(lambda: resize(image, (320, 320))).shape == (320, 320, 3)


@pytest.mark.parametrize("size", [(1280, 720), (1237, 811)])
def test_load_jpeg(measure: Callable[..., Any], size: tuple[int, int]) -> None:
    content = cv2.imencode(".jpg", synthetic_image(*size))[1].tobytes()
    assert measure(lambda: load(content), bytes=len(content)).shape[1::-1] == size


@pytest.mark.parametrize("conf", [0.25, 0.01])
def test_detector_720p(measure: Callable[..., Any], conf: float) -> None:
    detector, image = Detector(conf=conf), synthetic_image()
    overhead = overhead_ms(detector, image)
    found = measure(
        lambda: detector(image), overhead_ms=overhead, overhead_target_ms=OVERHEAD_TARGET_MS
    )
    assert found.image_size == (1280, 720)


def test_import_and_build(measure: Callable[..., Any]) -> None:
    # -P: the installed package, like a user's script
    command = [sys.executable, "-P", "-c", "from rdlite import Detector; Detector()"]
    measure(lambda: subprocess.run(command, check=True), target_ms=STARTUP_TARGET_MS)


@pytest.mark.timeout(900)
def test_memory_is_flat_over_2000_images(measure: Callable[..., Any]) -> None:
    detector, image = Detector(), synthetic_image()

    def resident_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    for _ in range(100):
        detector(image)
    before = resident_mib()
    for _ in range(2000):
        detector(image)
    growth = resident_mib() - before
    measure(lambda: detector(image), growth_mib=growth)
    assert abs(growth) <= MEMORY_TARGET_MIB
