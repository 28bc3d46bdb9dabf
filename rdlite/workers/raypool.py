"""Workers on many machines, through Ray.

A worker is a Ray actor that holds a detector, and the driver gives it one task after the other, as
`ProcessPool` does. Ray Data's `map_batches` with an actor fits less well: it moves rows through
its object store and decides by itself what runs again, whereas here the data lie in files that all
machines see, a task is a few file names, and the driver must know which one ended, to write
the journal, and which one a lost machine had.
"""

from __future__ import annotations

import logging
import pickle
import re
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rdlite.cores import usable_cores
from rdlite.errors import OptionError, RdliteError
from rdlite.workers.remotepool import Job, RemotePool, Worker

if TYPE_CHECKING:
    from rdlite.detector import Detector

_log = logging.getLogger(__name__)
_REPORT_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0
_GRACE_SECONDS = 5.0
_STORE_BYTES = 128 * 2**20  # Ray's object store, of a cluster of our own; we keep next to nothing
_START, _PROGRESS = -1, -2  # in place of a job's number


@dataclass(slots=True, eq=False)
class _Actor(Worker):
    handle: Any
    asked: bool = False  # how far it is, and the answer is not here yet


class RayPool(RemotePool[_Actor]):
    """Workers of a Ray cluster, one core and one detector each.

    rdlite must be installed on every machine, in the same version, and see the same files by
    the same paths. A worker that is lost, with its machine or alone, is replaced as soon as the
    cluster has a core for it, and its task is tried once more; the others go on meanwhile. At
    the end running tasks are killed.

    Args:
        detector: Is pickled for every worker.
        workers: How many; None for one per core of the cluster.
        address: As `ray_address` of `make_pool`. Where Ray is initialized already, that cluster
            is used, and left as it is at the end.

    Raises:
        OptionError: Ray is not installed.
    """

    def __init__(
        self, detector: Detector, workers: int | None = None, *, address: str | None = None
    ) -> None:
        super().__init__(detector, workers or 0)
        self._ray = _import_ray()
        self._address = address
        self._owns_ray = False
        self._kind = _actor_class(self._ray)
        self._refs: dict[Any, tuple[_Actor, int]] = {}

    def __enter__(self) -> Self:
        ray = self._ray
        if not ray.is_initialized():
            self._join()
        cores = int(ray.cluster_resources().get("CPU", 0))
        self.workers = self.workers or max(1, cores)
        # one lost machine takes several workers with it
        self._spare_starts = self.workers
        if self.workers > cores:
            _log.warning(
                "%d workers are wanted and the cluster has %d cores; the others start when "
                "machines join",
                self.workers,
                cores,
            )
        return super().__enter__()

    def close(self) -> None:
        """See `Pool.close`."""
        crew, self._crew = self._crew, []
        refs, self._refs = list(self._refs), {}
        self._queue.clear()
        for worker in crew:
            self._ray.kill(worker.handle)
        if refs:  # which fail when their workers are gone
            self._ray.wait(refs, num_returns=len(refs), timeout=_GRACE_SECONDS)
        if self._owns_ray:
            self._owns_ray = False
            self._ray.shutdown()

    def _join(self) -> None:
        options: dict[str, Any] = {"address": self._address}
        if self._address is None:
            options = {
                "address": "local",
                "num_cpus": self.workers or usable_cores(),
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
            }
        try:
            _knock(self._address)
            logging.getLogger("ray").setLevel(logging.ERROR)
            # configured by Ray, the root logger would change its format too
            self._ray.init(configure_logging=False, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise OptionError(
                f"no Ray cluster can be joined at {self._address!r} ({error}); start "
                "one with `ray start --head`, and `ray start --address` on the other machines"
            ) from error
        self._owns_ray = True

    def _start(self, number: int) -> _Actor:
        worker = _Actor(number, self._kind.remote())
        self._refs[worker.handle.prepare.remote(pickle.dumps(self._recipe))] = worker, _START
        return worker

    def _send(self, worker: _Actor, job: Job) -> None:
        ref = worker.handle.perform.remote(job.number, job.pickled)
        self._refs[ref] = worker, job.number
        if not worker.asked:
            self._ask(worker)

    def _ask(self, worker: _Actor) -> None:
        """Ask a worker how far it is; it answers after a while."""
        worker.asked = True
        self._refs[worker.handle.progress.remote()] = worker, _PROGRESS

    def _listen(self) -> None:
        refs = list(self._refs)
        if not self._ray.wait(refs, timeout=_PATIENCE_SECONDS)[0]:
            _log.warning("no worker answers or can start; `ray status` says which cores are free")
        ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            if ref in self._refs:  # those of a worker that died a moment ago are not
                self._hear(ref, *self._refs.pop(ref))

    def _hear(self, ref: Any, worker: _Actor, number: int) -> None:
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise RdliteError(
                f"a machine of the cluster cannot run rdlite ({error.cause!r}); every machine "
                "needs the version that runs here"
            ) from error
        except self._ray.exceptions.RayError as error:
            self._ray.kill(worker.handle)
            self._refs = {other: of for other, of in self._refs.items() if of[0] is not worker}
            self._died(worker, _how(error))
            return
        if number == _PROGRESS:
            worker.asked = False
            number, units = answer
            self._heard(worker, number, units, None)
            if worker.jobs:
                self._ask(worker)
        else:
            units, done = answer
            self._heard(worker, number, units, done)


def _knock(address: str | None) -> None:
    """Raise `OSError` if nobody listens at "host:port", for which Ray would wait minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_SECONDS).close()


def _how(error: Exception) -> str:
    reason = re.search(r"because [^.\n]+", str(error))
    return f"was lost {reason.group() if reason else f'({type(error).__name__})'}"


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise OptionError(f"engine 'ray' needs Ray ({error}); run `pip install ray`") from error
    return ray


def _actor_class(ray: Any) -> Any:
    """Return the class of the actors.

    It is made here because Ray sends it as code, which a machine without rdlite can load too;
    the import in `prepare` then fails with an error that says what is missing.
    """

    class RdliteWorker:
        def prepare(self, recipe: bytes) -> tuple[int, Any]:
            from rdlite.workers.remotepool import Performer

            self.performer = Performer()
            return 0, self.performer.prepare(pickle.loads(recipe))

        def perform(self, number: int, task: bytes) -> tuple[int, Any]:
            done = self.performer.perform(number, task)
            return self.performer.meter.units, done

        @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
        def progress(self) -> tuple[int, int]:
            time.sleep(_REPORT_SECONDS)
            return self.performer.meter.number, self.performer.meter.units

    groups = {"progress": 1}  # a thread beside the one that works
    options = {"num_cpus": 1, "concurrency_groups": groups, "scheduling_strategy": "SPREAD"}
    return ray.remote(**options)(RdliteWorker)
