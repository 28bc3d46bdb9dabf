"""Where tasks run: in this process, in worker processes, or on many machines; one interface."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from rdlite.cores import usable_cores
from rdlite.errors import OptionError
from rdlite.options import check_count

if TYPE_CHECKING:
    from rdlite.detector import Detector

ENGINES: Final = ("local", "ray")
"""Where workers run: on this machine, or on a Ray cluster."""


class Task(Protocol):
    """A piece of work: picklable, of a class that another process can import.

    It may be begun a second time, when the worker dies, so what it leaves must not depend on
    an earlier try.
    """

    @property
    def label(self) -> str:
        """What is shown while it runs: "clip.mp4 3/12"."""
        ...

    def __call__(self, detector: Detector, report: Callable[[int], None]) -> Any:
        """Do the work and return a picklable value.

        Args:
            detector: The worker's own.
            report: To be called with the units (frames, images) done since the last call. It
                only adds them up, so it never waits; any thread may call it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended.

    Attributes:
        task: The object that was submitted.
        value: What the task returned; None when it failed.
        error: What it raised, its traceback as a note; `WorkerDied` if its worker died twice.
            An error that cannot be pickled arrives as an `RdliteError` that names its type.
        worker: Number of the worker, from 0.
        seconds: Time the task took, the try that ended it alone.
        memory: Most memory that this worker has had resident so far, bytes; None where the
            system does not tell.
    """

    task: Task
    value: Any
    error: Exception | None
    worker: int
    seconds: float
    memory: int | None


Progress = Callable[[int, Task, int], object]


class Pool(ABC):
    """Workers, each with a detector of its own, that share a queue of tasks.

    They start at the beginning of the `with` block, which does not wait for them, and stop at
    its end. What still runs then is interrupted, by an exception where the engine can.

    Attributes:
        workers: How many there are.
        on_progress: Called during `wait` with the worker's number, its task and the units done
            since the last call; 0 when the task begins, below 0 when its worker died and the
            task will begin anew. One call at a time, though with `LocalPool` it may come from a
            thread of the task.

    Example:
        >>> with make_pool(Detector(), workers=4) as pool:
        ...     for task in tasks:
        ...         pool.submit(task)
        ...     while outcome := pool.wait():
        ...         print(outcome.task.label, outcome.value, outcome.error)
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.on_progress: Progress = lambda worker, task, units: None

    @property
    def wanting(self) -> bool:
        """Whether more tasks are needed to keep the workers busy."""
        # one in work, one waiting at the worker, one to be given to whoever is free at the end
        return self._outstanding() < 3 * self.workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def submit(self, task: Task, *, first: bool = False) -> None:
        """Add a task to the queue.

        Args:
            task: The task.
            first: Before those that no worker has yet.

        Raises:
            Exception: The task cannot be pickled; whatever `pickle` says.
        """

    @abstractmethod
    def wait(self) -> Outcome | None:
        """Return the next task to end, in any order, or None when none is outstanding.

        Raises:
            RdliteError: A worker cannot start.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop the workers; what they have not finished is given up."""

    @abstractmethod
    def _outstanding(self) -> int: ...


class LocalPool(Pool):
    """One worker: this process. A task runs inside `wait`."""

    def __init__(self, detector: Detector) -> None:
        super().__init__(1)
        self._detector = detector
        self._queue: deque[Task] = deque()
        self._reporting = threading.Lock()

    def submit(self, task: Task, *, first: bool = False) -> None:
        """See `Pool.submit`; here a task need not be picklable."""
        (self._queue.appendleft if first else self._queue.append)(task)

    def wait(self) -> Outcome | None:
        """See `Pool.wait`."""
        if not self._queue:
            return None
        task = self._queue.popleft()
        self.on_progress(0, task, 0)
        start = perf_counter()
        value, error = None, None

        def report(units: int) -> None:
            with self._reporting:
                self.on_progress(0, task, units)

        try:
            value = task(self._detector, report)
        except Exception as problem:
            error = problem
        return Outcome(task, value, error, 0, perf_counter() - start, peak_memory())

    def close(self) -> None:
        """See `Pool.close`."""
        self._queue.clear()

    def _outstanding(self) -> int:
        return len(self._queue)


def make_pool(
    detector: Detector,
    *,
    workers: int | None = 1,
    engine: str = "local",
    ray_address: str | None = None,
) -> Pool:
    """Return the workers that are asked for.

    Args:
        detector: What they detect with. Workers on other machines open its model file by the
            same path; a model that comes with rdlite is that of their own rdlite, by name.
        workers: How many; None for one per core, of the cluster if it is one. A single local
            one is this process; local ones may be four times as many as cores, or 32.
        engine: One of `ENGINES`.
        ray_address: The Ray cluster to join, "auto" for the one that this machine is part of;
            None starts one on this machine alone.

    Raises:
        OptionError: An argument cannot be used, or Ray is not installed.
    """
    if engine not in ENGINES:
        raise OptionError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if ray_address is not None and engine != "ray":
        raise OptionError(f"ray_address {ray_address!r} needs engine 'ray', got {engine!r}")
    count = None if workers is None else check_count("workers", workers)
    if engine == "ray":
        from rdlite.workers.raypool import RayPool

        return RayPool(detector, count, address=ray_address)
    count = count or usable_cores()
    # Each takes about 0.4 GB and nothing is won by more than one for a core.
    check_count("workers", count, most=max(32, 4 * (os.cpu_count() or 1)))
    if count == 1:
        return LocalPool(detector)
    from rdlite.workers.processpool import ProcessPool

    return ProcessPool(detector, count)


def peak_memory() -> int | None:
    """Return the most bytes this process has had resident, None where that is not known."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
