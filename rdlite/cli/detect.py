"""`rdlite detect`: boxes in images and videos, and annotated copies of the images."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from rdlite.batch.feed import BatchJob
from rdlite.batch.stream import Stream
from rdlite.batch.totals import Totals
from rdlite.cli.batch import Report, make_detector, run_batch
from rdlite.cli.inputs import IMAGES, VIDEOS, Found, find
from rdlite.convert import copy_lines
from rdlite.detector import Detector
from rdlite.errors import OptionError
from rdlite.sinks import FORMATS, open_sink
from rdlite.sinks.base import STDOUT
from rdlite.storage.journal import jsonl_header
from rdlite.video.reader import check_range
from rdlite.workers.pool import make_pool


def detect(
    *,
    sources: list[str],
    output: str,
    format: str,
    images: bool,
    stride: int,
    start: float | None,
    end: float | None,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    resume: bool,
    overwrite: bool,
    quiet: bool,
    json: bool,
    **detection: Any,
) -> int:
    """Find objects in images and videos; see `rdlite detect --help`."""
    _check_output(output, format, resume=resume)
    check_range(stride, start, end)  # also where there is no video
    to_stdout, ending = output == STDOUT, FORMATS[format].ending
    detector = make_detector(**detection)
    found = find(
        sources,
        images=True,
        video_ending=ending,
        outside=Path(os.devnull if to_stdout else output),
        copies=images,
        reserved=(f"detections{ending}", "errors.jsonl"),
    )
    out = sys.stderr if to_stdout else sys.stdout
    report = Report(found, quiet=quiet, json=json, out=out, format=format, start=start)
    pool = {"workers": workers, "engine": engine, "ray_address": ray_address}
    video = {"stride": stride, "start": start, "end": end}
    if to_stdout:
        totals = _stream(detector, found, report, format, pool, video)
        return report.end(totals, [], resumable=False)
    job = BatchJob(
        inputs=found.files,
        folder=Path(output),
        arguments=sources,
        format=format,
        copies=images,
        video=video,
        overwrite=overwrite,
        resume=resume,
    )
    totals = run_batch(job, detector, found, report, pool)
    return report.end(totals, _places(job, totals), resumable=True)


def _check_output(output: str, format: str, *, resume: bool) -> None:
    path = Path(output)
    endings = {*IMAGES, *VIDEOS, *(kind.ending for kind in FORMATS.values() if not kind.folder)}
    if path.suffix.lower() in endings and not path.is_dir():
        raise OptionError(
            f"-o {output} looks like a file; name a folder for the copies and the detections, "
            "or - for the detections on standard output"
        )
    if output != STDOUT:
        return
    if not FORMATS[format].stdout:
        raise OptionError(f"--format {format} cannot go to standard output; name a folder with -o")
    if resume:
        raise OptionError("--resume needs a folder that remembers what is done; name one with -o")


def _stream(
    detector: Detector,
    found: Found,
    report: Report,
    format: str,
    pool: dict[str, Any],
    video: dict[str, Any],
) -> Totals:
    """Write the detections to standard output."""
    for source, reason in found.failed:
        report.failed(source, reason)
    header = jsonl_header(
        detector.model_sha256,
        names=detector.names,
        category_ids=detector.category_ids,
        options={**detector.options, **video},
    )
    totals = Totals(failed=len(found.failed))
    if not found.files:
        return totals
    with (
        make_pool(detector, **pool) as workers,
        open_sink(format, STDOUT, header=header) as sink,
    ):
        stream = Stream(found.files, detector, workers, report, totals, **video)
        with contextlib.closing(stream.lines()) as lines:
            # Inside the `with`: what is interrupted ends as a whole file all the same.
            report.follow(lambda: copy_lines(header, lines, sink))
    return totals


def _places(job: BatchJob, totals: Totals) -> list[str]:
    places = [str(job.detections)] if totals.images else []
    places += [f"copies in {job.folder}/"] if totals.images and job.copies else []
    return places + ([f"detections in videos in {job.folder}/"] if totals.videos else [])
