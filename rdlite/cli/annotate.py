"""`rdlite annotate`: videos with the objects boxed and named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rdlite.batch.feed import BatchJob
from rdlite.cli.batch import Report, make_detector, run_batch
from rdlite.cli.inputs import VIDEOS, find
from rdlite.errors import OptionError
from rdlite.sinks import FORMATS
from rdlite.sinks.base import STDOUT
from rdlite.storage.outputs import Input


def annotate(
    *,
    sources: list[str],
    output: str,
    format: str,
    stride: int,
    start: float | None,
    end: float | None,
    audio: bool,
    codec: str,
    crf: int,
    preset: str,
    encoder_threads: int,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    resume: bool,
    overwrite: bool,
    quiet: bool,
    json: bool,
    **detection: Any,
) -> int:
    """Annotate videos; see `rdlite annotate --help`."""
    one_file, folder = _is_file(output), Path(output)
    detector = make_detector(**detection)
    found = find(
        sources, images=False, video_ending=".mp4", outside=folder, reserved=("errors.mp4",)
    )
    if one_file:
        if len(found.files) > 1:
            raise OptionError(
                f"{output} is one file for {len(found.files)} videos; give a folder with -o"
            )
        found.files = [Input(one.path, folder.name, video=True) for one in found.files]
        folder = folder.parent
    job = BatchJob(
        inputs=found.files,
        folder=folder,
        arguments=sources,
        format=format,
        annotate=True,
        video={
            "stride": stride,
            "start": start,
            "end": end,
            "audio": audio,
            "codec": codec,
            "crf": crf,
            "preset": preset,
            "encoder_threads": encoder_threads,
        },
        record=not one_file,
        overwrite=overwrite,
        resume=resume,
    )
    report = Report(
        found,
        quiet=quiet,
        json=json,
        out=sys.stdout,
        format=format,
        start=start,
        brief=one_file,
    )
    pool = {"workers": workers, "engine": engine, "ray_address": ray_address}
    totals = run_batch(job, detector, found, report, pool)
    return report.end(totals, [output if one_file else f"{folder}/"], resumable=True)


def _is_file(output: str) -> bool:
    """Whether -o names one video; a folder may be called anything but like another format."""
    path = Path(output)
    results = {kind.ending for kind in FORMATS.values() if not kind.folder}
    if path.is_dir() or path.suffix.lower() not in VIDEOS | results:
        if output == STDOUT:
            raise OptionError("a video cannot be written to standard output; name a file with -o")
        return False
    if path.suffix.lower() != ".mp4":
        raise OptionError(f"-o {output} must end in .mp4, or name a folder")
    return True
