"""Worker processes on this machine.

They are spawned, since onnxruntime's sessions do not survive a fork. Each has one pipe to the
parent and shares nothing with the others, so a killed one leaves no lock held. The end of the
pipe is the order to stop: workers end in the same way whether the parent closes it, is killed or
crashes.
"""

from __future__ import annotations

import _thread
import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeAlias

from rdlite.errors import RdliteError
from rdlite.workers.remotepool import Done, Job, Performer, Recipe, RemotePool, Worker

_REPORT_SECONDS = 0.2
_GRACE_SECONDS = 5.0  # for an interrupted task to put its files away

# Both ways over the pipe: a job's number, and for the worker the pickled task, for the parent
# the units that the worker reported and, at the end, the result.
_Order: TypeAlias = tuple[int, bytes]
_Message: TypeAlias = tuple[int, int, Done | None]
if sys.platform == "win32":
    _Pipe: TypeAlias = "connection.PipeConnection[Any, Any]"
else:
    _Pipe: TypeAlias = "connection.Connection[Any, Any]"


@dataclass(slots=True, eq=False)
class _Process(Worker):
    process: SpawnProcess
    pipe: _Pipe


class ProcessPool(RemotePool[_Process]):
    """Worker processes on this machine, each with a detector of its own.

    One that dies is replaced, and its task tried once more. An interrupt from the terminal is
    left to the parent. At the end running tasks are interrupted by an exception, and a process
    that is not gone five seconds later is killed.

    Args:
        detector: Is pickled for every worker.
        workers: How many processes.
    """

    def close(self) -> None:
        """See `Pool.close`."""
        crew, self._crew = self._crew, []
        self._queue.clear()
        for worker in crew:
            worker.pipe.close()
        deadline = time.monotonic() + _GRACE_SECONDS + 1
        for worker in crew:
            _end(worker.process, max(0.0, deadline - time.monotonic()))

    def _start(self, number: int) -> _Process:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self._recipe), name=f"rdlite worker {number}", daemon=True
        )
        try:
            with _interrupts_held():
                process.start()
        except RuntimeError as error:
            raise RdliteError(
                "every worker runs the script that starts it once more; put what it does below "
                '`if __name__ == "__main__":`'
            ) from error
        theirs.close()
        return _Process(number, process, ours)

    def _send(self, worker: _Process, job: Job) -> None:
        with contextlib.suppress(OSError):
            worker.pipe.send((job.number, job.pickled))

    def _listen(self) -> None:
        sources: dict[Any, _Process] = {worker.pipe: worker for worker in self._crew}
        sources |= {worker.process.sentinel: worker for worker in self._crew}
        ready = connection.wait(list(sources))
        for worker in {id(sources[source]): sources[source] for source in ready}.values():
            self._hear(worker)

    def _hear(self, worker: _Process) -> None:
        # asked before the pipe is read: what a process sent before its death is all there
        alive = worker.process.is_alive()
        while True:
            try:
                if not worker.pipe.poll():
                    break
                message: _Message = worker.pipe.recv()
            except (EOFError, OSError):
                alive = False
                break
            self._heard(worker, *message)
        if not alive:
            worker.pipe.close()
            _end(worker.process, _GRACE_SECONDS)
            self._died(worker, _how(worker.process.exitcode))


def _end(process: SpawnProcess, seconds: float) -> None:
    """Wait for the end of a process, and kill it if that takes longer."""
    process.join(seconds)
    process.kill()
    process.join()


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    hint = ", as happens when memory runs out" if -code == getattr(signal, "SIGKILL", 0) else ""
    return f"was killed by signal {-code}{hint}"


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let a process that is started in this context be born with SIGINT blocked.

    Otherwise Ctrl-C, which reaches it too, would end it with a traceback before `_work` runs.
    """
    if sys.platform == "win32":  # which has no such mask
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # or the start below would, and unblock SIGINT after it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: _Pipe, recipe: Recipe) -> None:
    """Be a worker process."""
    _Work(pipe).run(recipe)


class _Stopped(BaseException):
    """The pipe has ended; raised in the middle of a task, so that it puts its files away."""


class _Work:
    """The main thread works, one thread reads the pipe, and one sends progress.

    The threads never wait for each other, so a parent that is slow to read or to write cannot
    make them wait in a circle.
    """

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._performer = Performer()
        self._interruptible = False
        self._stopped = False

    def run(self, recipe: Recipe) -> None:
        """Make the detector and follow orders until the pipe ends."""
        signal.signal(signal.SIGINT, self._interrupted)
        for target in (self._read, self._report):
            threading.Thread(target=target, daemon=True).start()
        with contextlib.suppress(_Stopped):
            self._interruptible = True
            self._follow(recipe)
        self._interruptible = False

    def _follow(self, recipe: Recipe) -> None:
        self._send(-1, 0, self._performer.prepare(recipe))
        while (order := self._orders.get()) is not None and not self._stopped:
            number, task = order
            done = self._performer.perform(number, task)
            self._send(number, self._performer.meter.units, done)

    def _interrupted(self, *_: object) -> None:
        """Handle SIGINT: only `_read` means it; one from the terminal is the parent's."""
        if self._stopped and self._interruptible:
            self._interruptible = False
            raise _Stopped

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._orders.put(self._pipe.recv())
        self._stopped = True
        self._orders.put(None)
        _thread.interrupt_main()
        time.sleep(_GRACE_SECONDS)
        os._exit(1)

    def _report(self) -> None:
        sent = (-1, 0)
        while not self._stopped:
            time.sleep(_REPORT_SECONDS)
            meter = self._performer.meter
            if (meter.number, meter.units) != sent:
                sent = (meter.number, meter.units)
                self._send(*sent, None)

    def _send(self, number: int, units: int, done: Done | None) -> None:
        with self._sending, contextlib.suppress(OSError):  # `_read` sees that the parent is gone
            self._pipe.send((number, units, done))
