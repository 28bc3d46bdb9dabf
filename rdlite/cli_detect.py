"""`rdlite detect`: boxes and annotated copies of images."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rdlite.annotate import draw
from rdlite.cli_batch import (
    Batch,
    Outputs,
    by_class,
    count,
    make_detector,
    output_folder,
    refuse_existing,
)
from rdlite.cli_inputs import IMAGES, VIDEOS, Input, find
from rdlite.detector import Detector
from rdlite.errors import ImageError, OptionError
from rdlite.image import load
from rdlite.sinks import CocoSink, CsvSink, JsonlSink, PartialFile, jsonl_header

Sink: TypeAlias = JsonlSink | CocoSink | CsvSink
_ENDINGS = {"jsonl": ".jsonl", "coco": ".json", "csv": ".csv"}
STDOUT = "-"


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
    detector, folder = make_detector(**detection), _folder(output)
    found = find(sources, IMAGES, outside=folder or Path(os.devnull))
    target = STDOUT if folder is None else str(folder / f"detections{_ENDINGS[format]}")
    errors = None
    if folder is not None and found.files:
        refuse_existing(Path(target), overwrite=overwrite)
        errors = output_folder(folder, overwrite=overwrite)
    batch = Batch(quiet, errors)
    batch.note(found.skipped_note())
    for source, reason in found.failed:
        batch.fail(source, reason)
    if not found.files:
        if json:
            _report(batch, 0, target, None, as_json=True)
        return batch.exit_code
    copies = Outputs(folder, found.files, overwrite=overwrite) if folder and images else None
    with _sink(format, target, detector, overwrite) as sink:

        def work(one: Input) -> None:
            if one.path.suffix.lower() in VIDEOS:
                raise ImageError(f"{one.path} is a video; use rdlite annotate")
            copy = copies.path(one, error=ImageError) if copies else None
            image = load(one.path)
            detections = detector(image)
            if copy is not None:
                _write_copy(copy, draw(image, detections))
            sink.write(detections, image=_text(one.path))
            batch.found.update(detections.class_names)
            batch.dropped += detections.dropped_nonfinite

        batch.run(found.files, work, unit="img")
    if json or not quiet:
        _report(batch, len(found.files), target, folder if copies else None, as_json=json)
    return batch.exit_code


def _folder(output: str) -> Path | None:
    """Return the output folder, None for standard output."""
    path = Path(output)
    if path.suffix.lower() in {*IMAGES, *_ENDINGS.values()} and not path.is_dir():
        raise OptionError(
            f"-o {output} looks like a file; name a folder for the copies and the detections, "
            "or - for the detections on standard output"
        )
    return None if output == STDOUT else path


def _sink(kind: str, path: str, detector: Detector, overwrite: bool) -> Sink:
    if kind == "coco":
        return CocoSink(path, overwrite=overwrite)
    if kind == "csv":
        return CsvSink(path, overwrite=overwrite)
    header = jsonl_header(detector.model_sha256, options=detector.options)
    return JsonlSink(path, header, overwrite=overwrite)


def _text(path: Path) -> str:
    """Return a path as UTF-8 can hold it, other bytes in hexadecimal."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _write_copy(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Write an annotated copy, whole or not at all; a full disk is an OSError."""
    import cv2

    try:
        good, encoded = cv2.imencode(path.suffix, picture)
    except cv2.error:
        good = False
    if not good:
        raise ImageError(f"{path} cannot be encoded, it is too large for that; use --no-images")
    path.parent.mkdir(parents=True, exist_ok=True)
    target = PartialFile(path, overwrite=True, error=ImageError)
    try:
        target.partial.write_bytes(encoded.tobytes())
        # Not `commit`: waiting for the disk takes a tenth of the time of a detection.
        os.replace(target.partial, path)
    finally:
        target.discard()


def _report(batch: Batch, total: int, target: str, copies: Path | None, *, as_json: bool) -> None:
    stream = sys.stderr if target == STDOUT else sys.stdout  # standard output is the detections'
    ms_per_image = 1e3 * batch.seconds / max(1, batch.done)
    if as_json:
        summary = {
            "images": batch.done,
            "failed": batch.failed,
            "interrupted": batch.interrupted,
            "detections": dict(batch.found.most_common()),
            "dropped_nonfinite": batch.dropped,
            "seconds": round(batch.seconds, 3),
            "ms_per_image": round(ms_per_image, 3),
            "output": target,
            "copies": None if copies is None else str(copies),
        }
        print(jsonlib.dumps(summary), file=stream)
        return
    places = [] if target == STDOUT or not batch.done else [target]
    places += [f"copies in {copies}/"] if copies and batch.done else []
    print(
        f"{count(batch.done, 'image')}, {count(batch.found.total(), 'object')}"
        f"{by_class(batch.found)}, {batch.failed} failed, {ms_per_image:.1f} ms per image"
        + (f"; dropped {batch.dropped} boxes that were not finite" if batch.dropped else "")
        + (f"; written: {', '.join(places)}" if places else "")
        + batch.ending(total),
        file=stream,
    )
