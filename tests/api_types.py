"""The public API as a user's program meets it; mypy checks this file, nobody runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

from rdlite import (
    Detections,
    Detector,
    ImageError,
    OptionError,
    RdliteError,
    ResultFile,
    VideoError,
    open_results,
)
from rdlite.annotate import draw
from rdlite.bench import BenchResult, bench
from rdlite.evaluate import EvalResult, evaluate
from rdlite.image import load
from rdlite.registry import find
from rdlite.results import Detection
from rdlite.sinks import Sink, open_sink
from rdlite.video import Frame, VideoReader
from rdlite.video.summary import VideoSummary


def images(detector: Detector) -> None:
    """One image and a list of them give different types."""
    found = detector("street.jpg", conf=0.4, classes=["person", 2])
    assert_type(found, Detections)
    assert_type(
        detector(["a.jpg", Path("b.png"), b"", np.zeros((4, 4, 3), np.uint8)]), list[Detections]
    )
    assert_type(found[0], Detection)
    assert_type(found[found.confidence > 0.5], Detections)
    assert_type(found[:3], Detections)
    assert_type(found.xyxy, npt.NDArray[np.float32])
    assert_type([box.name for box in found], list[str])
    assert_type(found.to_dict(), dict[str, Any])
    assert_type(draw(load("street.jpg"), found), npt.NDArray[np.uint8])


def videos(detector: Detector) -> VideoSummary:
    """Frames come with their detections."""
    for frame, found in detector.stream("clip.mp4", stride=5):
        assert_type(frame, Frame)
        assert_type(found, Detections)
    with VideoReader("clip.mp4", start=1.5) as reader:
        assert_type(iter(reader), Iterator[Frame])
    return detector.annotate_video("clip.mp4", "out.mp4", progress=lambda done, total: print(done))


def files(detector: Detector) -> None:
    """Results are written, read and measured."""
    with open_sink("csv", "out.csv", header={}) as sink:
        assert_type(sink, Sink)
        sink.write(detector("a.jpg"), image="a.jpg")
    results = open_results("clip.jsonl")
    assert_type(results, ResultFile)
    for record in results:
        assert_type(record.found, Detections)
        assert_type(record.time, float | None)
    assert_type(evaluate(detector, "dev.json", "images"), EvalResult)
    assert_type(bench([detector], load("a.jpg"), runs=3), list[BenchResult])
    assert_type(find("int8"), Path)


def errors() -> None:
    """Every error is an `RdliteError`, and a builtin one."""
    try:
        Detector("mine", threads=2)
    except (ImageError, OptionError) as error:
        as_value: ValueError = error
        print(as_value)
    except VideoError as error:
        as_os: OSError = error
        print(as_os)
    except RdliteError as error:
        print(error)
