"""Let several models look at the same pictures, and count where they agree."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from rdlite.compare.classes import Shared, share
from rdlite.compare.matching import Boxes, match
from rdlite.compare.result import (
    AGREED,
    ALONE,
    BINS,
    UNKNOWN,
    Agreement,
    ComparedPicture,
    Comparison,
    ModelTotals,
)
from rdlite.detector import Detector
from rdlite.errors import OptionError, RdliteError, VideoError
from rdlite.image import Bgr, load
from rdlite.options import check_count
from rdlite.results import Detections
from rdlite.storage.outputs import utf8_name
from rdlite.video.reader import VideoReader

SIDE: Final = 560
"""Longest side of the pictures that are kept, pixels."""

Paths = Iterable[str | os.PathLike[str]]


def compare(
    detectors: Mapping[str, Detector],
    images: Paths = (),
    *,
    videos: Paths = (),
    frames: int = 20,
    limit: int = 100,
) -> Comparison:
    """Let detectors look at the same pictures, and say where they differ.

    Each detector is compared with the first. Two boxes of one class (by its name) that overlap by
    an IoU of 0.5 or more are the same object. The `difference` of a picture is the sum over all
    objects of how much their two scores differ; where a model does not have one, its score is 0.

    Memory does not grow with the number of pictures: those that differ least are only counted.

    Args:
        detectors: Two or more, by the names to be shown.
        images: Paths of images.
        videos: Paths of videos.
        frames: How many frames to look at in each video, spread evenly.
        limit: Most pictures that are kept, those that differ most.

    Returns:
        The numbers, and the pictures that differ most; what could not be read is in `failed`.

    Raises:
        OptionError: There are fewer than two detectors, two of them share no class, or `frames` or
            `limit` is not a positive whole number.

    Example:
        >>> result = compare({"fp32": Detector(), "int8": Detector("int8")}, ["street.jpg"])
        >>> result.save("compare.html")
    """
    comparer = Comparer(detectors, frames=frames, limit=limit)
    comparer.run(images, videos)
    return comparer.result()


class Comparer:
    """Compares picture after picture; see `compare`, which is all that most callers need."""

    def __init__(self, detectors: Mapping[str, Detector], *, frames: int, limit: int) -> None:
        if len(detectors) < 2:
            raise OptionError(f"a comparison needs two models or more, got {len(detectors)}")
        self._frames, self._limit = check_count("frames", frames), check_count("limit", limit)
        self._detectors = {utf8_name(name): detector for name, detector in detectors.items()}
        first, *others = self._detectors.items()
        self._pairs = [_Pair(first[0], name, share(first, (name, one))) for name, one in others]
        self._objects: list[Counter[str]] = [Counter() for _ in self._detectors]
        self._ms = np.zeros(len(self._detectors))
        self._dropped = np.zeros(len(self._detectors), np.int64)
        self._kept: list[tuple[float, int, ComparedPicture]] = []
        self._failed: list[tuple[str, str]] = []
        self._count = 0

    def run(
        self, images: Paths, videos: Paths = (), *, progress: Callable[[], object] = lambda: None
    ) -> None:
        """Look at images and at frames of videos; may be called again with more.

        Args:
            images: Paths of images.
            videos: Paths of videos.
            progress: Is called after each image and each frame.
        """
        for image in images:
            name = utf8_name(image)
            try:
                self.add(name, load(image))
            except (RdliteError, OSError, ValueError) as error:
                self._fail(name, error)
            progress()
        for video in videos:
            name = utf8_name(video)
            try:
                for seconds, frame in spread_frames(video, self._frames):
                    self.add(f"{name} at {seconds:.2f} s", frame)
                    progress()
            except (RdliteError, OSError, ValueError) as error:
                self._fail(name, error)

    def add(self, name: str, image: Bgr) -> None:
        """Let all models look at one picture, uint8 `(H, W, 3)` BGR."""
        if not self._count:  # the first run of a network takes longer than the others
            for detector in self._detectors.values():
                detector(image)
        found = tuple(detector(image) for detector in self._detectors.values())
        outcomes = [
            pair.compare(found[0], other)
            for pair, other in zip(self._pairs, found[1:], strict=True)
        ]
        difference = sum(one.difference for one in outcomes)
        states = (_common_states([one.first for one in outcomes]), *(o.other for o in outcomes))
        for pair, outcome in zip(self._pairs, outcomes, strict=True):
            pair.count(outcome)
        for objects, one in zip(self._objects, found, strict=True):
            objects.update(one.class_names)
        self._ms += [sum(one.speed.values()) for one in found]
        self._dropped += [one.dropped_nonfinite for one in found]
        self._keep(name, difference, found, states, image)
        self._count += 1

    def _keep(
        self,
        name: str,
        difference: float,
        found: tuple[Detections, ...],
        states: tuple[npt.NDArray[np.uint8], ...],
        image: Bgr,
    ) -> None:
        rank = (difference, -self._count)  # of equal ones, the earlier
        full = len(self._kept) == self._limit
        if full and rank < self._kept[0][:2]:
            return
        picture = ComparedPicture(name, self._count, difference, found, states, _small(image))
        (heapq.heappushpop if full else heapq.heappush)(self._kept, (*rank, picture))

    def _fail(self, name: str, error: Exception) -> None:
        text = str(error)
        self._failed.append((name, text if name in text else f"{name}: {text}"))

    def result(self) -> Comparison:
        """Return what all pictures so far have shown."""
        models = tuple(
            ModelTotals(
                name,
                detector.spec.arithmetic,
                detector.model_sha256,
                dict(objects.most_common()),
                float(ms) / max(1, self._count),
                int(dropped),
            )
            for (name, detector), objects, ms, dropped in zip(
                self._detectors.items(), self._objects, self._ms, self._dropped, strict=True
            )
        )
        return Comparison(
            models=models,
            agreements=tuple(pair.agreement() for pair in self._pairs),
            images=self._count,
            pictures=tuple(picture for _, _, picture in sorted(self._kept, reverse=True)),
            failed=tuple(self._failed),
            options=next(iter(self._detectors.values())).options,
        )


@dataclass(slots=True)
class _Outcome:
    """Where two models agree in one picture: a state for each box, and what is to be counted."""

    first: npt.NDArray[np.uint8]
    other: npt.NDArray[np.uint8]
    labels: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    pairs: npt.NDArray[np.float32]
    difference: float


@dataclass(slots=True)
class _Pair:
    """The first model and another one."""

    first: str
    other: str
    shared: Shared
    counts: npt.NDArray[np.int64] = field(init=False)
    scores: npt.NDArray[np.int64] = field(init=False)
    unknown: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.shared.names), 3), np.int64)
        self.scores = np.zeros((BINS, BINS), np.int64)
        self.unknown = np.zeros(2, np.int64)

    def compare(self, first: Detections, other: Detections) -> _Outcome:
        labels = self.shared.first[first.class_id], self.shared.other[other.class_id]
        boxes = [
            Boxes(one.xyxy[label >= 0], one.confidence[label >= 0], label[label >= 0])
            for one, label in zip((first, other), labels, strict=True)
        ]
        pairs = match(*boxes)
        states = [np.full(len(label), UNKNOWN, np.uint8) for label in labels]
        difference = 0.0
        for side, (state, label) in enumerate(zip(states, labels, strict=True)):
            known = np.full(len(boxes[side].label), ALONE, np.uint8)
            known[pairs[:, side]] = AGREED
            state[label >= 0] = known
            difference += float(boxes[side].score[known == ALONE].sum())
        scores = np.stack([boxes[0].score[pairs[:, 0]], boxes[1].score[pairs[:, 1]]], axis=1)
        difference += float(np.abs(scores[:, 0] - scores[:, 1]).sum())
        return _Outcome(states[0], states[1], labels, scores, difference)

    def count(self, outcome: _Outcome) -> None:
        for side, state in enumerate((outcome.first, outcome.other)):
            label = outcome.labels[side]
            np.add.at(self.counts[:, 1 + side], label[state == ALONE], 1)
            self.unknown[side] += int((state == UNKNOWN).sum())
        np.add.at(self.counts[:, 0], outcome.labels[0][outcome.first == AGREED], 1)
        cells = np.minimum((outcome.pairs * BINS).astype(np.int64), BINS - 1)
        np.add.at(self.scores, (cells[:, 0], cells[:, 1]), 1)

    def agreement(self) -> Agreement:
        rows = zip(self.shared.names, self.counts.tolist(), strict=True)
        ordered = sorted(((n, (b, f, o)) for n, (b, f, o) in rows), key=lambda row: -sum(row[1]))
        return Agreement(
            self.first,
            self.other,
            {name: counts for name, counts in ordered if any(counts)},
            self.scores.copy(),
            (int(self.unknown[0]), int(self.unknown[1])),
            self.shared.renamed,
            self.shared.notes,
        )


def spread_frames(path: str | os.PathLike[str], count: int) -> Iterator[tuple[float, Bgr]]:
    """Yield frames of a video, spread evenly: seconds since its start, and the upright picture.

    Args:
        path: The video.
        count: How many: the middles of as many equal parts. A frame is yielded once, however
            short the video is.

    Raises:
        VideoError: The video cannot be read, does not say how long it is, or ends early; the
            frames before that have been yielded.
    """
    with VideoReader(path) as reader:
        duration, step = reader.duration, float(1 / reader.rate)
    if duration <= 0:
        raise VideoError(f"{path} does not say how long it is, so its frames cannot be spread")
    last = -1.0
    for number in range(count):
        wanted = duration * (number + 0.5) / count
        with VideoReader(path, start=max(0.0, wanted - step)) as reader:
            frame = next(iter(reader), None)
        if frame is None:
            raise VideoError(f"{path} has no picture at {wanted:.2f} s of its {duration:.2f} s")
        if frame.time > last:
            last = frame.time
            yield frame.time, frame.image


def _common_states(states: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Return the state of the first model's boxes: agreed if all that know the class agree."""
    stacked = np.array(states)
    alone, agreed = (stacked == ALONE).any(axis=0), (stacked == AGREED).any(axis=0)
    return np.select([alone, agreed], [ALONE, AGREED], UNKNOWN).astype(np.uint8)


def _small(image: Bgr) -> bytes:
    import cv2

    scale = min(1.0, SIDE / max(image.shape[:2]))
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
