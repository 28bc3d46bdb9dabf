"""What pools of other processes share: who gets which task, and what a death means."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pickle
import socket
import threading
import traceback
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import rdlite
from rdlite.errors import RdliteError, WorkerDied
from rdlite.workers.pool import Outcome, Pool, Task, peak_memory

if TYPE_CHECKING:
    from rdlite.detector import Detector

_log = logging.getLogger(__name__)
_TRIES = 2  # of a task whose worker dies


@dataclass(slots=True, eq=False)
class Job:
    """A task on its way through the pool.

    Attributes:
        task: The object that was submitted.
        number: From 0, in order of submission.
        pickled: The task as it is sent.
        units: Done in this try, as far as `on_progress` was told.
        deaths: How many workers died while working on it.
    """

    task: Task
    number: int
    pickled: bytes
    units: int = 0
    deaths: int = 0


@dataclass(slots=True, eq=False)
class Worker:
    """A worker process, from its start to its end.

    Attributes:
        number: From 0; a process that replaces another has the same.
        ready: It has its detector.
        jobs: What it was given and has not finished, by number; the first is in work.
    """

    number: int
    ready: bool = field(default=False, init=False)
    jobs: dict[int, Job] = field(default_factory=dict, init=False)

    @property
    def job(self) -> Job | None:
        """What it works on."""
        return next(iter(self.jobs.values()), None)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make a detector in another process.

    Attributes:
        pickled: The detector.
        version: Of the rdlite that pickled it.
        folder: Working directory, from which relative names count. On a machine that has no
            such folder only absolute names are found.
    """

    pickled: bytes
    version: str
    folder: str

    @classmethod
    def of(cls, detector: Detector) -> Recipe:
        """Return the recipe of `detector`."""
        return cls(pickle.dumps(detector), rdlite.__version__, os.getcwd())

    def make(self) -> Detector:
        """Return the detector.

        Raises:
            ModelError: The model file cannot be used, or is another one.
            RdliteError: This is another version of rdlite.
        """
        import cv2

        if rdlite.__version__ != self.version:
            raise RdliteError(
                f"{socket.gethostname()}: has rdlite {rdlite.__version__}, wanted "
                f"{self.version}; install the same version on every machine"
            )
        with contextlib.suppress(OSError):
            os.chdir(self.folder)
        cv2.setNumThreads(1)  # the cores are shared out among processes already
        detector: Detector = pickle.loads(self.pickled)
        return detector


@dataclass(frozen=True, slots=True)
class Done:
    """How an attempt ended, on its way from the worker.

    Attributes:
        pickled: `(value, error)`, by themselves because they may fail to unpickle.
        seconds: As in `Outcome`.
        memory: As in `Outcome`.
    """

    pickled: bytes
    seconds: float
    memory: int | None

    def open(self) -> tuple[Any, Exception | None]:
        """Return the value and the error."""
        try:
            value, error = pickle.loads(self.pickled)
        except Exception as problem:
            return None, _portable(problem)
        return value, error


class Meter:
    """Adds up what one task reports.

    Attributes:
        number: Of the job.
        units: The sum. It is sent as it is, so that nothing is missed or counted twice, however
            late or seldom that happens.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.units = 0
        self._lock = threading.Lock()

    def __call__(self, units: int) -> None:
        """Add `units`."""
        with self._lock:
            self.units += units


class Performer:
    """A worker's side: its detector, and the task in work.

    Attributes:
        meter: Of the task in work, or of the last one.
    """

    def __init__(self) -> None:
        self.meter = Meter(-1)
        self._detector: Detector | None = None

    def prepare(self, recipe: Recipe) -> Done:
        """Make the detector."""

        def work() -> None:
            self._detector = recipe.make()

        return _attempt(work)

    def perform(self, number: int, pickled: bytes) -> Done:
        """Do the task of job `number`."""
        self.meter = meter = Meter(number)
        return _attempt(lambda: pickle.loads(pickled)(self._detector, meter))


def _attempt(work: Callable[[], Any]) -> Done:
    start = perf_counter()
    try:
        result = pickle.dumps((work(), None))
    except Exception as error:
        result = pickle.dumps((None, _portable(error)))
    return Done(result, perf_counter() - start, peak_memory())


def _portable(error: Exception) -> Exception:
    """Return the error as it can be pickled, with its traceback as a note."""
    note = "".join(traceback.format_exception(error)).rstrip()
    try:
        again: Exception = pickle.loads(pickle.dumps(error))
        if type(again) is not type(error) or str(again) != str(error):
            raise TypeError("changed by pickling")
    except Exception:  # whatever its class does when it is pickled; nothing of it is lost
        again = RdliteError(f"{type(error).__name__}: {error}")
    again.add_note(note)
    return again


W = TypeVar("W", bound=Worker)


class RemotePool(Pool, Generic[W]):
    """The queue of a pool, and what its workers' messages and deaths mean.

    Subclasses start processes and hand them jobs; in `_listen` they wait for events, and call
    `_heard` or `_died` for each.
    """

    _spare_starts = 1  # processes that may die before they are ready, in succession

    def __init__(self, detector: Detector, workers: int) -> None:
        super().__init__(workers)
        self._recipe = Recipe.of(detector)
        self._numbers = itertools.count()
        self._queue: deque[Job] = deque()
        self._outcomes: deque[Outcome] = deque()
        self._crew: list[W] = []
        self._failed_starts = 0

    @abstractmethod
    def _start(self, number: int) -> W:
        """Start a process, without waiting for it."""

    @abstractmethod
    def _send(self, worker: W, job: Job) -> None:
        """Give a process a job; if it is dead, `_listen` will find out."""

    @abstractmethod
    def _listen(self) -> None:
        """Wait for events, at least for one."""

    def __enter__(self) -> Self:
        try:
            for number in range(self.workers):
                self._crew.append(self._start(number))
        except BaseException:
            self.close()
            raise
        return self

    def submit(self, task: Task, *, first: bool = False) -> None:
        """See `Pool.submit`."""
        job = Job(task, next(self._numbers), pickle.dumps(task))
        (self._queue.appendleft if first else self._queue.append)(job)

    def wait(self) -> Outcome | None:
        """See `Pool.wait`."""
        self._deal()
        while not self._outcomes:
            if not self._outstanding():
                return None
            self._listen()
            self._deal()
        return self._outcomes.popleft()

    def _outstanding(self) -> int:
        return len(self._queue) + sum(len(worker.jobs) for worker in self._crew)

    def _deal(self) -> None:
        """Give each worker a job, then a second one if enough remain for those that end early."""
        for load, kept in ((0, 0), (1, self.workers)):
            for worker in self._crew:
                if worker.ready and len(worker.jobs) == load and len(self._queue) > kept:
                    job = self._queue.popleft()
                    worker.jobs[job.number] = job
                    self._send(worker, job)
                    if load == 0:
                        self.on_progress(worker.number, job.task, 0)

    def _heard(self, worker: W, number: int, units: int, done: Done | None) -> None:
        """Take note of all units of a job that are done, and of its end.

        The first thing that a process has done is its start.
        """
        if done is not None and not worker.ready:
            self._started(worker, done)
        elif number in worker.jobs:
            self._progressed(worker, worker.jobs[number], units)
            if done is not None:
                self._finished(worker, number, done)

    def _started(self, worker: W, done: Done) -> None:
        _, problem = done.open()
        if problem is not None:
            raise problem
        worker.ready = True
        self._failed_starts = 0

    def _progressed(self, worker: W, job: Job, units: int) -> None:
        if job.units != units:
            more, job.units = units - job.units, units
            self.on_progress(worker.number, job.task, more)

    def _finished(self, worker: W, number: int, done: Done) -> None:
        task = worker.jobs.pop(number).task
        value, error = done.open()
        outcome = Outcome(task, value, error, worker.number, done.seconds, done.memory)
        self._outcomes.append(outcome)
        if worker.job is not None:
            self.on_progress(worker.number, worker.job.task, 0)

    def _died(self, worker: W, how: str) -> None:
        """Replace a process; its jobs go back to the queue, the one in work for the last time."""
        if not worker.ready:
            doing = "it was starting"
            self._failed_starts += 1
        else:
            doing = "it was idle" if worker.job is None else f"working on {worker.job.task.label}"
        if self._failed_starts > self._spare_starts:
            raise RdliteError(f"worker {worker.number} {how} while {doing}, as did the one before")
        _log.warning("worker %d %s while %s; it is replaced", worker.number, how, doing)
        if worker.job is not None:
            self._lost(worker, worker.job, how)
        self._queue.extendleft(reversed(worker.jobs.values()))
        self._crew[worker.number] = self._start(worker.number)

    def _lost(self, worker: W, job: Job, how: str) -> None:
        self._progressed(worker, job, 0)
        job.deaths += 1
        if job.deaths == _TRIES:
            del worker.jobs[job.number]
            text = f"{job.task.label}: {_TRIES} workers died while working on it; the last {how}"
            error = WorkerDied(text)
            self._outcomes.append(Outcome(job.task, None, error, worker.number, 0.0, None))
