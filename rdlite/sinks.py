"""Files of detections: JSON Lines, COCO JSON and CSV, each whole or not there at all."""

from __future__ import annotations

import csv
import errno
import io
import itertools
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TextIO

from rdlite.errors import OptionError, RdliteError
from rdlite.results import Detections

JSONL_SCHEMA = 1
_COUNTER = itertools.count()  # so that two writers of one process never share a file
CSV_COLUMNS = (
    *("x_min", "y_min", "x_max", "y_max", "class_id", "class_name", "confidence"),
    *("image", "frame", "time"),
)


class PartialFile:
    """A file that is written beside its final name and gets that name only when it is whole.

    Args:
        path: The final name.
        overwrite: Replace a file that has this name already.
        error: What to raise.

    Attributes:
        path: The final name.
        partial: The name to write to, in the same directory: ".<name>.partial-<number><suffix>".

    Raises:
        RdliteError: The file exists and `overwrite` is False, or its directory is missing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        error: type[RdliteError] = OptionError,
    ) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise error(f"{path} is a directory; name a file in it")
        if self.path.exists() and not overwrite:
            raise error(f"{path} exists already; choose another name or ask to overwrite it")
        if not self.path.parent.is_dir():
            raise error(f"the directory {self.path.parent} does not exist; create it first")
        self._error = error
        number = f"{os.getpid()}-{next(_COUNTER)}"
        self.partial = self.path.with_name(f".{self.path.name}.partial-{number}{self.path.suffix}")

    def commit(self) -> None:
        """Give the file its final name, after its bytes have reached the disk."""
        try:
            _sync(self.partial)
            os.replace(self.partial, self.path)
            _sync(self.path.parent)
        except OSError as problem:
            text = f"{self.path} cannot be written: {problem.strerror}"
            raise self._error(text) from problem

    def discard(self) -> None:
        """Remove what was written."""
        self.partial.unlink(missing_ok=True)


class WholeOrNothing(ABC):
    """Base of writers: a `with` statement closes them, or removes their file after an error."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file and give it its final name."""

    @abstractmethod
    def abort(self) -> None:
        """Remove the unfinished file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise


class _Sink(WholeOrNothing):
    """What the sinks share: a text file with a partial name, or standard output for "-"."""

    def __init__(self, path: str | os.PathLike[str], head: str, *, overwrite: bool) -> None:
        self._path = path
        self._target = None if path == "-" else PartialFile(path, overwrite=overwrite)
        self._file: TextIO = sys.stdout
        if self._target is not None:
            try:
                self._file = open(  # a file name in CSV keeps its bytes, valid UTF-8 or not
                    self._target.partial,
                    "w",
                    encoding="utf-8",
                    errors="surrogateescape",
                    newline="",
                )
            except OSError as error:
                raise OptionError(f"{path} cannot be written: {error.strerror}") from error
        try:
            self._put(head)
        except BaseException:
            self.abort()
            raise

    def write(
        self,
        detections: Detections,
        *,
        image: str | None = None,
        frame: int | None = None,
        pts: int | None = None,
        time: float | None = None,
    ) -> None:
        """Add what was found in one image or in one frame of a video.

        Args:
            detections: The objects; there may be none.
            image: Name of the image or of the video.
            frame: Index of the frame, None for an image.
            pts: The frame's time stamp as the video states it.
            time: Seconds from the start of the video.

        Raises:
            RdliteError: The file cannot be written, for one because the disk is full.
        """
        seconds = None if time is None else round(time, 6)
        self._add(detections, {"image": image, "frame": frame, "pts": pts, "time": seconds})

    @abstractmethod
    def _add(self, detections: Detections, where: dict[str, Any]) -> None: ...

    def _tail(self) -> str:
        return ""

    def _put(self, text: str) -> None:
        try:
            self._file.write(text)
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise RdliteError(f"{self._path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Finish the file and give it its final name.

        Raises:
            RdliteError: The file cannot be written.
        """
        self._put(self._tail())
        if self._target is not None:
            self._file.close()
            self._target.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        if self._target is not None:
            try:
                self._file.close()
            finally:
                self._target.discard()


class JsonlSink(_Sink):
    """JSON Lines: a header line, then one line for every image or frame, flushed at once.

    A frame's line is `{"frame", "pts", "time", "width", "height", "detections"}`, an image's
    `{"image", "width", "height", "detections"}`; see `Detections.to_dict`.

    Args:
        path: File to write, "-" for standard output.
        header: The first line; see `jsonl_header`.
        overwrite: Replace an existing file.

    Raises:
        OptionError: The file exists already, or its directory is missing.
        RdliteError: The file cannot be written.

    Example:
        >>> with JsonlSink("found.jsonl", jsonl_header(detector.model_sha256)) as sink:
        ...     sink.write(detector("street.jpg"), image="street.jpg")
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        super().__init__(path, _json(header) + "\n", overwrite=overwrite)

    def _add(self, detections: Detections, where: dict[str, Any]) -> None:
        if where["frame"] is None:
            where = {"image": where["image"]}
        else:
            where.pop("image")  # the header names the video
        self._put(_json(where | detections.to_dict()) + "\n")


class CsvSink(_Sink):
    """CSV with one row per object, under the column names that supervision uses.

    Columns: `x_min y_min x_max y_max class_id class_name confidence`, then `image frame time`,
    empty where they do not apply. An image without objects has no row.

    Args:
        path: File to write, "-" for standard output.
        overwrite: Replace an existing file.

    Raises:
        OptionError: The file exists already, or its directory is missing.
        RdliteError: The file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        super().__init__(path, _row(CSV_COLUMNS), overwrite=overwrite)

    def _add(self, detections: Detections, where: dict[str, Any]) -> None:
        source = (where["image"], where["frame"], where["time"])
        rows = (
            _row((*one["xyxy"], one["class_id"], one["class_name"], one["confidence"], *source))
            for one in detections.to_dict()["detections"]
        )
        self._put("".join(rows))


class CocoSink(_Sink):
    """COCO JSON: the results format where image ids are known, else a whole data set.

    COCO's results format, a list of `{"image_id", "category_id", "bbox", "score"}`, only makes
    sense beside the annotation file that defines the ids. Given `image_ids` this is what is
    written. Without it, ids are handed out from 1 and the file is a COCO data set whose
    `images` say which id is which file, whose `annotations` have a `score`, and whose
    `categories` are the model's: annotation tools can import it. A video frame's `file_name` is
    "<video>/<frame number>", and its entry has `frame` and `time` as well.

    Args:
        path: File to write, "-" for standard output.
        image_ids: Id of each image by the name that `write` is given as `image`.
        overwrite: Replace an existing file.

    Raises:
        OptionError: The file exists already, its directory is missing, or an image has no id.
        RdliteError: The file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        image_ids: Mapping[str, int] | None = None,
        overwrite: bool = False,
    ) -> None:
        head = '{"annotations": [' if image_ids is None else "["
        super().__init__(path, head, overwrite=overwrite)
        self._image_ids = image_ids
        self._images: list[dict[str, Any]] = []
        self._categories: list[dict[str, Any]] = []
        self._written = 0

    def _add(self, detections: Detections, where: dict[str, Any]) -> None:
        image_id = self._image_id(where["image"])
        if self._image_ids is None:
            self._images.append(_coco_image(image_id, detections, where))
            self._categories = self._categories or _coco_categories(detections)
        for entry in detections.to_coco(image_id):
            if self._image_ids is None:
                width, height = entry["bbox"][2:]
                entry |= {"id": self._written + 1, "area": width * height, "iscrowd": 0}
            self._put((",\n" if self._written else "\n") + _json(entry))
            self._written += 1

    def _image_id(self, image: str | None) -> int:
        if self._image_ids is None:
            return len(self._images) + 1
        if image is None or image not in self._image_ids:
            raise OptionError(f"{image} has no id in image_ids; name it as image_ids does")
        return self._image_ids[image]

    def _tail(self) -> str:
        if self._image_ids is not None:
            return "\n]\n"
        rest = {"images": self._images, "categories": self._categories}
        return "\n], " + _json(rest)[1:] + "\n"


def jsonl_header(
    model_sha256: str,
    *,
    source: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the header line of a JSONL file: all that its other lines depend on.

    Args:
        model_sha256: SHA-256 of the model file.
        source: The video that the lines are about, None for a set of images.
        options: Options that the detections depend on, such as `conf`.

    Returns:
        `schema`, `model_sha256`, for a video `source`, `source_size` (bytes) and `mtime_ns`, and
        `options`.
    """
    header: dict[str, Any] = {"schema": JSONL_SCHEMA, "model_sha256": model_sha256}
    if source is not None:
        status = os.stat(source)
        header["source"] = os.fspath(source)
        header["source_size"] = status.st_size
        header["mtime_ns"] = status.st_mtime_ns
    return header | {"options": dict(options or {})}


def _coco_image(image_id: int, found: Detections, where: dict[str, Any]) -> dict[str, Any]:
    width, height = found.image_size
    name = where["image"]
    frame: dict[str, Any] = {}
    if where["frame"] is not None:
        name = f"{name or 'video'}/{where['frame']:06d}"
        frame = {"frame": where["frame"], "time": where["time"]}
    return {"id": image_id, "file_name": name, "width": width, "height": height} | frame


def _coco_categories(found: Detections) -> list[dict[str, Any]]:
    pairs = zip(found.category_ids, found.names, strict=True)
    return [{"id": number, "name": name} for number, name in pairs]


def _json(value: Any) -> str:
    # ASCII: the name of a file need not be valid UTF-8, and comes back from its escapes.
    return json.dumps(value, allow_nan=False)


def _row(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do this to a folder; the file is complete all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
