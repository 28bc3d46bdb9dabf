"""Where the boxes that are measured come from, and a detector as one such source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rdlite.detector import Detector
from rdlite.errors import ImageError
from rdlite.evaluate.classnames import SharedClasses
from rdlite.evaluate.dataset import ImageStore, check_size
from rdlite.results import Detections

Image = Mapping[str, Any]
"""An entry of "images" in a COCO annotation file."""

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(slots=True)
class Found:
    """What a source has found in the images of a set.

    Attributes:
        boxes: COCO results by image id, each image that could be looked at; "category_id" is the
            number of the class in `SharedClasses.numbers`.
        failed: Reason by file name of the images without an answer.
        dropped_nonfinite: Anchors left out because the network gave NaN or infinity.
        damage: A sentence for each thing that a file has lost.
        notes: A sentence for each thing that a file has and that does not count.
    """

    boxes: dict[Any, list[dict[str, Any]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    dropped_nonfinite: int = 0
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, image: Image, detections: Detections, classes: SharedClasses) -> None:
        """Take what was found in an image, as `Detections.to_coco` rounds it."""
        ours = dict(zip(detections.category_ids, detections.names, strict=True))
        numbers = {name: number for number, name in enumerate(classes.names, start=1)}
        self.boxes[image["id"]] = [
            entry | {"category_id": numbers[ours[entry["category_id"]]]}
            for entry in detections.to_coco(image["id"])
            if ours[entry["category_id"]] in numbers
        ]
        self.dropped_nonfinite += detections.dropped_nonfinite


class Source(Protocol):
    """A detector, or a file of what one has found."""

    @property
    def names(self) -> Sequence[str]:
        """Its classes."""

    @property
    def options(self) -> Mapping[str, Any]:
        """`conf`, `iou`, `nms` and `max_det` of its boxes, as far as they are known."""

    def find(self, images: Sequence[Image], classes: SharedClasses, progress: Progress) -> Found:
        """Return its boxes of these classes in these images."""


class Model:
    """A detector as a `Source`.

    Args:
        detector: The detector.
        store: The images.
        options: `conf`, `iou`, `nms` and `max_det`; None keeps the detector's own.
    """

    def __init__(self, detector: Detector, store: ImageStore, options: Mapping[str, Any]) -> None:
        self._detector, self._store = detector, store
        self.names = detector.names
        given = {name: value for name, value in options.items() if value is not None}
        self.options: Mapping[str, Any] = {
            name: given.get(name, detector.options.get(name)) for name in options
        }

    def find(self, images: Sequence[Image], classes: SharedClasses, progress: Progress) -> Found:
        """See `Source`; only these classes are detected, others would use up `max_det`."""
        found = Found()
        for done, image in enumerate(images, start=1):
            try:
                data = self._store.read(image["file_name"])
                detections = self._detector(data, **self.options, classes=list(classes.names))
                check_size(detections.image_size, (image["width"], image["height"]), data)
            except ImageError as error:
                found.failed[image["file_name"]] = str(error)
            else:
                found.add(image, detections, classes)
            progress(done, len(images))
        return found
