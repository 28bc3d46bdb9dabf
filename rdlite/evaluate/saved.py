"""Files of detections as sources of boxes: those of `rdlite detect`, and COCO results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rdlite.errors import OptionError
from rdlite.evaluate.classnames import SharedClasses, some
from rdlite.evaluate.cocofile import read_json, result_faults
from rdlite.evaluate.dataset import DataError, refuse
from rdlite.evaluate.sources import Found, Image, Progress, Source
from rdlite.options import class_mask
from rdlite.resultfile import open_results

ENDINGS: Final = (".json", ".jsonl", ".jsonl.gz")
"""What the names of files of detections end in; COCO results in the first."""


def open_saved(path: str | Path, content: Mapping[str, Any]) -> Source:
    """Open a file of detections.

    Args:
        path: JSON Lines of `rdlite detect`, or COCO results if its name ends in ".json".
        content: The annotations that it is to be measured by, as `read_coco` returns them.

    Raises:
        ResultFileError: It is no file of JSON lines that this version reads.
        DataError: It is of a video, or what it holds is not COCO results for these annotations.
    """
    path = Path(path)
    return CocoResults(path, content) if path.suffix.lower() == ".json" else JsonLines(path)


class JsonLines:
    """What `rdlite detect` wrote about images; it is the answer of one run, so nothing is chosen.

    An image of the set is the one whose path ends in its "file_name". Of a run with --classes only
    those classes are measured.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_results(path)
        if self._file.source is not None:
            raise DataError(
                f"{path} is about the video {self._file.source}; give the detections of the images"
            )
        self.options: Mapping[str, Any] = self._file.options
        try:
            wanted = class_mask(self.options.get("classes"), self._file.names)
        except OptionError as error:
            raise DataError(f"the header of {path} is damaged ({error}); detect again") from error
        self.names: Sequence[str] = [
            name for name, chosen in zip(self._file.names, wanted, strict=True) if chosen
        ]

    def find(self, images: Sequence[Image], classes: SharedClasses, progress: Progress) -> Found:
        """See `Source`.

        Raises:
            DataError: No image of the set is in the file, or one is there twice.
        """
        found, seen, others = Found(), dict[Any, str](), list[str]()
        names = {_plain(image["file_name"]): image for image in images}
        for record in self._file:
            name = str(record.image)
            image = _image_of(name, names) if record.frame is None else None
            if image is None:
                others.append(name)
            elif image["id"] in seen:
                raise DataError(
                    f"{self._file.path} has {image['file_name']} twice, as {seen[image['id']]} and "
                    f"as {name}; the end of its path must tell an image from all others"
                )
            else:
                seen[image["id"]] = name
                self._add(found, image, record.found, classes)
                progress(len(seen), len(images))
        self._refuse_strangers(images, seen, others)
        for image in images:
            if image["id"] not in seen:
                found.failed[image["file_name"]] = f"{self._file.path} says nothing about it"
        found.damage = self._file.warnings()
        if others:
            found.notes.append(
                f"{len(others)} entries of {self._file.path} are of no image of the set: "
                f"{some(others, most=3)}"
            )
        return found

    def _add(self, found: Found, image: Image, detections: Any, classes: SharedClasses) -> None:
        wanted = (image["width"], image["height"])
        if detections.image_size == wanted:
            found.add(image, detections, classes)
            return
        sizes = [f"{width}x{height}" for width, height in (detections.image_size, wanted)]
        found.failed[image["file_name"]] = (
            f"it had {sizes[0]} pixels in {self._file.path}, but its boxes are for {sizes[1]}"
        )

    def _refuse_strangers(
        self, images: Sequence[Image], seen: Mapping[Any, str], others: Sequence[str]
    ) -> None:
        if not seen:
            has = some(others, most=3) or "no image at all"
            raise DataError(
                f"{self._file.path} says nothing about the {len(images)} images of the set: it has "
                f"{has}, the set {images[0]['file_name']}; the path of an image must end in its "
                "file_name"
            )


class CocoResults:
    """COCO results, a list of `{"image_id", "category_id", "bbox", "score"}` with the set's ids.

    An image without an entry is one in which nothing was found.
    """

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self._path = path
        self._entries = _read_results(path, content)
        self._categories = {one["id"]: str(one["name"]) for one in content["categories"]}
        self.names: Sequence[str] = list(self._categories.values())
        self.options: Mapping[str, Any] = {}

    def find(self, images: Sequence[Image], classes: SharedClasses, progress: Progress) -> Found:
        """See `Source`."""
        boxes = defaultdict[Any, list[dict[str, Any]]](list)
        for entry in self._entries:
            number = classes.numbers.get(entry["category_id"])
            if number is not None:
                boxes[entry["image_id"]].append(entry | {"category_id": number})
        lowest = min((entry["score"] for entry in self._entries), default=None)
        said = "it has no boxes" if lowest is None else f"its lowest score is {lowest:.3g}"
        progress(len(images), len(images))
        return Found(
            boxes={image["id"]: boxes[image["id"]] for image in images},
            notes=[f"{self._path} does not say how it was made; {said}"],
        )


def _read_results(path: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = read_json(path, "COCO results")
    if not isinstance(entries, list):
        raise DataError(
            f"{path} is not a list of COCO results; give one, or JSON Lines of rdlite detect"
        )
    refuse(path, result_faults(entries, content))
    return entries


def _plain(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _image_of(path: str, names: Mapping[str, Image]) -> Image | None:
    """Return the image whose name is the longest end of a path."""
    parts = _plain(path).split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((names[end] for end in ends if end in names), None)
