"""`rdlite annotate`: videos with the objects boxed and named."""

from __future__ import annotations

import json as jsonlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rdlite.cli_batch import (
    Batch,
    Outputs,
    by_class,
    count,
    make_detector,
    output_folder,
    refuse_existing,
)
from rdlite.cli_inputs import VIDEOS, Input, find
from rdlite.errors import OptionError, VideoError
from rdlite.pipeline import VideoSummary, annotate_video


def annotate(
    *,
    sources: list[str],
    output: str,
    overwrite: bool,
    quiet: bool,
    json: bool,
    stride: int,
    start: float | None,
    end: float | None,
    audio: bool,
    codec: str,
    crf: int,
    **detection: Any,
) -> int:
    """Annotate videos; see `rdlite annotate --help`."""
    detector, one_file = make_detector(**detection), _is_file(output)
    found = find(sources, VIDEOS, outside=Path(output))
    if one_file and len(found.files) > 1:
        raise OptionError(
            f"{output} is one file for {len(found.files)} videos; give a folder with -o"
        )
    inputs, folder, errors = found.files, Path(output), None
    if one_file:
        inputs = [Input(one.path, Path(folder.name)) for one in inputs]
        folder = folder.parent
    if inputs and not one_file:
        errors = output_folder(folder, overwrite=overwrite)
    batch = Batch(quiet, errors)
    batch.note(found.skipped_note())
    for source, reason in found.failed:
        batch.fail(source, reason)
    outputs = Outputs(folder, inputs, overwrite=overwrite)
    summaries: list[dict[str, Any]] = []

    def work(one: Input) -> None:
        target = outputs.path(one, error=VideoError)
        refuse_existing(target.with_suffix(".jsonl"), overwrite=overwrite, error=VideoError)
        target.parent.mkdir(parents=True, exist_ok=True)
        summary = annotate_video(
            detector,
            one.path,
            target,
            stride=stride,
            start=start,
            end=end,
            audio=audio,
            codec=codec,
            crf=crf,
            progress=False if quiet else None,
            overwrite=overwrite,
        )
        batch.found.update(summary.detections)
        batch.damaged += is_damaged(summary)
        if json:
            summaries.append({"source": str(one.path), **asdict(summary)})
        elif not quiet:
            batch.say("\n".join(describe(one.path, summary)))

    batch.run(inputs, work, unit="video")
    if json:
        _print_json(batch, summaries)
    elif not quiet and (batch.done + batch.failed > 1 or batch.interrupted):
        print(
            f"{count(batch.done, 'video')}, {batch.damaged} damaged, {batch.failed} failed"
            + batch.ending(len(inputs))
        )
    return batch.exit_code


def _is_file(output: str) -> bool:
    """Whether -o names one video; a folder may be called anything but like another format."""
    path = Path(output)
    if path.is_dir() or path.suffix.lower() not in {*VIDEOS, ".jsonl"}:
        if output == "-":
            raise OptionError("a video cannot be written to standard output; name a file with -o")
        return False
    if path.suffix.lower() != ".mp4":
        raise OptionError(f"-o {output} must end in .mp4, or name a folder")
    return True


def is_damaged(summary: VideoSummary) -> bool:
    """Whether some of the picture or of the sound could not be read."""
    return summary.truncated or bool(summary.bad_packets or summary.audio_bad_packets)


def describe(source: Path, summary: VideoSummary) -> list[str]:
    """Return what was done with a video as lines to print, all that was lost included."""
    detect_ms = summary.speed["detect"] * summary.frames / max(1, summary.detected_frames)
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in summary.speed.items())
    total = count(sum(summary.detections.values()), "object")
    return [
        f"{source}: {count(summary.frames, 'frame')} in {summary.seconds:.1f} s, "
        f"{summary.frames / max(summary.seconds, 1e-9):.1f} fps",
        f"  detection {detect_ms:.1f} ms/pic; whole, in ms per frame: {stages}",
        f"  {total}{by_class(summary.detections)} in {summary.detected_frames} frames looked at",
        f"  written: {summary.output}" + (f", {summary.jsonl}" if summary.jsonl else ""),
        *(f"  note: {sentence}" for sentence in summary.warnings),
    ]


def _print_json(batch: Batch, summaries: list[dict[str, Any]]) -> None:
    content = {
        "videos": summaries,
        "damaged": batch.damaged,
        "failed": batch.failed,
        "interrupted": batch.interrupted,
    }
    print(jsonlib.dumps(content, default=os.fspath))
