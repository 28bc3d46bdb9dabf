"""The detector: images in, boxes out."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from rdlite import defaults
from rdlite.errors import ImageError, ModelError
from rdlite.image import ImageSource, load, resize
from rdlite.modelfile import ModelSpec
from rdlite.options import MOST_THREADS, Classes, Options, check_count, plain
from rdlite.postprocess import postprocess
from rdlite.registry import DEFAULT, shipped
from rdlite.results import Detections
from rdlite.session import Session

if TYPE_CHECKING:
    from rdlite.video.pipeline import Progress
    from rdlite.video.reader import Frame, VideoReader
    from rdlite.video.summary import VideoSummary


class Detector:
    """Finds objects in images and videos.

    Safe to call from several threads at once, to pickle, and to use after `fork`.

    Args:
        model: Name of a model, or path of a model file; None for "default". A path is a `Path`, or
            a string with a directory separator in it or ".onnx" at its end; any other string is a
            name. `rdlite models` lists those that are here and `rdlite.registry` says where a
            file of your own gets a name.
        conf: Lowest score kept, 0 to 1.
        iou: Overlap (intersection over union) above which "hard" removes and "linear" weakens
            a box of the same class; "gaussian" does not use it.
        nms: "hard" removes overlapping boxes; "linear" and "gaussian" lower their scores
            instead (soft-NMS, arXiv 1704.04503) and drop those that fall below `conf`.
        max_det: Most objects returned for one image, best first.
        classes: Names or indices of the classes wanted; None for all. Text is a name where the
            model has it ("1" of a model of digits), otherwise an index.
        threads: Threads the network may use for one image; 1 keeps it on the calling thread.
            Decoding and resizing follow OpenCV's own setting, `cv2.setNumThreads`.

    Attributes:
        spec: What the model file says about itself.

    Raises:
        ModelError: No model has this name, or its file cannot be used; the text names it.
        OptionError: An option has a value that cannot be used.

    Example:
        >>> detector = Detector(conf=0.4, classes=["person", "bicycle"])
        >>> for found in detector("street.jpg"):
        ...     print(found.name, found.confidence, found.xyxy)
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        conf: float = defaults.CONF,
        iou: float = defaults.IOU,
        nms: str = defaults.NMS,
        max_det: int = defaults.MAX_DET,
        classes: Classes | None = None,
        threads: int = 1,
    ) -> None:
        model = DEFAULT if model is None else model
        self._session = Session(model, threads=check_count("threads", threads, most=MOST_THREADS))
        self.spec: ModelSpec = self._session.spec
        # A name that every installation knows is kept, so that a pickled detector finds the model
        # of the other machine; the user's own are where they were found.
        self._model = model if shipped(model) else self._session.path
        self._threads = threads
        self._choices: dict[str, Any] = {
            "conf": conf,
            "iou": iou,
            "nms": nms,
            "max_det": max_det,
            "classes": classes,
        }
        self._options = Options.checked(names=self.names, **self._choices)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names; index = `Detections.class_id`."""
        return self.spec.names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Dataset (COCO) category id of each class, same order as `names`."""
        return self.spec.category_ids

    @property
    def model_sha256(self) -> str:
        """Hexadecimal SHA-256 of the model file."""
        return self._session.sha256

    @property
    def options(self) -> dict[str, Any]:
        """`conf`, `iou`, `nms`, `max_det` and `classes` of calls that give none, as JSON values."""
        return {name: plain(value) for name, value in self._choices.items()}

    def __repr__(self) -> str:
        choices = ", ".join(f"{name}={value!r}" for name, value in self._choices.items())
        return f"Detector({str(self._session.path)!r}, {choices}, threads={self._threads})"

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        again = functools.partial(type(self), self._model, threads=self._threads, **self._choices)
        return _again, (again, self.model_sha256)

    # First, because where Pillow is not installed the other one takes a list for an image.
    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        color: str = "bgr",
        conf: float | None = None,
        iou: float | None = None,
        nms: str | None = None,
        max_det: int | None = None,
        classes: Classes | None = None,
    ) -> list[Detections]: ...
    @overload
    def __call__(
        self,
        image: ImageSource,
        *,
        color: str = "bgr",
        conf: float | None = None,
        iou: float | None = None,
        nms: str | None = None,
        max_det: int | None = None,
        classes: Classes | None = None,
    ) -> Detections: ...
    def __call__(
        self,
        image: Any,
        *,
        color: str = "bgr",
        conf: float | None = None,
        iou: float | None = None,
        nms: str | None = None,
        max_det: int | None = None,
        classes: Classes | None = None,
    ) -> Detections | list[Detections]:
        """Find the objects in one image, or in each image of a list.

        Args:
            image: A path, the bytes of an image file, a uint8 array, a PIL image, or a list
                or tuple of them. Kinds and conversions: `rdlite.image.load`.
            color: Channel order of 3- and 4-channel arrays, "bgr" or "rgb".
            conf: As in the constructor, for this call only; None keeps the constructor's.
                So do `iou`, `nms`, `max_det` and `classes`.
            iou: See `conf`.
            nms: See `conf`.
            max_det: See `conf`.
            classes: See `conf`.

        Returns:
            `Detections` for one image, a list of them for a list. `speed["preprocess"]`
            includes reading and decoding.

        Raises:
            ImageError: An image cannot be read; the text names it.
            OptionError: An option has a value that cannot be used.
        """
        given = {"conf": conf, "iou": iou, "nms": nms, "max_det": max_det, "classes": classes}
        changes = {name: value for name, value in given.items() if value is not None}
        options = self._options
        if changes:
            options = Options.checked(names=self.names, **(self._choices | changes))
        if isinstance(image, (list, tuple)):
            return [self._detect_nth(n, one, color, options) for n, one in enumerate(image)]
        return self._detect(image, color, options)

    def _detect_nth(self, n: int, image: ImageSource, color: str, options: Options) -> Detections:
        try:
            return self._detect(image, color, options)
        except ImageError as error:
            raise ImageError(f"image {n} of the list: {error}") from error

    def _detect(self, source: ImageSource, color: str, options: Options) -> Detections:
        start = perf_counter()
        image = load(source, color=color)
        height, width = image.shape[:2]
        network_input = resize(image, self.spec.input_size)[np.newaxis]
        prepared = perf_counter()
        outputs = self._session.run(network_input)
        inferred = perf_counter()
        xyxy, confidence, class_id, dropped = postprocess(
            outputs,
            self.spec,
            image_size=(width, height),
            conf=options.conf,
            iou=options.iou,
            nms=options.nms,
            max_det=options.max_det,
            class_mask=options.class_mask,
        )
        speed = {
            "preprocess": (prepared - start) * 1e3,
            "inference": (inferred - prepared) * 1e3,
            "postprocess": (perf_counter() - inferred) * 1e3,
        }
        return Detections(
            xyxy,
            confidence,
            class_id,
            self.names,
            self.category_ids,
            (width, height),
            speed,
            dropped,
        )

    def stream(
        self,
        source: str | os.PathLike[str] | VideoReader,
        *,
        stride: int = 1,
        start: float | None = None,
        end: float | None = None,
        conf: float | None = None,
        iou: float | None = None,
        nms: str | None = None,
        max_det: int | None = None,
        classes: Classes | None = None,
    ) -> Iterator[tuple[Frame, Detections]]:
        """Yield each frame of a video with its objects; only a few frames are in memory.

        Args:
            source: Path of the video, or an open `rdlite.video.VideoReader`.
            stride: Use every `stride`-th frame.
            start: Seconds from the beginning of the first frame used; None for the beginning.
            end: Seconds before which the last frame used begins; None for the end.
            conf: As in a call. So are `iou`, `nms`, `max_det` and `classes`.
            iou: See `conf`.
            nms: See `conf`.
            max_det: See `conf`.
            classes: See `conf`.

        Raises:
            VideoError: The video cannot be read; the text names it.
            OptionError: An option has a value that cannot be used.
        """
        from rdlite.video import pipeline

        return pipeline.stream(
            self,
            source,
            stride=stride,
            start=start,
            end=end,
            conf=conf,
            iou=iou,
            nms=nms,
            max_det=max_det,
            classes=classes,
        )

    def annotate_video(
        self,
        source: str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        jsonl: str | os.PathLike[str] | bool | None = True,
        stride: int = 1,
        start: float | None = None,
        end: float | None = None,
        audio: bool = True,
        codec: str = "libx264",
        crf: int | None = 23,
        preset: str | None = "veryfast",
        encoder_threads: int = 1,
        progress: Progress = None,
        overwrite: bool = False,
        resume: bool = False,
        conf: float | None = None,
        iou: float | None = None,
        nms: str | None = None,
        max_det: int | None = None,
        classes: Classes | None = None,
    ) -> VideoSummary:
        """Write a copy of a video with the objects boxed and named, its sound kept.

        Args:
            source: Path of the video.
            output: Path of the ".mp4" to write; it appears there only when it is whole.
            jsonl: Where the detections go: True for beside the output, a path, False or None
                for nowhere.
            stride: Detect in every `stride`-th frame.
            start: Seconds from the beginning of the first frame used; None for the beginning.
            end: Seconds before which the last frame used begins; None for the end.
            audio: False leaves the sound out.
            codec: Name of the FFmpeg video encoder.
            crf: Constant rate factor of the encoder, lower is better and larger, from 0 to 51
                (libx264, libx265) or 63 (AV1, VP9); None leaves the quality to the encoder.
            preset: Speed of libx264 and libx265, from "ultrafast" to "placebo"; None leaves it
                to the encoder.
            encoder_threads: Threads of the encoder.
            progress: True shows a bar, False none, None one on a terminal; a function is
                called with the frames done and the frames expected.
            overwrite: Replace files that exist.
            resume: Go on with what an interrupted or killed attempt left.
            conf: As in a call. So are `iou`, `nms`, `max_det` and `classes`.
            iou: See `conf`.
            nms: See `conf`.
            max_det: See `conf`.
            classes: See `conf`.

        Returns:
            What was read, written, dropped and skipped; see `rdlite.video.pipeline.annotate_video`.

        Raises:
            VideoError: The video cannot be read or written; the text names it.
            OptionError: An option has a value that cannot be used.
        """
        from rdlite.video import pipeline

        return pipeline.annotate_video(
            self,
            source,
            output,
            jsonl=jsonl,
            stride=stride,
            start=start,
            end=end,
            audio=audio,
            codec=codec,
            crf=crf,
            preset=preset,
            encoder_threads=encoder_threads,
            progress=progress,
            overwrite=overwrite,
            resume=resume,
            conf=conf,
            iou=iou,
            nms=nms,
            max_det=max_det,
            classes=classes,
        )


def _again(make: Callable[[], Detector], sha256: str) -> Detector:
    # Workers that opened another file than the one that sent them would mix two models' boxes.
    detector = make()
    if detector.model_sha256 != sha256:
        raise ModelError(
            f"{detector._session.path}: is not the model of the detector that was pickled; "
            "it was replaced, or rdlite has another release here"
        )
    return detector
