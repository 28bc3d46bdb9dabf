"""What every pool does, shown by this process as the only worker and by two processes."""

from __future__ import annotations

import itertools
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rdlite import Detector, OptionError, RdliteError
from rdlite.workers.pool import LocalPool, Pool, Task, make_pool
from rdlite.workers.processpool import ProcessPool
from tests.pools import outcomes, until
from tests.worker_tasks import (
    Awkward,
    Big,
    Detect,
    Fails,
    Flood,
    Holding,
    Square,
    Unsendable,
    Until,
)


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    return Detector(tiny_model)


@pytest.fixture(scope="module")
def processes(detector: Detector) -> Iterator[Pool]:
    with make_pool(detector, workers=2) as pool:
        yield pool


@pytest.fixture(params=["here", "processes"])
def pool(request: pytest.FixtureRequest, detector: Detector) -> Pool:
    """Two worker processes that all tests share, or this process."""
    if request.param == "here":
        return make_pool(detector)
    pool: Pool = request.getfixturevalue("processes")
    pool.on_progress = lambda worker, task, units: None
    return pool


def test_every_task_comes_back_with_what_it_returned(pool: Pool) -> None:
    tasks = [Square(number) for number in range(40)]
    done = outcomes(pool, *tasks)
    assert sorted(one.task.number for one in done) == list(range(40))
    for one in done:
        assert (one.value, one.error) == (one.task.number**2, None)
        assert any(one.task is task for task in tasks)
        assert one.worker in range(pool.workers)
        assert one.seconds > 0
    assert pool.wait() is None


def test_memory_of_the_worker_is_told(pool: Pool) -> None:
    (done,) = outcomes(pool, Square(1))
    assert done.memory is not None and 2**24 < done.memory < 2**32


def test_a_quick_task_does_not_wait_for_a_slow_one(processes: Pool, tmp_path: Path) -> None:
    processes.submit(Until(tmp_path / "gate"))
    processes.submit(Square(3))
    assert processes.wait().value == 9
    (tmp_path / "gate").touch()
    assert processes.wait().task.label == "until"


def test_workers_detect_as_the_parent_does_with_one_thread(
    processes: Pool, detector: Detector, squares: np.ndarray
) -> None:
    (done,) = outcomes(processes, Detect(squares))
    assert done.value == (detector(squares).to_dict(), 1)
    assert done.value[0]["detections"]


@pytest.mark.parametrize(("kind", "ahead"), [("here", 1), ("processes", 2)])
def test_tasks_are_handed_out_lazily(
    kind: str, ahead: int, detector: Detector, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"

    def begun(worker: int, task: Task, units: int) -> None:
        if task.label == "until" and units:
            pool.submit(Square(99), first=True)
            gate.touch()

    with LocalPool(detector) if kind == "here" else ProcessPool(detector, 1) as pool:
        pool.on_progress = begun
        done = outcomes(pool, Until(gate), *(Square(number) for number in range(5)))
    # behind the one in work and the one that waits at a process, before the others
    assert [one.task for one in done].index(Square(99)) == ahead


def test_a_pool_wants_tasks_until_its_workers_have_enough(pool: Pool) -> None:
    numbers = itertools.count()
    while pool.wanting:
        pool.submit(Square(next(numbers)))
    assert 2 * pool.workers <= next(numbers) <= 3 * pool.workers
    assert pool.wait() is not None
    assert pool.wanting
    outcomes(pool)


def test_progress_adds_up_and_says_when_a_task_begins(pool: Pool) -> None:
    seen: list[tuple[int, str, int]] = []
    pool.on_progress = lambda worker, task, units: seen.append((worker, task.label, units))
    tasks = [Square(number, units=number) for number in range(6)]
    done = outcomes(pool, *tasks)
    for one in done:
        of_task = [(worker, units) for worker, label, units in seen if label == one.task.label]
        assert of_task[0] == (one.worker, 0)
        assert sum(units for _, units in of_task) == one.task.number
        assert {worker for worker, _ in of_task} == {one.worker}


def test_progress_is_sent_five_times_a_second_at_most(processes: Pool) -> None:
    seen: list[int] = []
    processes.on_progress = lambda worker, task, units: seen.append(units)
    (done,) = outcomes(processes, Square(1, units=200, pause=0.005))
    assert sum(seen) == 200
    assert 2 < len(seen) <= 5 * done.seconds + 3  # with one at the beginning, one at the end


def test_reports_do_not_wait_for_the_parent(processes: Pool, tmp_path: Path) -> None:
    processes.submit(Flood(tmp_path / "gate", units=200_000))
    processes.submit(Square(2))
    assert processes.wait().task == Square(2)
    (tmp_path / "gate").touch()
    until((tmp_path / "flooded").exists)  # while nobody listens
    assert [done.task.label for done in outcomes(processes)] == ["flood"]


def test_an_error_arrives_with_type_text_and_traceback(pool: Pool) -> None:
    (done,) = outcomes(pool, Fails("key"))
    assert done.value is None
    assert type(done.error) is KeyError
    assert str(done.error) == "'missing'"


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("key", KeyError, "'missing'"),
        ("awkward", RdliteError, "Awkward: one and two"),
        ("holding", RdliteError, "Holding: a lock"),
    ],
)
def test_errors_cross_the_process_border(
    kind: str, error: type[Exception], text: str, processes: Pool
) -> None:
    failed, fine = sorted(outcomes(processes, Fails(kind), Square(2)), key=lambda o: o.task.label)
    assert (type(failed.error), str(failed.error)) == (error, text)
    assert "worker_tasks.py" in failed.error.__notes__[0]
    assert fine.value == 4


def test_here_errors_stay_what_they_are(detector: Detector) -> None:
    done = outcomes(LocalPool(detector), Fails("awkward"), Fails("holding"))
    assert [type(one.error) for one in done] == [Awkward, Holding]


def test_a_value_that_cannot_be_pickled_is_an_error(processes: Pool) -> None:
    (done,) = outcomes(processes, Unsendable())
    assert isinstance(done.error, TypeError)
    assert "cannot pickle" in str(done.error)


def test_a_task_that_cannot_be_pickled_is_refused_at_once(processes: Pool) -> None:
    with pytest.raises(Exception, match="pickle"):
        processes.submit(Unsendable(label=lambda: None))  # type: ignore[arg-type]
    assert processes.wait() is None


def test_a_task_of_a_class_that_workers_cannot_import_is_an_error(
    processes: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("only_here")
    exec("class Lost:\n    label = 'lost'", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    lost, fine = sorted(outcomes(processes, module.Lost(), Square(2)), key=lambda o: o.task.label)
    assert isinstance(lost.error, ModuleNotFoundError)
    assert fine.value == 4


def test_large_tasks_and_values_do_not_block_each_other(processes: Pool) -> None:
    tasks = [Big(bytes([number]) * 2_000_000) for number in range(12)]
    assert {one.value[0] for one in outcomes(processes, *tasks)} == set(range(12))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "spark"}, "engine must be one of local, ray, got 'spark'"),
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
        ({"workers": 99_999}, "workers must be a whole number from 1 to .*, got 99999"),
        ({"ray_address": "auto"}, "ray_address 'auto' needs engine 'ray'"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, object], message: str, detector: Detector
) -> None:
    with pytest.raises(OptionError, match=message):
        make_pool(detector, **options)  # type: ignore[arg-type]


def test_none_means_as_many_workers_as_cores(detector: Detector) -> None:
    assert make_pool(detector, workers=None).workers == len(os.sched_getaffinity(0))
