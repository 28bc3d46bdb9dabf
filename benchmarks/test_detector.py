"""What a user waits for: the call, what it adds to the network, memory and start-up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
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
from rdlite.session import Session

OVERHEAD_TARGET_MS = 1.0
STARTUP_TARGET_MS = 1000
MEMORY_TARGET_MIB = 5


def overhead_ms(detector: Detector, image: np.ndarray, calls: int = 60) -> float:
    """Median of a whole call minus its `session.run`."""
    times = []
    for _ in range(calls):
        start = perf_counter()
        inference = detector(image).speed["inference"]
        times.append((perf_counter() - start) * 1e3 - inference)
    return median(times)


@pytest.mark.gate
def test_resize_720p(measure: Callable[..., Any]) -> None:
    image = synthetic_image()
    assert measure(lambda: resize(image, (320, 320)), kernel="resize").shape == (320, 320, 3)


@pytest.mark.parametrize(
    "size",
    [pytest.param((1280, 720), marks=pytest.mark.gate), (1237, 811)],
    ids="{0[0]}x{0[1]}".format,
)
def test_load_jpeg(measure: Callable[..., Any], size: tuple[int, int]) -> None:
    content = cv2.imencode(".jpg", synthetic_image(*size))[1].tobytes()
    assert measure(lambda: load(content), kernel="resize", bytes=len(content)).shape[1::-1] == size


@pytest.mark.parametrize("conf", [pytest.param(0.25, marks=pytest.mark.gate), 0.01])
def test_detector_720p(measure: Callable[..., Any], conf: float) -> None:
    detector, image = Detector(conf=conf), synthetic_image()
    overhead = overhead_ms(detector, image)
    found = measure(
        lambda: detector(image), overhead_ms=overhead, overhead_target_ms=OVERHEAD_TARGET_MS
    )
    assert found.image_size == (1280, 720)


@pytest.mark.gate
def test_around_the_network_720p(
    measure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a call does but the network, whose outputs are there already."""
    detector, image = Detector(), synthetic_image()
    session = Session()
    outputs = session.run(resize(image, session.spec.input_size)[None])
    monkeypatch.setattr(Session, "run", lambda *_: outputs)
    assert measure(lambda: detector(image), kernel="resize").image_size == (1280, 720)


def test_import_and_build(measure: Callable[..., Any]) -> None:
    # -P: the installed package, like a user's script
    command = [sys.executable, "-P", "-c", "from rdlite import Detector; Detector()"]
    measure(lambda: subprocess.run(command, check=True), rounds=5, target_ms=STARTUP_TARGET_MS)


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
