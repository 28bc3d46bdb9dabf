"""Worker processes that die, are killed, interrupted or left alone."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rdlite import Detector, ModelError, RdliteError
from rdlite.errors import WorkerDied
from rdlite.workers.pool import Pool, Task, make_pool
from rdlite.workers.processpool import ProcessPool
from tests.pools import alive, outcomes, until
from tests.worker_tasks import Dies, Pid, Square, Until

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    return Detector(tiny_model)


@pytest.fixture(scope="module")
def shared(detector: Detector) -> Iterator[Pool]:
    with make_pool(detector, workers=2) as pool:
        yield pool


@pytest.fixture
def processes(shared: Pool) -> Pool:
    """Two workers that all tests share."""
    shared.on_progress = lambda worker, task, units: None
    return shared


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
        gc.collect()  # of processes that other tests have ended
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
    assert open_files() <= files


def test_an_error_in_on_progress_reaches_the_caller(detector: Detector) -> None:
    def stumble(worker: int, task: Task, units: int) -> None:
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"), make_pool(detector, workers=2) as pool:
        pool.on_progress = stumble
        outcomes(pool, Square(1))


HEAD = """
import sys
sys.path.append({root!r})
from pathlib import Path
from rdlite import Detector
from rdlite.workers.pool import make_pool
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
