"""Pools on a real Ray cluster: two nodes of one core each, on this machine."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rdlite import Detector, ModelError, OptionError, RdliteError
from rdlite.errors import WorkerDied
from rdlite.workers.pool import Pool, Task, make_pool
from tests.pools import alive, outcomes, until
from tests.worker_tasks import Big, Detect, Dies, Fails, Pid, Square, Until

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


class Machines:
    """A Ray cluster of a head and one other node."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {**NODE, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = str(self._cluster.address)
        self.add()

    def add(self) -> None:
        self._other = self._cluster.add_node(**NODE)

    def lose(self) -> None:
        """Let the other node die without a word."""
        self._cluster.remove_node(self._other, allow_graceful=False)

    def shut_down(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    # Workers find `tests.worker_tasks` here, and rdlite where it is installed.
    folder = tmp_path_factory.mktemp("path")
    (folder / "tests").symlink_to(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        machines = Machines()
        yield machines
        machines.shut_down()


@pytest.fixture(autouse=True)
def outside_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts the current folder before installed packages, and rdlite's source is no build."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    return Detector(tiny_model)


def join(machines: Machines, detector: Detector, workers: int | None = 2) -> Pool:
    return make_pool(detector, workers=workers, engine="ray", ray_address=machines.address)


def until_all_work(pool: Pool) -> None:
    """Wait for both workers to have started."""
    until(lambda: len({one.worker for one in outcomes(pool, Pid(), Pid(), Pid())}) == 2)


def test_tasks_values_errors_and_progress(
    machines: Machines, detector: Detector, squares: np.ndarray
) -> None:
    seen: list[int] = []
    tasks: list[Task] = [Square(number, units=number) for number in range(10)]
    big = [Big(bytes([number]) * 500_000) for number in range(4)]
    with join(machines, detector, workers=None) as pool:
        assert pool.workers == 2
        pool.on_progress = lambda worker, task, units: seen.append(units)
        done = {one.task: one for one in outcomes(pool, *tasks, *big, Fails("holding"))}
        (found,) = outcomes(pool, detect := Detect(squares))
    assert sum(seen) == sum(range(10))
    assert {one.worker for one in done.values()} <= {0, 1}
    assert [done[task].value for task in tasks] == [number**2 for number in range(10)]
    assert [done[task].value for task in big] == [task.content for task in big]
    error = done[Fails("holding")].error
    assert (type(error), str(error)) == (RdliteError, "Holding: a lock")
    assert found.task is detect
    assert found.value == (detector(squares).to_dict(), 1)
    assert not ray.is_initialized()


def test_a_model_found_by_name_here_is_found_by_machines_without_that_folder_on_their_path(
    machines: Machines, tiny_model: Path, squares: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RDLITE_MODELS", str(tiny_model.parent))
    named = Detector("tiny")
    with join(machines, named, workers=1) as pool:
        (found,) = outcomes(pool, Detect(squares))
    assert found.value == (named(squares).to_dict(), 1)


@pytest.mark.usefixtures("default_model")
def test_a_model_of_the_package_is_opened_by_name(machines: Machines, squares: np.ndarray) -> None:
    named = Detector("refinedetlite72")
    with join(machines, named, workers=1) as pool:
        (found,) = outcomes(pool, Detect(squares))
    assert found.value == (named(squares).to_dict(), 1)


def test_long_tasks_report_while_they_run(
    machines: Machines, detector: Detector, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"

    def progress(worker: int, task: Task, units: int) -> None:
        if units:
            gate.touch()  # without it the task has no end

    with join(machines, detector, workers=1) as pool:
        pool.on_progress = progress
        assert [one.error for one in outcomes(pool, Until(gate))] == [None]


def test_a_worker_that_is_killed_is_replaced_and_its_task_done(
    machines: Machines, detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate, seen = tmp_path / "gate", []

    def progress(worker: int, task: Task, units: int) -> None:
        if task.label != "until":
            return
        seen.append(units)
        begun = list(tmp_path.glob("begun-*"))
        if units > 0 and len(begun) == 1:
            os.kill(int(begun[0].name.partition("-")[2]), signal.SIGKILL)
        elif units > 0:
            gate.touch()

    with join(machines, detector) as pool:
        pool.on_progress = progress
        done = outcomes(pool, Until(gate), *(Square(number) for number in range(8)))
    assert len(done) == 9 and {one.error for one in done} == {None}
    assert len(list(tmp_path.glob("begun-*"))) == 2
    assert sum(seen) == 1
    assert "was lost because its worker process has died while working on until" in caplog.text


def test_a_task_that_kills_twice_is_given_up_and_the_others_go_on(
    machines: Machines, detector: Detector, tmp_path: Path
) -> None:
    with join(machines, detector) as pool:
        killer = Dies(tmp_path, times=9)
        done = {one.task: one for one in outcomes(pool, killer, *map(Square, range(8)))}
    error = done.pop(killer).error
    assert isinstance(error, WorkerDied)
    assert str(error).startswith("dies: 2 workers died while working on it; the last was lost")
    assert {one.value for one in done.values()} == {number**2 for number in range(8)}


def test_the_tasks_of_a_lost_machine_are_done_by_the_others(
    machines: Machines, detector: Detector, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    lost: list[int] = []

    def progress(worker: int, task: Task, units: int) -> None:
        if units == 1 and not lost and len(list(tmp_path.glob("begun-*"))) == 2:
            lost.append(worker)
            machines.lose()
            gate.touch()

    with join(machines, detector) as pool:
        until_all_work(pool)
        pool.on_progress = progress
        tasks = [Until(gate), Until(gate), *(Square(number) for number in range(8))]
        done = outcomes(pool, *tasks)
        machines.add()
        until_all_work(pool)
    assert lost
    assert len(done) == len(tasks) and {one.error for one in done} == {None}


def test_workers_beyond_the_cores_are_waited_for_and_said(
    machines: Machines, detector: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    with join(machines, detector, workers=9) as pool:
        assert len(outcomes(pool, *map(Square, range(8)))) == 8
    assert "9 workers are wanted and the cluster has " in caplog.text


def test_leaving_early_ends_the_workers(
    machines: Machines, detector: Detector, tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError), join(machines, detector, workers=1) as pool:
        (one,) = outcomes(pool, Pid())
        pool.submit(Until(tmp_path / "never"))
        pool.submit(Square(2), first=True)
        assert pool.wait() is not None
        until(lambda: len(list(tmp_path.glob("begun-*"))) == 1)
        raise ZeroDivisionError
    until(lambda: not alive(one.value))


def test_a_model_that_is_gone_is_one_error(
    machines: Machines, write_model: Callable[..., Path]
) -> None:
    detector = Detector(path := write_model())
    path.unlink()
    with pytest.raises(ModelError, match=r"tiny\.onnx: cannot be read"):
        with join(machines, detector) as pool:
            outcomes(pool, Square(1))


def test_a_machine_without_rdlite_is_one_error_and_a_joined_cluster_stays(
    machines: Machines, detector: Detector, tmp_path: Path
) -> None:
    (tmp_path / "rdlite.py").write_text("raise ImportError('no rdlite here')")
    environment = {"env_vars": {"PYTHONPATH": str(tmp_path)}}
    ray.init(address=machines.address, logging_level=logging.ERROR, runtime_env=environment)
    try:
        with pytest.raises(RdliteError, match=r"cannot run rdlite .*no rdlite here"):
            with make_pool(detector, workers=2, engine="ray") as pool:
                outcomes(pool, Square(1))
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_an_address_without_a_cluster_is_refused(detector: Detector) -> None:
    for address in ("127.0.0.1:1", "nowhere"):
        with pytest.raises(OptionError, match=rf"cluster .* '{address}' .*ray start --head"):
            with make_pool(detector, engine="ray", ray_address=address):
                pass


def test_without_an_address_a_cluster_of_this_machine_is_started(
    machines: Machines, detector: Detector
) -> None:
    with make_pool(detector, workers=2, engine="ray") as pool:
        nodes = ray.nodes()
        assert len(outcomes(pool, *map(Square, range(8)))) == 8
    assert [node["Resources"]["CPU"] for node in nodes] == [2]
    assert not ray.is_initialized()


def test_ray_that_is_not_installed_is_named_with_the_command(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"needs Ray .*pip install ray"):
        make_pool(detector, engine="ray")
