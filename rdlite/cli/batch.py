"""What `rdlite detect` and `rdlite annotate` share: workers, what is printed, and exit codes."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TextIO

from rdlite import defaults
from rdlite.batch.feed import BatchJob
from rdlite.batch.run import Batch
from rdlite.batch.totals import Totals, is_damaged
from rdlite.cli.exits import FAILED, INTERRUPTED, OK, SOME_FAILED, Interruption, silence
from rdlite.cli.inputs import Found
from rdlite.cli.progress import Bars
from rdlite.detector import Detector
from rdlite.errors import OutputError
from rdlite.sinks import FORMATS
from rdlite.video.summary import VideoSummary
from rdlite.wording import count, counted_from
from rdlite.workers.pool import Task, make_pool


class Report:
    """Tells a person what becomes of a batch; a `rdlite.batch.totals.Listener`.

    Args:
        found: The inputs.
        quiet: Say only what went wrong, was lost, or was passed over.
        json: Print the summary as JSON, with what is known of each video in it.
        out: Where the summary goes; standard output is the detections' own with "-o -".
        format: What the detections are written in.
        start: Seconds of the first frame of each video, None for all.
        brief: There is one video at most, and what is said of it says all.
    """

    def __init__(
        self,
        found: Found,
        *,
        quiet: bool,
        json: bool,
        out: TextIO,
        format: str,
        start: float | None,
        brief: bool = False,
    ) -> None:
        self._found, self._quiet, self._json, self._out = found, quiet, json, out
        self._brief = brief
        videos = sum(one.video for one in found.files)
        self._has_images, self._has_videos = videos < len(found.files), videos > 0
        self._bars = Bars("frame" if videos == len(found.files) else "img", hidden=quiet)
        self._videos: list[dict[str, Any]] = []
        self._interrupted = self._stopped = False
        if passed_over := found.skipped_note():
            self.warn(passed_over)
        if start and self._has_videos and FORMATS[format].pictures:
            self.warn(f"frames are {counted_from(start)}")

    def failed(self, source: str, error: str) -> None:
        """See `Listener`."""
        self._tell(error)

    def note(self, text: str) -> None:
        """See `Listener`."""
        if not self._quiet:
            self._tell(text)

    def warn(self, text: str) -> None:
        """See `Listener`."""
        self._tell(text)

    def video_done(self, path: str, summary: VideoSummary, *, earlier: bool) -> None:
        """See `Listener`."""
        if self._json:
            self._videos.append({"source": path, **asdict(summary), "earlier": earlier})
        elif not self._quiet and not earlier:
            self._say("\n".join(describe(path, summary)), self._out)
            return
        # Damage is told of in every run, as it is in every run's exit code.
        for sentence in summary.warnings if is_damaged(summary) or not earlier else ():
            self.warn(f"{path}: {sentence}")

    def progress(self, worker: int, task: Task, units: int) -> None:
        """See `Listener`."""
        self._bars.advance(worker, task, units)

    def expect(self, units: float) -> None:
        """See `Listener`."""
        self._bars.expect(units)

    def check(self) -> None:
        """See `Listener`."""
        if Interruption.asked:  # the exception got lost in a destructor
            raise KeyboardInterrupt

    def follow(self, work: Callable[[], None]) -> None:
        """Do the work until its end, or until the user or a full disk stops it."""
        try:
            work()
        except KeyboardInterrupt:
            self._interrupted = True
        except OutputError as error:
            self._stopped = True
            self.warn(str(error))
        finally:
            self._bars.close()

    def end(self, totals: Totals, places: list[str], *, resumable: bool) -> int:
        """Print the summary and return the exit code.

        Args:
            totals: What became of the inputs.
            places: What was written.
            resumable: A run with --resume can go on.
        """
        if self._interrupted or self._stopped:
            places = []
        left = len(self._found.files) + len(self._found.failed) - totals.done - totals.failed
        if self._json:
            self._print_json(totals, places, left)
        elif not self._quiet and self._found.files and not (self._brief and totals.done):
            self._say(self._summary(totals, places, left, resumable=resumable), self._out)
        if self._interrupted:
            return INTERRUPTED
        if not totals.done:
            return FAILED
        return SOME_FAILED if totals.failed or totals.damaged or self._stopped else OK

    def _summary(self, totals: Totals, places: list[str], left: int, *, resumable: bool) -> str:
        ended_early = self._interrupted or self._stopped
        frames = count(totals.frames, "frame")
        parts = [
            *([count(totals.images, "image")] if self._has_images else []),
            *([f"{count(totals.videos, 'video')} ({frames})"] if self._has_videos else []),
            count(totals.found.total(), "object") + by_class(totals.found),
            *([f"{totals.damaged} damaged"] if self._has_videos else []),
            f"{totals.failed} failed",
        ]
        if totals.units and not ended_early:
            unit = "image" if self._has_images else "frame"
            parts.append(f"{_ms_each(totals):.1f} ms per {unit} with reading and writing")
        sentences = [", ".join(parts)]
        if totals.earlier:
            inputs = count(totals.earlier, "input was", "inputs were")
            sentences.append(f"{inputs} done by an earlier run")
        if totals.dropped:
            sentences.append(f"dropped {count(totals.dropped, 'box', 'boxes')} not finite")
        if places and totals.done:
            sentences.append(f"written: {', '.join(places)}")
        if ended_early:
            why = "interrupted" if self._interrupted else "stopped"
            again = "; the same command with --resume goes on" if resumable else ""
            sentences.append(f"{why}, {left} not done{again}")
        return "; ".join(sentences)

    def _print_json(self, totals: Totals, places: list[str], left: int) -> None:
        summary = {
            "images": totals.images,
            "videos": self._videos,
            "frames": totals.frames,
            "earlier": totals.earlier,
            "changed": totals.changed,
            "damaged": totals.damaged,
            "failed": totals.failed,
            "passed_over": dict(self._found.skipped.most_common()),
            "not_done": left,
            "interrupted": self._interrupted,
            "stopped": self._stopped,
            "detections": dict(totals.found.most_common()),
            "dropped_nonfinite": totals.dropped,
            "seconds": round(totals.seconds, 3),
            "ms_each": round(_ms_each(totals), 3),
            "written": places,
        }
        self._say(json.dumps(summary, default=os.fspath), self._out)

    def _tell(self, text: str) -> None:
        self._say(f"rdlite: {text}", sys.stderr)

    def _say(self, text: str, stream: TextIO) -> None:
        """Print without tearing the bars; when nobody reads any more, the work goes on."""
        from tqdm import tqdm

        try:
            tqdm.write(text, file=stream)
            stream.flush()
        except BrokenPipeError:
            silence(stream)


def run_batch(
    job: BatchJob, detector: Detector, found: Found, report: Report, workers: Mapping[str, Any]
) -> Totals:
    """Work through a job with the workers that the options describe; returns what became of it."""
    totals = Totals()
    if not job.inputs:
        for source, reason in found.failed:
            report.failed(source, reason)
        totals.failed = len(found.failed)
        return totals

    def work() -> None:
        with make_pool(detector, **workers) as pool:
            Batch(job, detector, pool, report, totals).run(found.failed)

    report.follow(work)
    return totals


def make_detector(
    *,
    model: str | None = None,
    conf: float = defaults.CONF,
    iou: float = defaults.IOU,
    nms: str = defaults.NMS,
    max_det: int = defaults.MAX_DET,
    threads: int = 1,
    classes: list[str] | None = None,
) -> Detector:
    """Return the detector that the options of a command line describe."""
    import cv2

    cv2.setNumThreads(1)  # so that --threads is the number of threads
    logging.basicConfig(level=logging.WARNING, format="rdlite: %(message)s")
    return Detector(
        model, conf=conf, iou=iou, nms=nms, max_det=max_det, classes=classes, threads=threads
    )


def describe(source: str, summary: VideoSummary) -> list[str]:
    """Return what was done with a video as lines to print, all that was lost included."""
    detect_ms = summary.speed["detect"] * summary.frames / max(1, summary.detected_frames)
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in summary.speed.items())
    total = count(sum(summary.detections.values()), "object")
    looked_at = count(summary.detected_frames, "frame")
    outputs = [str(path) for path in (summary.output, summary.results) if path]
    return [
        f"{source}: {count(summary.frames, 'frame')} in {summary.seconds:.1f} s, "
        f"{summary.frames / max(summary.seconds, 1e-9):.1f} fps",
        f"  detection {detect_ms:.1f} ms/pic; whole, in ms per frame: {stages}",
        f"  {total}{by_class(summary.detections)} in {looked_at} looked at",
        f"  written: {', '.join(outputs)}",
        *(f"  note: {sentence}" for sentence in summary.warnings),
    ]


def by_class(found: Mapping[str, int], most: int = 6) -> str:
    """Return the most frequent classes: " (12 car, 3 person)"."""
    common = Counter(found).most_common()
    parts = [f"{number} {name}" for name, number in common[:most]]
    if len(common) > most:
        parts.append(f"{sum(number for _, number in common[most:])} of other classes")
    return f" ({', '.join(parts)})" if parts else ""


def _ms_each(totals: Totals) -> float:
    return 1e3 * totals.seconds / max(1, totals.units)
