"""Detections as COCO JSON."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdlite.errors import OptionError
from rdlite.results import Detections
from rdlite.sinks.base import STDOUT, Where
from rdlite.sinks.text import TextSink
from rdlite.storage.journal import dump_line

_BLOCK = 1 << 20  # characters


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
        try:
            super().__init__(path, head, overwrite=overwrite)
        except BaseException:
            self._entries.close()
            raise

    def _add(self, found: Detections, where: Where) -> None:
        if self._image_ids is None:
            self._add_image(found, where)
            self._add_items(coco_annotations(found, self._images, first=self._written + 1))
        elif where.image is None or where.image not in self._image_ids:
            raise OptionError(f"{where.image} has no id in image_ids; name it as image_ids does")
        else:
            self._add_items(found.to_coco(self._image_ids[where.image]))

    def _add_image(self, found: Detections, where: Where) -> None:
        entry = coco_image(self._images + 1, found, where)
        with self._naming_errors():
            self._entries.write(_item(entry, first=self._images == 0))
        self._images += 1
        self._categories = self._categories or coco_categories(found.names, found.category_ids)

    def _add_items(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            self._put(_item(item, first=self._written == 0))
            self._written += 1

    def _finish(self) -> None:
        if self._image_ids is not None:
            self._put("\n]\n")
            self._entries.close()
            return
        self._put('\n], "images": [')
        with self._naming_errors(), self._entries:
            self._entries.seek(0)
            while block := self._entries.read(_BLOCK):
                self._put(block)
        self._put('\n], "categories": ' + json.dumps(self._categories) + "}\n")

    def abort(self) -> None:
        """Remove the unfinished file."""
        with contextlib.suppress(OSError):
            self._entries.close()
        super().abort()


def coco_image(number: int, found: Detections, where: Where) -> dict[str, Any]:
    """Return the entry of an image or frame in `images`; see `CocoSink`."""
    width, height = found.image_size
    name = where.image
    frame: dict[str, Any] = {}
    if where.frame is not None:
        name = f"{name or 'video'}/{where.frame:06d}"
        frame = {"frame": where.frame, "time": where.time}
    return {"id": number, "file_name": name, "width": width, "height": height} | frame


def coco_annotations(found: Detections, image_id: int, *, first: int) -> list[dict[str, Any]]:
    """Return the entries of an image in `annotations`, whose ids count from `first`."""
    entries = found.to_coco(image_id)
    for number, entry in enumerate(entries, start=first):
        width, height = entry["bbox"][2:]
        entry |= {"id": number, "area": width * height, "iscrowd": 0}
    return entries


def coco_categories(names: Sequence[str], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return the entries in `categories`."""
    return [{"id": i, "name": name} for i, name in zip(category_ids, names, strict=True)]


def _item(entry: Mapping[str, Any], *, first: bool) -> str:
    return ("\n" if first else ",\n") + dump_line(entry).rstrip()
