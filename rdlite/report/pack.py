"""All detections of a file as arrays, in memory and as the bytes that a page carries."""

from __future__ import annotations

import math
import zlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rdlite.resultfile import Record

MAX_FRAMES: Final = 1 << 17
"""Most frames on a page: with more, a browser could not scroll as far as the gallery is long."""

MAX_OBJECTS: Final = 1_500_000
"""Most objects on a page; more would not fit its size."""

_SCORES: Final = 10_000  # a score is stored in steps of 1/10,000
_PIXEL: Final = 4  # an edge in quarters of a pixel, where 16 bits can hold those
_GREATEST_U2: Final = 0xFFFF
_GREATEST_U4: Final = 0xFFFFFFFF
_LATEST: Final = 1e9  # seconds, 32 years; no video is longer


@dataclass(slots=True)
class Collected:
    """What is in a file of detections: totals of everything, and arrays of what a page can hold.

    Of more than `MAX_FRAMES` frames or `MAX_OBJECTS` objects every second, fourth, eighth ...
    frame is kept. Memory is bounded, whatever the length of the file.

    Attributes:
        frames: Images and frames in the file.
        objects: Objects in the file.
        with_objects: Images and frames that have an object.
        step: Every how manyth frame is kept.
        by_class: Number of objects in the file by class id.
        dropped_nonfinite: Sum over the file; see `Detections`.
        names: Name of each kept image, or of the video.
        index: Number of each kept frame, -1 for an image.
        seconds: Time of each kept frame, NaN where unknown.
        sizes: Width and height of each kept frame, after one another.
        counts: Objects of each kept frame.
        boxes: x1, y1, x2, y2 of each object, after one another; pixels.
        scores: Of each object.
        classes: Class id of each object.
    """

    frames: int = 0
    objects: int = 0
    with_objects: int = 0
    step: int = 1
    by_class: Counter[int] = field(default_factory=Counter)
    dropped_nonfinite: int = 0
    names: list[str | None] = field(default_factory=list)
    index: array[int] = field(default_factory=lambda: array("q"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    counts: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("f"))
    scores: array[float] = field(default_factory=lambda: array("f"))
    classes: array[int] = field(default_factory=lambda: array("q"))

    def add(self, record: Record) -> None:
        """Count an image or frame, and keep it if it is its turn."""
        found = record.found
        if self.frames % self.step == 0:
            self._keep(record)
        self.frames += 1
        self.objects += len(found)
        self.with_objects += len(found) > 0
        self.by_class.update(found.class_id.tolist())
        self.dropped_nonfinite += found.dropped_nonfinite
        while len(self.counts) > MAX_FRAMES or len(self.scores) > MAX_OBJECTS:
            self.thin()

    def _keep(self, record: Record) -> None:
        found = record.found
        self.names.append(record.image)
        # A damaged file may state any number: one that the page cannot hold is shown as the
        # nearest that it can, or as an unknown time.
        frame, time = record.frame, record.time
        self.index.append(-1 if frame is None else min(frame, _GREATEST_U4 - 1))
        self.seconds.append(math.nan if time is None or not -1 < time < _LATEST else time)
        self.sizes.extend(found.image_size)
        self.counts.append(len(found))
        self.boxes.frombytes(found.xyxy.tobytes())
        self.scores.frombytes(found.confidence.tobytes())
        self.classes.frombytes(found.class_id.tobytes())

    def thin(self) -> None:
        """Keep every second of the frames that are kept so far."""
        objects = np.repeat(np.arange(len(self.counts)) % 2 == 0, self.counts)
        self.boxes = array("f", np.reshape(self.boxes, (-1, 4))[objects].tobytes())
        self.scores = array("f", np.asarray(self.scores)[objects].tobytes())
        self.classes = array("q", np.asarray(self.classes)[objects].tobytes())
        self.sizes = array("q", np.reshape(self.sizes, (-1, 2))[::2].tobytes())
        self.names, self.index = self.names[::2], self.index[::2]
        self.seconds, self.counts = self.seconds[::2], self.counts[::2]
        self.step *= 2

    @property
    def kept(self) -> int:
        """Frames that are kept."""
        return len(self.counts)

    @property
    def frame_of(self) -> npt.NDArray[np.int64]:
        """Which kept frame each object is in, `(objects,)`."""
        return np.repeat(np.arange(self.kept), self.counts)


def box_steps(found: Collected) -> float:
    """Return in how many steps a pixel is divided where edges of boxes are stored: at most 4."""
    return min(_PIXEL, _GREATEST_U2 / max(found.sizes, default=1))


def pack(found: Collected) -> tuple[list[dict[str, Any]], bytes]:
    """Return the kept frames as a page carries them, and what is where in it.

    Arrays follow one another, little-endian. In each, all first bytes of the numbers come before
    all second bytes and so on, which deflate can make more of. Scores are rounded down to 1/10,000
    after they were rounded to 1/1,000,000 as in files, so that a threshold of whole hundredths
    lets the same objects through.

    Returns:
        A list of `{"name", "type", "length"}`, type being one of NumPy's ("u1", "u2", "u4", "f8")
        or "text", and the bytes, compressed in zlib's format ("deflate" of browsers).
    """
    boxes = np.rint(np.asarray(found.boxes) * box_steps(found)).clip(0, _GREATEST_U2)
    millionths = np.rint(np.asarray(found.scores, np.float64) * 1_000_000).astype(np.int64)
    classes = np.asarray(found.classes)
    arrays = {
        "counts": np.asarray(found.counts).astype("<u4"),
        "index": (np.asarray(found.index) & _GREATEST_U4).astype("<u4"),
        "seconds": np.asarray(found.seconds).astype("<f8"),
        "sizes": np.asarray(found.sizes).astype("<u4"),
        "boxes": boxes.astype("<u2"),
        "scores": (millionths * _SCORES // 1_000_000).clip(0, _SCORES).astype("<u2"),
        "classes": classes.astype("u1" if classes.max(initial=0) < 256 else "<u2"),
    }
    sections = [
        {"name": name, "type": values.dtype.str[1:], "length": len(values)}
        for name, values in arrays.items()
    ]
    parts = [_by_place(values) for values in arrays.values()]
    names = "\0".join(name or "" for name in found.names).encode("utf-8", "backslashreplace")
    sections.append({"name": "names", "type": "text", "length": len(names)})
    return sections, zlib.compress(b"".join([*parts, names]), 6)


def _by_place(values: npt.NDArray[Any]) -> bytes:
    return values.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()
