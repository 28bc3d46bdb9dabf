"""`rdlite detect` and `rdlite annotate`: many inputs, of which bad ones do not stop the others."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from rdlite.annotate import draw
from rdlite.cli import FAILED, INTERRUPTED, OK, SOME_FAILED
from rdlite.cli_inputs import IMAGES, VIDEOS, Input, find
from rdlite.detector import Detector
from rdlite.errors import ImageError, OptionError, RdliteError
from rdlite.image import load
from rdlite.pipeline import VideoSummary, annotate_video
from rdlite.sinks import CocoSink, CsvSink, JsonlSink, PartialFile, jsonl_header

Sink: TypeAlias = JsonlSink | CocoSink | CsvSink
_ENDINGS = {"jsonl": ".jsonl", "coco": ".json", "csv": ".csv"}


@dataclass(slots=True)
class _Batch:
    """What became of a list of inputs."""

    quiet: bool
    failed: list[tuple[str, str]] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    done: int = 0
    damaged: int = 0
    interrupted: bool = False
    start: float = field(default_factory=perf_counter)

    def fail(self, source: str, error: str) -> None:
        self.failed.append((source, error))
        self._say(error)

    def _say(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(f"rdlite: {text}", file=sys.stderr)

    def run(self, inputs: list[Input], work: Callable[[Input], None], *, unit: str) -> None:
        """Do the work on every input until one interrupts; a bar is shown to a person."""
        from tqdm import tqdm

        hidden = True if self.quiet or len(inputs) < 2 else None  # None: on a terminal only
        with tqdm(inputs, unit=unit, disable=hidden, delay=2, file=sys.stderr) as bar:
            try:
                for one in bar:
                    try:
                        work(one)
                        self.done += 1
                    except RdliteError as error:
                        self.fail(str(one.path), str(error))
            except KeyboardInterrupt:
                self.interrupted = True

    def write_errors(self, folder: Path) -> None:
        """Write `errors.jsonl`; one from an earlier run is replaced or, if all is well, removed."""
        target = PartialFile(folder / "errors.jsonl", overwrite=True)
        if not self.failed:
            target.path.unlink(missing_ok=True)
            return
        lines = (json.dumps({"input": s, "error": e}, ensure_ascii=False) for s, e in self.failed)
        target.partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        target.commit()

    def exit_code(self) -> int:
        if self.interrupted:
            return INTERRUPTED
        if not self.done:
            return FAILED
        return SOME_FAILED if self.failed or self.damaged else OK

    def summary(self, unit: str, output: str) -> dict[str, Any]:
        seconds = perf_counter() - self.start
        return {
            unit: self.done,
            "failed": len(self.failed),
            "interrupted": self.interrupted,
            "detections": dict(self.found.most_common()),
            "seconds": round(seconds, 3),
            "output": output,
        }


def make_detector(
    *,
    model: str | None,
    conf: float,
    iou: float,
    nms: str,
    max_det: int,
    threads: int,
    classes: list[str | int] | None = None,
) -> Detector:
    """Return the detector that the options of a command line describe."""
    import cv2

    cv2.setNumThreads(1)  # so that --threads is the number of threads
    logging.basicConfig(level=logging.WARNING, format="rdlite: %(message)s")
    return Detector(
        model, conf=conf, iou=iou, nms=nms, max_det=max_det, classes=classes, threads=threads
    )


def detect(
    *,
    sources: list[str],
    output: str,
    format: str,
    images: bool,
    overwrite: bool,
    quiet: bool,
    json: bool,
    **detection: Any,
) -> int:
    """Find objects in images; see `rdlite detect --help`."""
    detector, batch = make_detector(**detection), _Batch(quiet)
    to_stdout = output == "-"
    folder = Path(output)
    inputs, unmatched = find(sources, IMAGES, outside=folder)
    for source, error in unmatched:
        batch.fail(source, error)
    if not inputs:
        return batch.exit_code()
    if not to_stdout:
        folder.mkdir(parents=True, exist_ok=True)
    target = output if to_stdout else str(folder / f"detections{_ENDINGS[format]}")
    with _sink(format, target, detector, overwrite) as sink:

        def work(one: Input) -> None:
            image = load(one.path)
            found = detector(image)
            if images and not to_stdout:
                _write_image(folder / one.output, draw(image, found), overwrite=overwrite)
            sink.write(found, image=str(one.path))
            batch.found.update(found.class_names)

        batch.run(inputs, work, unit="img")
    if not to_stdout:
        batch.write_errors(folder)
    _report_images(batch, target, folder if images and not to_stdout else None, as_json=json)
    return batch.exit_code()


def _sink(kind: str, path: str, detector: Detector, overwrite: bool) -> Sink:
    if kind == "coco":
        return CocoSink(path, overwrite=overwrite)
    if kind == "csv":
        return CsvSink(path, overwrite=overwrite)
    header = jsonl_header(detector.model_sha256, options=detector.options)
    return JsonlSink(path, header, overwrite=overwrite)


def _write_image(path: Path, picture: Any, *, overwrite: bool) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    target = PartialFile(path, overwrite=overwrite, error=ImageError)
    good, encoded = cv2.imencode(path.suffix, picture)
    if not good:
        raise ImageError(f"{path} cannot be encoded; try another format")
    try:
        target.partial.write_bytes(encoded.tobytes())
        target.commit()
    except OSError as error:
        target.discard()
        raise ImageError(f"{path} cannot be written: {error.strerror}") from error


def _report_images(batch: _Batch, target: str, folder: Path | None, *, as_json: bool) -> None:
    summary = batch.summary("images", target)
    stream = sys.stderr if target == "-" else sys.stdout  # standard output holds the detections
    if as_json:
        print(json.dumps(summary), file=stream)
    elif not batch.quiet:
        per_image = 1e3 * summary["seconds"] / max(1, batch.done)
        print(
            f"{batch.done} images, {batch.found.total()} objects{_counts(batch.found)}, "
            f"{len(batch.failed)} failed; {per_image:.1f} ms an image",
            file=stream,
        )
        if target != "-":
            print(f"written: {target}" + (f", annotated copies in {folder}" if folder else ""))


def _counts(found: Counter[str] | dict[str, int], most: int = 6) -> str:
    """The most frequent classes: " (12 car, 3 person)"."""
    common = Counter(found).most_common()
    parts = [f"{count} {name}" for name, count in common[:most]]
    parts += [f"{len(common) - most} more classes"] if len(common) > most else []
    return f" ({', '.join(parts)})" if parts else ""


def annotate(
    *,
    sources: list[str],
    output: str,
    stride: int,
    start: float | None,
    end: float | None,
    audio: bool,
    codec: str,
    crf: int,
    overwrite: bool,
    quiet: bool,
    json: bool,
    **detection: Any,
) -> int:
    """Annotate videos; see `rdlite annotate --help`."""
    detector, batch = make_detector(**detection), _Batch(quiet)
    one_file = Path(output).suffix.lower() == ".mp4" and not Path(output).is_dir()
    folder = Path(output).parent if one_file else Path(output)
    inputs, unmatched = find(sources, VIDEOS, outside=Path(output))
    for source, error in unmatched:
        batch.fail(source, error)
    if one_file and len(inputs) > 1:
        raise OptionError(f"{output} is one file for {len(inputs)} videos; give a folder with -o")
    if not inputs:
        return batch.exit_code()
    folder.mkdir(parents=True, exist_ok=True)

    def work(one: Input) -> None:
        target = Path(output) if one_file else folder / one.output
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
        batch.damaged += bool(summary.truncated or summary.bad_packets)
        if not quiet and not json:
            print("\n".join(describe(one.path, summary)), flush=True)

    batch.run(inputs, work, unit="video")
    if len(inputs) > 1 and not one_file:
        batch.write_errors(folder)
    if json:
        _print_json(batch.summary("videos", output) | {"damaged": batch.damaged})
    elif not quiet and len(inputs) > 1:
        print(f"{batch.done} videos, {batch.damaged} of them damaged, {len(batch.failed)} failed")
    return batch.exit_code()


def _print_json(value: Any) -> None:
    print(json.dumps(value))


def describe(source: Path, summary: VideoSummary) -> list[str]:
    """Return what was done with a video as lines to print."""
    frames = max(1, summary.frames)
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in summary.speed.items())
    detect_ms = summary.speed["detect"] * frames / max(1, summary.detected_frames)
    lines = [
        f"{source}: {summary.frames} frames in {summary.seconds:.1f} s, "
        f"{summary.frames / max(summary.seconds, 1e-9):.1f} fps",
        f"  detection {detect_ms:.1f} ms/pic; per frame, in ms: {stages}",
        f"  objects{_counts(summary.detections) or ': none'} in {summary.detected_frames} frames",
        f"  written: {summary.output}" + (f", {summary.jsonl}" if summary.jsonl else ""),
    ]
    return lines + [f"  note: {sentence}" for sentence in summary.warnings]
