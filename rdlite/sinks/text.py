"""Detections in one text file: JSON Lines, CSV and COCO JSON."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from rdlite.errors import OptionError
from rdlite.results import Detections
from rdlite.sinks.base import STDOUT, Sink, Where, to_line
from rdlite.storage.journal import dump_line
from rdlite.storage.partial import PartialFile

COLUMNS: Final = (
    *("x_min", "y_min", "x_max", "y_max", "class_id", "class_name", "confidence"),
    *("image", "frame", "time"),
)
"""Of CSV and Parquet; the first seven are named as in `Detections.to_pandas`."""
_BLOCK = 1 << 20  # characters


class TextSink(Sink):
    """A text file with a partial name, or standard output for "-"."""

    def __init__(self, path: str | os.PathLike[str], head: str, *, overwrite: bool) -> None:
        super().__init__(path)
        self._target = None if path == STDOUT else PartialFile(path, overwrite=overwrite)
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

    def _put(self, text: str) -> None:
        if self._target is None:  # it need not be able to spell every name
            encoding = self._file.encoding or "utf-8"
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        with self._naming_errors():
            self._file.write(text)
            self._file.flush()

    def _finish(self) -> None:
        """Write what comes after the last entry."""

    def close(self) -> None:
        """Finish the file and give it its final name.

        Raises:
            RdliteError: The file cannot be written.
        """
        self._finish()
        if self._target is not None:
            self._file.close()
            self._target.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        if self._target is not None:
            with contextlib.suppress(OSError):  # closing writes, and fails again on a full disk
                self._file.close()
            self._target.discard()


class JsonlSink(TextSink):
    """JSON Lines: a header line, then one line for every image or frame, flushed at once.

    See `to_line` for what a line holds. Where the header names a video as its `source`, the lines
    of its frames do not name it again.

    Args:
        path: File to write, "-" for standard output.
        header: The first line; see `jsonl_header`.
        overwrite: Replace an existing file.

    Raises:
        OptionError: The file exists already, or its directory is missing.
        RdliteError: The file cannot be written.

    Example:
        >>> header = jsonl_header(
        ...     detector.model_sha256, names=detector.names, category_ids=detector.category_ids
        ... )
        >>> with JsonlSink("found.jsonl", header) as sink:
        ...     sink.write(detector("street.jpg"), image="street.jpg")
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        self._of_one_video = "source" in header
        super().__init__(path, dump_line(header), overwrite=overwrite)

    def _add(self, found: Detections, where: Where) -> None:
        if self._of_one_video and where.frame is not None:
            where = where._replace(image=None, place=None)
        self._put(dump_line(to_line(found, **where._asdict())))


class CsvSink(TextSink):
    """CSV with one row per object, under the column names that supervision uses.

    Columns: `x_min y_min x_max y_max` (pixels), `class_id class_name confidence`, then `image
    frame time`, empty where they do not apply. An image without objects has no row.

    Args:
        path: File to write, "-" for standard output.
        overwrite: Replace an existing file.

    Raises:
        OptionError: The file exists already, or its directory is missing.
        RdliteError: The file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        super().__init__(path, _row(COLUMNS), overwrite=overwrite)

    def _add(self, found: Detections, where: Where) -> None:
        source = (where.image, where.frame, where.time)
        rows = (
            _row((*one["xyxy"], one["class_id"], one["class_name"], one["confidence"], *source))
            for one in found.to_dict()["detections"]
        )
        self._put("".join(rows))


class CocoSink(TextSink):
    """COCO JSON: the results format where image ids are known, else a whole data set.

    COCO's results format, a list of `{"image_id", "category_id", "bbox", "score"}`, only makes
    sense beside the annotation file that defines the ids. Given `image_ids` this is what is
    written. Without it, ids are handed out from 1 and the file is a COCO data set whose
    `images` say which id is which file, whose `annotations` have a `score`, and whose
    `categories` are the model's: annotation tools can import it. A video frame's `file_name` is
    "<video>/<frame number>", and its entry has `frame` and `time` as well. `bbox` is x, y of the
    upper left corner, width and height in pixels.

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
        self._image_ids = image_ids
        self._images = self._written = 0
        self._categories: list[dict[str, Any]] = []
        # The entries of the images come last in the file, and a million of them fill the memory.
        self._entries = tempfile.SpooledTemporaryFile(
            _BLOCK, "w+", encoding="ascii", dir=None if path == STDOUT else str(Path(path).parent)
        )
        head = '{"annotations": [' if image_ids is None else "["
        super().__init__(path, head, overwrite=overwrite)

    def _add(self, found: Detections, where: Where) -> None:
        if self._image_ids is None:
            self._add_image(found, where)
            self._add_objects(found.to_coco(self._images), data_set=True)
        elif where.image is None or where.image not in self._image_ids:
            raise OptionError(f"{where.image} has no id in image_ids; name it as image_ids does")
        else:
            self._add_objects(found.to_coco(self._image_ids[where.image]), data_set=False)

    def _add_image(self, found: Detections, where: Where) -> None:
        entry = _coco_image(self._images + 1, found, where)
        with self._naming_errors():
            self._entries.write(_item(entry, first=self._images == 0))
        self._images += 1
        self._categories = self._categories or _coco_categories(found)

    def _add_objects(self, entries: list[dict[str, Any]], *, data_set: bool) -> None:
        for entry in entries:
            if data_set:
                width, height = entry["bbox"][2:]
                entry |= {"id": self._written + 1, "area": width * height, "iscrowd": 0}
            self._put(_item(entry, first=self._written == 0))
            self._written += 1

    def _finish(self) -> None:
        if self._image_ids is not None:
            self._put("\n]\n")
            return
        self._put('\n], "images": [')
        with self._naming_errors():
            self._entries.seek(0)
            while block := self._entries.read(_BLOCK):
                self._put(block)
        self._put('\n], "categories": ' + json.dumps(self._categories) + "}\n")

    def abort(self) -> None:
        """Remove the unfinished file."""
        with contextlib.suppress(OSError):
            self._entries.close()
        super().abort()


def _coco_image(image_id: int, found: Detections, where: Where) -> dict[str, Any]:
    width, height = found.image_size
    name = where.image
    frame: dict[str, Any] = {}
    if where.frame is not None:
        name = f"{name or 'video'}/{where.frame:06d}"
        frame = {"frame": where.frame, "time": where.time}
    return {"id": image_id, "file_name": name, "width": width, "height": height} | frame


def _coco_categories(found: Detections) -> list[dict[str, Any]]:
    pairs = zip(found.category_ids, found.names, strict=True)
    return [{"id": number, "name": name} for number, name in pairs]


def _item(entry: Mapping[str, Any], *, first: bool) -> str:
    return ("\n" if first else ",\n") + dump_line(entry).rstrip()


def _row(values: Iterable[Any]) -> str:
    line = io.StringIO()
    # A name with a carriage return is quoted only when the line ends in one.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"
