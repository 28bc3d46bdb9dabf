"""Batches for tests: who listens, a detector that counts, and how to run one."""

from pathlib import Path
from typing import Any

import numpy as np

from rdlite import Detector
from rdlite.batch.feed import BatchJob
from rdlite.batch.run import Batch
from rdlite.batch.totals import Totals
from rdlite.cli.inputs import find
from rdlite.video.summary import VideoSummary
from rdlite.workers.pool import LocalPool, Task, make_pool

IMAGES = 40


class Ear:
    """Hears what a batch says, and may end it after a number of steps."""

    def __init__(self, steps: int = 10**9) -> None:
        self.errors: list[str] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.units = self.expected = 0.0
        self._steps = steps

    def failed(self, source: str, error: str) -> None:
        self.errors.append(error)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def video_done(self, path: str, summary: VideoSummary, *, earlier: bool) -> None:
        assert summary.results is not None and summary.results.exists()

    def progress(self, worker: int, task: Task, units: int) -> None:
        assert task.label
        self.units += units

    def expect(self, units: float) -> None:
        self.expected = units

    def check(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise KeyboardInterrupt


class Counting:
    """A detector that counts its calls and fails on pictures that are `bad` pixels wide."""

    def __init__(self, detector: Detector, bad: int = 0) -> None:
        self.detector, self.bad, self.calls = detector, bad, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.detector, name)

    def __call__(self, image: np.ndarray, **options: Any) -> Any:
        self.calls += 1
        if image.shape[1] == self.bad:
            raise RuntimeError("a fault of the runtime")
        return self.detector(image, **options)


def job(source: Path, out: Path, **options: Any) -> BatchJob:
    found = find([str(source)], images=True, video_ending=".jsonl", outside=out)
    return BatchJob(found.files, out, **options)


def run(job: BatchJob, detector: Any, ear: Ear | None = None, *, workers: int = 1) -> Totals:
    totals = Totals()
    pool = LocalPool(detector) if workers == 1 else make_pool(detector.detector, workers=workers)
    with pool:
        Batch(job, detector, pool, ear or Ear(), totals).run()
    return totals


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the record, those that are hidden included; failures in any order."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    files = {name: data for name, data in files.items() if not name.startswith(".rdlite")}
    if "errors.jsonl" in files:
        files["errors.jsonl"] = b"".join(sorted(files["errors.jsonl"].splitlines()))
    return files
