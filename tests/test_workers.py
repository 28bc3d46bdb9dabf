"""Pools: this process as the only worker, and worker processes that fail in every way."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rdlite import Detector, ModelError, OptionError, RdliteError
from rdlite.errors import WorkerDied
from rdlite.processpool import ProcessPool
from rdlite.workers import LocalPool, Outcome, Pool, Task, make_pool
from tests.worker_tasks import (
    Awkward,
    Big,
    Detect,
    Dies,
    Fails,
    Flood,
    Holding,
    Pid,
    Square,
    Unsendable,
    Until,
)

ROOT = Path(__file__).parents[1]


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


def outcomes(pool: Pool, *tasks: Task) -> list[Outcome]:
    """Of these tasks, in the order in which they end."""
    for task in tasks:
        pool.submit(task)
    return list(iter(pool.wait, None))


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that another process does."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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


@pytest.mark.parametrize("code", [None, 7], ids=["killed", "exits"])
def test_a_worker_that_dies_is_replaced_and_its_task_done(
    code: int | None, processes: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    tasks = [Dies(tmp_path, times=1, code=code), *(Square(number) for number in range(8))]
    processes.on_progress = lambda worker, task, units: seen.append(units)
    done = {one.task: one for one in outcomes(processes, *tasks)}
    assert set(done) == set(tasks)
    assert {one.error for one in done.values()} == {None}
    assert done[tasks[0]].value == "done at try 2"
    assert sum(seen) == 10  # what the first try reported is taken back
    how = "was killed by signal 9" if code is None else "ended with exit code 7"
    (warning,) = caplog.messages
    assert how in warning and "dies" in warning


@pytest.mark.parametrize(
    ("code", "how"),
    [(None, "was killed by signal 9, as happens when memory runs out"), (3, "ended with exit c")],
)
def test_a_task_that_kills_twice_is_given_up_and_the_others_go_on(
    code: int | None, how: str, processes: Pool, tmp_path: Path
) -> None:
    tasks = [Dies(tmp_path, times=9, code=code), *(Square(number) for number in range(8))]
    done = {one.task: one for one in outcomes(processes, *tasks)}
    error = done.pop(tasks[0]).error
    assert isinstance(error, WorkerDied)
    assert str(error).startswith(f"dies: 2 workers died while working on it; the last {how}")
    assert len(list(tmp_path.iterdir())) == 2
    assert {one.value for one in done.values()} == {number**2 for number in range(8)}


def test_an_idle_worker_that_is_killed_is_replaced(processes: Pool) -> None:
    idle: dict[int, int] = {}
    while len(idle) < 2:  # a worker that is not ready has no task
        idle |= {one.worker: one.value for one in outcomes(processes, Pid(), Pid())}
    for pid in idle.values():
        os.kill(pid, signal.SIGKILL)
    assert len(outcomes(processes, *(Square(number) for number in range(6)))) == 6


def test_a_model_that_is_gone_is_one_error(write_model: Callable[..., Path]) -> None:
    detector = Detector(path := write_model())
    path.unlink()
    with pytest.raises(ModelError, match=r"tiny\.onnx: cannot be read"):
        with make_pool(detector, workers=2) as pool:
            outcomes(pool, Square(1))


def test_a_model_that_is_another_one_is_refused(write_model: Callable[..., Path]) -> None:
    detector = Detector(path := write_model())
    path.write_bytes(write_model(provenance={"recipe": "another"}).read_bytes())
    with pytest.raises(ModelError, match="is not the model of the detector that was pickled"):
        with make_pool(detector, workers=2) as pool:
            outcomes(pool, Square(1))


def test_another_version_is_refused(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdlite.__version__", "99.0", raising=False)
    with pytest.raises(RdliteError, match=r"wanted 99\.0; install the same version"):
        with make_pool(detector, workers=2) as pool:
            outcomes(pool, Square(1))


def test_leaving_early_interrupts_tasks_which_tidy_up(detector: Detector, tmp_path: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = multiprocessing.active_children()
    with ProcessPool(detector, 1) as pool:
        outcomes(pool, Square(1))
    files = open_files()
    with pytest.raises(ZeroDivisionError), ProcessPool(detector, 2) as pool:
        for _ in range(6):
            pool.submit(Until(tmp_path / "never"))
        pool.submit(Square(1), first=True)
        assert pool.wait() is not None
        until(lambda: len(list(tmp_path.glob("begun-*"))) > 0)
        raise ZeroDivisionError
    assert (tmp_path / "tidied").exists()
    assert set(multiprocessing.active_children()) <= set(before)
    assert open_files() == files


def test_an_error_in_on_progress_reaches_the_caller(detector: Detector) -> None:
    def stumble(worker: int, task: Task, units: int) -> None:
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"), make_pool(detector, workers=2) as pool:
        pool.on_progress = stumble
        outcomes(pool, Square(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "spark"}, "engine must be one of local, ray, got 'spark'"),
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
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


HEAD = """
import sys
sys.path.append({root!r})
from pathlib import Path
from rdlite import Detector
from rdlite.workers import make_pool
from tests.worker_tasks import *
"""


@pytest.fixture
def script(tmp_path: Path, tiny_model: Path) -> Callable[[str], subprocess.Popen[str]]:
    """A function that starts a script, in a process group of its own as a terminal would."""

    def start(body: str) -> subprocess.Popen[str]:
        path = tmp_path / "script.py"
        path.write_text(HEAD.format(root=str(ROOT)) + body.format(model=str(tiny_model)))
        return subprocess.Popen(
            [sys.executable, "-P", str(path), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    return start


WAITING = """
if __name__ == "__main__":
    with make_pool(Detector({model!r}), workers=2) as pool:
        print("started", flush=True)
        for number in range(4):
            pool.submit(Until(Path(sys.argv[1]) / "never"))
        pool.wait()
"""


def group(pid: int) -> list[int]:
    """The processes of a process group that still run."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [one for one in pids if alive(one) and _group_of(one) == pid]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


@pytest.mark.parametrize("moment", ["starting", "working"])
def test_an_interrupt_ends_all_without_noise_from_workers(
    moment: str, script: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = script(WAITING)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    if moment == "working":
        until(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    until(lambda: not group(process.pid))
    assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1
    assert (tmp_path / "tidied").exists() == (moment == "working")


def test_workers_end_when_the_parent_is_killed(
    script: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = script(WAITING)
    until(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
    process.kill()
    process.wait()
    until(lambda: not group(process.pid))
    assert (tmp_path / "tidied").exists()
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_what_workers_write_to_stderr_is_seen(
    script: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = script("""
if __name__ == "__main__":
    with make_pool(Detector({model!r}), workers=2) as pool:
        pool.submit(Complains())
        assert pool.wait().error is None
""")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "a line on stderr" in errors
    assert "a warning from a worker" in errors


def test_a_script_without_a_main_guard_is_told_what_it_needs(
    script: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = script("""
with make_pool(Detector({model!r}), workers=2) as pool:
    pool.submit(Square(2))
    pool.wait()
""")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'put what it does below `if __name__ == "__main__":`' in errors
    assert "ended with exit code 1 while it was starting" in errors.splitlines()[-1]
    until(lambda: not group(process.pid))
