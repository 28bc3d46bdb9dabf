"""What sharing work costs: the start of a worker, a task that does nothing, and two for one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import cv2
import pytest

from rdlite import Detector
from rdlite.batch.images import Image, ImageTask
from rdlite.bench import synthetic_image
from rdlite.workers.pool import Pool, make_pool
from rdlite.workers.processpool import ProcessPool
from tests.worker_tasks import Square

START_TARGET_MS = 2000
SPEEDUP_TARGET = 1.8
TASKS, IMAGES, CHUNK = 500, 256, 16


def run(pool: Pool, tasks: list[Any]) -> int:
    """Do the tasks; returns the most memory of a worker, bytes."""
    for task in tasks:
        pool.submit(task)
    memory = 0
    while outcome := pool.wait():
        assert outcome.error is None
        memory = max(memory, outcome.memory or 0)
    return memory


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    content = cv2.imencode(".jpg", synthetic_image())[1].tobytes()
    paths = [folder / f"{number:03}.jpg" for number in range(IMAGES)]
    for path in paths:
        path.write_bytes(content)
    return paths


def test_start_of_a_worker(measure: Callable[..., Any]) -> None:
    detector = Detector()

    def start() -> int:
        with ProcessPool(detector, 1) as pool:
            return run(pool, [Square(2)])

    measure(start, target_ms=START_TARGET_MS, memory_mib=start() / 2**20)


@pytest.fixture(params=["local", "ray"])
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two workers that have started, of which Ray's find the task in `tests`."""
    with ExitStack() as stack:
        if request.param == "ray":
            pytest.importorskip("ray")
            folder = tmp_path_factory.mktemp("path")
            (folder / "tests").symlink_to(Path(__file__).parents[1] / "tests")
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.chdir(folder)
            patch.setenv("PYTHONPATH", str(folder))
        pool = stack.enter_context(make_pool(Detector(), workers=2, engine=request.param))
        run(pool, [Square(number) for number in range(TASKS)])
        yield pool


def test_overhead_of_a_task(measure: Callable[..., Any], pool: Pool) -> None:
    tasks = [Square(number) for number in range(TASKS)]
    times = []
    for _ in range(5):
        start = perf_counter()
        run(pool, tasks)
        times.append((perf_counter() - start) * 1e3 / TASKS)
    measure(lambda: run(pool, tasks[:1]), ms_per_task_of_many=median(times))


@pytest.mark.timeout(900)
def test_two_workers_for_one(measure: Callable[..., Any], photos: list[Path]) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two workers need two cores")
    # one worker already loads images beside the network, so that twice as fast cannot be
    images = [Image(number, path, None) for number, path in enumerate(photos)]
    tasks = [
        ImageTask(photos[0].parent, tuple(images[i : i + CHUNK])) for i in range(0, IMAGES, CHUNK)
    ]
    detector = Detector()
    seconds = {1: float("inf"), 2: float("inf")}
    with ProcessPool(detector, 1) as one, ProcessPool(detector, 2) as two:
        for pool in (one, two):
            run(pool, tasks[:4])
        for _ in range(5):
            for pool in (one, two):
                start = perf_counter()
                run(pool, tasks)
                seconds[pool.workers] = min(seconds[pool.workers], perf_counter() - start)
        speedup = seconds[1] / seconds[2]
        ms = seconds[2] * 1e3 / IMAGES
        measure(lambda: run(two, tasks), speedup=speedup, speedup_target=SPEEDUP_TARGET, ms_each=ms)
